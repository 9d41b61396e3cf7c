// infer/tensor/cpu/matmul.c - C = A op B + beta C for every mix of F32 and BF16.
//
// Two BF16 operands go to bf16 kernels where the CPU has them: products are exact, sums f32. In
// every other mix the BF16 operand is converted, exactly, and the product is f32.
#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/gemm.h"

enum { SMALL_PRODUCT = 1 << 17, BLOCK_FLOATS = 1 << 20 };

// An operand as f32: itself, or converted into scratch.
static Tensor as_f32(Device *dev, Tensor x, ScratchId id, bool contents) {
    if (x.dtype == DT_F32) return x;
    const size_t bytes = (size_t)tensor_count(x) * sizeof(float);
    const Tensor y = tensor_of(cpu_scratch(dev, id, bytes), DT_F32, x.rows, x.cols);
    if (contents) cpu_copy(dev, y, x);
    return y;
}

// B is usually a weight and large: it is converted by blocks that stay in the cache.
static void matmul_converted(Device *dev, Gemm g) {
    const Tensor c = g.c, b = g.b;
    g.a = as_f32(dev, g.a, SCRATCH_A, true);
    const Tensor cf = as_f32(dev, c, SCRATCH_C, g.beta != 0.0f);
    const int64_t k = gemm_k(&g),
                  whole = b.dtype == DT_F32 ? c.cols : BLOCK_FLOATS / (k + 1) / 64 * 64;
    const int64_t block = whole < 64 ? 64 : whole;
    for (int64_t n = 0; n < c.cols; n += block) {
        const int64_t width = c.cols - n < block ? c.cols - n : block;
        g.b = as_f32(dev, g.tb ? tensor_rows(b, n, width) : tensor_cols(b, n, width), SCRATCH_B,
                     true);
        g.c = tensor_cols(cf, n, width);
        gemm_f32(dev, &g);
    }
    if (c.dtype != DT_F32) cpu_copy(dev, c, cf);
}

static void matmul(Device *dev, Gemm g) {
    const int64_t m = g.c.rows, n = g.c.cols, k = gemm_k(&g);
    const struct Dnnl *dnnl = ((Cpu *)dev->impl)->dnnl;
    CHECK_SHAPE(g.a, g.ta ? k : m, g.ta ? m : k);
    CHECK_SHAPE(g.b, g.tb ? n : k, g.tb ? k : n);
    CHECK(g.beta == 0.0f || g.beta == 1.0f);
    CHECK(m <= INT32_MAX && n <= INT32_MAX && k <= INT32_MAX);
    CHECK_FLOAT(g.a);
    CHECK_FLOAT(g.b);
    CHECK_FLOAT(g.c);
    if (m == 0 || n == 0) return;
    g.threads = m * n < SMALL_PRODUCT / (k + 1) ? 1 : dev->threads;
    if (g.a.dtype == DT_F32 && g.b.dtype == DT_F32 && g.c.dtype == DT_F32) {
        gemm_f32(dev, &g);
        return;
    }
    const bool both = g.a.dtype == DT_BF16 && g.b.dtype == DT_BF16;
    if (both && k > 0 && dnnl && dnnl_gemm_bf16(dnnl) &&
        dnnl_gemm_run(((Cpu *)dev->impl)->dnnl, &g))
        return;
    matmul_converted(dev, g);
}

void cpu_matmul_nt(Device *dev, Tensor c, Tensor a, Tensor b, float beta) {
    matmul(dev, (Gemm){.c = c, .a = a, .b = b, .tb = true, .beta = beta});
}
void cpu_matmul_nn(Device *dev, Tensor c, Tensor a, Tensor b, float beta) {
    matmul(dev, (Gemm){.c = c, .a = a, .b = b, .beta = beta});
}
void cpu_matmul_tn(Device *dev, Tensor c, Tensor a, Tensor b, float beta) {
    matmul(dev, (Gemm){.c = c, .a = a, .b = b, .ta = true, .beta = beta});
}
