// eval/report/report_html.h - the page: one file, no script, nothing fetched.
#ifndef EVAL_REPORT_HTML_H
#define EVAL_REPORT_HTML_H

#include "eval/report/report.h"
#include "eval/report/report_view.h"

MUST_CHECK bool report_html(OutFile *f, const ReportView *v, const ReportRun *run, int runs,
                            Err *err);
// Two or three sentences: the leading drafter beside [0] at select_k and at k = 3, and which draft
// length is fastest where a cost table was there.
void report_verdict(Page *p, const ReportView *v);

#endif
