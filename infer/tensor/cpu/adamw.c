// infer/tensor/cpu/adamw.c - AdamW as torch computes it:
//
// w -= lr decay w;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
// w -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps).
//
// Moments of weights without gradient would shrink until they are denormal and stay so (b m rounds
// to m), slow on every later step: here denormal numbers are zero.
#include <math.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"

typedef struct {
    float gscale, keep, rate, beta1, beta2, root, eps; // keep = 1 - lr decay, root = sqrt(1 - b2^t)
} AdamStep;

KERNEL static void adamw_span(float *restrict w, float *restrict m, float *restrict v,
                              const float *restrict g, const AdamStep *step, int64_t n) {
    const AdamStep s = *step;
    for (int64_t i = 0; i < n; i++) {
        const float x = s.gscale * g[i];
        const float a = s.beta1 * m[i] + (1.0f - s.beta1) * x;
        const float b = s.beta2 * v[i] + (1.0f - s.beta2) * x * x;
        m[i] = a;
        v[i] = b;
        w[i] = w[i] * s.keep - s.rate * (a / (sqrtf(b) / s.root + s.eps));
    }
}

void cpu_adamw(Device *dev, Tensor w, Tensor m, Tensor v, Tensor copy, Tensor g, float gscale,
               float lr, float beta1, float beta2, float eps, float decay, int64_t step) {
    const Tensor *all[] = {&w, &m, &v, &g};
    for (int i = 0; i < 4; i++) {
        CHECK_SHAPE(*all[i], w.rows, w.cols);
        CHECK_TYPE(*all[i], DT_F32);
    }
    if (copy.data) {
        CHECK_SHAPE(copy, w.rows, w.cols);
        CHECK_TYPE(copy, DT_BF16);
    }
    CHECK(step >= 1);
    const AdamStep s = {.gscale = gscale,
                        .keep = (float)(1.0 - (double)lr * decay),
                        .rate = (float)(lr / (1.0 - pow(beta1, (double)step))),
                        .beta1 = beta1,
                        .beta2 = beta2,
                        .root = (float)sqrt(1.0 - pow(beta2, (double)step)),
                        .eps = eps};
    const int64_t across = (w.cols + SPAN - 1) / SPAN;
#pragma omp parallel for num_threads(cpu_threads(dev, 4 * tensor_count(w)))
    for (int64_t i = 0; i < w.rows * across; i++) {
        const int64_t r = i / across, c = i % across * SPAN, n = span_size(w.cols, c);
        const unsigned state = denormals_zero();
        adamw_span(f32_at(w, r, c), f32_at(m, r, c), f32_at(v, r, c), f32_at(g, r, c), &s, n);
        denormals_as(state);
        if (copy.data) f32_to_bf16(bf16_at(copy, r, c), f32_at(w, r, c), n);
    }
}
