// infer/tensor/ceiling.h - the best matrix product this device reaches: what other rates are
// compared with.
#ifndef TENSOR_CEILING_H
#define TENSOR_CEILING_H

#include "infer/tensor/device.h"

// GFLOP/s of C (m, n) F32 = A (m, k) B (n, k)^T with A and B of dtype F32 or BF16, the best of
// several runs within about a second. 0 when memory is out. 2048^3 is a fair ceiling; what a small
// product reaches is told by its own shape.
double device_gemm_ceiling(Device *dev, DType dtype, int64_t m, int64_t n, int64_t k);

#endif
