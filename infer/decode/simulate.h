// infer/decode/simulate.h - the exact simulator: one drafter pass at k_max over text that the
// target generated gives the first rejection of every anchor, hence every k (design 1).
#ifndef DECODE_SIMULATE_H
#define DECODE_SIMULATE_H

#include "infer/decode/acceptance.h"
#include "infer/decode/sampling.h"
#include "infer/model/features.h"

#define SCORE_TILE_BYTES ((size_t)64 << 20)

typedef struct Simulator Simulator; // buffers for up to max_anchors anchors at once

MUST_CHECK Simulator *simulator_open(const Assistant *a, int64_t max_anchors, int K, Err *err);
void simulator_close(Simulator *s);
size_t simulator_bytes(const Assistant *a, int64_t max_anchors); // device memory it takes

// The same with scores of the drafts. simulator_scored_bytes: host memory too; c is the target's,
// opt->target may be NULL there.
typedef struct {
    int64_t max_anchors;
    int K;
    bool head[2];         // by Head: which are scored
    bool recall;          // of the centroid head
    Sampler sampler;      // that drew the text; temperature 0: the text is greedy
    const Target *target; // its head gives p; not used for greedy text
    size_t tile_bytes;    // budget for the logits of sampled text, 0 = SCORE_TILE_BYTES
    // Drafts that no round comes to may be left out, as -1 and 0: those behind one that can stand
    // by no rule, and those of anchors that no walk of any draft length comes by. What is counted
    // of rounds does not change. Not with recall.
    bool reached;
} SimulatorOptions;
MUST_CHECK Simulator *simulator_open_scored(const Assistant *a, const SimulatorOptions *opt,
                                            Err *err);
size_t simulator_scored_bytes(const Assistant *a, const TargetConfig *c,
                              const SimulatorOptions *opt);

// Of one head: host memory (anchors, K), NULL where not wanted; what lies past the end of the text
// is not written. drawn, keep and alpha: of sampled text only, by AcceptRule (greedy: NULL), as
// DraftOdds has them. The bits of recall: centroid head only.
enum {
    RECALL_BEST = 1, // the target's best token lies in the chosen clusters
    RECALL_TEXT = 2  // the text's does (greedy text: the same)
};
typedef struct {
    double *top;   // the head's softmax at its best token: what p-min compares for RULE_BEST
    double *drawn; // largest probability of what a draft is drawn from: the same for drawn drafts
    double *keep[RULE_COUNT], *alpha[RULE_COUNT];
    uint8_t *recall;
} DraftScores;

// One sequence of a pack: anchors T = first .. n-2 (n ids in all, first >= 1), i.e. n - first - 1
// of them, none when that is not positive. drafts[head], margin[head]: host memory (anchors, K),
// NULL where not wanted; -1 and 0 where the text has ended. margin: gap of the two best logits.
typedef struct {
    int seq;
    const int32_t *ids;
    int64_t n, first;
    int32_t *drafts[2];
    float *margin[2];
    DraftScores score[2]; // drafts[head] is there where any of score[head] is
} SimulateJob;

// Greedy drafts of every anchor of several sequences, `seq` ascending; anchors are packed into
// calls of max_anchors whatever sequence they belong to. Both heads cost one pass: tokens are
// teacher-forced from ids (what follows a rejected draft never matters), so the rolled states do
// not depend on the head.
MUST_CHECK bool simulator_run(Simulator *s, const Assistant *a, const FeaturePack *pack,
                              const SimulateJob *job, int jobs, Err *err);
// Tokens of the sampled texts so far that the warped target gives no probability: features are
// rounded, and a token at the edge of top-k or top-p can fall out. Such a draft counts as standing.
int64_t simulator_impossible(const Simulator *s);
// The same for one sequence and one head; margin may be NULL.
MUST_CHECK bool simulator_drafts(Simulator *s, const Assistant *a, const FeaturePack *pack, int seq,
                                 const int32_t *ids, int64_t n, int64_t first, Head head,
                                 int32_t *drafts, float *margin, Err *err);

#endif
