// infer/base/rng.h - counter-based randomness (Philox 4x32-10 of Random123): a pure function of
// (seed, stream, counter), so nothing has to be saved to resume exactly.
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

// Streams keep unrelated uses of one seed apart.
typedef enum {
    RNG_SHUFFLE = 1,
    RNG_ANCHORS,
    RNG_SAMPLE,
    RNG_INIT,
    RNG_BOOTSTRAP,
    RNG_TEST,
    RNG_DRAFT, // tokens of a drafter
    RNG_ACCEPT // whether they stand
} RngStream;

// Philox key = seed + stream * RNG_STREAM_STEP (mod 2^64), counter = a, b, both little end first.
#define RNG_STREAM_STEP 0xbf58476d1ce4e5b9u

uint64_t rng_u64(uint64_t seed, RngStream stream, uint64_t a, uint64_t b);   // (a, b): the counter
double rng_uniform(uint64_t seed, RngStream stream, uint64_t a, uint64_t b); // [0, 1)
float rng_normal(uint64_t seed, RngStream stream, uint64_t a, uint64_t b);   // N(0, 1)
uint64_t rng_below(uint64_t seed, RngStream stream, uint64_t a, uint64_t b, uint64_t n); // 0..n-1
// Fisher-Yates: fills perm with a permutation of 0..n-1; `a` is for instance the epoch.
void rng_permutation(uint64_t seed, RngStream stream, uint64_t a, int64_t *perm, int64_t n);

#endif
