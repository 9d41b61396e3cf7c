// infer/model/suppress.h - ids that a deployed target never chooses: suppress_tokens of its
// generation_config.json (the 12B lists delimiters of images and sound).
//
// Runtimes give them no probability when the TARGET chooses. So do target_top2 (every greedy
// choice: generation, the verification of drafts, the audits), sampling in generate.c, and the
// teacher of the loss, which is what drafts will be verified against. target_logits and the hidden
// states are the model's own. Drafts may be any id: runtimes differ there (vLLM suppresses those of
// the drafter's generation_config.json, others none), and such a draft is never accepted.
#ifndef MODEL_SUPPRESS_H
#define MODEL_SUPPRESS_H

#include "infer/model/gemma4_config.h"
#include "infer/tensor/ops.h"

#define SUPPRESSED (-1e30f) // the logit: probability 0, and finite in p * ln p

// Whether any of the ids v0 .. v0+cols-1 is suppressed.
bool suppress_any(const Suppress *s, int64_t v0, int64_t cols);
// z (any) (rows, cols), column i is id v0 + i; never: F32 (rows or more, 1), all SUPPRESSED. Behind
// a soft cap, which would lift the value.
void suppress_columns(Device *dev, const Suppress *s, Tensor z, Tensor never, int64_t v0);
// Fills such a column.
MUST_CHECK bool suppress_fill(Device *dev, Tensor never, Err *err);

#endif
