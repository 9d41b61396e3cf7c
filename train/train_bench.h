// train/train_bench.h - the speed of one training step on a synthetic pair, beside the GEMM ceiling
// of the same run and, when asked, the PyTorch peer.
#ifndef TRAIN_TRAIN_BENCH_H
#define TRAIN_TRAIN_BENCH_H

#include "infer/base/cli.h"

extern const Verb train_bench_verb; // the training rows of `bench`
extern const Verb ranks_bench_verb; // what `bench` does where several ranks were started

#endif
