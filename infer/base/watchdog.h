// infer/base/watchdog.h - ends a process that makes no progress: exit 76 and one line that says
// where.
//
// A thread looks whether anybody called one of the functions below since it last looked. Time in
// which the whole process was stopped (SIGSTOP, a suspended machine) does not count.
#ifndef BASE_WATCHDOG_H
#define BASE_WATCHDOG_H

#include <stdint.h>

#include "infer/base/err.h"

// limit_s 0: no watchdog. rank of ranks: named in the line, where there are several.
MUST_CHECK bool watchdog_start(const char *verb, int64_t limit_s, int rank, int ranks, Err *err);
void watchdog_stop(void);
// Something was done; cheap enough for inner loops, from any thread.
void watchdog_beat(void);
// Waiting for somebody else, by whoever ends that himself when it takes too long.
void watchdog_waits(void);
// From now on `pulse` is called with every beat of this thread: other ranks hear of it.
void watchdog_pulse(void (*pulse)(void));
// The pulse of this thread, where another one has beaten since the last call.
void watchdog_pass_on(void);
// The same, and where the process is now: "train", "step", 7; unit "": at the start of it.
void watchdog_at(const char *stage, const char *unit, int64_t at);
// "step 7 of train" of the last watchdog_at, "" before the first.
void watchdog_where(char out[160]);

#endif
