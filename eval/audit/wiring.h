// eval/audit/wiring.h - the forward that training keeps for its backward pass, beside the
// simulator's.
#ifndef EVAL_WIRING_H
#define EVAL_WIRING_H

#include "infer/model/features.h"

typedef struct {
    int64_t values;                  // compared elements of y and of the features
    double worst;                    // largest |difference| / (1 + |value|)
    int64_t choices, choices_differ; // best tokens of the dense head; outside near ties
} Wiring;

// Rolls up to max_anchors anchors of sequence 0 of the pack out for K steps twice: with one buffer
// per step as training does, and with one shared buffer, anchor by anchor, as live decoding does.
// Adds to sum.
MUST_CHECK bool wiring_compare(Wiring *sum, const Assistant *a, const FeaturePack *pack,
                               const int32_t *ids, int64_t n, int64_t first, int K,
                               int64_t max_anchors, double near_tie, Err *err);
double wiring_tolerance(DType dtype);

#endif
