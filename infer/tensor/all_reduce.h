// infer/tensor/all_reduce.h - gradients of all ranks added up, piece by piece, beside what the
// device does meanwhile.
//
// On CPUs ranks add through infer/base/world. On GPUs NCCL does, on a stream of its own, with ring
// and fixed order; where no NCCL is found the pieces go through the host, in the order of the
// ranks. In a world of one nothing happens. Every rank starts the same pieces in the same order.
#ifndef TENSOR_ALL_REDUCE_H
#define TENSOR_ALL_REDUCE_H

#include "infer/tensor/device.h"

typedef struct AllReduce AllReduce;
MUST_CHECK AllReduce *all_reduce_open(Device *dev, Err *err);
void all_reduce_close(AllReduce *a);
// piece: F32, contiguous, complete once what was queued on the device is done; not to be touched
// until all_reduce_finish.
MUST_CHECK bool all_reduce_start(AllReduce *a, Tensor piece, Err *err);
// Everything started is the sum over ranks.
MUST_CHECK bool all_reduce_finish(AllReduce *a, Err *err);

#endif
