// eval/report/report_merge.h - several acceptance.json objects measured on the same prompts made
// one.
#ifndef EVAL_REPORT_MERGE_H
#define EVAL_REPORT_MERGE_H

#include <jansson.h>

#include "eval/count/stats.h"

typedef struct {
    const char *file;         // named in errors
    const char *run;          // the run folder's name, for drafters that are called "trained"
    const json_t *acceptance; // borrowed
} MergeInput;

typedef struct {
    int64_t resamples;
    double confidence;
    uint64_t seed;
} MergeSampling;

// n >= 2. The first file's first drafter is the base of comparison; drafters with the same weights
// and dtype are one; k are those that all have. ERR_INPUT names the file, the thing and both values
// where prompts, sampler, rules or capture differ, or counts by prompt are missing. Intervals come
// from the counts by prompt, with resamples that all drafters share. New reference.
MUST_CHECK json_t *report_merge(const MergeInput *in, int n, const MergeSampling *how, Err *err);

#endif
