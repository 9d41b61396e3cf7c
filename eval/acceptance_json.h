// eval/acceptance_json.h - acceptance.json and the Markdown table made from it. Fields are added,
// never renamed: other tools read this file.
#ifndef EVAL_ACCEPTANCE_JSON_H
#define EVAL_ACCEPTANCE_JSON_H

#include <stdio.h>

#include <jansson.h>

#include "eval/sweep.h"

typedef struct {
    const Sweep *sweep; // stock, and optionally trained
    int n;
    const SweepIntervals *intervals;
    const char *sampler; // how the captured text was made
    int select_k;        // the draft length of the tables by category, source and kind
    Resampling how;      // of `intervals`, and of those by category, source and kind
} AcceptanceReport;

MUST_CHECK json_t *acceptance_json(const AcceptanceReport *r, Err *err); // new reference
// The tables of such an object: k = 1..K, stock, trained, gain, shares; the dense head's rows
// beside; then categories, sources and kinds at select_k.
void acceptance_markdown(FILE *out, const json_t *report);

#endif
