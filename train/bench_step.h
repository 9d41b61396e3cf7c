// train/bench_step.h - a training step on random weights at real shapes, for whoever times it.
#ifndef TRAIN_BENCH_STEP_H
#define TRAIN_BENCH_STEP_H

#include "data/synthetic.h"
#include "infer/tensor/all_reduce.h"
#include "train/optimizer.h"
#include "train/rollout.h"

typedef struct {
    const PairShape *shape;
    int64_t batch, seq;
    int K;
    DType dtype;
} BenchCase;

// Everything of one case; zero-initialised, closed half-open.
typedef struct {
    Device *dev;
    Assistant *a;
    TargetConfig target;
    void *table_block, *block;
    Tensor table;
    Optimizer optimizer;
    Rollout *rollout;
    FeaturePack pack;
    Batch batch;
    float *weight;
} Bench;

// dir: holds config.json of `target` and the whole `assistant`, as bench_pair leaves them; b->dev
// is open. On an error bench_close, too.
MUST_CHECK bool bench_open(Bench *b, const BenchCase *c, const char *dir, Err *err);
void bench_close(Bench *b); // b->dev stays
// reduce: NULL, or the gradients of all ranks are added.
MUST_CHECK bool bench_step(Bench *b, AllReduce *reduce, int64_t step, double *seconds, Err *err);
// The folder of a random pair of that shape, removed by the caller.
MUST_CHECK bool bench_pair(char dir[PATH_ROOM], const PairShape *shape, Err *err);

#endif
