// infer/decode/acceptance.c - first rejections, the expected walk over anchors by dynamic
// programming, and the shares they give.
#include "infer/decode/acceptance.h"

#include <stddef.h>

#include "infer/base/err.h"

const char *rule_name(AcceptRule rule) {
    static const char *const names[RULE_COUNT] = {"greedy", "rejection", "best", "strict"};
    CHECK((unsigned)rule < RULE_COUNT, "rule %d", (int)rule);
    return names[rule];
}

static int64_t min_i64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

void acceptance_lengths(int32_t *L, const int32_t *drafts, int64_t anchors, int K,
                        const int32_t *text, int64_t n, int64_t first) {
    CHECK(K >= 1 && K <= DRAFT_MAX && first >= 0 && anchors <= n - first - 1);
    for (int64_t a = 0; a < anchors; a++) {
        const int64_t T = first + a, room = min_i64(K, n - 1 - T);
        int32_t len = 0;
        while (len < room && drafts[a * K + len] == text[T + 1 + len]) len++;
        L[a] = len;
    }
}

void acceptance_keep(double *keep, const int32_t *drafts, int64_t anchors, int K,
                     const int32_t *text, int64_t n, int64_t first) {
    CHECK(K >= 1 && K <= DRAFT_MAX && first >= 0 && anchors <= n - first - 1);
    for (int64_t a = 0; a < anchors; a++)
        for (int64_t j = 0; j < K; j++) {
            const int64_t at = first + a + 1 + j;
            keep[a * K + j] = at < n && drafts[a * K + j] == text[at] ? 1.0 : 0.0;
        }
}

void acceptance_round(Acceptance *sum, int accepted, int drafted, int k, int64_t left) {
    CHECK(accepted >= 0 && accepted <= drafted && drafted <= k && k <= DRAFT_MAX && left >= 1);
    const int64_t possible = min_i64(k, left), got = min_i64(accepted, left);
    sum->rounds += 1;
    sum->tokens += (double)min_i64(got + 1, left); // what follows the end of the text is no token
    sum->drafted += drafted;
    sum->steps += drafted < k ? drafted + 1 : k;
    sum->verified[drafted] += 1;
    sum->accepted += (double)got;
    for (int64_t i = 0; i <= possible; i++) sum->possible[i] += 1;
    for (int64_t i = 0; i <= got; i++) sum->reached[i] += 1;
}

static int offered_at(const DraftOdds *o, int64_t anchor, int k) {
    const int n = o->offered != NULL ? o->offered[anchor] : o->K;
    return n < k ? n : k;
}

// out[i] = P(at least i drafts stand) of one round; returns the last i that can be reached.
static int survival(double out[DRAFT_MAX + 1], const DraftOdds *o, int64_t anchor, int k) {
    const double *keep = o->keep + anchor * o->K;
    const int most = (int)min_i64(offered_at(o, anchor, k), o->anchors - anchor);
    out[0] = 1.0;
    for (int i = 1; i <= most; i++) out[i] = out[i - 1] * keep[i - 1];
    return most;
}

// s: of survival(), up to `most`.
static void add_round(Acceptance *sum, const DraftOdds *o, int64_t anchor, int k, double weight,
                      const double *s, int most) {
    const int offered = offered_at(o, anchor, k);
    const int64_t left = o->anchors - anchor;
    sum->rounds += weight;
    sum->drafted += weight * offered;
    sum->steps += weight * (offered < k ? offered + 1 : k);
    sum->verified[offered] += weight;
    for (int64_t i = 0; i <= min_i64(k, left); i++) sum->possible[i] += weight;
    for (int i = 0; i <= most; i++) sum->reached[i] += weight * s[i];
    for (int i = 1; i <= most; i++) sum->accepted += weight * s[i];
    for (int i = 0; i <= most && i < left; i++) sum->tokens += weight * s[i];
}

void acceptance_expect_round(Acceptance *sum, const DraftOdds *o, int64_t anchor, int k,
                             double weight) {
    CHECK(k >= 0 && k <= o->K && o->K <= DRAFT_MAX && anchor >= 0 && anchor < o->anchors);
    double s[DRAFT_MAX + 1];
    add_round(sum, o, anchor, k, weight, s, survival(s, o, anchor, k));
}

void acceptance_expect(Acceptance *sum, const DraftOdds *o, int k, double *visit) {
    CHECK(k >= 0 && k <= o->K && o->K <= DRAFT_MAX);
    for (int64_t a = 0; a < o->anchors; a++) visit[a] = a == 0 ? 1.0 : 0.0;
    for (int64_t a = 0; a < o->anchors; a++) {
        if (visit[a] == 0.0) continue;
        double s[DRAFT_MAX + 1];
        const int most = survival(s, o, a, k);
        add_round(sum, o, a, k, visit[a], s, most);
        for (int j = 0; j <= most && a + 1 + j < o->anchors; j++)
            visit[a + 1 + j] += visit[a] * (j < most ? s[j] - s[j + 1] : s[j]);
    }
}

void acceptance_merge(Acceptance *sum, const Acceptance *more) {
    sum->rounds += more->rounds;
    sum->tokens += more->tokens;
    sum->drafted += more->drafted;
    sum->accepted += more->accepted;
    sum->steps += more->steps;
    for (int i = 0; i <= DRAFT_MAX; i++) {
        sum->verified[i] += more->verified[i];
        sum->reached[i] += more->reached[i];
        sum->possible[i] += more->possible[i];
    }
}

static double share(double part, double whole) {
    return whole > 0 ? part / whole : 0.0;
}

double acceptance_tau(const Acceptance *a) {
    return share(a->tokens, a->rounds);
}

double acceptance_u(const Acceptance *a, int i) {
    CHECK(i >= 0 && i <= DRAFT_MAX);
    return share(a->reached[i], a->possible[i]);
}

void acceptance_reach(AnchorReach *sum, const DraftOdds *o) {
    const int K = o->K;
    CHECK(K >= 0 && K <= DRAFT_MAX);
    for (int64_t a = 0; a < o->anchors; a++) {
        const double *keep = o->keep + a * K, *alpha = o->alpha != NULL ? o->alpha + a * K : keep;
        double kept = 1.0, alphas = 1.0;
        sum->anchors[0] += 1;
        sum->reached[0] += 1;
        for (int64_t i = 1; i <= min_i64(K, o->anchors - a); i++) {
            sum->anchors[i] += 1;
            sum->reached[i] += kept * alpha[i - 1];
            sum->match[i] += alpha[i - 1];
            sum->alphas[i] += alphas *= alpha[i - 1];
            kept *= keep[i - 1];
        }
    }
}

double acceptance_u_all(const AnchorReach *r, int i) {
    CHECK(i >= 0 && i <= DRAFT_MAX);
    return share(r->reached[i], r->anchors[i]);
}

double biased_uniform_anchors(const AnchorReach *r, int k) {
    double sum = 1.0;
    for (int i = 1; i <= k; i++) sum += acceptance_u_all(r, i);
    return sum;
}

double biased_product_of_means(const AnchorReach *r, int k) {
    double sum = 1.0, product = 1.0;
    for (int i = 1; i <= k; i++) sum += product *= share(r->match[i], r->anchors[i]);
    return sum;
}

double biased_uniform_alpha(const AnchorReach *r, int k) {
    double sum = 1.0;
    for (int i = 1; i <= k; i++) sum += share(r->alphas[i], r->anchors[i]);
    return sum;
}
