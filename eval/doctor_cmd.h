// eval/doctor_cmd.h - `draftsmith doctor`: what this machine is and what was chosen for it.
#ifndef EVAL_DOCTOR_CMD_H
#define EVAL_DOCTOR_CMD_H

#include "infer/base/cli.h"

extern const Verb doctor_verb;

#endif
