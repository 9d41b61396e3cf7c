// eval/report_cmd.h - `draftsmith report A [B C ...]`: measured drafters for people and other
// tools.
#ifndef EVAL_REPORT_CMD_H
#define EVAL_REPORT_CMD_H

#include "infer/base/cli.h"

extern const Verb report_verb;

#endif
