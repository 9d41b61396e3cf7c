// infer/tensor/cpu/head_norm.c - per-head RMSNorm and rotation: y = R(xhat w), R turns pairs (i, i
// + hd/2).
//
// R by angle t: y_i = n_i cos t - n_j sin t, y_j = n_j cos t + n_i sin t, j = i + hd/2; backward
// turns the other way. cs holds cos in its first and sin in its second half, one row per row of x.
#include <math.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"

enum { HEAD_MAX = 2048 };

KERNEL static void scale_head(float *y, const float *x, float rstd, const float *w, int64_t n) {
    if (w)
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * rstd * w[i];
    else
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * rstd;
}

// In place; sign -1 turns back.
KERNEL static void rotate(float *restrict y, const float *restrict cs, float sign, int64_t half) {
    float *restrict z = y + half;
    for (int64_t i = 0; i < half; i++) {
        const float a = y[i], b = z[i], c = cs[i], s = sign * cs[half + i];
        y[i] = a * c - b * s;
        z[i] = b * c + a * s;
    }
}

static void check_heads(Tensor y, Tensor rstd, Tensor x, Tensor w, Tensor cs, int hd) {
    CHECK(hd > 0 && hd % 2 == 0 && hd <= HEAD_MAX && x.cols % hd == 0, "(hd %d of %lld columns)",
          hd, (long long)x.cols);
    CHECK_SHAPE(y, x.rows, x.cols);
    CHECK_FLOAT(y);
    CHECK_FLOAT(x);
    if (rstd.data) CHECK_SHAPE(rstd, x.rows, x.cols / hd);
    if (w.data) CHECK_SHAPE(w, 1, hd);
    if (cs.data) {
        CHECK_SHAPE(cs, x.rows, hd);
        CHECK_TYPE(cs, DT_F32);
    }
}

void cpu_head_norm(Device *dev, Tensor y, Tensor rstd, Tensor x, Tensor w, Tensor cs, float eps,
                   int hd) {
    check_heads(y, rstd, x, w, cs, hd);
    float wb[HEAD_MAX];
    const float *ws = w.data ? span_read(w, 0, 0, hd, wb) : NULL;
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(x)))
    for (int64_t r = 0; r < x.rows; r++)
        for (int64_t h = 0; h < x.cols / hd; h++) {
            float xb[HEAD_MAX], yb[HEAD_MAX], *ys = span_begin(y, r, h * hd, yb);
            const float *xs = span_read(x, r, h * hd, hd, xb);
            const float s = (float)(1.0 / sqrt((double)span_dot(xs, xs, hd) / hd + eps));
            if (rstd.data) *f32_at(rstd, r, h) = s;
            scale_head(ys, xs, s, ws, hd);
            if (cs.data) rotate(ys, f32_at(cs, r, 0), 1.0f, hd / 2);
            span_end(y, r, h * hd, hd, ys);
        }
}

// n = dy turned back, xhat = x rstd:  dw += n xhat,  dx += rstd (n w - xhat mean(n w xhat))
KERNEL static void head_back(float *dx, float *dw, float *n, const float *x, const float *w,
                             float rstd, int64_t hd) {
    if (dw)
        for (int64_t i = 0; i < hd; i++) dw[i] += n[i] * (x[i] * rstd);
    if (w)
        for (int64_t i = 0; i < hd; i++) n[i] *= w[i];
    const float mean = span_dot(n, x, hd) * rstd / (float)hd;
    for (int64_t i = 0; i < hd; i++) dx[i] += rstd * (n[i] - x[i] * rstd * mean);
}

static void head_back_row(Tensor dx, float *dw, Tensor dy, Tensor x, Tensor rstd, const float *w,
                          Tensor cs, int hd, int64_t r) {
    for (int64_t h = 0; h < x.cols / hd; h++) {
        float xb[HEAD_MAX], db[HEAD_MAX], gb[HEAD_MAX], n[HEAD_MAX];
        const int64_t c = h * hd;
        memcpy(n, span_read(dy, r, c, hd, gb), (size_t)hd * sizeof *n);
        if (cs.data) rotate(n, f32_at(cs, r, 0), -1.0f, hd / 2);
        float *dxs = span_update(dx, r, c, hd, db);
        head_back(dxs, dw, n, span_read(x, r, c, hd, xb), w, *f32_at(rstd, r, h), hd);
        span_end(dx, r, c, hd, dxs);
    }
}

void cpu_head_norm_back(Device *dev, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor rstd,
                        Tensor w, Tensor cs, int hd) {
    check_heads(dx, rstd, x, w, cs, hd);
    CHECK_SHAPE(dy, x.rows, x.cols);
    CHECK(rstd.data != NULL);
    if (dw.data) {
        CHECK_SHAPE(dw, 1, hd);
        CHECK_TYPE(dw, DT_F32);
    }
    float wb[HEAD_MAX];
    const float *ws = w.data ? span_read(w, 0, 0, hd, wb) : NULL;
    const RowBlocks b = row_blocks(x.rows);
    float *part =
        dw.data ? cpu_scratch(dev, SCRATCH_SUMS, (size_t)(b.count * hd) * sizeof *part) : NULL;
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(x)))
    for (int64_t i = 0; i < b.count; i++) {
        float *sum = part ? part + i * hd : NULL;
        if (sum) memset(sum, 0, (size_t)hd * sizeof *sum);
        const int64_t end = (i + 1) * b.size < x.rows ? (i + 1) * b.size : x.rows;
        for (int64_t r = i * b.size; r < end; r++)
            head_back_row(dx, sum, dy, x, rstd, ws, cs, hd, r);
    }
    for (int64_t i = 0; part && i < b.count; i++)
        for (int64_t c = 0; c < hd; c++) f32_at(dw, 0, 0)[c] += part[i * hd + c];
}

// angle = p inv, rounded to f32, as the reference does
KERNEL static void rope_row(float *cos, float *sin, const float *inv, float p, int64_t n) {
    f32x16 s, c;
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t left = n - i;
        sincos16(p * (left < LANES ? load_tail(inv + i, left, 0.0f) : load16(inv + i)), &s, &c);
        if (left < LANES) {
            store_tail(cos + i, left, c);
            store_tail(sin + i, left, s);
            continue;
        }
        store16(cos + i, c);
        store16(sin + i, s);
    }
}

void cpu_rope_table(Device *dev, Tensor cs, Tensor pos, Tensor inv) {
    const int64_t half = inv.cols;
    CHECK_SHAPE(cs, pos.cols, 2 * half);
    CHECK_TYPE(cs, DT_F32);
    CHECK_TYPE(pos, DT_I32);
    CHECK_TYPE(inv, DT_F32);
#pragma omp parallel for num_threads(cpu_threads(dev, 8 * tensor_count(cs)))
    for (int64_t r = 0; r < cs.rows; r++) {
        float *row = f32_at(cs, r, 0);
        rope_row(row, row + half, f32_at(inv, 0, 0), (float)*i32_at(pos, 0, r), half);
    }
}
