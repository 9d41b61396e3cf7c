// infer/decode/exactness.h - the rule of rejection enumerated: what a round emits, integrated over
// all its randomness, is what the target says.
//
// Nothing here is sampled: probabilities of all outcomes are added up in double, so that an exact
// rule is exact to rounding and a wrong one is far off. The distributions are random: dense, with
// one token, subnormal, sparse, disjoint, and warped from logits.
#ifndef DECODE_EXACTNESS_H
#define DECODE_EXACTNESS_H

#include "infer/decode/verify.h"

enum { EXACT_TOKENS = 4, EXACT_DRAFTS = 3 }; // of the rounds that are enumerated whole
enum { EXACT_SIZE = 64, EXACT_SHAPES = 6 };  // most tokens of a random distribution; its shapes

// How one draft is judged, and what is drawn from where it falls.
typedef struct {
    double (*accept)(const Dist *p, const Dist *q, int32_t draft);
    void (*residual)(Dist *r, const Dist *p, const Dist *q);
} ExactRule;
extern const ExactRule exact_own_rule; // verify_accept, verify_residual

// Largest error of an emitted token's probability over `pairs` of distributions p and q.
double exactness_of_pairs(const ExactRule *rule, int64_t pairs, uint64_t seed);

typedef int ExactRound(const VerifyRound *v, VerifyTarget *target, void *ctx, Dist *r,
                       int32_t *next); // verify_round
// Largest error of the joint probability of EXACT_DRAFTS + 1 tokens, all 4^4 paths, over `pairs` of
// a Markov target and a Markov drafter.
double exactness_of_rounds(ExactRound *round, int64_t pairs, uint64_t seed);

// The random distribution of that number over tokens 0 .. n-1, n <= EXACT_SIZE.
void exactness_dist(Dist *d, int64_t n, int shape, uint64_t seed, uint64_t number);
// Normalised weights; those <= 0 do not survive.
void dist_from_weights(Dist *d, const double *weight, int64_t n);

#endif
