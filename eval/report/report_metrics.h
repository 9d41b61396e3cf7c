// eval/report/report_metrics.h - the lines of metrics.jsonl that a report draws, averaged to a
// drawable number of points.
#ifndef EVAL_REPORT_METRICS_H
#define EVAL_REPORT_METRICS_H

#include "infer/base/err.h"
#include "infer/decode/acceptance.h"

enum { METRIC_POINTS = 240, METRIC_COARSE = 6 };
typedef struct {
    int n;
    double step[METRIC_POINTS], value[METRIC_POINTS];
} MetricLine;

typedef struct {
    int64_t steps;        // last step seen
    int64_t averaged;     // optimiser steps that one point stands for, at most
    MetricLine loss, dev; // train/loss, dev/tau
    MetricLine
        match[DRAFT_MAX]; // train/match_J, J = 1..DRAFT_MAX; over METRIC_COARSE times as many
} RunMetrics;

// An absent file (path NULL or not there) gives empty lines; a torn or foreign line is passed over.
MUST_CHECK bool run_metrics_read(RunMetrics *m, const char *path, Err *err);

#endif
