// infer/base/metrics.h - the numbers of a run: metrics.jsonl, and the same as TensorBoard events.
//
// metrics.jsonl is the record: one object a line, {"time", "step", "name": value, ...}, one write()
// each. tb/ is derived from it and made anew whenever the file is opened.
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include <stdint.h>

#include "infer/base/err.h"

typedef struct Metrics Metrics;

enum { METRICS_KEEP_ALL = -1 };

// Opens dir/metrics.jsonl and dir/tb/ for appending. Lines of steps beyond resume_step are cut, a
// torn last line too; METRICS_KEEP_ALL cuts no step. One writer at a time.
MUST_CHECK Metrics *metrics_open(const char *dir, int64_t resume_step, Err *err);
// One line and one event. Names like "train/loss"; a value that is not finite becomes null in the
// line.
MUST_CHECK bool metrics_scalars(Metrics *m, int64_t step, const char *const *names,
                                const double *values, int n, Err *err);
void metrics_close(Metrics *m);

#endif
