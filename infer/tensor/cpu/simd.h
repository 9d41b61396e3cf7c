// infer/tensor/cpu/simd.h - sixteen floats at a time, in portable C, and the functions libm lacks.
//
// A KERNEL is compiled once per instruction set and picked when the program loads. Its arithmetic
// is spelled out (no contraction, lanes added in one order), so every machine computes the same
// bits.
#ifndef CPU_SIMD_H
#define CPU_SIMD_H

#include <stdint.h>
#include <string.h>

#include "infer/base/fp.h"

// The helpers below are always inlined, so the calling convention of wide vectors never matters.
#pragma GCC diagnostic ignored "-Wpsabi"

// Resolvers run before a sanitizer is up; clang names instruction sets in another way.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#define KERNEL                                                                                     \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), noinline))
#else
#define KERNEL __attribute__((noinline))
#endif
#define LANE_FN static inline __attribute__((always_inline))

enum { LANES = 16 };
typedef float f32x16 __attribute__((vector_size(64)));
typedef float f32x8 __attribute__((vector_size(32)));
typedef float f32x4 __attribute__((vector_size(16)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));
typedef double f64x16 __attribute__((vector_size(128)));
typedef float f32x16_at __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t i32x16_at __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t u16x16_at __attribute__((vector_size(32), aligned(2), may_alias));

LANE_FN f32x16 lanes(float x) {
    return x - (f32x16){0};
}
LANE_FN f32x16 load16(const float *p) {
    return *(const f32x16_at *)p;
}
LANE_FN void store16(float *p, f32x16 v) {
    *(f32x16_at *)p = v;
}
LANE_FN f32x16 load16_bf16(const bf16 *p) {
    return (f32x16)(__builtin_convertvector(*(const u16x16_at *)p, u32x16) << 16);
}
// The n < 16 last elements of a row; the other lanes hold `fill`.
LANE_FN f32x16 load_tail(const float *p, int64_t n, float fill) {
    f32x16 v = lanes(fill);
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}
LANE_FN void store_tail(float *p, int64_t n, f32x16 v) {
    memcpy(p, &v, (size_t)n * sizeof *p);
}

LANE_FN f32x16 select16(i32x16 mask, f32x16 yes, f32x16 no) {
    return (f32x16)((mask & (i32x16)yes) | (~mask & (i32x16)no));
}
LANE_FN f32x16 max16(f32x16 a, f32x16 b) {
    return select16(a > b, a, b);
}
LANE_FN f32x16 abs16(f32x16 a) {
    return (f32x16)((i32x16)a & 0x7fffffff);
}

// From denormals_zero() to denormals_as(what it returned) denormal numbers are zero in this thread:
// for sums that fade away step by step, whose last bits take some CPUs a hundred times as long.
LANE_FN unsigned denormals_as(unsigned state) {
#ifdef __x86_64__
    const unsigned before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(state);
    return before;
#else
    return state;
#endif
}
LANE_FN unsigned denormals_zero(void) {
#ifdef __x86_64__
    enum { RESULTS = 0x8000, OPERANDS = 0x40 };
    return denormals_as(__builtin_ia32_stmxcsr() | RESULTS | OPERANDS);
#else
    return 0;
#endif
}

// Halves fold onto each other in registers: lane i meets i + 8, then i + 4, i + 2, i + 1.
LANE_FN float sum_lanes(f32x16 v) { // pairwise: error grows with log2(16)
    f32x8 half[2];
    f32x4 quarter[2];
    memcpy(half, &v, sizeof half);
    const f32x8 eight = half[0] + half[1];
    memcpy(quarter, &eight, sizeof quarter);
    const f32x4 s = quarter[0] + quarter[1];
    return (s[0] + s[2]) + (s[1] + s[3]);
}
LANE_FN f32x4 max4(f32x4 a, f32x4 b) {
    const i32x4 mask = a > b;
    return (f32x4)((mask & (i32x4)a) | (~mask & (i32x4)b));
}
LANE_FN float max_lanes(f32x16 v) {
    f32x4 q[4];
    memcpy(q, &v, sizeof q);
    const f32x4 m = max4(max4(q[0], q[1]), max4(q[2], q[3]));
    const float a = m[0] > m[2] ? m[0] : m[2], b = m[1] > m[3] ? m[1] : m[3];
    return a > b ? a : b;
}

