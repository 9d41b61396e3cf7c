// eval/quant/divergence.h - how far the draft distributions of other weights are from a drafter's.
#ifndef EVAL_DIVERGENCE_H
#define EVAL_DIVERGENCE_H

#include "eval/quant/step_walk.h"

enum { DIVERGENCE_MAX = 8 }; // variants of one run

typedef struct Divergence Divergence;
size_t divergence_bytes(const Assistant *a, int K, int64_t max_anchors);
MUST_CHECK Divergence *divergence_open(const Assistant *a, int K, int64_t max_anchors, Err *err);
void divergence_close(Divergence *d);

// KL(softmax of a's dense head || of variant i's), mean over the drafts that have text to match, of
// step j: kl[i * K + j]. Variants share a's configuration. All of w's sequences are read once.
MUST_CHECK bool divergence_run(Divergence *d, Walk *w, const Assistant *a,
                               const Assistant *const *variant, int n, double *kl, Err *err);
// Of steps that are reached with these odds: sum reach[j] kl[j] / sum reach[j].
double divergence_mean(const double *kl, const double *reach, int K);

#endif
