// train/world.h - the ranks of a training run. This build has one; the trainer already goes through
// here, so that MPI and NCCL find their place without touching it.
#ifndef TRAIN_WORLD_H
#define TRAIN_WORLD_H

#include "infer/tensor/device.h"

typedef struct {
    int rank, size;
} World;

World world_open(void);
// grad (F32, one flat row) becomes the mean over ranks, in a fixed order.
MUST_CHECK bool world_all_reduce(const World *w, Device *dev, Tensor grad, Err *err);
// True on every rank as soon as one rank says so: ranks stop at the same step.
bool world_any(const World *w, bool mine);

#endif
