// infer/tensor/cuda/cuda_parts.cuh - parts of the device that operators don't see, but for
// products.
#ifndef CUDA_CUDA_PARTS_CUH
#define CUDA_CUDA_PARTS_CUH

#include "infer/tensor/cuda/cuda.cuh"

extern "C" {
#include "infer/tensor/device_body.h"
}

// Pinned memory on the way (staging.cu). NULL: failure kept.
struct Staging *staging_open(Cuda *cu);
void staging_close(struct Staging *s);
void cuda_upload(Device *dev, Tensor dst, const void *src);
void cuda_download(Device *dev, void *dst, Tensor src);
void cuda_download_begin(Device *dev, void *dst, Tensor src);

// C (m, n) = op(A) op(B) + beta C of plain matrices; ta/tb: the operand is stored transposed. A and
// B both F32, then C F32; or both BF16, then C F32 or BF16. Sums are f32, and f32 products are not
// cut to TF32.
typedef struct {
    Tensor c, a, b;
    bool ta, tb;
    float beta; // 0 or 1
} CudaGemm;

// The library that multiplies (gemm.cu, or the test build's own). NULL: failure kept.
struct Gemms *gemms_open(Cuda *cu);
void gemms_close(struct Gemms *g);
void gemms_describe(const struct Gemms *g, char *text, size_t size);
// false: the library has no kernel for this (odd alignment); nothing was done. Else the product was
// started, or is held until the end of the span.
bool gemms_run(Cuda *cu, const CudaGemm *g);
// At most 16 rows of A times rows of B, both BF16 and aligned: an own kernel (few_rows.cu). false:
// the product is another one; nothing was done.
bool few_rows_run(Cuda *cu, const CudaGemm *g);
void gemms_start(Cuda *cu, const CudaGemm *g); // one that gemms_run has taken, now

// Spans (spans.cu): what device.h promises of them. NULL: failure kept.
struct Spans *spans_open(Cuda *cu);
void spans_close(struct Spans *s);
void cuda_span_begin(Device *dev);
void cuda_span_end(Device *dev);
void cuda_set_graphs(Device *dev, bool on);
DeviceGraphs cuda_graphs(const Device *dev);
// Keep a launch or a product for the end of the span; false: launches are not held now.
bool span_hold_launch(Cuda *cu, const Launch *l, void **arg, const size_t *size, int n);
bool span_hold_product(Cuda *cu, const CudaGemm *g);
// First thing in whatever the stream, the host or freed memory would be at odds with: what is held
// is started one by one, and so is the rest of the span.
void span_let_go(Cuda *cu);

#endif
