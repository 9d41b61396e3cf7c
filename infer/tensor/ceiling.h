// infer/tensor/ceiling.h - the best matrix product and the best copy this device reaches: what
// other rates are compared with.
#ifndef TENSOR_CEILING_H
#define TENSOR_CEILING_H

#include "infer/tensor/device.h"

// GFLOP/s of C (m, n) F32 = A (m, k) B (n, k)^T with A and B of dtype F32 or BF16 and random
// values, the best of several runs within about a second. 0 when memory is out. What a product
// reaches depends on its shape.
double device_gemm_ceiling(Device *dev, DType dtype, int64_t m, int64_t n, int64_t k);
// The best rate over a cube and over shapes as large models have them: what shares are taken of.
double device_gemm_peak(Device *dev, DType dtype);
// Bytes per second of a copy inside the device's memory, bytes read and written counted; bytes is
// the size of what is copied. 0 when memory is out.
double device_copy_ceiling(Device *dev, size_t bytes);
// What a GPU has free, and what was taken of it since: planned blocks and scratch stay until the
// end, so that is the most. 0 on a CPU, whose memory others use as well.
size_t device_memory_free(const Device *dev);
double device_memory_taken(const Device *dev, size_t free_before);

#endif
