// eval/audit_cmd.h - `audit`: wiring and exactness gates on a given pair.
#ifndef EVAL_AUDIT_CMD_H
#define EVAL_AUDIT_CMD_H

#include "infer/base/cli.h"

extern const Verb audit_verb;

#endif
