// data/capture_cmd.h - `draftsmith capture`: hidden states and shared K/V of every answer, into
// shards.
#ifndef DATA_CAPTURE_CMD_H
#define DATA_CAPTURE_CMD_H

#include "infer/base/cli.h"

extern const Verb capture_verb;

#endif
