// infer/tensor/cpu/gemm.c - who makes a product: own kernels if it is small or a gradient of
// weights, oneDNN where it has AVX-512 kernels, else OpenBLAS.
#include "infer/tensor/cpu/gemm.h"

#include <cblas.h>
#include <omp.h>

#include "infer/tensor/cpu/cpu.h"

extern void openblas_set_num_threads(int n);

enum { BLOCK = 256 }; // rows and columns of C that one thread computes at a time

static void blas_block(const Gemm *g, int64_t m, int64_t n) {
    const Tensor c = tensor_cols(tensor_rows(g->c, m, gemm_least(BLOCK, g->c.rows - m)), n,
                                 gemm_least(BLOCK, g->c.cols - n));
    const Tensor a = g->ta ? tensor_cols(g->a, m, c.rows) : tensor_rows(g->a, m, c.rows);
    const Tensor b = g->tb ? tensor_rows(g->b, n, c.cols) : tensor_cols(g->b, n, c.cols);
    cblas_sgemm(CblasRowMajor, g->ta ? CblasTrans : CblasNoTrans, g->tb ? CblasTrans : CblasNoTrans,
                (int)c.rows, (int)c.cols, (int)gemm_k(g), 1.0f, a.data, (int)a.ld, b.data,
                (int)b.ld, g->beta, c.data, (int)c.ld);
}

// OpenBLAS cuts a product by its number of threads, and bits change with the cut. So it gets blocks
// cut by position, and one thread (in a parallel region it would keep to one by itself).
static void blas_gemm(const Gemm *g) {
    const int64_t down = (g->c.rows + BLOCK - 1) / BLOCK, across = (g->c.cols + BLOCK - 1) / BLOCK;
    if (!omp_in_parallel()) openblas_set_num_threads(1);
#pragma omp parallel for schedule(dynamic, 1) num_threads(g->threads)
    for (int64_t i = 0; i < down * across; i++)
        blas_block(g, i / across * BLOCK, i % across * BLOCK);
}

void gemm_put(Tensor c, int64_t r, int64_t n, const float *sum, int64_t count, float beta) {
    float buf[SPAN], *to = span_update(c, r, n, count, buf);
    for (int64_t i = 0; i < count; i++) to[i] = beta == 0.0f ? sum[i] : sum[i] + to[i];
    span_end(c, r, n, count, to);
}

void gemm_f32(Device *dev, const Gemm *g) {
    const Cpu *cpu = dev->impl;
    if (tensor_count(g->c) == 0) return;
    if (gemm_k(g) == 0) { // an empty sum
        if (g->beta == 0.0f) cpu_zero(dev, g->c);
        return;
    }
    if (cpu->own_f32 && own_gemm_run(dev, g)) return;
    if (cpu->dnnl && dnnl_gemm_run(cpu->dnnl, g)) return;
    blas_gemm(g);
}

bool gemm_bf16(Device *dev, const Gemm *g) {
    const Cpu *cpu = dev->impl;
    if (cpu->own_bf16 && own_gemm_run(dev, g)) return true;
    return cpu->dnnl && dnnl_gemm_run(cpu->dnnl, g);
}
