// infer/decode/simulate.h - the exact simulator: one drafter pass at k_max over text that the
// target generated gives the first rejection of every anchor, hence every k (design 1).
#ifndef DECODE_SIMULATE_H
#define DECODE_SIMULATE_H

#include "infer/decode/acceptance.h"
#include "infer/model/features.h"

typedef struct Simulator Simulator; // buffers for up to max_anchors anchors at once

MUST_CHECK Simulator *simulator_open(const Assistant *a, int64_t max_anchors, int K, Err *err);
void simulator_close(Simulator *s);
size_t simulator_bytes(const Assistant *a, int64_t max_anchors); // device memory it takes

// One sequence of a pack: anchors T = first .. n-2 (n ids in all, first >= 1), i.e. n - first - 1
// of them, none when that is not positive. drafts[head], margin[head]: host memory (anchors, K),
// NULL where not wanted; -1 and 0 where the text has ended. margin: gap of the two best logits.
typedef struct {
    int seq;
    const int32_t *ids;
    int64_t n, first;
    int32_t *drafts[2];
    float *margin[2];
} SimulateJob;

// Greedy drafts of every anchor of several sequences, `seq` ascending; anchors are packed into
// calls of max_anchors whatever sequence they belong to. Both heads cost one pass: tokens are
// teacher-forced from ids (what follows a rejected draft never matters), so the rolled states do
// not depend on the head.
MUST_CHECK bool simulator_run(Simulator *s, const Assistant *a, const FeaturePack *pack,
                              const SimulateJob *job, int jobs, Err *err);
// The same for one sequence and one head; margin may be NULL.
MUST_CHECK bool simulator_drafts(Simulator *s, const Assistant *a, const FeaturePack *pack, int seq,
                                 const int32_t *ids, int64_t n, int64_t first, Head head,
                                 int32_t *drafts, float *margin, Err *err);

#endif
