// infer/tensor/cpu/gemm.c - f32 products: oneDNN where it has AVX-512 kernels, else OpenBLAS.
#include "infer/tensor/cpu/gemm.h"

#include <cblas.h>

#include "infer/tensor/cpu/cpu.h"

extern void openblas_set_num_threads(int n);

void gemm_f32(Device *dev, const Gemm *g) {
    const Cpu *cpu = dev->impl;
    const int64_t m = g->c.rows, n = g->c.cols, k = gemm_k(g);
    if (m == 0 || n == 0) return;
    if (k == 0) { // an empty sum
        if (g->beta == 0.0f) cpu_zero(dev, g->c);
        return;
    }
    if (cpu->small_f32 && small_gemm_run(g)) return;
    if (cpu->dnnl && dnnl_gemm_run(cpu->dnnl, g)) return;
    if (g->threads > 1) openblas_set_num_threads(g->threads);
    cblas_sgemm(CblasRowMajor, g->ta ? CblasTrans : CblasNoTrans, g->tb ? CblasTrans : CblasNoTrans,
                (int)m, (int)n, (int)k, 1.0f, g->a.data, (int)g->a.ld, g->b.data, (int)g->b.ld,
                g->beta, g->c.data, (int)g->c.ld);
}

bool gemm_bf16(Device *dev, const Gemm *g) {
    const Cpu *cpu = dev->impl;
    if (cpu->small_bf16 && small_gemm_run(g)) return true;
    return cpu->dnnl && dnnl_gemm_run(cpu->dnnl, g);
}
