// data/capture.h - the target over whole sequences: hidden states and shared K/V as shards hold
// them.
//
// Sequences are captured in groups that fill the rows of one target call; the numbers of a group
// depend on nothing outside it. Shards and the stream use the same groups, so both see the same
// bits. Rows whose hidden state nobody asks for (sample_bare: prompts but for their last row) end
// in the last layer that owns K/V, and have none.
#ifndef DATA_CAPTURE_H
#define DATA_CAPTURE_H

#include "data/batch.h"
#include "data/workspace.h"

// Which sequences are captured, and in which groups and shards. Sequences without a single anchor
// (no two supervised tokens in a row) teach nothing and are left out.
typedef struct {
    const Sample **seq; // (n), in order; borrowed
    int64_t n, tokens, longest, left_out;
    int64_t states; // tokens that get a hidden state
    int64_t *group; // (groups + 1) first sequence of each
    int64_t groups;
    int64_t *shard; // (shards + 1) first group of each
    int shards;
    int64_t widest; // most sequences of a group
} CapturePlan;
// chunk: rows of a call. meta: what a shard of about `most` bytes is priced with; NULL: one shard.
MUST_CHECK bool capture_plan(CapturePlan *p, const Sample *sample, int64_t n, int64_t chunk,
                             const ShardMeta *meta, int64_t most, Err *err);
void capture_plan_free(CapturePlan *p);
int64_t capture_bytes(const Sample *s, const ShardMeta *meta); // of one sequence in a shard
int64_t capture_shard_bytes(const CapturePlan *p, int shard, const ShardMeta *meta);
// What a rank of capture_shards holds at most.
int64_t capture_held_bytes(const CapturePlan *p, const ShardMeta *meta, int ranks);

// No sequence may be longer than the target's positions (check_positions); names `what`.
MUST_CHECK bool check_source(const OpenTarget *o, const SeqSource *src, const char *what, Err *err);

// What the target decides of a shard's meta: widths, window, vocabulary, dtype, and its fingerprint
// (NULL: left empty).
ShardMeta capture_meta(const TargetConfig *c, const Sha256 *fingerprint);

typedef struct Capturer Capturer;
// Memory that capturer_open takes beside the target: of the device, and pinned of the host, where
// rows of a call come down while the next call computes; 0 where tensors live in the host's.
size_t capturer_bytes(const Target *t, const CapturePlan *p, int64_t chunk, DType kv_dtype);
size_t capturer_host_bytes(const Target *t, int64_t chunk);
MUST_CHECK Capturer *capturer_open(Target *t, const CapturePlan *p, int64_t chunk, DType kv_dtype,
                                   Err *err);
void capturer_close(Capturer *c);
// Group g into out (as many as it has; the caller frees them). Rows that are not finite, or hidden
// rows of zeros, are an error naming the sample. next: the group that the next call will ask for,
// -1 where nobody knows. A device of its own memory computes it while the rows of g come down, are
// checked and taken apart; asking for another one then costs that work and nothing else.
MUST_CHECK bool capturer_run(Capturer *c, int64_t g, int64_t next, CapturedSeq *out, Err *err);

// The shards of the plan that `out` has not got, by all ranks together. The file of one is written
// while the groups of the next run. what: as the progress line calls it. A stop (ERR_STOPPED) and
// every failure leave in the manifest what was captured as a whole before.
MUST_CHECK bool capture_shards(const CapturePlan *p, Capturer *c, ShardWriter *out,
                               const char *what, Err *err);

// A source that captures when asked; sequences of a group that were not asked for are kept until
// they are, within a budget. Numbers as in the shards of the same plan.
typedef struct Stream Stream;
MUST_CHECK Stream *stream_open(Target *t, const char *samples_path, int64_t chunk, DType kv_dtype,
                               Err *err);
SeqSource stream_source(Stream *s); // borrows s
// Memory beside the target: the capturer's tensors, and what the host holds whatever the device.
size_t stream_bytes(const Stream *s);
size_t stream_host_bytes(const Stream *s);
void stream_close(Stream *s);

#endif
