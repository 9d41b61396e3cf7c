// data/batch.h - which sequences and anchors a training step sees: a pure function of (seed, step).
//
// With several ranks a step has ranks x sequences: the same ones, with the same anchors, as with
// one rank that takes as many.
#ifndef DATA_BATCH_H
#define DATA_BATCH_H

#include "data/shard.h"
#include "infer/model/features.h"

// Where sequences come from: shards, or a capture running in this process (train.stream).
typedef struct SeqSource {
    void *ctx;
    int64_t count;
    int64_t bytes_per_token; // prices the cache of read sequences; 0: none is kept
    int64_t (*length)(void *ctx, int64_t i);
    // sample_anchors, for training; -1: err says why
    int64_t (*anchors)(void *ctx, int64_t i, Err *err);
    bool (*read)(void *ctx, int64_t i, CapturedSeq *out, Err *err);
    // read may be called by another thread while this one asks for nothing but lengths. Not where
    // reading works on the device, or what it reads from is shared.
    bool ahead;
} SeqSource;
SeqSource shards_source(ShardSet *s); // borrows s

// How much likelier than others the anchors of a sequence are to be drawn. Fills odds[T] > 0 for
// T = 0 .. c->sample.n - 1; asked only for a sequence with more anchors than a visit takes. slot:
// its place in the batch.
typedef struct {
    void *ctx;
    bool (*fill)(void *ctx, int slot, const CapturedSeq *c, double *odds, Err *err);
} AnchorOdds;

typedef struct {
    int64_t sequences; // per step, of this rank
    int rank, ranks;   // of a step's sequences, dealt out one by one, this rank's; ranks 0: all
    int64_t anchors;   // per sequence, 0 = all
    int K;
    uint64_t seed;
    AnchorOdds odds; // fill NULL: all anchors alike
} BatchOptions;

// Host view of one step. Anchor r: sequence seq_of[r] of the batch, T[r]; both ascending. token[j *
// rows + r] = x_{T+j} (-1 past the end). Step j's teacher row is pack row start[seq] + T + j, its
// label x_{T+j+1}; weight 0 where the label is missing or not supervised: valid is 0 from the first
// such label on, since a round of drafts ends with the model's turn. share[r]: how many anchors of
// a uniform draw this one stands for, m / (N p) when m of N were to be drawn and this one was with
// probability p. Losses times share are, in the mean over draws, those of m anchors drawn alike:
// the odds move the noise, not the objective, and a long sequence counts as much as what is drawn
// of it. NULL: 1 each.
typedef struct {
    int nseq;
    CapturedSeq seq[PACK_SEQS_MAX];
    int64_t seq_index[PACK_SEQS_MAX]; // in the source: named when a loss is not finite
    int64_t rows;
    int32_t *T, *seq_of;    // (rows)
    int32_t *token, *label; // (K, rows)
    uint8_t *valid;         // (K, rows)
    float *share;           // (rows)
    int64_t tokens;         // rows of the pack
} Batch;

typedef struct Batches Batches;
MUST_CHECK Batches *batches_open(const SeqSource *src, const BatchOptions *opt, Err *err);
void batches_close(Batches *b);
int64_t batches_per_epoch(const Batches *b);
MUST_CHECK bool batches_get(Batches *b, int64_t step, Batch *out,
                            Err *err); // out's memory is reused by the next call
// Begins to read the sequences of `step` while the caller works on the one at hand; where the
// source allows none of it, does nothing. batches_get of that step has the errors. batches_totals
// has to wait until then.
void batches_ahead(Batches *b, int64_t step);
static inline double batch_share(const Batch *b, int64_t r) {
    return b->share ? b->share[r] : 1.0;
}
// What steps 0 .. steps-1 will be: rows and tokens of the largest share of a rank, and of all steps
// and ranks. Exact; reads the anchors of every sequence.
typedef struct {
    int64_t max_rows, max_tokens, all_rows, all_tokens;
} BatchTotals;
MUST_CHECK bool batches_totals(const Batches *b, int64_t steps, BatchTotals *out, Err *err);
// Host memory of sequences kept between steps, once that many tokens were seen.
// batch_tokens: of the largest step: those of the one at hand, and of one read ahead, are held
// although none can be kept any more.
int64_t batches_kept_bytes(const Batches *b, int64_t tokens, int64_t batch_tokens);
int64_t batches_host_bytes(const Batches *b, int64_t rows); // of a step of so many anchors

#endif
