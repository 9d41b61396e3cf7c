// infer/tensor/ceiling.c - times products of the device at hand, in this process.
#include "infer/tensor/ceiling.h"

#include "infer/base/log.h"
#include "infer/tensor/ops.h"

double device_gemm_ceiling(Device *dev, DType dtype, int64_t m, int64_t n, int64_t k) {
    Arena plan;
    Tensor a, b, c;
    Err err = {0};
    double best = 0.0;
    void *block = NULL;
    for (int pass = 0; pass < 2; pass++) { // priced first, then taken
        arena_open(&plan, block, pass ? plan.peak : 0);
        a = tensor_take(&plan, dtype, m, k);
        b = tensor_take(&plan, dtype, n, k);
        c = tensor_take(&plan, DT_F32, m, n);
        if (pass == 0 && (block = dev_alloc(dev, plan.peak, &err)) == NULL) return 0.0;
    }
    const double start = now_s();
    for (int run = 0; run < 3 || (now_s() - start < 1.0 && run < 100); run++) {
        const double from = now_s();
        op_matmul_nt(dev, c, a, b, 0.0f);
        if (!dev_sync(dev, &err)) break;
        const double rate = 2e-9 * (double)m * (double)n * (double)k / (now_s() - from);
        if (run > 0 && rate > best) best = rate; // the first run makes kernels and touches memory
    }
    dev_free(dev, block);
    return best;
}

double device_gemm_peak(Device *dev, DType dtype) {
    static const int64_t shape[][3] = {
        {2048, 2048, 2048}, {1024, 20480, 2560}, {1024, 2560, 10240}};
    double best = 0.0;
    for (size_t i = 0; i < sizeof shape / sizeof shape[0]; i++) {
        const double rate = device_gemm_ceiling(dev, dtype, shape[i][0], shape[i][1], shape[i][2]);
        if (rate > best) best = rate;
    }
    return best;
}
