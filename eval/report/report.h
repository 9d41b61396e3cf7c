// eval/report/report.h - what an acceptance.json object becomes for people and for other tools.
#ifndef EVAL_REPORT_H
#define EVAL_REPORT_H

#include <jansson.h>

#include "infer/base/err.h"

// Writes dir/report.html, report.md, acceptance.csv and mtplx.json, each whole or not at all. dir
// is made where it is missing. metrics_path: the run's metrics.jsonl for the charts of training;
// NULL or absent: without them. An audit.json in dir adds the speed of a sweep. ERR_INPUT where the
// object is no acceptance.json.
MUST_CHECK bool report_write(const json_t *acceptance, const char *metrics_path, const char *dir,
                             Err *err);

// The same with the training of several runs, each line under its name.
typedef struct {
    const char *name, *metrics_path;
} ReportRun;
MUST_CHECK bool report_write_runs(const json_t *acceptance, const ReportRun *run, int runs,
                                  const char *dir, Err *err);

#endif
