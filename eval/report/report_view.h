// eval/report/report_view.h - the parts of an acceptance.json object that a report is built around.
#ifndef EVAL_REPORT_VIEW_H
#define EVAL_REPORT_VIEW_H

#include "eval/report/report_page.h"
#include "infer/decode/acceptance.h"

enum { VIEW_DRAFTERS = 64, VIEW_KEYS = 16 };

// Borrows everything from the object. A key is a rule ("greedy"), or one with the dense head beside
// a centroid head ("greedy_dense").
typedef struct {
    const json_t *root;
    int K;        // draft lengths 1..K
    int select_k; // 1..K
    int drafters; // at least 1; [0] is the one that others are compared with
    const char *name[VIEW_DRAFTERS];
    int keys; // at least 1; [0] is the primary rule
    char key[VIEW_KEYS][48];
    int leader; // highest tau at select_k by the primary rule, of the drafters that are not [0];
                // 0: there is no other
} ReportView;

// ERR_INPUT where it is no such object.
MUST_CHECK bool report_view(ReportView *v, const json_t *acceptance, Err *err);

Ref view_ref(const ReportView *v, const char *member);
Ref view_drafter(const ReportView *v, int d);
Ref view_head(const ReportView *v, int d, const char *key); // its counts
// {"gain", "ci"} of drafter d beside [0]; within a slice, or whole (slice NULL)
Ref view_pair(const ReportView *v, const Ref *slice, int d, const char *key);
Ref view_recommendation(const ReportView *v, int d, const char *key);
bool view_has(const ReportView *v, const char *key); // any drafter has it
const char *view_sampler(const ReportView *v);
double view_confidence(const ReportView *v);
int64_t view_prompts(const ReportView *v);
// "exact rejection sampling, dense head" of a key; head as drafter d has it.
void view_key_words(char out[160], const ReportView *v, int d, const char *key);
void view_key_short(char out[80], const char *key); // "greedy, dense head"

#endif
