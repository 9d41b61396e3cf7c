// infer/tensor/cpu/elementwise.c - operators without structure: fill, copy, scale and add, cap,
// square sum.
#include <math.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"

void cpu_zero(Device *dev, Tensor x) {
    const size_t size = dtype_size(x.dtype);
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(x)))
    for (int64_t r = 0; r < x.rows; r++)
        memset((char *)x.data + (size_t)(r * x.ld) * size, 0, (size_t)x.cols * size);
}

static void copy_row(Tensor y, Tensor x, int64_t r) {
    const size_t size = dtype_size(x.dtype);
    if (y.dtype == x.dtype)
        memmove((char *)y.data + (size_t)(r * y.ld) * size,
                (char *)x.data + (size_t)(r * x.ld) * size, (size_t)x.cols * size);
    else if (y.dtype == DT_F32)
        f32_from_bf16(f32_at(y, r, 0), bf16_at(x, r, 0), x.cols);
    else
        f32_to_bf16(bf16_at(y, r, 0), f32_at(x, r, 0), x.cols);
}

void cpu_copy(Device *dev, Tensor y, Tensor x) {
    CHECK_SHAPE(y, x.rows, x.cols);
    if (y.dtype != x.dtype) {
        CHECK_FLOAT(y);
        CHECK_FLOAT(x);
    }
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(x)))
    for (int64_t r = 0; r < x.rows; r++) copy_row(y, x, r);
}

KERNEL static void axpby_span(float *y, const float *x, const float *old, float alpha, float beta,
                              int64_t n) {
    if (beta == 0.0f) // old values may be anything, NaN included
        for (int64_t i = 0; i < n; i++) y[i] = alpha * x[i];
    else
        for (int64_t i = 0; i < n; i++) y[i] = alpha * x[i] + beta * old[i];
}

void cpu_axpby(Device *dev, Tensor y, Tensor x, float alpha, float beta) {
    CHECK_SHAPE(y, x.rows, x.cols);
    CHECK_FLOAT(y);
    CHECK_FLOAT(x);
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(x)))
    for (int64_t r = 0; r < x.rows; r++)
        for (int64_t c = 0; c < x.cols; c += SPAN) {
            const int64_t n = span_size(x.cols, c);
            float xb[SPAN], yb[SPAN];
            const float *xs = span_read(x, r, c, n, xb), *old = span_read(y, r, c, n, yb);
            float *ys = span_begin(y, r, c, yb);
            axpby_span(ys, xs, old, alpha, beta, n);
            span_end(y, r, c, n, ys);
        }
}

void cpu_softcap(Device *dev, Tensor z, float cap) {
    CHECK_FLOAT(z);
    if (cap == 0.0f) return;
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(z)))
    for (int64_t r = 0; r < z.rows; r++)
        for (int64_t c = 0; c < z.cols; c += SPAN) {
            const int64_t n = span_size(z.cols, c);
            float buf[SPAN], *zs = span_update(z, r, c, n, buf);
            span_softcap(zs, cap, n);
            span_end(z, r, c, n, zs);
        }
}

KERNEL static double square_sum_span(const float *x, int64_t n) {
    f64x16 sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f64x16 v = __builtin_convertvector(load16(x + i), f64x16);
        sum += v * v;
    }
    double total = 0.0;
    for (int k = 0; k < LANES; k++) total += sum[k];
    for (; i < n; i++) total += (double)x[i] * x[i];
    return total;
}

static double square_sum_row(Tensor x, int64_t r) {
    double sum = 0.0;
    for (int64_t c = 0; c < x.cols; c += SPAN) {
        const int64_t n = span_size(x.cols, c);
        float buf[SPAN];
        sum += square_sum_span(span_read(x, r, c, n, buf), n);
    }
    return sum;
}

// Blocks are cut by position, never by thread, and added in order.
void cpu_sumsq(Device *dev, Tensor out, Tensor x) {
    CHECK_SHAPE(out, 1, 1);
    CHECK_TYPE(out, DT_F64);
    CHECK_FLOAT(x);
    const int64_t width = 64 * SPAN;
    const int64_t across = (x.cols + width - 1) / width, blocks = x.rows * across;
    double *part = cpu_scratch(dev, SCRATCH_SUMS, (size_t)blocks * sizeof *part);
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(x)))
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t c = b % across * width;
        part[b] =
            square_sum_row(tensor_cols(x, c, x.cols - c < width ? x.cols - c : width), b / across);
    }
    double sum = 0.0;
    for (int64_t b = 0; b < blocks; b++) sum += part[b];
    *(double *)out.data = sum;
}
