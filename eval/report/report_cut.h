// eval/report/report_cut.h - parts of an acceptance.json object, cut to fewer draft lengths.
#ifndef EVAL_REPORT_CUT_H
#define EVAL_REPORT_CUT_H

#include <jansson.h>

// New references; K beyond what is there cuts nothing.
json_t *cut_drafter(const json_t *drafter, int K);        // a member of "drafters"
json_t *cut_counts(const json_t *counts, int K);          // of "prompt_counts"."drafters"
json_t *cut_recommendation(const json_t *by_rule, int K); // of "recommendation"

#endif
