// infer/export/inspect_cmd.h - `draftsmith inspect PATH`: what any artifact of a run is and holds.
#ifndef EXPORT_INSPECT_CMD_H
#define EXPORT_INSPECT_CMD_H

#include "infer/base/cli.h"

extern const Verb inspect_verb;

#endif
