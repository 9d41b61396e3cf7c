// eval/bench/bench_cost.h - a round of speculative decoding at real shapes on random weights: what
// it costs, and what it must yield to pay.
#ifndef EVAL_BENCH_COST_H
#define EVAL_BENCH_COST_H

#include "data/synthetic.h"
#include "infer/base/settings.h"
#include "infer/tensor/device.h"

// Prints the table of cost.h for k = 1 .. bench.k in the dtype that the device prefers. whole: of
// which `shape` is what is run. Random weights accept nothing: there is no recommendation.
MUST_CHECK bool bench_cost(const Settings *s, Device *dev, const PairShape *whole, PairShape shape,
                           Err *err);

#endif
