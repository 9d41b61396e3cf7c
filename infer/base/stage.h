// infer/base/stage.h - whether a stage of the pipeline has already been done, and for which inputs.
//
// A stage ends by publishing one small JSON file {"identity", "result", "outputs"} beside its
// output. The identity holds everything the output depends on (settings, fingerprints of inputs)
// and nothing else, so that a second run with the same identity can skip the work, and one with
// another identity is refused. Outputs that were noted and are no longer there as they were written
// are made again.
#ifndef BASE_STAGE_H
#define BASE_STAGE_H

#include <jansson.h>

#include "infer/base/err.h"

typedef enum { STAGE_ABSENT, STAGE_DONE, STAGE_ERROR } StageState;

// ABSENT: no file, or overwrite, or an output is gone or changed (said on stderr). DONE: there, for
// this identity. ERROR: unreadable, or another
// identity (ERR_USAGE naming the first field that differs, with both values). Changes nothing on
// disk.
StageState stage_state(const char *file, const json_t *identity, bool overwrite, Err *err);
// Before redoing: takes the old file away, so that an interrupted redo does not pass for done.
MUST_CHECK bool stage_clear(const char *file, Err *err);
// Notes an output for stage_publish_outputs: its name as seen from the folder of `file`, its size
// and, up to 256 MiB, its SHA-256. outputs: an object, {} at first.
MUST_CHECK bool stage_note_output(json_t *outputs, const char *file, const char *name, Err *err);
// Atomic. Call when every output of the stage is in place. result and outputs may be NULL; all stay
// the caller's.
MUST_CHECK bool stage_publish_outputs(const char *file, const json_t *identity,
                                      const json_t *result, const json_t *outputs, Err *err);
MUST_CHECK bool stage_publish(const char *file, const json_t *identity, const json_t *result,
                              Err *err); // without outputs
// The published result (new reference): what a skipped stage has to say.
MUST_CHECK json_t *stage_result(const char *file, Err *err);

#endif
