// data/shard_manifest.h - manifest.json of a folder of shards: which files exist and what made
// them. Private to the shard reader and writer.
#ifndef DATA_SHARD_MANIFEST_H
#define DATA_SHARD_MANIFEST_H

#include "data/shard.h"

typedef struct {
    char file[32]; // "shard-00007.h5": always the name of its place in the list
    int64_t bytes, sequences, tokens;
    int64_t states; // tokens that have their hidden state; version 1: all
    char sha256[65];
} ShardEntry;

typedef struct {
    int64_t version; // MANIFEST_VERSION, or 1: of an earlier program
    ShardMeta meta;
    bool complete;
    int n;
    ShardEntry *shard; // owned
} Manifest;

enum { SHARDS_MAX = 100000, MANIFEST_VERSION = 2 };

char *shard_name(char out[32], int number);
char *manifest_path(char out[PATH_ROOM], const char *dir);
MUST_CHECK bool manifest_read(Manifest *m, const char *dir, Err *err);
MUST_CHECK bool manifest_write(const Manifest *m, const char *dir, Err *err);
void manifest_free(Manifest *m);

// What of `want` is set must be what `have` says; `name` is the thing that holds `have`.
MUST_CHECK bool shard_meta_match(const ShardMeta *have, const ShardMeta *want, const char *name,
                                 Err *err);

// The members of ShardMeta by name, for the manifest, the attributes of a shard and their
// comparison.
typedef struct {
    const char *name, *what; // what: as a message calls it
    size_t offset, room;     // room 0: an int64_t
} MetaField;
enum { META_FIELDS = 11 };
extern const MetaField meta_fields[META_FIELDS];

#endif
