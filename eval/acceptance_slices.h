// eval/acceptance_slices.h - the same counts by category and source of the prompts, and by what the
// text is: what a drafter tuned for one domain did to the others. Private to acceptance*.c.
#ifndef EVAL_ACCEPTANCE_SLICES_H
#define EVAL_ACCEPTANCE_SLICES_H

#include "eval/acceptance_json.h"

// Adds "categories", "sources" and "kinds" to the report: name -> {"prompts", "tokens", "stock":
// {"greedy": {"tau", "tau_ci", "num_drafts"}}, "trained", "paired": {"greedy": {"gain", "ci"}}}.
// Prompts of a kind are those that hold it; a kind that no text holds is left out.
MUST_CHECK bool slices_add(json_t *report, const AcceptanceReport *r, Err *err);
json_t *interval_json(Interval x); // [lo, hi]

#endif
