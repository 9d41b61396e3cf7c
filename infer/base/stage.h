// infer/base/stage.h - whether a stage of the pipeline has already been done, and for which inputs.
//
// A stage ends by publishing one small JSON file {"identity", "result"} beside its output. The
// identity holds everything the output depends on (settings, fingerprints of inputs) and nothing
// else, so that a second run with the same identity can skip the work, and one with another
// identity is refused.
#ifndef BASE_STAGE_H
#define BASE_STAGE_H

#include <jansson.h>

#include "infer/base/err.h"

typedef enum { STAGE_ABSENT, STAGE_DONE, STAGE_ERROR } StageState;

// ABSENT: no file, or overwrite. DONE: there, for this identity. ERROR: unreadable, or another
// identity (ERR_USAGE naming the first field that differs, with both values). Changes nothing on
// disk.
StageState stage_state(const char *file, const json_t *identity, bool overwrite, Err *err);
// Before redoing: takes the old file away, so that an interrupted redo does not pass for done.
MUST_CHECK bool stage_clear(const char *file, Err *err);
// Atomic. Call when every output of the stage is in place. result may be NULL; both stay the
// caller's.
MUST_CHECK bool stage_publish(const char *file, const json_t *identity, const json_t *result,
                              Err *err);
// The published result (new reference): what a skipped stage has to say.
MUST_CHECK json_t *stage_result(const char *file, Err *err);

#endif
