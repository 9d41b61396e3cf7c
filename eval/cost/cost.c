// eval/cost/cost.c - rounds priced from a table; nothing that the table lacks is made up.
#include "eval/cost/cost.h"

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

// Drafts of a round of `steps` drafter steps: as measured, in between in proportion; without such
// times from step and set-up.
static double drafting(const CostTable *c, Head head, double steps) {
    const double *ms = c->drafts_ms[head];
    if (steps <= 0.0) return 0.0;
    if (ms[1] <= 0.0)
        return c->drafter_ms[head] <= 0.0
                   ? NAN
                   : fmin(steps, 1.0) * c->drafter_round_ms[head] + steps * c->drafter_ms[head];
    if (fabs(steps - rint(steps)) < 1e-6) steps = rint(steps); // counts were divided by rounds
    if (steps > c->lengths) // a step withheld behind the longest round
        return ms[c->lengths] > 0.0 ? ms[c->lengths] + (steps - c->lengths) * c->drafter_ms[head]
                                    : NAN;
    const int whole = (int)steps;
    const double part = steps - whole, below = whole > 0 ? ms[whole] : 0.0,
                 above = part > 0.0 ? ms[whole + 1] : below;
    return (whole > 0 && below <= 0.0) || above <= 0.0 ? NAN : below + part * (above - below);
}

// Which rounds withheld a draft follows from the counts: shorter ones before the longest.
static double by_time(const CostTable *c, Head head, const RoundMix *mix) {
    double withheld = mix->steps, shorter = 0.0, ms = 0.0;
    int longest = 0;
    for (int i = 0; i <= DRAFT_MAX; i++) {
        withheld -= i * mix->verified[i];
        if (mix->verified[i] > 0.0) longest = i;
    }
    for (int i = 0; i < longest; i++) shorter += mix->verified[i];
    if (withheld < 1e-9 * (1.0 + mix->steps)) withheld = 0.0; // rounding of the counts
    const double early = fmin(withheld, shorter);
    for (int i = 0; i <= longest; i++) {
        const double share = mix->verified[i];
        if (share <= 0.0) continue;
        if (c->target_ms[i + 1] <= 0.0) return NAN;
        const double more = i < longest ? early / shorter : (withheld - early) / share;
        ms += share * (c->target_ms[i + 1] + drafting(c, head, i + more));
    }
    return ms / c->target_ms[1];
}

double cost_round(const CostTable *c, Head head, const RoundMix *mix) {
    return c->target_ms[1] > 0.0 ? by_time(c, head, mix) : by_ratio(c, mix);
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
