// infer/tensor/cpu/span.c - what several operators do to a stretch of a row.
#include <math.h>
#include <string.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"
#include "infer/tensor/cpu/turned.h"

KERNEL void f32_from_bf16(float *y, const bf16 *x, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store16(y + i, load16_bf16(x + i));
    for (; i < n; i++) y[i] = bf16_to_f32(x[i]);
}

KERNEL static void to_bf16_any(bf16 *y, const float *x, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const u32x16 u = (u32x16)load16(x + i);
        const u32x16 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
        const u32x16 nan = (u32x16)((u & 0x7fffffffu) > 0x7f800000u);
        const u32x16 bits = (nan & ((u >> 16) | 0x40u)) | (~nan & rounded);
        *(u16x16_at *)(y + i) = __builtin_convertvector(bits, u16x16);
    }
    for (; i < n; i++) y[i] = bf16_from_f32(x[i]);
}

#ifdef __x86_64__
// The instruction takes denormal numbers for zero: blocks that have any go the other way.
AVX512_BF16 static void to_bf16_avx512(bf16 *y, const float *x, int64_t n) {
    enum { DENORMAL = 0x20 };
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const __m512 v = _mm512_loadu_ps(x + i);
        if (_mm512_fpclass_ps_mask(v, DENORMAL) == 0)
            _mm256_storeu_si256((__m256i *)(y + i), (__m256i)_mm512_cvtneps_pbh(v));
        else
            to_bf16_any(y + i, x + i, LANES);
    }
    for (; i < n; i++) y[i] = bf16_from_f32(x[i]);
}
#endif

void f32_to_bf16(bf16 *y, const float *x, int64_t n) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512bf16")) {
        to_bf16_avx512(y, x, n);
        return;
    }
#endif
    to_bf16_any(y, x, n);
}

LANE_FN float max_loop(const float *x, int64_t n) {
    f32x16 best[4]; // independent, so that they overlap
    for (int k = 0; k < 4; k++) best[k] = lanes(-INFINITY);
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int k = 0; k < 4; k++) best[k] = max16(load16(x + i + k * LANES), best[k]);
    for (; i + LANES <= n; i += LANES) best[0] = max16(load16(x + i), best[0]);
    if (i < n) best[1] = max16(load_tail(x + i, n - i, -INFINITY), best[1]);
    return max_lanes(max16(max16(best[0], best[1]), max16(best[2], best[3])));
}
KERNEL float span_max(const float *x, int64_t n) {
    return max_loop(x, n);
}
KERNEL void block_max(float *max, const float *x, int64_t n) {
    int64_t i = 0;
    for (; i + MAX_BLOCK <= n; i += MAX_BLOCK) *max++ = max_loop(x + i, MAX_BLOCK);
    if (i < n) *max = max_loop(x + i, n - i);
}

KERNEL float span_dot(const float *a, const float *b, int64_t n) {
    f32x16 s0 = {0}, s1 = {0};
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        s0 += load16(a + i) * load16(b + i);
        s1 += load16(a + i + LANES) * load16(b + i + LANES);
    }
    for (; i + LANES <= n; i += LANES) s0 += load16(a + i) * load16(b + i);
    if (i < n) s1 += load_tail(a + i, n - i, 0.0f) * load_tail(b + i, n - i, 0.0f);
    return sum_lanes(s0 + s1);
}

KERNEL void span_softcap(float *z, float cap, int64_t n) {
    const float inverse = 1.0f / cap;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store16(z + i, cap * tanh16(load16(z + i) * inverse));
    if (i < n) store_tail(z + i, n - i, cap * tanh16(load_tail(z + i, n - i, 0.0f) * inverse));
}
