// infer/decode/sample.h - a token from logits: temperature, top-k, top-p in HF's order, in double.
#ifndef DECODE_SAMPLE_H
#define DECODE_SAMPLE_H

#include <stdint.h>

#include "infer/decode/generate.h"

// A distribution over its survivors, ids ascending by probability rank; probabilities sum to 1.
typedef struct {
    int64_t n, room;
    int32_t *id;
    double *p;
} Dist;
void dist_free(Dist *d);
// Temperature > 0. logits (V), tie rules of ../reference sampling "rules".
void dist_from_logits(Dist *d, const float *logits, int64_t vocab, const Sampler *s);
int32_t dist_pick(const Dist *d, double uniform); // uniform in [0, 1)

#endif
