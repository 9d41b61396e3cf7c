// train/train_cmd.h - `draftsmith train`: captured text in, checkpoints of a better drafter out.
#ifndef TRAIN_TRAIN_CMD_H
#define TRAIN_TRAIN_CMD_H

#include "infer/base/cli.h"

extern const Verb train_verb;

#endif
