// eval/bench_cmd.h - the verb `bench`, inference side: GEMM ceiling, capture, decoding, encoding.
#ifndef EVAL_BENCH_CMD_H
#define EVAL_BENCH_CMD_H

#include "infer/base/cli.h"

extern const Verb bench_verb;

#endif
