// infer/tensor/cpu/matmul.c - C = A op B + beta C for every mix of F32 and BF16.
//
// Two BF16 operands go to bf16 kernels where the CPU has fast ones: products are exact, sums f32.
// In every other mix the BF16 operand is converted, exactly, and the product is f32.
#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/gemm.h"

enum { SMALL_PRODUCT = 1 << 17, BLOCK_ELEMENTS = 1 << 20 };

// x as the kernels take it: of type t, and without gaps for oneDNN. Else a copy in scratch.
static Tensor ready(Device *dev, Tensor x, DType t, ScratchId id, bool contents) {
    if (x.rows <= 1) x.ld = x.cols;
    if (x.dtype == t && (x.ld == x.cols || ((Cpu *)dev->impl)->dnnl == NULL)) return x;
    const size_t bytes = (size_t)tensor_count(x) * dtype_size(t);
    const Tensor y = tensor_of(cpu_scratch(dev, id, bytes), t, x.rows, x.cols);
    if (contents) cpu_copy(dev, y, x);
    return y;
}

// B is usually a weight and large: if it has to be copied, then by blocks that stay in the cache.
static int64_t block_columns(Device *dev, const Gemm *g, DType t) {
    const bool as_is =
        g->b.dtype == t && (g->b.ld == g->b.cols || ((Cpu *)dev->impl)->dnnl == NULL);
    const int64_t columns = BLOCK_ELEMENTS / (gemm_k(g) + 1) / 64 * 64;
    return as_is ? g->c.cols : columns < 64 ? 64 : columns;
}

// A product whose BF16 B own kernels widen as they read it, not in memory first.
static bool matmul_wide(Device *dev, Gemm g) {
    Gemm wide = g;
    wide.a.dtype = DT_F32;
    if (!((Cpu *)dev->impl)->own_f32 || g.b.dtype != DT_BF16 || !own_gemm_takes(&wide))
        return false;
    wide.a = ready(dev, g.a, DT_F32, SCRATCH_A, true);
    return own_gemm_run(dev, &wide);
}

// The product with operands of type t; false (nothing done) when there are no kernels for it.
static bool matmul_as(Device *dev, Gemm g, DType t) {
    if (t == DT_F32 && matmul_wide(dev, g)) return true;
    const Tensor b = g.b, c = g.c;
    const int64_t block = block_columns(dev, &g, t);
    g.a = ready(dev, g.a, t, SCRATCH_A, true);
    for (int64_t n = 0; n < c.cols; n += block) {
        const int64_t width = c.cols - n < block ? c.cols - n : block;
        const Tensor to = tensor_cols(c, n, width);
        g.b = ready(dev, g.tb ? tensor_rows(b, n, width) : tensor_cols(b, n, width), t, SCRATCH_B,
                    true);
        g.c = ready(dev, to, t == DT_BF16 ? c.dtype : DT_F32, SCRATCH_C, g.beta != 0.0f);
        if (t == DT_F32)
            gemm_f32(dev, &g);
        else if (!gemm_bf16(dev, &g)) {
            CHECK(n == 0);
            return false;
        }
        if (g.c.data != to.data) cpu_copy(dev, to, g.c);
    }
    return true;
}

static void matmul(Device *dev, Gemm g) {
    const int64_t m = g.c.rows, n = g.c.cols, k = gemm_k(&g);
    CHECK_SHAPE(g.a, g.ta ? k : m, g.ta ? m : k);
    CHECK_SHAPE(g.b, g.tb ? n : k, g.tb ? k : n);
    CHECK(g.beta == 0.0f || g.beta == 1.0f);
    CHECK(m <= INT32_MAX && n <= INT32_MAX && k <= INT32_MAX);
    CHECK_FLOAT(g.a);
    CHECK_FLOAT(g.b);
    CHECK_FLOAT(g.c);
    if (m == 0 || n == 0) return;
    g.threads = m * n < SMALL_PRODUCT / (k + 1) ? 1 : dev->threads;
    const bool both =
        g.a.dtype == DT_BF16 && g.b.dtype == DT_BF16 && k > 0 && cpu_prefers_bf16(dev);
    if (!both || !matmul_as(dev, g, DT_BF16)) matmul_as(dev, g, DT_F32);
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
