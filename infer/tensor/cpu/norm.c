// infer/tensor/cpu/norm.c - RMSNorm: y = scale (res + xhat w), xhat = x rstd, rstd = (mean x^2 +
// eps)^-1/2.
#include <math.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"

KERNEL static void norm_span(float *y, const float *x, const float *w, const float *res, float rstd,
                             float scale, int64_t n) {
    if (w && res)
        for (int64_t i = 0; i < n; i++) y[i] = scale * (res[i] + x[i] * rstd * w[i]);
    else if (w)
        for (int64_t i = 0; i < n; i++) y[i] = scale * (x[i] * rstd * w[i]);
    else if (res)
        for (int64_t i = 0; i < n; i++) y[i] = scale * (res[i] + x[i] * rstd);
    else
        for (int64_t i = 0; i < n; i++) y[i] = scale * (x[i] * rstd);
}

static float row_rstd(Tensor x, int64_t r, float eps) {
    double sum = 0.0;
    for (int64_t c = 0; c < x.cols; c += SPAN) {
        const int64_t n = span_size(x.cols, c);
        float buf[SPAN];
        const float *xs = span_read(x, r, c, n, buf);
        sum += span_dot(xs, xs, n);
    }
    return (float)(1.0 / sqrt(sum / (double)x.cols + eps));
}

static void check_row_vector(Tensor w, int64_t cols) {
    if (w.data == NULL) return;
    CHECK_SHAPE(w, 1, cols);
    CHECK_FLOAT(w);
}

void cpu_norm(Device *dev, Tensor y, Tensor rstd, Tensor res, Tensor x, Tensor w, float eps,
              float scale) {
    CHECK_SHAPE(y, x.rows, x.cols);
    CHECK_FLOAT(y);
    CHECK_FLOAT(x);
    check_row_vector(w, x.cols);
    if (rstd.data) CHECK_SHAPE(rstd, 1, x.rows);
    if (res.data) CHECK_SHAPE(res, x.rows, x.cols);
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(x)))
    for (int64_t r = 0; r < x.rows; r++) {
        const float s = row_rstd(x, r, eps);
        if (rstd.data) *f32_at(rstd, 0, r) = s;
        for (int64_t c = 0; c < x.cols; c += SPAN) {
            const int64_t n = span_size(x.cols, c);
            float xb[SPAN], wb[SPAN], rb[SPAN], yb[SPAN], *ys = span_begin(y, r, c, yb);
            norm_span(ys, span_read(x, r, c, n, xb), w.data ? span_read(w, 0, c, n, wb) : NULL,
                      res.data ? span_read(res, r, c, n, rb) : NULL, s, scale, n);
            span_end(y, r, c, n, ys);
        }
    }
}

// sum of dy x w, in lanes
KERNEL static float dot3(const float *dy, const float *x, const float *w, int64_t n) {
    f32x16 sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32x16 v = load16(dy + i) * load16(x + i);
        sum += w ? v * load16(w + i) : v;
    }
    if (i < n) {
        const f32x16 v = load_tail(dy + i, n - i, 0.0f) * load_tail(x + i, n - i, 0.0f);
        sum += w ? v * load_tail(w + i, n - i, 0.0f) : v;
    }
    return sum_lanes(sum);
}

KERNEL static void norm_back_span(float *dx, float *dw, const float *dy, const float *x,
                                  const float *w, float rstd, float mean, float scale, int64_t n) {
    const float a = rstd * scale, b = rstd * mean;
    if (w)
        for (int64_t i = 0; i < n; i++) dx[i] += a * (dy[i] * w[i]) - b * (x[i] * rstd);
    else
        for (int64_t i = 0; i < n; i++) dx[i] += a * dy[i] - b * (x[i] * rstd);
    if (dw)
        for (int64_t i = 0; i < n; i++) dw[i] += a * (dy[i] * x[i]);
}

KERNEL static void add_span(float *y, const float *x, float scale, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += scale * x[i];
}

// Row r of the backward; dw (cols) is this block's partial sum or NULL.
static void norm_back_row(Tensor dx, float *dw, Tensor dres, Tensor dy, Tensor x, float rstd,
                          Tensor w, float scale, int64_t r) {
    double dot = 0.0;
    float xb[SPAN], wb[SPAN], gb[SPAN], db[SPAN];
    for (int64_t c = 0; c < x.cols; c += SPAN) {
        const int64_t n = span_size(x.cols, c);
        dot += dot3(span_read(dy, r, c, n, gb), span_read(x, r, c, n, xb),
                    w.data ? span_read(w, 0, c, n, wb) : NULL, n);
    }
    const float mean = (float)(dot * scale * rstd / (double)x.cols);
    for (int64_t c = 0; c < x.cols; c += SPAN) {
        const int64_t n = span_size(x.cols, c);
        const float *g = span_read(dy, r, c, n, gb);
        float *dxs = span_update(dx, r, c, n, db);
        norm_back_span(dxs, dw ? dw + c : NULL, g, span_read(x, r, c, n, xb),
                       w.data ? span_read(w, 0, c, n, wb) : NULL, rstd, mean, scale, n);
        span_end(dx, r, c, n, dxs);
        if (dres.data == NULL) continue;
        float *ds = span_update(dres, r, c, n, db);
        add_span(ds, g, scale, n);
        span_end(dres, r, c, n, ds);
    }
}

void cpu_norm_back(Device *dev, Tensor dx, Tensor dw, Tensor dres, Tensor dy, Tensor x, Tensor rstd,
                   Tensor w, float scale) {
    CHECK_SHAPE(dx, x.rows, x.cols);
    CHECK_SHAPE(dy, x.rows, x.cols);
    CHECK_SHAPE(rstd, 1, x.rows);
    check_row_vector(w, x.cols);
    if (dw.data) {
        CHECK_SHAPE(dw, 1, x.cols);
        CHECK_TYPE(dw, DT_F32);
    }
    if (dres.data) CHECK_SHAPE(dres, x.rows, x.cols);
    // Blocks of rows are cut by position and added in order: the bits do not depend on threads.
    const RowBlocks b = row_blocks(x.rows);
    float *part =
        dw.data ? cpu_scratch(dev, SCRATCH_SUMS, (size_t)(b.count * x.cols) * sizeof *part) : NULL;
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(x)))
    for (int64_t i = 0; i < b.count; i++) {
        float *sum = part ? part + i * x.cols : NULL;
        if (sum) memset(sum, 0, (size_t)x.cols * sizeof *sum);
        const int64_t end = (i + 1) * b.size < x.rows ? (i + 1) * b.size : x.rows;
        for (int64_t r = i * b.size; r < end; r++)
            norm_back_row(dx, sum, dres, dy, x, *f32_at(rstd, 0, r), w, scale, r);
    }
    for (int64_t i = 0; part && i < b.count; i++)
        add_span(f32_at(dw, 0, 0), part + i * x.cols, 1.0f, x.cols);
}
