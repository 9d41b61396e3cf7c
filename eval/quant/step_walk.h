// eval/quant/step_walk.h - every draft step of captured sequences, shown to who wants to look at
// them: the inputs of the matrices (imatrix), the states before the head (divergence).
//
// Anchors, tokens and features are those of the simulator: step j of the anchor T is fed x_{T+j}
// and the rolled feature, position T, rows 0..T-1 visible.
#ifndef EVAL_STEP_WALK_H
#define EVAL_STEP_WALK_H

#include "data/batch.h"
#include "infer/model/features.h"

// A call's worth of anchors.
typedef struct {
    int64_t rows;
    const AnchorPlan *plan;
    Tensor feature0;      // (rows, B)
    const int32_t *token; // host (K, rows); -1 past the end of the text
    const uint8_t *valid; // host (K, rows): the draft of this step has a token of text to match
} WalkChunk;

typedef struct Walk Walk;
size_t walk_bytes(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                  int64_t max_anchors);
// a: any assistant of the configuration that is rolled out later; borrowed, as src is.
// every: one of so many anchors of a sequence is taken.
MUST_CHECK Walk *walk_open(const Assistant *a, const TargetConfig *tc, const SeqSource *src, int K,
                           int64_t max_anchors, int every, Err *err);
void walk_close(Walk *w);
// Calls visit for the anchors of all sequences, at most max_anchors at a time.
typedef bool WalkVisit(void *ctx, const WalkChunk *c, Err *err);
MUST_CHECK bool walk_run(Walk *w, WalkVisit *visit, void *ctx, Err *err);

// Rolls assistant a out over the chunk: step is called after each of its K steps. acts: of its
// rows; y and f the caller's where they were taken for training.
typedef bool WalkStep(void *ctx, int j, const StepActs *acts, Err *err);
MUST_CHECK bool walk_roll(const Walk *w, const Assistant *a, const WalkChunk *c, StepActs *acts,
                          WalkStep *step, void *ctx, Err *err);

#endif
