// train/schedule.c - lr(step) as a closed formula, so that a resume needs nothing but the step.
#include "train/schedule.h"

#include <math.h>
#include <string.h>

bool schedule_kind(const char *name, ScheduleKind *out, Err *err) {
    if (strcmp(name, "cosine") == 0)
        *out = SCHEDULE_COSINE;
    else if (strcmp(name, "linear") == 0)
        *out = SCHEDULE_LINEAR;
    else if (strcmp(name, "constant") == 0)
        *out = SCHEDULE_CONSTANT;
    else
        return err_set(err, ERR_USAGE, "train.schedule: '%s', expected cosine, linear or constant",
                       name);
    return true;
}

double schedule_lr(const Schedule *s, int64_t step) {
    if (step < s->warmup) return s->lr * (double)(step + 1) / (double)s->warmup;
    const int64_t span = s->steps - s->warmup;
    // The floor itself would be reached at step `steps`, which never runs: no update is wasted on
    // it.
    double p = span > 0 ? (double)(step - s->warmup) / (double)span : 1.0;
    if (p > 1.0) p = 1.0;
    double shape = 1.0;
    if (s->kind == SCHEDULE_COSINE) shape = 0.5 * (1.0 + cos(M_PI * p));
    if (s->kind == SCHEDULE_LINEAR) shape = 1.0 - p;
    return s->lr * (s->lr_end + (1.0 - s->lr_end) * shape);
}
