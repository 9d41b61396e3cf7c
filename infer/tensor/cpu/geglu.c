// infer/tensor/cpu/geglu.c - m = gelu(a) * b, gelu the tanh form that Gemma uses.
//
// 1/2 (1 + tanh u) is the logistic function s = 1 / (1 + e^-2u), which loses no digits below zero:
// gelu = a s and gelu' = s + 2 a s (1 - s) u', u = sqrt(2/pi) (a + 0.044715 a^3).
#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"

#define GELU_C 0.7978845608f // sqrt(2/pi)

LANE_FN f32x16 logistic16(f32x16 a) {
    const f32x16 u = GELU_C * (a + 0.044715f * a * a * a);
    return 1.0f / (1.0f + exp16(-2.0f * u));
}

LANE_FN f32x16 gelu16(f32x16 a) {
    return a * logistic16(a);
}

LANE_FN f32x16 gelu_slope16(f32x16 a) { // beyond 20 it is 0 or 1, and squares could overflow
    a = select16(a < -20.0f, lanes(-20.0f), select16(a > 20.0f, lanes(20.0f), a));
    const f32x16 s = logistic16(a);
    return s + 2.0f * a * s * (1.0f - s) * (GELU_C * (1.0f + 0.134145f * a * a));
}

KERNEL void span_geglu(float *m, const float *a, const float *b, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store16(m + i, gelu16(load16(a + i)) * load16(b + i));
    if (i < n)
        store_tail(m + i, n - i,
                   gelu16(load_tail(a + i, n - i, 0.0f)) * load_tail(b + i, n - i, 0.0f));
}

// To the nearest bf16, ties to even, as f32_to_bf16 does; NaN may become another NaN.
LANE_FN f32x16 round16(f32x16 x) {
    const u32x16 u = (u32x16)x;
    return (f32x16)((u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u);
}

KERNEL void span_geglu_rounded(float *m, const float *a, const float *b, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        store16(m + i, gelu16(round16(load16(a + i))) * round16(load16(b + i)));
    if (i < n)
        store_tail(m + i, n - i,
                   gelu16(round16(load_tail(a + i, n - i, 0.0f))) *
                       round16(load_tail(b + i, n - i, 0.0f)));
}

static void check_alike(Tensor x, Tensor like) {
    CHECK_SHAPE(x, like.rows, like.cols);
    CHECK_FLOAT(x);
}

void cpu_geglu(Device *dev, Tensor m, Tensor a, Tensor b) {
    check_alike(a, m);
    check_alike(b, m);
    CHECK_FLOAT(m);
#pragma omp parallel for num_threads(cpu_threads(dev, 4 * tensor_count(m)))
    for (int64_t r = 0; r < m.rows; r++)
        for (int64_t c = 0; c < m.cols; c += SPAN) {
            const int64_t n = span_size(m.cols, c);
            float ab[SPAN], bb[SPAN], mb[SPAN], *ms = span_begin(m, r, c, mb);
            span_geglu(ms, span_read(a, r, c, n, ab), span_read(b, r, c, n, bb), n);
            span_end(m, r, c, n, ms);
        }
}

KERNEL static void geglu_back_span(float *da, float *db, const float *dm, const float *a,
                                   const float *b, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32x16 x = load16(a + i), g = load16(dm + i);
        store16(da + i, load16(da + i) + g * load16(b + i) * gelu_slope16(x));
        store16(db + i, load16(db + i) + g * gelu16(x));
    }
    if (i == n) return;
    const int64_t left = n - i;
    const f32x16 x = load_tail(a + i, left, 0.0f), g = load_tail(dm + i, left, 0.0f);
    const f32x16 y = load_tail(b + i, left, 0.0f);
    store_tail(da + i, left, load_tail(da + i, left, 0.0f) + g * y * gelu_slope16(x));
    store_tail(db + i, left, load_tail(db + i, left, 0.0f) + g * gelu16(x));
}

// da += dm b gelu'(a), db += dm gelu(a)
void cpu_geglu_back(Device *dev, Tensor da, Tensor db, Tensor dm, Tensor a, Tensor b) {
    check_alike(da, dm);
    check_alike(db, dm);
    check_alike(a, dm);
    check_alike(b, dm);
    CHECK_FLOAT(dm);
#pragma omp parallel for num_threads(cpu_threads(dev, 4 * tensor_count(dm)))
    for (int64_t r = 0; r < dm.rows; r++)
        for (int64_t c = 0; c < dm.cols; c += SPAN) {
            const int64_t n = span_size(dm.cols, c);
            float ab[SPAN], bb[SPAN], gb[SPAN], dab[SPAN], dbb[SPAN];
            float *das = span_update(da, r, c, n, dab), *dbs = span_update(db, r, c, n, dbb);
            geglu_back_span(das, dbs, span_read(dm, r, c, n, gb), span_read(a, r, c, n, ab),
                            span_read(b, r, c, n, bb), n);
            span_end(da, r, c, n, das);
            span_end(db, r, c, n, dbs);
        }
}