// e^x within 2e-7 (relative) for EXP_NONE <= x <= 88: 0 below, NaN stays NaN. What is so small,
// 2^-63, shows in no sum of f32 beside 1; but as a softmax weight times a gradient it is a denormal
// number, and products with those take some CPUs as long as a hundred others.
//
// e^x = 2^k e^r with |r| <= ln2/2; the polynomial is a minimax fit of (e^r - 1 - r) / r^2.
static const float EXP_NONE = -44.0f;
LANE_FN f32x16 exp16_low(f32x16 x) {
    const float round =
        12582912.0f; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    const i32x16 alive = ~(x < EXP_NONE);
    const f32x16 shifted = x * 1.44269504f + round;
    const f32x16 k = shifted - round;
    const f32x16 r = (x - k * 0.693359375f) - k * -2.12194440e-4f; // ln2 = 355/512 - 2.12e-4
    f32x16 p = lanes(1.3813142358e-3f);
    p = p * r + 8.3694190433e-3f;
    p = p * r + 4.1668456833e-2f;
    p = p * r + 1.6666514789e-1f;
    p = p * r + 4.9999993050e-1f;
    p = (p * r) * r + r + 1.0f;
    // as integers, `shifted` is the bit pattern of `round` plus k
    const u32x16 power = ((u32x16)shifted - 0x4b400000u + 127u) << 23;
    return (f32x16)((i32x16)(p * (f32x16)power) & alive);
}
// The same for every x: infinity above 88.37.
LANE_FN f32x16 exp16(f32x16 x) {
    return exp16_low(select16(x > 89.0f, lanes(89.0f), x));
}

// tanh x within 2e-7 (relative): a minimax fit below 0.625, 1 - 2 / (e^2x + 1) above.
LANE_FN f32x16 tanh16(f32x16 x) {
    const f32x16 a = abs16(x), z = x * x;
    f32x16 p = lanes(-5.7049903586e-3f);
    p = p * z + 2.0639090607e-2f;
    p = p * z + -5.3739716262e-2f;
    p = p * z + 1.3331442215e-1f;
    p = p * z + -3.3333281943e-1f;
    p = (p * z) * x + x;
    f32x16 big = 1.0f - 2.0f / (exp16(a * 2.0f) + 1.0f);
    big = (f32x16)((u32x16)big | ((u32x16)x & 0x80000000u));
    return select16(a < 0.625f, p, big);
}

// sin x and cos x, rounded from within 1e-11, for |x| up to a million: x = k pi / 2 + r in doubles,
// Taylor's series in r, and k says which of them and which sign.
LANE_FN void sincos16(f32x16 x, f32x16 *sin, f32x16 *cos) {
    const double round = 6755399441055744.0; // 1.5 * 2^52, as in exp16
    const f64x16 d = __builtin_convertvector(x, f64x16);
    const f64x16 k = (d * 0.63661977236758134 + round) - round, r = d - k * 1.5707963267948966,
                 z = r * r;
    f64x16 s = z * (-1.0 / 39916800) + 1.0 / 362880, c = z * (1.0 / 479001600) - 1.0 / 3628800;
    s = s * z - 1.0 / 5040, c = c * z + 1.0 / 40320;
    s = s * z + 1.0 / 120, c = c * z - 1.0 / 720;
    s = s * z - 1.0 / 6, c = c * z + 1.0 / 24;
    s = (s * z) * r + r, c = (c * z - 0.5) * z + 1.0;
    const u32x16 turn = (u32x16) __builtin_convertvector(k, i32x16);
    const u32x16 minus_s = (turn & 2u) << 30, minus_c = ((turn + 1u) & 2u) << 30;
    const i32x16 odd = -(i32x16)(turn & 1u);
    const f32x16 sf = __builtin_convertvector(s, f32x16), cf = __builtin_convertvector(c, f32x16);
    *sin = (f32x16)((u32x16)select16(odd, cf, sf) ^ minus_s);
    *cos = (f32x16)((u32x16)select16(odd, sf, cf) ^ minus_c);
}

#endif
