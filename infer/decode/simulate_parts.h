// infer/decode/simulate_parts.h - what the rollout of anchors and the dropping of those that count
// no more share. Private to simulate*.c.
#ifndef DECODE_SIMULATE_PARTS_H
#define DECODE_SIMULATE_PARTS_H

#include "infer/decode/score.h"

// Device tensors of one call, for `rows` anchors.
typedef struct {
    Tensor row_index, tokens, best, id, lse, clusters;
    StepActs acts;
} Buffers;

struct Simulator {
    Device *dev;
    int K;
    int64_t max_anchors;
    void *block; // the arena's
    Arena arena;
    AttnSeg seg[2][PACK_SEQS_MAX];
    size_t behind;                          // the arena's mark behind the feature
    Tensor feature;                         // (max_anchors, B): what the next step is fed
    int32_t *T, *seq_of, *job, *token, *id; // host (max_anchors); id (max_anchors, 2)
    int32_t *place;                         // of the scorer
    int64_t *anchor;                        // host (max_anchors): number inside its job
    uint8_t *dead;                          // host (max_anchors): no later draft counts
    uint32_t *walks; // host (walk_room): the walks of one job that can come by an anchor, see
    uint8_t *passed; // simulate_reached.c; whether any does
    int64_t walk_room;
    float *best, *lse; // host (max_anchors, 2)
    // Scores; NULL where not wanted
    Scorer *scorer;
    int32_t *cluster_of, *chosen; // host (V); (K, rows, cluster_topk)
    int32_t *target_best;         // host (K, rows)
    int64_t impossible;
    bool reached; // SimulatorOptions
};

// What any of the jobs asks for.
typedef struct {
    bool head[2], top[2], recall, sampled;
} Wanted;

// The anchors of one call, described by T, seq_of, job, anchor of the simulator; rows get fewer.
typedef struct {
    Simulator *s;
    const Assistant *a;
    const FeaturePack *pack;
    const SimulateJob *job;
    const Wanted *want;
    int64_t rows;
    bool ahead; // drafts are scored as they are made
    Buffers b;
    AnchorSet set;
    AnchorPlan plan;
} Call;

// Buffers of c->rows anchors behind s->feature, which stays.
void simulate_lay_out(Call *c);
// Behind step j, with SimulatorOptions.reached: anchors whose later drafts count by no rule go,
// once they are enough to pay for moving the others. true: the features of those that stay, and
// nothing else of the step, lie in s->feature.
bool simulate_drop(Call *c, int j);

#endif
