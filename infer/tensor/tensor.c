// infer/tensor/tensor.c - views of matrices.
#include "infer/tensor/tensor.h"

static const struct {
    size_t size;
    const char *name;
} DTYPES[DT_COUNT] = {
    [DT_F32] = {4, "F32"}, [DT_BF16] = {2, "BF16"}, [DT_I32] = {4, "I32"}, [DT_I64] = {8, "I64"},
    [DT_F64] = {8, "F64"}, [DT_F16] = {2, "F16"},   [DT_U8] = {1, "U8"},   [DT_U32] = {4, "U32"},
};

size_t dtype_size(DType t) {
    CHECK(t >= 0 && t < DT_COUNT);
    return DTYPES[t].size;
}

const char *dtype_name(DType t) {
    CHECK(t >= 0 && t < DT_COUNT);
    return DTYPES[t].name;
}

Tensor tensor_of(void *data, DType dtype, int64_t rows, int64_t cols) {
    return (Tensor){.data = data, .dtype = dtype, .rows = rows, .cols = cols, .ld = cols};
}

Tensor tensor_take(Arena *a, DType dtype, int64_t rows, int64_t cols) {
    size_t count, bytes;
    CHECK(rows >= 0 && cols >= 0 && !__builtin_mul_overflow((size_t)rows, (size_t)cols, &count) &&
              !__builtin_mul_overflow(count, dtype_size(dtype), &bytes),
          "(%lld x %lld)", (long long)rows, (long long)cols);
    return tensor_of(arena_take(a, bytes), dtype, rows, cols);
}

// A plan is priced with data NULL; views of it must stay NULL.
static void *element(Tensor t, int64_t index) {
    return t.data ? (char *)t.data + (size_t)index * dtype_size(t.dtype) : NULL;
}

Tensor tensor_rows(Tensor t, int64_t first, int64_t count) {
    CHECK(first >= 0 && count >= 0 && first <= t.rows - count, "(rows %lld + %lld of %lld)",
          (long long)first, (long long)count, (long long)t.rows);
    t.data = element(t, first * t.ld);
    t.rows = count;
    return t;
}

Tensor tensor_cols(Tensor t, int64_t first, int64_t count) {
    CHECK(first >= 0 && count >= 0 && first <= t.cols - count, "(columns %lld + %lld of %lld)",
          (long long)first, (long long)count, (long long)t.cols);
    t.data = element(t, first);
    t.cols = count;
    return t;
}

Tensor tensor_view(Tensor t, int64_t rows, int64_t cols) {
    CHECK(tensor_is_contiguous(t) && rows >= 0 && cols >= 0 && rows * cols == tensor_count(t),
          "(%lld x %lld as %lld x %lld)", (long long)t.rows, (long long)t.cols, (long long)rows,
          (long long)cols);
    t.rows = rows;
    t.cols = t.ld = cols;
    return t;
}
