// infer/tensor/cpu/matmul.c - C = A op B + beta C for every mix of F32 and BF16.
#include <cblas.h>

#include "infer/tensor/cpu/cpu.h"

extern void openblas_set_num_threads(int n);

// An operand as f32: itself, or converted once into scratch.
static Tensor as_f32(Device *dev, Tensor x, ScratchId id, bool contents) {
    CHECK_FLOAT(x);
    if (x.dtype == DT_F32) return x;
    const size_t bytes = (size_t)tensor_count(x) * sizeof(float);
    const Tensor y = tensor_of(cpu_scratch(dev, id, bytes), DT_F32, x.rows, x.cols);
    if (contents) cpu_copy(dev, y, x);
    return y;
}

static void matmul(Device *dev, Tensor c, Tensor a, Tensor b, float beta, bool ta, bool tb) {
    const int64_t m = c.rows, n = c.cols, k = ta ? a.rows : a.cols;
    CHECK_SHAPE(a, ta ? k : m, ta ? m : k);
    CHECK_SHAPE(b, tb ? n : k, tb ? k : n);
    CHECK(beta == 0.0f || beta == 1.0f);
    CHECK(m <= INT32_MAX && n <= INT32_MAX && k <= INT32_MAX);
    if (m == 0 || n == 0) return;
    const Tensor af = as_f32(dev, a, SCRATCH_A, true), bf = as_f32(dev, b, SCRATCH_B, true);
    const Tensor cf = as_f32(dev, c, SCRATCH_C, beta != 0.0f);
    openblas_set_num_threads(dev->threads);
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans,
                (int)m, (int)n, (int)k, 1.0f, af.data, (int)af.ld, bf.data, (int)bf.ld, beta,
                cf.data, (int)cf.ld);
    if (c.dtype != DT_F32) cpu_copy(dev, c, cf);
}

void cpu_matmul_nt(Device *dev, Tensor c, Tensor a, Tensor b, float beta) {
    matmul(dev, c, a, b, beta, false, true);
}
void cpu_matmul_nn(Device *dev, Tensor c, Tensor a, Tensor b, float beta) {
    matmul(dev, c, a, b, beta, false, false);
}
void cpu_matmul_tn(Device *dev, Tensor c, Tensor a, Tensor b, float beta) {
    matmul(dev, c, a, b, beta, true, false);
}
