// tests/infer/tensor/op_testing.h - views with gaps, bit comparison, and the same operator on 1 and
// 2 threads.
#ifndef TESTS_OP_TESTING_H
#define TESTS_OP_TESTING_H

#include <math.h>
#include <string.h>

#include "infer/tensor/cpu/cpu.h"
#include "tests/testing.h"

// Random values in a view whose rows have a gap and whose columns start misaligned.
static inline Tensor strided(DType t, int64_t rows, int64_t cols) {
    return tensor_cols(test_random(t, rows, cols + 5), 3, cols);
}

static inline Tensor same_copy(Tensor x) {
    Tensor y = test_zeros(x.dtype, x.rows, x.cols);
    const size_t size = dtype_size(x.dtype);
    for (int64_t r = 0; r < x.rows; r++)
        memcpy((char *)y.data + (size_t)(r * y.ld) * size,
               (char *)x.data + (size_t)(r * x.ld) * size, (size_t)x.cols * size);
    return y;
}

static inline void set_float(Tensor t, int64_t r, int64_t c, double v) {
    if (t.dtype == DT_BF16)
        ((bf16 *)t.data)[r * t.ld + c] = bf16_from_f32((float)v);
    else
        ((float *)t.data)[r * t.ld + c] = (float)v;
}

static inline int32_t get_id(Tensor t, int64_t r, int64_t c) {
    return ((int32_t *)t.data)[r * t.ld + c];
}

static inline void assert_same_bits(const char *what, Tensor a, Tensor b) {
    const size_t size = dtype_size(a.dtype);
    for (int64_t r = 0; r < a.rows; r++)
        if (memcmp((char *)a.data + (size_t)(r * a.ld) * size,
                   (char *)b.data + (size_t)(r * b.ld) * size, (size_t)a.cols * size) != 0)
            fail_msg("%s: bits of row %lld differ", what, (long long)r);
}

// Relative tolerance that a result of this type can keep.
static inline double rounding(DType t, double f32_tolerance) {
    return t == DT_BF16 ? 1.0 / 256 : f32_tolerance;
}

static inline Device *device_with(int threads) {
    static Device *dev[8];
    Err err = {0};
    assert_true(threads < 8);
    if (dev[threads] == NULL) dev[threads] = dev_open("cpu", threads, &err);
    if (dev[threads] == NULL) fail_msg("%s", err.text);
    return dev[threads];
}

// Where oneDNN multiplies, a row's bits do not depend on the other rows; OpenBLAS promises no such
// thing.
static inline void skip_unless_rows_are_independent(void) {
    if (((Cpu *)test_env()->dev->impl)->dnnl) return;
    print_message("skipped: no oneDNN kernels for this CPU\n");
    skip();
}

#endif
