// infer/tensor/ceiling.c - times products and copies of the device at hand, in this process.
#include "infer/tensor/ceiling.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/base/rng.h"
#include "infer/tensor/ops.h"

// Seconds of one run, the best of several batches within about a second. A batch is long beside the
// wait at its end; the first makes kernels and touches memory. 0: the device failed.
static double best_seconds(Device *dev, void (*run)(Device *, const void *ctx), const void *ctx) {
    double best = 0.0;
    int batch = 1;
    const double start = now_s();
    for (int i = 0; i < 3 || (now_s() - start < 1.0 && i < 100); i++) {
        const double from = now_s();
        for (int n = 0; n < batch; n++) run(dev, ctx);
        if (!dev_sync(dev, &(Err){0})) return 0.0;
        const double each = (now_s() - from) / batch;
        if (i > 0 && (best == 0.0 || each < best)) best = each;
        if (each * batch < 0.02 && batch < 4096) batch *= 2;
    }
    return best;
}

typedef struct {
    Tensor a, b, c;
} Product;

static void multiply(Device *dev, const void *ctx) {
    const Product *p = ctx;
    op_matmul_nt(dev, p->c, p->a, p->b, 0.0f);
}

// Zeros would flatter: arithmetic on them takes less power. Values repeat every few MiB.
static bool fill_randomly(Device *dev, Tensor t) {
    enum { COUNT = 1 << 20 };
    const size_t size = dtype_size(t.dtype);
    char *values = malloc(COUNT * size);
    if (values == NULL) return false;
    for (int64_t i = 0; i < COUNT; i++) {
        const float x = (float)rng_below(7, RNG_INIT, 0, (uint64_t)i, 2001) * 1e-3f - 1.0f;
        const bf16 narrow = bf16_from_f32(x);
        memcpy(values + (size_t)i * size, t.dtype == DT_F32 ? (const void *)&x : &narrow, size);
    }
    const Tensor flat = tensor_view(t, 1, tensor_count(t));
    for (int64_t at = 0; at < flat.cols; at += COUNT)
        dev_upload(dev, tensor_cols(flat, at, flat.cols - at < COUNT ? flat.cols - at : COUNT),
                   values);
    free(values);
    return true;
}

double device_gemm_ceiling(Device *dev, DType dtype, int64_t m, int64_t n, int64_t k) {
    Arena plan;
    Product p;
    Err err = {0};
    void *block = NULL;
    for (int pass = 0; pass < 2; pass++) { // priced first, then taken
        arena_open(&plan, block, pass ? plan.peak : 0);
        p.a = tensor_take(&plan, dtype, m, k);
        p.b = tensor_take(&plan, dtype, n, k);
        p.c = tensor_take(&plan, DT_F32, m, n);
        if (pass == 0 && (block = dev_alloc(dev, plan.peak, &err)) == NULL) return 0.0;
    }
    double seconds = 0.0;
    if (fill_randomly(dev, p.a) && fill_randomly(dev, p.b))
        seconds = best_seconds(dev, multiply, &p);
    dev_free(dev, block);
    return seconds > 0.0 ? 2e-9 * (double)m * (double)n * (double)k / seconds : 0.0;
}

double device_gemm_peak(Device *dev, DType dtype) {
    static const int64_t shape[2][3][3] = {
        {{2048, 2048, 2048}, {1024, 20480, 2560}, {1024, 2560, 10240}},
        {{8192, 8192, 8192}, {8192, 20480, 2560}, {8192, 2560, 10240}}};
    const double fast = 5000.0; // GFLOP/s: a GPU, which the first three would not fill
    const int large =
        strcmp(dev->kind, "cpu") != 0 && device_gemm_ceiling(dev, dtype, 1024, 1024, 1024) > fast;
    double best = 0.0;
    for (int i = 0; i < 3; i++) {
        const int64_t *s = shape[large][i];
        const double rate = device_gemm_ceiling(dev, dtype, s[0], s[1], s[2]);
        if (rate > best) best = rate;
    }
    return best;
}

typedef struct {
    Tensor to, from;
} Copy;

static void copy(Device *dev, const void *ctx) {
    const Copy *c = ctx;
    op_copy(dev, c->to, c->from);
}

double device_copy_ceiling(Device *dev, size_t bytes) {
    Err err = {0};
    const int64_t rows = 1024, cols = (int64_t)(bytes / 4 / (size_t)rows);
    char *block = dev_alloc(dev, 2 * (size_t)(rows * cols) * 4, &err);
    if (block == NULL) return 0.0;
    const Copy c = {tensor_of(block, DT_F32, rows, cols),
                    tensor_of(block + (size_t)(rows * cols) * 4, DT_F32, rows, cols)};
    double seconds = 0.0;
    if (fill_randomly(dev, c.from)) seconds = best_seconds(dev, copy, &c);
    dev_free(dev, block);
    return seconds > 0.0 ? 2.0 * (double)tensor_bytes(c.from) / seconds : 0.0;
}

size_t device_memory_free(const Device *dev) {
    size_t free_now = 0, total = 0;
    if (strcmp(dev->kind, "cpu") != 0) dev_memory(dev, &free_now, &total);
    return free_now;
}

double device_memory_taken(const Device *dev, size_t free_before) {
    const size_t now = device_memory_free(dev);
    return now < free_before ? (double)(free_before - now) : 0.0;
}
