// eval/eval_cmd.h - `eval`: tokens per target step of the stock and the trained drafter.
#ifndef EVAL_EVAL_CMD_H
#define EVAL_EVAL_CMD_H

#include "infer/base/cli.h"

extern const Verb eval_verb;

#endif
