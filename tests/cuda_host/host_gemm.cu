// tests/cuda_host/host_gemm.cu - products of the emulated device: plain loops in one order, so a
// row's bits do not depend on the other rows.
#include <stdio.h>
#include <stdlib.h>

#include <vector>

#include "infer/tensor/cuda/cuda_parts.cuh"

struct Gemms {
    int products;
};

Gemms *gemms_open(Cuda *) {
    return (Gemms *)calloc(1, sizeof(Gemms));
}
void gemms_close(Gemms *g) {
    free(g);
}
void gemms_describe(const Gemms *, char *text, size_t size) {
    snprintf(text, size, "plain loops of the emulated device");
}

static float element(Tensor t, int64_t r, int64_t c) {
    return load_one(t, r, c);
}

// Columns first .. first + n - 1 of op(B), as f32 (k, n).
static void panel(float *to, const CudaGemm &g, int64_t k, int64_t first, int64_t n) {
    if (g.tb)
        for (int64_t c = 0; c < n; c++)
            for (int64_t i = 0; i < k; i++) to[i * n + c] = element(g.b, first + c, i);
    else
        for (int64_t i = 0; i < k; i++)
            for (int64_t c = 0; c < n; c++) to[i * n + c] = element(g.b, i, first + c);
}

__attribute__((target_clones("avx2", "default"))) static void
add_row(float *sum, const float *a, const float *b, int64_t k, int64_t n) {
    for (int64_t i = 0; i < k; i++)
        for (int64_t c = 0; c < n; c++) sum[c] += a[i] * b[i * n + c];
}

static void multiply(const CudaGemm &g) {
    enum { WIDTH = 64 };
    const int64_t k = g.ta ? g.a.rows : g.a.cols;
    std::vector<float> b((size_t)(k * WIDTH)), a((size_t)k);
    for (int64_t first = 0; first < g.c.cols; first += WIDTH) {
        const int64_t n = least64(WIDTH, g.c.cols - first);
        panel(b.data(), g, k, first, n);
        for (int64_t r = 0; r < g.c.rows; r++) {
            float sum[WIDTH] = {};
            for (int64_t i = 0; i < k; i++)
                a[(size_t)i] = g.ta ? element(g.a, i, r) : element(g.a, r, i);
            add_row(sum, a.data(), b.data(), k, n);
            for (int64_t c = 0; c < n; c++)
                store_one(g.c, r, first + c,
                          g.beta != 0.0f ? sum[c] + element(g.c, r, first + c) : sum[c]);
        }
    }
}

void gemms_start(Cuda *cu, const CudaGemm *x) {
    const CudaGemm g = *x;
    for (const Tensor &t : {g.a, g.b, g.c}) host_check(t);
    if (cu->failure[0] == '\0') cuda_ok(cu, host_enqueue(cu->stream, [g] { multiply(g); }));
}

bool gemms_run(Cuda *cu, const CudaGemm *x) {
    // as strict as the library is: bf16 operands with rows of odd sizes have no kernel
    if (x->a.dtype == DT_BF16 && (x->a.ld % 2 != 0 || x->b.ld % 2 != 0)) return false;
    if (!span_hold_product(cu, x)) gemms_start(cu, x);
    return true;
}
