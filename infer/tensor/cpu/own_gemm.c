// infer/tensor/cpu/own_gemm.c - which own kernels take a product, and whether their bits are
// oneDNN's: a row must not change when it meets others in a larger product.
#include <stdlib.h>
#include <string.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/gemm.h"

enum { ROWS = 43, FEW = 16, COLS = 37, LONGEST = 2100 }; // of the products compared

bool own_gemm_takes(const Gemm *g) {
    return small_gemm_takes(g) || panel_gemm_takes(g) || grad_gemm_takes(g);
}

bool own_gemm_run(Device *dev, const Gemm *g) {
    if (small_gemm_takes(g))
        small_gemm_run(g);
    else if (panel_gemm_takes(g))
        panel_gemm_run(dev, g);
    else if (grad_gemm_takes(g))
        grad_gemm_run(dev, g);
    else
        return false;
    return true;
}

// The first rows by own kernels, where there are any, are those of all rows by oneDNN.
static bool same_bits(Device *dev, void *values, DType dtype, int64_t k, bool tb) {
    float theirs[ROWS * COLS], ours[ROWS * COLS];
    void *behind = (char *)values + (size_t)(ROWS * k) * dtype_size(dtype);
    const Tensor a = tensor_of(values, dtype, ROWS, k), c = tensor_of(theirs, DT_F32, ROWS, COLS);
    Gemm g = {.c = c, .a = a, .tb = tb, .threads = 1};
    g.b = tb ? tensor_of(behind, dtype, COLS, k) : tensor_of(behind, dtype, k, COLS);
    for (int64_t rows = ROWS; rows >= FEW; rows -= ROWS - FEW) {
        g.a = tensor_rows(a, 0, rows);
        g.c = tensor_of(ours, DT_F32, rows, COLS);
        if (!own_gemm_run(dev, &g)) continue;
        g.a = a, g.c = c;
        if (!dnnl_gemm_run(((Cpu *)dev->impl)->dnnl, &g) ||
            memcmp(ours, theirs, (size_t)(rows * COLS) * sizeof *ours) != 0)
            return false;
    }
    return true;
}

// The instructions that own kernels are written in.
static bool has_instructions(DType dtype) {
#ifdef __x86_64__
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") &&
           (dtype != DT_BF16 || __builtin_cpu_supports("avx512bf16"));
#else
    (void)dtype;
    return false;
#endif
}

bool own_gemm_agrees(Device *dev, DType dtype) {
    const int64_t length[] = {83, 84, 512, 700, 1024, 1300, LONGEST};
    if (!has_instructions(dtype)) return false;
    const int64_t most = (ROWS + COLS) * LONGEST;
    void *values = malloc((size_t)most * dtype_size(dtype));
    if (values == NULL) return false;
    uint32_t s = 1;
    for (int64_t i = 0; i < most; i++) {
        s = s * 1664525u + 1013904223u;
        const float v = (float)(int32_t)s * 0x1p-31f;
        if (dtype == DT_BF16)
            ((bf16 *)values)[i] = bf16_from_f32(v);
        else
            ((float *)values)[i] = v;
    }
    bool same = true;
    for (size_t i = 0; same && i < sizeof length / sizeof *length; i++)
        same = same_bits(dev, values, dtype, length[i], true) &&
               same_bits(dev, values, dtype, length[i], false);
    free(values);
    return same;
}
