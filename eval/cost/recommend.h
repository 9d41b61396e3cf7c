// eval/cost/recommend.h - tokens a second by draft length and p-min, from what a round yields and
// what it costs; k = 0, no drafter at all, wins where nothing beats plain decoding.
#ifndef EVAL_RECOMMEND_H
#define EVAL_RECOMMEND_H

#include "eval/cost/cost.h"

enum { RECOMMEND_P_MAX = 32 };

// By k = 1 .. K. NaN: the cost table does not say. speedup = tokens of a round / its cost in plain
// decoding steps; tokens_per_s NaN too where the table has ratios only.
typedef struct {
    Head head;
    int K;
    int limit; // largest k that the table has costs for; such k only are recommended
    double tau[DRAFT_MAX + 1], speedup[DRAFT_MAX + 1], tokens_per_s[DRAFT_MAX + 1];
    double break_even_tau[DRAFT_MAX + 1];  // the cost of a round in plain steps
    double break_even_rate[DRAFT_MAX + 1]; // accepted / drafted that yields it; above 1: never
    double plain_tokens_per_s;             // without a drafter
    int best_k;          // 0: use no drafter; -1: no k has a cost. The smallest among equals
    double best_speedup; // 1 at k = 0
    int np;              // 0: p-min was not asked for
    double p[RECOMMEND_P_MAX], p_speedup[RECOMMEND_P_MAX][DRAFT_MAX + 1];
    double best_p; // 0: no p-min does better than a constant k
    int best_p_k;  // as best_k
    double best_p_speedup;
} Recommendation;

// mix (K): rounds of at most k = 1 .. K drafts, in this order.
void recommend(Recommendation *out, const CostTable *c, Head head, const RoundMix *mix, int K);
// After recommend(): p (np, at most RECOMMEND_P_MAX) ascending, mix (np, K).
void recommend_p_min(Recommendation *r, const CostTable *c, const double *p, int np,
                     const RoundMix *mix);

// New reference: {"head", "tau", "speedup", "tokens_per_s", "break_even_tau", "break_even_rate":
// [K], null = not known, "best_k", "best_speedup", "limit_k" where the table ends before K,
// "p_min":
// {"p", "speedup": [[K] per p]}, "best_p_min": {"p", "k", "speedup"}}; "best_k", "best_p_min" null
// = not known.
json_t *recommendation_json(const Recommendation *r);
// One recommendation, its table where it is detailed, and what to tell other runtimes; `what` names
// drafter and rule.
void recommendation_markdown(FILE *out, const char *what, const json_t *recommendation,
                             bool detailed);
// Those of an acceptance.json object by its first rule, heads as deployed; detailed: with tables
// and costs. Nothing where it has none.
MUST_CHECK bool recommendations_markdown(FILE *out, const json_t *report, bool detailed, Err *err);

#endif
