// infer/decode/simulate.h - the exact simulator: one drafter pass at k_max over text that the
// target generated gives the first rejection of every anchor, hence every k (design 1).
#ifndef DECODE_SIMULATE_H
#define DECODE_SIMULATE_H

#include "infer/decode/acceptance.h"
#include "infer/model/features.h"

typedef struct Simulator Simulator; // buffers for up to max_anchors anchors at once

MUST_CHECK Simulator *simulator_open(const Assistant *a, int64_t max_anchors, int K, Err *err);
void simulator_close(Simulator *s);
// Greedy drafts of every anchor of one sequence of a pack: T = first .. n-2 (n ids in all). drafts
// (n - first - 1, K) host memory; margin (same shape, NULL: not wanted): gap of the two best
// logits. Tokens are teacher-forced from ids: what follows a rejected draft never matters.
MUST_CHECK bool simulator_drafts(Simulator *s, const Assistant *a, const FeaturePack *pack, int seq,
                                 const int32_t *ids, int64_t n, int64_t first, Head head,
                                 int32_t *drafts, float *margin, Err *err);

#endif
