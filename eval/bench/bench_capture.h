// eval/bench/bench_capture.h - the target's prefill as capture runs it, and decoding one token at a
// time, on random weights at real shapes.
#ifndef EVAL_BENCH_CAPTURE_H
#define EVAL_BENCH_CAPTURE_H

#include "data/synthetic.h"
#include "infer/base/settings.h"
#include "infer/tensor/device.h"

// Prints one line each for capture (share of the GEMM ceiling) and decoding (share of copy
// bandwidth). layers, vocab: of the shape actually run (a prefix of the layers has the same
// products per layer).
MUST_CHECK bool bench_capture(const Settings *s, Device *dev, PairShape shape, DType dtype,
                              int64_t batch, int64_t seq, Err *err);

#endif
