// train/rollout.h - K draft steps forward with activations kept, the loss, and back through the
// steps.
#ifndef TRAIN_ROLLOUT_H
#define TRAIN_ROLLOUT_H

#include "data/batch.h"
#include "infer/decode/acceptance.h"
#include "infer/model/assistant.h"
#include "infer/tensor/ops.h"

typedef struct {
    int K;
    LossKind loss;
    float hybrid_kl, temperature, route;
    bool route_detached, detach_feature;
    int64_t max_rows, max_tokens; // anchors and packed tokens of the largest batch
    int64_t tile; // anchors worked on at once: what is kept for the way back grows with it; 0 = all
    int max_seqs;
    size_t head_bytes; // memory for vocabulary logits; 0 = LOSS_HEAD_BYTES
    // Called once the gradients of table and centroids are complete, before the way back through
    // the steps of the last tile; not where a batch has nothing to learn from. NULL: nobody.
    void (*head_done)(void *ctx);
    void *head_ctx;
} RolloutOptions;

typedef struct {
    double loss;                  // weighted mean of the chosen loss, route included
    double weight;                // sum of weights
    double step_loss[DRAFT_MAX];  // mean per step, unweighted by w_j
    double step_match[DRAFT_MAX]; // share of valid rows whose dense argmax is the label
    double step_keep[DRAFT_MAX];  // the same among the anchors whose steps before all matched
    double fkl, tv, route;        // means over valid rows
    int64_t step_rows[DRAFT_MAX];
    double step_reached[DRAFT_MAX]; // anchors behind step_keep, by what each stands for
} RolloutStats;

typedef struct Rollout Rollout;
size_t rollout_bytes(const Assistant *a, const TargetConfig *tc,
                     const RolloutOptions *opt); // arena plan
size_t rollout_host_bytes(const RolloutOptions *opt);
MUST_CHECK Rollout *rollout_open(const Assistant *a, const TargetConfig *tc, float softcap,
                                 const RolloutOptions *opt, Arena *arena, Err *err);
// Adds d(sum w l) / sum w into g (F32). weight (K, rows) host; rows of zero weight cost nothing in
// the head. A batch of more anchors than a tile is rolled out tile by tile, forward and back: the
// same sums in another order. g NULL: loss only. g->table or g->centroids with data NULL: frozen,
// their gradient is not formed.
MUST_CHECK bool rollout_run(Rollout *r, const Assistant *a, const Batch *b, const FeaturePack *pack,
                            const float *weight, AssistantWeights *g, RolloutStats *stats,
                            Err *err);
// The same for a batch that is a part: `total` is the sum of weights over all parts, and stats
// holds sums over rows, which rollout_means turns into means once those of all parts are added.
MUST_CHECK bool rollout_part(Rollout *r, const Assistant *a, const Batch *b,
                             const FeaturePack *pack, const float *weight, double total,
                             AssistantWeights *g, RolloutStats *stats, Err *err);
double rollout_weight(const Rollout *r, const Batch *b, const float *weight); // sum of a part
void rollout_means(RolloutStats *stats);
// By sequence of that batch: sums of w l and of w over its rows, w as it counted in stats.loss;
// both (b->nseq), zeroed by the caller.
void rollout_by_sequence(const Rollout *r, const Batch *b, double *loss, double *weight);
void rollout_close(Rollout *r);

#endif
