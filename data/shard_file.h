// data/shard_file.h - one HDF5 shard: its fields, its types, and reading it without trust.
// Private to the shard reader and writer.
//
// Every field is a chunked dataset without filters whose chunks are whole rows; the XXH3-64 of each
// whole chunk (padding of the last one included) is a row of the dataset of the same name in the
// group xxh3.
#ifndef DATA_SHARD_FILE_H
#define DATA_SHARD_FILE_H

#include <hdf5.h>

#include "data/shard_manifest.h"

// Stored order; token fields first.
typedef enum {
    FIELD_IDS,
    FIELD_KIND,
    FIELD_MASK,
    FIELD_HIDDEN,
    FIELD_K_SLIDING,
    FIELD_V_SLIDING,
    FIELD_K_FULL,
    FIELD_V_FULL,
    FIELD_OFFSETS,
    FIELD_PROMPT_ID,
    FIELD_CATEGORY,
    FIELD_SOURCE,
    FIELD_SAMPLER,
    FIELD_SAMPLE,
    FIELD_PROMPT,
    FIELD_STOPPED,
    FIELD_MARGIN,
    FIELD_BARE, // version 2
    FIELD_COUNT
} FieldId;

// Version 1 has no FIELD_BARE, and hidden states of all tokens.
enum { SHARD_VERSION = 2 };

void h5_quiet(void);         // no messages on stderr, no plugins; call before any other H5
hid_t field_type(FieldId f); // new type, H5Tclose it
const char *field_name(FieldId f);
int64_t field_width(FieldId f, const ShardMeta *m); // 0: rank 1
int64_t field_row_bytes(FieldId f, const ShardMeta *m);
int64_t field_rows(FieldId f, const ShardEntry *e);
int64_t field_chunk_rows(FieldId f, const ShardMeta *m, int64_t rows); // chunks of about 1 MiB
// Like err_set, with the reason HDF5 gave first since h5_quiet behind; where that is the system's
// (a disk that cannot be read), ERR_INPUT becomes ERR_FAILED.
bool h5_failed(Err *err, ErrCode code, const char *fmt, ...) PRINTF_LIKE(3, 4);
MUST_CHECK bool shard_write_attributes(hid_t file, const ShardMeta *m, Err *err);
MUST_CHECK bool shard_read_attributes(hid_t file, ShardMeta *m, int64_t *version, Err *err);

// One whole shard at `path`: written aside, verified, synced, published; no trace of one that
// fails. Fills all of e but its name.
MUST_CHECK bool shard_file_make(const char *path, const ShardMeta *meta,
                                const CapturedSeq *const *seq, int n, ShardEntry *e, Err *err);

// A shard's index: everything needed to read rows by pread, nothing of HDF5 stays open.
typedef struct {
    char path[PATH_ROOM];
    int64_t version, bytes, sequences, tokens, states;
    int64_t *offsets;  // (sequences + 1) first token of each sequence
    int64_t *state_at; // (sequences + 1) first row of its hidden states
    struct {
        int64_t rows, row_bytes, chunk_rows, chunks;
        uint64_t *address, *sum; // (chunks)
    } field[FIELD_COUNT];
} ShardFile;

MUST_CHECK bool shard_file_load(ShardFile *s, const char *path, const ShardMeta *meta,
                                const ShardEntry *entry, Err *err);
void shard_file_free(ShardFile *s);

// The chunk read last of each field: sequences follow each other inside chunks.
typedef struct {
    const ShardFile *of[FIELD_COUNT];
    int64_t chunk[FIELD_COUNT];
    void *data[FIELD_COUNT];
    size_t room[FIELD_COUNT];
} ChunkCache;
void chunk_cache_free(ChunkCache *c);

// The open file must still have the size it was indexed with. -1 = err set.
int shard_file_fd(const ShardFile *s, Err *err);
MUST_CHECK bool shard_file_rows(const ShardFile *s, int fd, ChunkCache *cache, FieldId f,
                                int64_t first, int64_t n, void *out, Err *err);
// Reads every chunk of every field.
MUST_CHECK bool shard_file_verify(const ShardFile *s, Err *err);

#endif
