// infer/format/block_lanes.h - sixteen blocks side by side, one in each lane.
//
// A block is searched by sums over its elements in their order, and every sum must round as in
// plain scalar code. So blocks, not elements, share a vector: x[i] holds the i-th element of
// sixteen blocks, and what is written for lane l is what a scalar program does for one block.
// EACH_LANE(l) loops become vectors of any width; vectors of a fixed width would be compared one by
// one where the machine's are narrower.
#ifndef FORMAT_BLOCK_LANES_H
#define FORMAT_BLOCK_LANES_H

#include <math.h>

#include "infer/tensor/cpu/simd.h"

typedef float Lanes[LANES];
typedef uint8_t LaneCodes[LANES];

#ifdef __clang__
#define EACH_LANE(l) for (int l = 0; l < LANES; l++)
#define EACH_ELEMENT(i, n) for (int i = 0; i < (n); i++)
#else
#define EACH_LANE(l) _Pragma("omp simd") for (int l = 0; l < LANES; l++)
#define EACH_ELEMENT(i, n) _Pragma("omp simd") for (int i = 0; i < (n); i++)
#endif

static const float BLOCK_ZERO = 1e-15f; // a block with no larger value counts as all zero

// To the nearest integer, ties to even; beyond 2^22 some other integer, and the same on any
// machine: the files' bytes depend on it.
LANE_FN int nearest_int(float v) {
    const float sum = v + 12582912.0f;
    int32_t bits;
    memcpy(&bits, &sum, sizeof bits);
    return (bits & 0x7fffff) - 0x400000;
}
LANE_FN float nearest(float v) { // |v| < 2^22
    return (v + 12582912.0f) - 12582912.0f;
}
LANE_FN int clamp_int(int v, int low, int high) {
    v = v > low ? v : low;
    return v < high ? v : high;
}
LANE_FN float clamp_float(float v, float low, float high) {
    v = v > low ? v : low;
    return v < high ? v : high;
}

// A run of whole blocks from the start of a row on; rows follow each other without a gap.
typedef struct {
    const float *x;
    const float *importance; // of a row's n columns, or NULL
    int64_t n, blocks;
    uint8_t *out;
} BlockRun;

// Sixteen blocks of `size` elements. Lanes at and beyond `used` are all zero and not stored.
typedef struct {
    const float *x[LANES], *importance[LANES];
    uint8_t *out[LANES];
    int used;
} Batch;

static inline Batch batch_at(const BlockRun *r, int64_t first, int size, int bytes) {
    static const float ZERO[256];
    Batch b = {.used = r->blocks - first < LANES ? (int)(r->blocks - first) : LANES};
    for (int l = 0; l < LANES; l++) {
        const int64_t block = first + l;
        b.x[l] = b.importance[l] = ZERO;
        if (l >= b.used) continue;
        b.x[l] = r->x + block * size;
        if (r->importance != NULL) b.importance[l] = r->importance + block * size % r->n;
        b.out[l] = r->out + block * bytes;
    }
    return b;
}

// out[i][l] = from[l][at + i] for i < n, n a multiple of 4
LANE_FN void gather(Lanes *out, const float *const *from, int at, int n) {
    typedef float f32x4_at __attribute__((vector_size(16), aligned(4), may_alias));
    for (int l = 0; l < LANES; l += 4)
        for (int i = 0; i < n; i += 4) {
            const f32x4 a = *(const f32x4_at *)(from[l] + at + i),
                        b = *(const f32x4_at *)(from[l + 1] + at + i),
                        c = *(const f32x4_at *)(from[l + 2] + at + i),
                        d = *(const f32x4_at *)(from[l + 3] + at + i);
            const f32x4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5),
                        ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7),
                        cd = __builtin_shufflevector(c, d, 0, 4, 1, 5),
                        cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
            *(f32x4_at *)&out[i][l] = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
            *(f32x4_at *)&out[i + 1][l] = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
            *(f32x4_at *)&out[i + 2][l] = __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5);
            *(f32x4_at *)&out[i + 3][l] = __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7);
        }
}

// sum[l] += x^2 over the n elements of each lane, in their order
LANE_FN void add_squares(float *sum, const Lanes *x, int n) {
    for (int i = 0; i < n; i++)
        EACH_LANE (l) sum[l] += x[i][l] * x[i][l];
}
// Twice the mean square of each lane's block of n elements: the sigma^2 of importance weights.
LANE_FN void block_sigma2(float *sigma2, const Batch *b, int n) {
    Lanes part[32];
    EACH_LANE (l) sigma2[l] = 0.0f;
    for (int at = 0; at < n; at += 32) {
        gather(part, b->x, at, 32);
        add_squares(sigma2, part, 32);
    }
    EACH_LANE (l) sigma2[l] = 2.0f * sigma2[l] / (float)n;
}
// w = importance * sqrt(sigma^2 + x^2) for n elements of each lane, from element `at` on
LANE_FN void important_weights(Lanes *w, const Batch *b, int at, const Lanes *x,
                               const float *sigma2, int n) {
    gather(w, b->importance, at, n);
    for (int i = 0; i < n; i++)
        EACH_LANE (l) w[i][l] *= sqrtf(sigma2[l] + x[i][l] * x[i][l]);
}
LANE_FN void square_weights(Lanes *w, const Lanes *x, int n) {
    for (int i = 0; i < n; i++)
        EACH_LANE (l) w[i][l] = x[i][l] * x[i][l];
}
LANE_FN void sum_weights(float *sum, const Lanes *w, int n) {
    EACH_LANE (l) sum[l] = 0.0f;
    for (int i = 0; i < n; i++)
        EACH_LANE (l) sum[l] += w[i][l];
}

// The element of largest magnitude of each lane, the first of several; 0 in a lane of zeros.
LANE_FN void largest(float *value, float *magnitude, const Lanes *x, int n) {
    EACH_LANE (l) value[l] = magnitude[l] = 0.0f;
    for (int i = 0; i < n; i++)
        EACH_LANE (l) {
            const float a = fabsf(x[i][l]);
            value[l] = a > magnitude[l] ? x[i][l] : value[l];
            magnitude[l] = a > magnitude[l] ? a : magnitude[l];
        }
}

#endif
