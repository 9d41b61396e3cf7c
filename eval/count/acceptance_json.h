// eval/count/acceptance_json.h - acceptance.json and the Markdown table made from it. Fields are
// added, never renamed: other tools read this file.
//
// A key like "greedy" or "rejection" is a rule with the deployed head, "greedy_dense" the same with
// the dense head beside a centroid head; "rules" lists the rules, the first is what tables show.
#ifndef EVAL_ACCEPTANCE_JSON_H
#define EVAL_ACCEPTANCE_JSON_H

#include <stdio.h>

#include <jansson.h>

#include "eval/count/sweep.h"

typedef struct {
    const Sweep *sweep; // the first is the one that the others are compared with
    int n;
    const SweepIntervals *intervals; // of all prompts and rules
    const char *sampler;             // how the captured text was made
    const char *capture;             // SHA-256 of the capture's manifest
    int select_k;                    // the draft length of the tables by category, source and kind
    Resampling how;                  // of `intervals`, and of those by category, source and kind
} AcceptanceReport;

MUST_CHECK json_t *acceptance_json(const AcceptanceReport *r, Err *err); // new reference
// The tables of such an object, any number of drafters: k = 1..K, tau, gain over the first, shares;
// the dense head and the other rules beside; then categories, sources, kinds and contexts at
// select_k. Detailed: also p-min, recall, and what other tools would print.
void acceptance_markdown(FILE *out, const json_t *report, bool detailed);

#endif
