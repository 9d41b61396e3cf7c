// eval/report/report_count.h - drafters of several files on one list of prompts: taus, gains and
// their intervals. Private to report_merge.c.
#ifndef EVAL_REPORT_COUNT_H
#define EVAL_REPORT_COUNT_H

#include "eval/report/report_merge.h"
#include "eval/report/report_view.h"

typedef struct {
    char name[160];  // in the merged object
    const char *old; // in its file
    int file;
    const json_t *counts; // prompt_counts of this drafter, borrowed
} Member;

typedef struct {
    const MergeInput *in;
    int n, K;
    const MergeSampling *how;
    Member drafter[VIEW_DRAFTERS];
    int drafters;
    char key[VIEW_KEYS][48]; // of all files
    int keys;
} Merge;

// Over the prompts of a slice, all drafters, keys and k with the same resamples.
typedef struct {
    size_t prompts;
    double *tokens, *rounds; // (series, prompts)
    Bootstrap *boot;
} Counted;

// list: "category" or "source" of the prompts, NULL = all prompts. Free it in any case.
MUST_CHECK bool counted_run(Counted *c, const Merge *m, const char *list, const char *name,
                            Err *err);
void counted_free(Counted *c);

bool merge_has(const Merge *m, int d, int key);                // the drafter has counts by this key
const json_t *merge_prompts(const Merge *m, const char *what); // "id", "tokens", ... of the prompts
json_t *counted_tau(const Merge *m, const Counted *c, int d, int key); // tau, tau_ci, num_drafts
json_t *counted_pairs(const Merge *m, const Counted *c);               // "pairs"
// {"se_gain", "prompts_for_1_percent"} of drafter d beside the first.
json_t *counted_power(const Merge *m, const Counted *c, int d, int key);
// Adds "categories" or "sources" to out.
MUST_CHECK bool counted_slices(json_t *out, const Merge *m, const char *group, const char *list,
                               Err *err);

#endif
