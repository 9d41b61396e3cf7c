// infer/tensor/cpu/cluster.c - the centroid head: cluster masses and their cross-entropy.
#include <math.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"

void cpu_cluster_mass(Device *dev, Tensor mass, Tensor p, Tensor cluster_of, int64_t v0) {
    CHECK_SHAPE(mass, p.rows, mass.cols);
    CHECK_TYPE(mass, DT_F32);
    CHECK_TYPE(p, DT_F32);
    CHECK_TYPE(cluster_of, DT_I32);
    CHECK(cluster_of.rows == 1 && v0 >= 0 && v0 + p.cols <= cluster_of.cols);
    const int32_t *cluster = i32_at(cluster_of, 0, v0);
    for (int64_t c = 0; c < p.cols; c++)
        CHECK(cluster[c] >= 0 && cluster[c] < mass.cols, "(cluster %d of %lld)", cluster[c],
              (long long)mass.cols);
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(p)))
    for (int64_t r = 0; r < p.rows; r++) {
        float *m = f32_at(mass, r, 0);
        const float *ps = f32_at(p, r, 0);
        for (int64_t c = 0; c < p.cols; c++) m[cluster[c]] += ps[c];
    }
}

typedef struct {
    double sum, mass, dot; // sum e^(z - max), sum P, sum P (z - max)
} ClusterSums;

KERNEL static void cluster_sums(ClusterSums *s, const float *z, const float *mass, float max,
                                int64_t n) {
    f32x16 sum = {0}, total = {0}, dot = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32x16 d = load16(z + i) - max, p = load16(mass + i);
        sum += exp16_low(d);
        total += p;
        dot += p * d;
    }
    if (i < n) {
        const f32x16 d = load_tail(z + i, n - i, -1e30f) - max,
                     p = load_tail(mass + i, n - i, 0.0f);
        sum += exp16_low(d);
        total += p;
        dot += p * d;
    }
    s->sum += sum_lanes(sum);
    s->mass += sum_lanes(total);
    s->dot += sum_lanes(dot);
}

KERNEL static void cluster_grad_span(float *g, const float *z, const float *mass, float max,
                                     float share, float weight, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        store16(g + i, weight * (share * exp16_low(load16(z + i) - max) - load16(mass + i)));
    if (i < n) {
        const f32x16 q = exp16_low(load_tail(z + i, n - i, 0.0f) - max);
        store_tail(g + i, n - i, weight * (share * q - load_tail(mass + i, n - i, 0.0f)));
    }
}

static void cluster_row(float *loss, Tensor g, Tensor z, const float *mass, const float *weight,
                        int64_t r) {
    float zb[SPAN], gb[SPAN], max = -INFINITY;
    ClusterSums s = {0};
    for (int64_t c = 0; c < z.cols; c += SPAN) {
        const int64_t n = span_size(z.cols, c);
        max = fmaxf(max, span_max(span_read(z, r, c, n, zb), n));
    }
    for (int64_t c = 0; c < z.cols; c += SPAN) {
        const int64_t n = span_size(z.cols, c);
        cluster_sums(&s, span_read(z, r, c, n, zb), mass + c, max, n);
    }
    *loss = (float)(s.mass * log(s.sum) - s.dot);
    if (g.data == NULL) return;
    for (int64_t c = 0; c < z.cols; c += SPAN) {
        const int64_t n = span_size(z.cols, c);
        float *gs = span_begin(g, r, c, gb);
        cluster_grad_span(gs, span_read(z, r, c, n, zb), mass + c, max, (float)(s.mass / s.sum),
                          *weight, n);
        span_end(g, r, c, n, gs);
    }
}

void cpu_cluster_ce(Device *dev, Tensor loss, Tensor g, Tensor z, Tensor mass, Tensor trow,
                    Tensor weight) {
    CHECK_SHAPE(loss, 1, z.rows);
    CHECK_SHAPE(mass, mass.rows, z.cols);
    CHECK_SHAPE(trow, 1, z.rows);
    CHECK_TYPE(loss, DT_F32);
    CHECK_TYPE(mass, DT_F32);
    CHECK_FLOAT(z);
    if (g.data) {
        CHECK_SHAPE(g, z.rows, z.cols);
        CHECK_SHAPE(weight, 1, z.rows);
        CHECK_FLOAT(g);
    }
#pragma omp parallel for num_threads(cpu_threads(dev, 8 * tensor_count(z)))
    for (int64_t r = 0; r < z.rows; r++) {
        const int64_t t = *i32_at(trow, 0, r);
        CHECK(t >= 0 && t < mass.rows, "(row %lld of %lld)", (long long)t, (long long)mass.rows);
        cluster_row(f32_at(loss, 0, r), g, z, f32_at(mass, t, 0),
                    g.data ? f32_at(weight, 0, r) : NULL, r);
    }
}
