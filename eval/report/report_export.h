// eval/report/report_export.h - the same counts in the files of other tools.
#ifndef EVAL_REPORT_EXPORT_H
#define EVAL_REPORT_EXPORT_H

#include "eval/report/report_view.h"

// dir/acceptance.csv: speculators' columns (subset, num_drafts, num_draft_tokens,
// num_accepted_tokens, acceptance_length, acceptance_at_pos_I with I from 0), behind them ours
// (drafter, rule, head, k, tau, its interval, gain, its interval). One row a drafter, rule and k
// for the subset "all", and at select_k for each category. What was not counted stays empty.
MUST_CHECK bool report_csv(const ReportView *v, const char *dir, Err *err);

// dir/mtplx.json: the shape of MTPLX's depth sweep (depth = k = block size - 1) for the leading
// drafter, with a row a prompt at select_k; every drafter and rule by its summary under "series".
MUST_CHECK bool report_mtplx(const ReportView *v, const char *dir, Err *err);

#endif
