// infer/decode/acceptance.c - first rejections, the walk over them, and the shares they give.
#include "infer/decode/acceptance.h"

#include <string.h>

#include "infer/base/err.h"

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

void acceptance_round(Acceptance *sum, int accepted, int k, int64_t left) {
    CHECK(accepted >= 0 && accepted <= k && k <= DRAFT_MAX && left >= 1);
    const int64_t possible = min_i64(k, left), got = min_i64(accepted, left);
    sum->rounds++;
    sum->tokens += min_i64(got + 1, left); // the bonus after the end of the text is not a token
    sum->drafted += k;
    sum->accepted += got;
    for (int64_t i = 0; i <= possible; i++) sum->possible[i]++;
    for (int64_t i = 0; i <= got; i++) sum->reached[i]++;
}

void acceptance_walk(Acceptance *sum, const int32_t *L, int64_t anchors, int k, uint8_t *visit) {
    CHECK(k >= 0 && k <= DRAFT_MAX);
    if (visit != NULL && anchors > 0) memset(visit, 0, (size_t)anchors);
    for (int64_t a = 0; a < anchors;) {
        const int accepted = (int)min_i64(L[a], k);
        if (visit != NULL) visit[a] = 1;
        acceptance_round(sum, accepted, k, anchors - a);
        a += accepted + 1;
    }
}

void acceptance_merge(Acceptance *sum, const Acceptance *more) {
    sum->rounds += more->rounds;
    sum->tokens += more->tokens;
    sum->drafted += more->drafted;
    sum->accepted += more->accepted;
    for (int i = 0; i <= DRAFT_MAX; i++) {
        sum->reached[i] += more->reached[i];
        sum->possible[i] += more->possible[i];
    }
}

static double share(int64_t part, int64_t whole) {
    return whole > 0 ? (double)part / (double)whole : 0.0;
}

double acceptance_tau(const Acceptance *a) {
    return share(a->tokens, a->rounds);
}

double acceptance_u(const Acceptance *a, int i) {
    CHECK(i >= 0 && i <= DRAFT_MAX);
    return share(a->reached[i], a->possible[i]);
}

void acceptance_reach(AnchorReach *sum, const int32_t *L, int64_t anchors, int K) {
    CHECK(K >= 0 && K <= DRAFT_MAX);
    for (int64_t a = 0; a < anchors; a++) {
        const int64_t possible = min_i64(K, anchors - a), got = min_i64(L[a], possible);
        for (int64_t i = 0; i <= possible; i++) sum->anchors[i]++;
        for (int64_t i = 0; i <= got; i++) sum->reached[i]++;
    }
}

void acceptance_reach_merge(AnchorReach *sum, const AnchorReach *more) {
    for (int i = 0; i <= DRAFT_MAX; i++) {
        sum->anchors[i] += more->anchors[i];
        sum->reached[i] += more->reached[i];
    }
}

double acceptance_u_all(const AnchorReach *r, int i) {
    CHECK(i >= 0 && i <= DRAFT_MAX);
    return share(r->reached[i], r->anchors[i]);
}
