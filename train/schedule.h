// train/schedule.h - the learning rate of every step: warm-up, then cosine, linear or constant.
#ifndef TRAIN_SCHEDULE_H
#define TRAIN_SCHEDULE_H

#include <stdint.h>

#include "infer/base/err.h"

typedef enum { SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_CONSTANT } ScheduleKind;

typedef struct {
    ScheduleKind kind;
    double lr;      // peak
    double lr_end;  // floor as a fraction of lr
    int64_t warmup; // steps; step 0 already moves: lr * 1 / warmup
    int64_t steps;  // horizon
} Schedule;

MUST_CHECK bool schedule_kind(const char *name, ScheduleKind *out, Err *err);
double schedule_lr(const Schedule *s, int64_t step); // step 0 .. steps-1

#endif
