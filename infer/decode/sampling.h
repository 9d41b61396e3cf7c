// infer/decode/sampling.h - a token from logits: temperature, top-k, top-p in HF's order, in
// double.
#ifndef DECODE_SAMPLING_H
#define DECODE_SAMPLING_H

#include <stdint.h>

typedef struct {
    double temperature; // 0 = greedy
    int64_t top_k;      // 0 = off
    double top_p;       // 1 = off
    uint64_t seed;
} Sampler;

typedef struct {
    double x;
    int64_t at;
} DistOrder;

// A distribution over its survivors, ids ascending; probabilities sum to 1. Zero-initialise; reused
// by the next dist_from_logits().
typedef struct {
    int64_t n, room;
    int32_t *id;
    double *p;
    DistOrder *order, *sorted; // scratch (scratch_room), of those that top-k or top-p sort
    double *e;                 // scratch (scratch_room)
    int64_t scratch_room;
} Dist;
void dist_free(Dist *d);
void dist_room(Dist *d, int64_t n); // space for n survivors; what was there may be lost
void dist_copy(Dist *to, const Dist *from);
double dist_prob(const Dist *d, int32_t id); // 0 for who is not among them
double dist_top(const Dist *d);              // the largest probability, 0 without survivors
// logits (vocab); temperature > 0. Top-k keeps every token tied with the k-th. Top-p cuts the
// smallest tokens while their mass is <= 1 - top_p, among equals the lowest ids first; the largest
// always stays. A logit that is NaN or +infinity leaves n = 0.
void dist_from_logits(Dist *d, const float *logits, int64_t vocab, const Sampler *s);
// The same where only n tokens are offered, each once and in any order, the others -infinity. For
// top_k > 0 without a look at the whole vocabulary.
void dist_from_some(Dist *d, const float *logits, const int32_t *token, int64_t n,
                    const Sampler *s);
int32_t dist_pick(const Dist *d, double uniform); // uniform in [0, 1), n > 0

#endif
