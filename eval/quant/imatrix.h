// eval/quant/imatrix.h - what the columns of the drafter's matrices are worth: mean squares of
// their inputs over its own rollout, every depth by how likely it is reached.
#ifndef EVAL_IMATRIX_H
#define EVAL_IMATRIX_H

#include "data/batch.h"
#include "infer/format/imatrix_file.h"
#include "infer/model/assistant.h"

// Name of a parameter in a GGUF of llama.cpp's dialect ("model.layers.0.mlp.up_proj.weight" ->
// "blk.0.ffn_up.weight"); false: no matrix of such a file.
bool imatrix_name(char out[IMATRIX_NAME_MAX + 1], const AssistantConfig *c, const char *key);

typedef struct {
    int K;               // steps rolled out
    const double *reach; // (K): how likely step j is reached; [0] is 1
    int64_t max_anchors; // of a call
    const char *dataset;
} ImatrixOptions;

// Rows of padding, and of drafts that have no text to match, do not count. The inputs of every
// step: pre_projection gets the scaled embedding of the token and the feature side by side, the
// table the state after the final norm (as post_projection, which the last step does not call).
MUST_CHECK bool imatrix_collect(Imatrix *out, const Assistant *a, const TargetConfig *tc,
                                const SeqSource *src, const ImatrixOptions *opt, Err *err);
size_t imatrix_collect_bytes(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                             const ImatrixOptions *opt);

#endif
