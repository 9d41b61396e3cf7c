// infer/tensor/cuda/gelu.cuh - gelu in its tanh form, and its slope.
//
// 1/2 (1 + tanh u) is the logistic function s = 1 / (1 + e^-2u), which loses no digits below zero:
// gelu = a s and gelu' = s + 2 a s (1 - s) u', u = sqrt(2/pi) (a + 0.044715 a^3).
#ifndef CUDA_GELU_CUH
#define CUDA_GELU_CUH

#include "infer/tensor/cuda/cuda.cuh"

#define GELU_C 0.7978845608f // sqrt(2/pi)

DEVICE_FN float gelu_logistic(float a) {
    const float u = GELU_C * (a + 0.044715f * a * a * a);
    return 1.0f / (1.0f + expf(-2.0f * u));
}
DEVICE_FN float gelu(float a) {
    return a * gelu_logistic(a);
}
DEVICE_FN float gelu_slope(float a) { // beyond 20 it is 0 or 1, and squares could overflow
    a = a < -20.0f ? -20.0f : a > 20.0f ? 20.0f : a;
    const float s = gelu_logistic(a);
    return s + 2.0f * a * s * (1.0f - s) * (GELU_C * (1.0f + 0.134145f * a * a));
}

#endif
