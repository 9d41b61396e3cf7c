// data/shard.h - captured sequences in HDF5: write-once files, one manifest, fingerprints (design
// 5).
//
// A folder of shards: shard-00000.h5, ... and manifest.json naming those that exist, with size,
// SHA-256 and the sequences in each. A shard that is not in the manifest does not exist.
//
// Hidden states are stored from the first row that an anchor or a teacher can ask for
// (sample_bare): of most captures they are half, and of a prompt nobody reads any but the last.
// Shards of earlier versions hold those of all rows, and are read as such.
#ifndef DATA_SHARD_H
#define DATA_SHARD_H

#include "data/token_sample.h"
#include "infer/base/hash.h"
#include "infer/model/gemma4_config.h"

// What a capture is bound to; a mismatch is refused by name with both values.
typedef struct {
    char target[65], tokenizer[65], chat_template[65], config[65]; // fingerprints (hex)
    int64_t hidden, kv_width[2], window;
    int64_t vocab;    // ids are below it; 0: not checked
    char dtype[8];    // "BF16"
    char sampler[64]; // how the answers were made
} ShardMeta;

typedef struct {
    Sample sample;     // ids, kinds, names
    int64_t bare;      // rows in front without a hidden state, at most sample_bare
    void *hidden;      // host, (n - bare, meta width), BF16
    void *k[2], *v[2]; // (n, meta widths), by LayerKind
} CapturedSeq;
void captured_free(CapturedSeq *c);
void captured_drop_rows(CapturedSeq *c);           // the sample stays
int64_t shard_bytes_per_token(const ShardMeta *m); // with its hidden state: the most that one takes
int64_t shard_bytes_per_state(const ShardMeta *m); // of these, the hidden state
// Of so many tokens in all, of which `states` have their hidden state.
int64_t shard_bytes(const ShardMeta *m, int64_t tokens, int64_t states);

// Writing. The folder's manifest may already name finished shards (resume): shards are numbered,
// and writing starts at the first missing one. A set that an earlier version began is refused: it
// cut other shards. Several ranks write together: every one calls these, a turn of shard_write
// makes the next world_size() shards, one each in the order of the ranks, and rank 0 names them in
// the manifest.
typedef struct ShardWriter ShardWriter;
MUST_CHECK ShardWriter *shard_writer_open(const char *dir, const ShardMeta *meta, Err *err);
int shard_writer_next(const ShardWriter *w); // number of the first missing shard
// One whole shard, number shard_writer_next + world_rank(); n 0: this rank has none any more.
MUST_CHECK bool shard_write(ShardWriter *w, const CapturedSeq *const *seq, int n, Err *err);
// The same in two halves. Between them a thread makes the file, seq is borrowed, and no other shard
// may be opened (HDF5 is not thread safe). One turn at a time; shard_writer_next counts it at its
// end.
void shard_write_begin(ShardWriter *w, const CapturedSeq *const *seq, int n);
bool shard_write_failing(ShardWriter *w); // shard_write_end will say why; never waits
MUST_CHECK bool shard_write_end(ShardWriter *w, Err *err); // true where none was begun
MUST_CHECK bool shard_writer_finish(ShardWriter *w, int shards, Err *err); // marks the set complete
void shard_writer_close(ShardWriter *w); // a turn that was not ended is dropped

// Reading. Opening checks the manifest, every file's size, and meta against `want` (fields left
// empty or 0 there are not compared). XXH3 of every chunk is checked when it is read. Opening is
// done with HDF5, reading without it: a set is read by one thread at a time, another set by
// another.
typedef struct ShardSet ShardSet;
MUST_CHECK ShardSet *shards_open(const char *dir, const ShardMeta *want, Err *err);
void shards_close(ShardSet *s);
const ShardMeta *shards_meta(const ShardSet *s);
int64_t shards_count(const ShardSet *s);             // sequences in all shards
int64_t shards_length(const ShardSet *s, int64_t i); // tokens of sequence i
// sample_anchors of sequence i, from its kinds alone; -1: err says why.
int64_t shards_anchors(ShardSet *s, int64_t i, Err *err);
MUST_CHECK bool shards_category(ShardSet *s, int64_t i, char out[64], Err *err);
MUST_CHECK bool shards_read(ShardSet *s, int64_t i, CapturedSeq *out, Err *err);
bool shards_complete(const char *dir); // a finished manifest, and every shard of it in its size

#endif
