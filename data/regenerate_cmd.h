// data/regenerate_cmd.h - `draftsmith regenerate`: the fine-tuned target answers every prompt.
#ifndef DATA_REGENERATE_CMD_H
#define DATA_REGENERATE_CMD_H

#include "infer/base/cli.h"

extern const Verb regenerate_verb;

#endif
