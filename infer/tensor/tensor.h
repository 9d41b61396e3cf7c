// infer/tensor/tensor.h - a matrix view: a value that never owns.
//
// Dimension letters used everywhere: N tokens or rows, B width of the target ("backbone"), H width
// of the assistant, V vocabulary, L layers, K draft steps, C clusters, W sliding window, hd head
// size.
#ifndef TENSOR_TENSOR_H
#define TENSOR_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "infer/base/arena.h"
#include "infer/base/err.h"
#include "infer/base/fp.h"

typedef enum { DT_F32, DT_BF16, DT_I32, DT_I64, DT_F64, DT_F16, DT_U8, DT_U32, DT_COUNT } DType;

size_t dtype_size(DType t);
const char *dtype_name(DType t); // safetensors' spelling: "F32", "BF16", ...

// Row-major; row r begins ld elements after row r-1; cols <= ld. A vector is one row.
// data is device memory of the Device it was made for (NULL while a plan is being priced).
typedef struct {
    void *data;
    DType dtype;
    int64_t rows, cols, ld;
} Tensor;

Tensor tensor_of(void *data, DType dtype, int64_t rows, int64_t cols);
Tensor tensor_take(Arena *a, DType dtype, int64_t rows, int64_t cols);
Tensor tensor_rows(Tensor t, int64_t first, int64_t count);
Tensor tensor_cols(Tensor t, int64_t first, int64_t count); // keeps ld
Tensor tensor_view(Tensor t, int64_t rows, int64_t cols);   // same elements; t must be contiguous
static inline int64_t tensor_count(Tensor t) {
    return t.rows * t.cols;
}
static inline int tensor_is_contiguous(Tensor t) {
    return t.ld == t.cols || t.rows <= 1;
}
static inline size_t tensor_bytes(Tensor t) {
    return (size_t)tensor_count(t) * dtype_size(t.dtype);
}

#endif
