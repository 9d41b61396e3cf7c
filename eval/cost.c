// eval/cost.c - rounds priced from a table; nothing that the table lacks is made up.
#include "eval/cost.h"

#include <math.h>

const char *cost_head_name(Head head) {
    return head == HEAD_CENTROID ? "centroid" : "dense";
}

RoundMix round_constant(int k, double tau) {
    CHECK(k >= 0 && k <= DRAFT_MAX);
    RoundMix m = {.tokens = tau, .steps = k};
    m.verified[k] = 1.0;
    return m;
}

// Published ratios hold the drafter's share for as many steps as were verified.
static double by_ratio(const CostTable *c, const RoundMix *mix) {
    double ratio = mix->verified[0], drafts = 0.0;
    for (int i = 1; i <= DRAFT_MAX; i++) {
        drafts += i * mix->verified[i];
        if (mix->verified[i] <= 0.0) continue;
        if (c->round_ratio[i] <= 0.0) return NAN;
        ratio += mix->verified[i] * c->round_ratio[i];
    }
    return fabs(mix->steps - drafts) <= 1e-9 * (1.0 + drafts) ? ratio : NAN;
}

double cost_round(const CostTable *c, Head head, const RoundMix *mix) {
    if (c->target_ms[1] <= 0.0) return by_ratio(c, mix);
    double ms = 0.0;
    if (mix->steps > 0.0) {
        if (c->drafter_ms[head] <= 0.0) return NAN;
        ms = c->drafter_round_ms[head] + mix->steps * c->drafter_ms[head];
    }
    for (int i = 0; i <= DRAFT_MAX; i++) {
        if (mix->verified[i] <= 0.0) continue;
        if (c->target_ms[i + 1] <= 0.0) return NAN;
        ms += mix->verified[i] * c->target_ms[i + 1];
    }
    return ms / c->target_ms[1];
}

int cost_limit(const CostTable *c, Head head) {
    for (int k = DRAFT_MAX; k >= 1; k--) {
        const RoundMix mix = round_constant(k, 1.0);
        if (isfinite(cost_round(c, head, &mix))) return k;
    }
    return 0;
}

int64_t cost_context(int64_t wanted, int64_t positions, int K) {
    const int64_t most = positions - K - 1;
    return wanted < most ? wanted : most > 1 ? most : 1;
}
