// train/weighting.h - how much each draft step of each anchor counts in the loss.
//
//   fixed  w_j = decay^j
//   reach  w_j = prod_{i<j} c_i, the share of anchors whose step j is ever looked at; c_i is the
//          running match rate of step i where all steps before it matched
//   visit  w_tj = v_t prod_{i<j} a_ti (1 + a_t,j+1 (1 + a_t,j+2 (...))): what accepting step j of
//   anchor t
//          is worth, times the probability v_t that decoding starts a round there (from the
//          drafter's own drafts of this batch)
// Smoothing by s: every c and a becomes (1 - s) x + s, so that early training does not starve deep
// steps. An anchor drawn by odds counts its share times that (Batch.share): how anchors are drawn
// does not move what is weighed. Weights depend on the weights of the drafter and on `match` only:
// a resume repeats them.
#ifndef TRAIN_WEIGHTING_H
#define TRAIN_WEIGHTING_H

#include "data/batch.h"
#include "infer/decode/acceptance.h"

typedef enum { WEIGHTS_FIXED, WEIGHTS_REACH, WEIGHTS_VISIT } WeightKind;

typedef struct {
    WeightKind kind;
    int K;
    double decay, smooth;
    double match[DRAFT_MAX]; // running match rate per step; saved with a checkpoint
    int64_t seen;            // steps observed; 0: match is unknown, all steps count alike
} Weighting;

MUST_CHECK bool weighting_kind(const char *name, WeightKind *out, Err *err);
// w_j of fixed and reach.
void weighting_steps(const Weighting *w, double out[DRAFT_MAX]);
// Takes in the match rates of a step just done; steps without rows keep their rate.
void weighting_observe(Weighting *w, const double match[DRAFT_MAX], const double rows[DRAFT_MAX]);
// fixed and reach: weight (K, rows), 0 where the batch has no valid label.
void weighting_fill(const Weighting *w, const Batch *b, float *weight);
// visit, one sequence: drafts (anchors, K) of every anchor T = first + a, first >= 1, anchors = n -
// first - 1; out (anchors, K) receives w_tj.
void weighting_visits(const Weighting *w, const int32_t *drafts, int64_t anchors,
                      const int32_t *ids, int64_t n, int64_t first, double *visit, double *out);
// Odds of the anchors T = 0 .. n-1 of a sequence, for drawing: the probability that decoding starts
// a round there (visit, as weighting_visits leaves it), times 1 + far for every doubling of the
// context beyond the sliding window; relative to their mean, mixed with a quarter of all alike, so
// that no anchor stands for more than four. Places outside the walk have the mean's odds.
void weighting_odds(const double *visit, int64_t anchors, int64_t first, int64_t n, int64_t window,
                    double far, double *odds);
// Copies the rows of sequence seq from out into weight (K, rows); anchors before `first` lie
// outside the walk and count with the mean weight of the sequence's step.
void weighting_place(const Weighting *w, const Batch *b, int seq, const double *out,
                     int64_t anchors, int64_t first, float *weight);

#endif
