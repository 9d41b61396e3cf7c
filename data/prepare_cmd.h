// data/prepare_cmd.h - `draftsmith prepare`: conversations to token samples, split and shuffled.
#ifndef DATA_PREPARE_CMD_H
#define DATA_PREPARE_CMD_H

#include "infer/base/cli.h"

extern const Verb prepare_verb;

#endif
