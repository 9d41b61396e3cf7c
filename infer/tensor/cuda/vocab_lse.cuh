// infer/tensor/cuda/vocab_lse.cuh - a row's running softmax: (max x, sum e^(x - max)), x = z /
// temp.
#ifndef CUDA_VOCAB_LSE_CUH
#define CUDA_VOCAB_LSE_CUH

#include "infer/tensor/cuda/row_chunk.cuh"

typedef struct {
    float max, sum;
} Lse;

// What one part of a row found, part i of row r at [r * parts + i], and where it goes.
typedef struct {
    Best2 best;
    Lse lse;
} LsePart;

typedef struct {
    Tensor lse, best, id; // best.data NULL: not wanted
    LsePart *part;        // NULL: a row is one part
    float cap, inverse;
    int v0;
} LseCall;
void lse_finish(Cuda *cu, int64_t rows, int parts, const LseCall *c); // vocab_lse.cu

DEVICE_FN Lse lse_none() {
    return Lse{-INFINITY, 0.0f};
}
// The sum beside the greater maximum; in double, as rows have many parts.
DEVICE_FN Lse lse_merge(Lse a, Lse b) {
    const float max = fmaxf(a.max, b.max);
    if (max == -INFINITY) return Lse{max, a.sum + b.sum};
    return Lse{max, (float)((double)a.sum * exp((double)a.max - max) +
                            (double)b.sum * exp((double)b.max - max))};
}
DEVICE_FN Lse lse_warp(Lse a) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) {
        const Lse b = {__shfl_xor_sync(ALL_LANES, a.max, step),
                       __shfl_xor_sync(ALL_LANES, a.sum, step)};
        a = lse_merge(a, b);
    }
    return a;
}
// A row of lse F32 (rows, 2).
DEVICE_FN Lse lse_read(Tensor lse, int64_t r) {
    return Lse{*f32_at(lse, r, 0), *f32_at(lse, r, 1)};
}
DEVICE_FN void lse_write(Tensor lse, int64_t r, Lse l) {
    *f32_at(lse, r, 0) = l.max, *f32_at(lse, r, 1) = l.sum;
}

// What turns a row's logits into logarithms of its probabilities: ln p = d - log_sum with
// d = z / temp - max.
typedef struct {
    float inverse, max, ln; // 1 / temp, maximum, log_sum
    double log_sum;
} RowLog;

DEVICE_FN RowLog row_log(Tensor lse, int64_t r, float temp) {
    RowLog l;
    l.inverse = 1.0f / temp, l.max = *f32_at(lse, r, 0);
    l.log_sum = log((double)*f32_at(lse, r, 1));
    l.ln = (float)l.log_sum;
    return l;
}

#endif
