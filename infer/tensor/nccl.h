// infer/tensor/nccl.h - sums over ranks on GPUs by NCCL, which is found when the program runs
// (libnccl.so.2, libcuda.so.1): nothing of it is needed to build.
#ifndef TENSOR_NCCL_H
#define TENSOR_NCCL_H

#include "infer/tensor/device.h"

typedef struct Nccl Nccl;
// Every rank calls it; dev's context is current. *out NULL without an error: one of the ranks has
// no NCCL.
MUST_CHECK bool nccl_open(Nccl **out, Device *dev, Err *err);
void nccl_close(Nccl *n); // NULL is fine
// x (count, F32, on the device) is added up over ranks on a stream of its own, behind what the
// device has been given so far.
MUST_CHECK bool nccl_add(Nccl *n, void *x, int64_t count, Err *err);
MUST_CHECK bool nccl_wait(Nccl *n, Err *err); // until every sum is there

#endif
