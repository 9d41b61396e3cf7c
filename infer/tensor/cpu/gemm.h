// infer/tensor/cpu/gemm.h - one product of plain matrices by whichever library does it best here.
#ifndef CPU_GEMM_H
#define CPU_GEMM_H

#include "infer/tensor/device.h"

struct Dnnl;

// C (m, n) = op(A) op(B) + beta C; ta/tb: the operand is stored transposed. threads: 1 or
// dev->threads. Not to be asked for inside of a parallel region.
typedef struct {
    Tensor c, a, b;
    bool ta, tb;
    float beta; // 0 or 1
    int threads;
} Gemm;

static inline int64_t gemm_k(const Gemm *g) {
    return g->ta ? g->a.rows : g->a.cols;
}

// All three F32, or both operands BF16 where the CPU multiplies it: false where there are no
// kernels for that. With oneDNN's AVX-512 kernels a row's bits do not depend on the other rows.
void gemm_f32(Device *dev, const Gemm *g);
bool gemm_bf16(Device *dev, const Gemm *g);

// Own kernels for small products and gradients of weights, A and B both F32 or both BF16, or a BF16
// B that is widened on the way: false where there are none (takes says so beforehand). Only to be
// run where they agree: where they give the bits that oneDNN gives (of F32, if B is widened).
bool own_gemm_takes(const Gemm *g);
bool own_gemm_run(Device *dev, const Gemm *g);
bool own_gemm_agrees(Device *dev, DType dtype);

// Of those: up to 16 rows of A, B transposed (small_gemm.c), what oneDNN would take longer to get
// ready for than to do (panel_gemm.c), and A transposed, whose bits are their own (grad_gemm.c).
bool small_gemm_takes(const Gemm *g);
void small_gemm_run(const Gemm *g);
bool panel_gemm_takes(const Gemm *g);
void panel_gemm_run(Device *dev, const Gemm *g);
bool grad_gemm_takes(const Gemm *g);
void grad_gemm_run(Device *dev, const Gemm *g);

static inline int64_t gemm_least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
// oneDNN adds up a sum of length k in chunks, and those in order.
static inline int64_t gemm_chunk(int64_t k) {
    return k <= 1024 ? 512 : 1024;
}
// C (r, n .. n + count - 1) = sum + beta C, at most SPAN of them.
void gemm_put(Tensor c, int64_t r, int64_t n, const float *sum, int64_t count, float beta);

// oneDNN, optional at build (dnnl_gemm.c). open returns NULL where it is not built in or has no
// kernels for this CPU that are worth having. run returns false when it has none for this product.
struct Dnnl *dnnl_gemm_open(void);
void dnnl_gemm_close(struct Dnnl *d);
bool dnnl_gemm_run(struct Dnnl *d, const Gemm *g);
bool dnnl_gemm_bf16(const struct Dnnl *d);        // the CPU multiplies bf16 faster than f32
const char *dnnl_gemm_name(const struct Dnnl *d); // for people: "2.6.3, AVX512-BF16"

#endif
