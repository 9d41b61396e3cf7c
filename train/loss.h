// train/loss.h - the loss of student rows against the target's distribution, and its gradient,
// without a (rows, V) matrix.
//
// A student row y (one anchor, one draft step) is compared with the teacher row that saw the same
// prefix; ids that the target never chooses (model/suppress.h) have no teacher probability. Rows
// are sorted by teacher row and worked through in blocks: a block's teacher logits are formed once
// per pass for all draft steps that use them. When a block's logits fit the budget for the whole
// vocabulary, one pass does everything; else the vocabulary is cut into tiles and passed twice
// (log-sum-exp, gradient), three times for TV and HYBRID, whose gradient needs a sum first.
#ifndef TRAIN_LOSS_H
#define TRAIN_LOSS_H

#include "infer/model/assistant.h"
#include "infer/model/features.h"
#include "infer/tensor/ops.h"

#define LOSS_HEAD_BYTES ((size_t)512 << 20)

typedef struct {
    LossKind kind;
    float mix;                       // HYBRID: share of FKL
    float temperature, softcap;      // softcap is the teacher's
    float route;                     // weight of the cluster loss, 0 = none
    bool route_detached;             // the cluster loss trains the centroids only
    int64_t max_items, max_teachers; // student rows and pack rows of the largest call
    int64_t per_teacher;             // most student rows of one teacher row: K
    size_t head_bytes;               // budget for logits, 0 = LOSS_HEAD_BYTES
} LossOptions;

// One student row with a weight other than 0.
typedef struct {
    int32_t y;                  // row of the stacked y
    int32_t teacher;            // row of the pack
    int32_t label;              // token
    float weight;               // already divided by the sum of weights
    float loss, fkl, tv, route; // results
    int32_t best;               // result: the student's argmax
} LossItem;

typedef struct HeadLoss HeadLoss;
MUST_CHECK HeadLoss *head_loss_open(const Assistant *a, const TargetConfig *tc,
                                    const LossOptions *opt, Err *err);
void head_loss_close(HeadLoss *l);
// Most bytes of device arena that head_loss_run takes.
size_t head_loss_bytes(const Assistant *a, const TargetConfig *tc, const LossOptions *opt);
size_t head_loss_host_bytes(const LossOptions *opt); // that head_loss_open takes
// Fills the results of items (n of them, put into the order of their teacher rows). y (any)
// (stacked rows, H). g NULL: loss only; else adds into g->table (and g->centroids) and into dy F32,
// y's shape.
void head_loss_run(HeadLoss *l, const Assistant *a, const FeaturePack *pack, LossItem *item,
                   int64_t n, Tensor y, Tensor dy, AssistantWeights *g, Arena *arena);

#endif
