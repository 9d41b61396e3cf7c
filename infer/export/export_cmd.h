// infer/export/export_cmd.h - `draftsmith export`: a checkpoint as repositories that runtimes load.
#ifndef EXPORT_EXPORT_CMD_H
#define EXPORT_EXPORT_CMD_H

#include "infer/base/cli.h"

extern const Verb export_verb;

#endif
