// eval/count/acceptance_slices.h - the same counts by category and source of the prompts, by what
// the text is and how long the context: what a drafter tuned for one domain did to the others.
// Private to acceptance*.c.
#ifndef EVAL_ACCEPTANCE_SLICES_H
#define EVAL_ACCEPTANCE_SLICES_H

#include "eval/count/acceptance_json.h"

// Adds "categories", "sources", "kinds" and "contexts" to the report: name -> {"prompts", "tokens",
// "stock": {"greedy": {"tau", "tau_ci", "num_drafts"}}, "trained", "paired": {"greedy": {"gain",
// "ci"}}, "pairs": {"trained": {"greedy": ..}}}, the first rule only. Prompts of a kind or context
// are those that hold it; one that no text holds is left out.
MUST_CHECK bool slices_add(json_t *report, const AcceptanceReport *r, Err *err);
json_t *interval_json(Interval x); // [lo, hi]
json_t *count_json(double x);      // an integer where it is one

#endif
