// eval/report/report_same.h - whether acceptance.json objects were measured on the same prompts in
// the same way. Private to report_merge.c.
#ifndef EVAL_REPORT_SAME_H
#define EVAL_REPORT_SAME_H

#include "eval/report/report_merge.h"

// Checks the shape of each file's counts by prompt, and each file against the first. *K: the draft
// lengths that all have (said on stderr where they differ).
MUST_CHECK bool report_same(const MergeInput *in, int n, int *K, Err *err);

#endif
