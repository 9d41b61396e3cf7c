// eval/generate_cmd.h - `generate`: text from the target, with or without a drafter.
#ifndef EVAL_GENERATE_CMD_H
#define EVAL_GENERATE_CMD_H

#include "infer/base/cli.h"

extern const Verb generate_verb;

#endif
