// infer/tensor/cpu/span.c - what several operators do to a stretch of a row.
#include <math.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"

KERNEL void f32_from_bf16(float *y, const bf16 *x, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store16(y + i, load16_bf16(x + i));
    for (; i < n; i++) y[i] = bf16_to_f32(x[i]);
}

KERNEL void f32_to_bf16(bf16 *y, const float *x, int64_t n) {
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

KERNEL float span_max(const float *x, int64_t n) {
    f32x16 best = lanes(-INFINITY);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) best = max16(load16(x + i), best);
    if (i < n) best = max16(load_tail(x + i, n - i, -INFINITY), best);
    return max_lanes(best);
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
