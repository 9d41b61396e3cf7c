// infer/base/rng.c - Philox 4x32-10 as a pure function of seed, stream and counter.
#include "infer/base/rng.h"

#include <math.h>

#include <Random123/philox.h>

typedef struct {
    uint64_t word[2];
} Block;

static Block block_at(uint64_t seed, RngStream stream, uint64_t a, uint64_t b) {
    const uint64_t k = seed + (uint64_t)stream * RNG_STREAM_STEP;
    const philox4x32_key_t key = {{(uint32_t)k, (uint32_t)(k >> 32)}};
    const philox4x32_ctr_t counter = {
        {(uint32_t)a, (uint32_t)(a >> 32), (uint32_t)b, (uint32_t)(b >> 32)}};
    const philox4x32_ctr_t r = philox4x32(counter, key);
    return (Block){{r.v[0] | (uint64_t)r.v[1] << 32, r.v[2] | (uint64_t)r.v[3] << 32}};
}

uint64_t rng_u64(uint64_t seed, RngStream stream, uint64_t a, uint64_t b) {
    return block_at(seed, stream, a, b).word[0];
}

static double unit(uint64_t x) {
    return (double)(x >> 11) * 0x1p-53;
}

double rng_uniform(uint64_t seed, RngStream stream, uint64_t a, uint64_t b) {
    return unit(rng_u64(seed, stream, a, b));
}

float rng_normal(uint64_t seed, RngStream stream, uint64_t a, uint64_t b) { // Box-Muller
    const Block r = block_at(seed, stream, a, b);
    const double u = 1.0 - unit(r.word[0]); // (0, 1]: its logarithm is finite
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * unit(r.word[1])));
}

// The high half of a 128-bit product: off from uniform by at most n / 2^64, without a redraw.
uint64_t rng_below(uint64_t seed, RngStream stream, uint64_t a, uint64_t b, uint64_t n) {
    return (uint64_t)(((unsigned __int128)rng_u64(seed, stream, a, b) * n) >> 64);
}

void rng_permutation(uint64_t seed, RngStream stream, uint64_t a, int64_t *perm, int64_t n) {
    for (int64_t i = 0; i < n; i++) perm[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t j = (int64_t)rng_below(seed, stream, a, (uint64_t)i, (uint64_t)i + 1);
        const int64_t kept = perm[i];
        perm[i] = perm[j];
        perm[j] = kept;
    }
}
