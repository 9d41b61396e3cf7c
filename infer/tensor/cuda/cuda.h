// infer/tensor/cuda/cuda.h - the CUDA device as device.c sees it.
#ifndef CUDA_CUDA_H
#define CUDA_CUDA_H

#include "infer/tensor/device.h"

// GPUs that this process can use. 0: why[] says what is in the way, in a few words.
int cuda_count(char *why, size_t size);
// Device n of those; dev->threads is the caller's. Nothing is left open on failure.
MUST_CHECK bool cuda_open(Device *dev, int n, Err *err);
// True in the test build that runs the same kernels on the CPU (make CUDA=host).
bool cuda_is_emulated(void);

#endif
