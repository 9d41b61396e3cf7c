// tests/infer/decode/markov_test.c - rounds on a Markov target: the expected counts against the
// exact answer and against live rounds, and how far the usual averages miss both.
//
// A greedy target looks at more than the last token: to a drafter that sees no more than this, its
// text is one of this chain, and the drafter's best token stands where it is the text's. That is
// RULE_BEST of a sampled text, counted from 0 and 1.
#include <stdlib.h>

#include "tests/infer/decode/markov.h"

enum { PIECES = 40, PIECE = 5000, LIVE = 4 }; // LIVE times as many tokens are decoded live

static double uniform(uint64_t stream, uint64_t at) {
    return rng_uniform(9, RNG_TEST, stream, at);
}

// Ratio of sums over pieces, and its standard error.
typedef struct {
    double ratio, error;
} Ratio;

static Ratio ratio_of(const double *tokens, const double *rounds, int n) {
    double t = 0, r = 0, v = 0;
    for (int i = 0; i < n; i++) t += tokens[i], r += rounds[i];
    for (int i = 0; i < n; i++) v += pow(tokens[i] - t / r * rounds[i], 2);
    return (Ratio){t / r, sqrt(v * n / (n - 1)) / r};
}

typedef struct {
    Ratio expected;
    double uniform, product, alpha;
} Simulated;

// The simulator's way: one long text, everything from it.
static Simulated simulate(const Markov *m, AcceptRule rule, int k) {
    static int32_t text[PIECE];
    static double keep[PIECE * MARKOV_K], alpha[PIECE * MARKOV_K], visit[PIECE];
    double tokens[PIECES], rounds[PIECES];
    AnchorReach reach = {0};
    int32_t last = 0;
    for (int i = 0; i < PIECES; i++) {
        text[0] = last;
        for (int n = 1; n < PIECE; n++)
            text[n] = dist_pick(&m->p[text[n - 1]], uniform(1, (uint64_t)(i * PIECE + n)));
        last = text[PIECE - 1];
        markov_odds(m, rule, text, PIECE, keep, alpha);
        const DraftOdds odds = {.keep = keep, .alpha = alpha, .anchors = PIECE - 1, .K = m->K};
        Acceptance sum = {0};
        acceptance_expect(&sum, &odds, k, visit);
        acceptance_reach(&reach, &odds);
        tokens[i] = sum.tokens;
        rounds[i] = sum.rounds;
    }
    return (Simulated){.expected = ratio_of(tokens, rounds, PIECES),
                       .uniform = biased_uniform_anchors(&reach, k),
                       .product = biased_product_of_means(&reach, k),
                       .alpha = biased_uniform_alpha(&reach, k)};
}

typedef struct {
    const Markov *m;
    const int32_t *draft;
    int32_t last;
} Behind;

static const Dist *target_behind(void *ctx, int j) {
    const Behind *b = ctx;
    return &b->m->p[j == 0 ? b->last : b->draft[j - 1]];
}

// One live round behind *last; returns its tokens.
static int live_round(const Markov *m, AcceptRule rule, int k, int32_t *last, uint64_t number) {
    static Dist room;
    Dist q[MARKOV_K];
    int32_t draft[MARKOV_K];
    double coin[MARKOV_K], pick[MARKOV_K + 1];
    for (int j = 0; j <= k; j++) pick[j] = uniform(2 + (uint64_t)j, number);
    for (int j = 0; j < k; j++) {
        q[j] = m->q[j][j == 0 ? *last : draft[j - 1]];
        coin[j] = uniform(20 + (uint64_t)j, number);
        draft[j] = rule == RULE_BEST ? markov_best(&q[j])
                                     : dist_pick(&q[j], uniform(40 + (uint64_t)j, number));
    }
    if (rule == RULE_REJECTION) {
        Behind behind = {m, draft, *last};
        const VerifyRound v = {.k = k, .draft = draft, .q = q, .coin = coin, .pick = pick};
        return verify_round(&v, target_behind, &behind, &room, last) + 1;
    }
    for (int j = 0;; j++) {
        *last = dist_pick(&m->p[*last], pick[j]);
        if (j == k || *last != draft[j]) return j + 1;
    }
}

static Ratio live(const Markov *m, AcceptRule rule, int k) {
    double tokens[PIECES] = {0}, rounds[PIECES] = {0};
    int32_t last = 0;
    uint64_t number = 0;
    for (int i = 0; i < PIECES; i++)
        for (; tokens[i] < LIVE * PIECE; rounds[i]++)
            tokens[i] += live_round(m, rule, k, &last, number++);
    return ratio_of(tokens, rounds, PIECES);
}

static void check(const Markov *m, AcceptRule rule, int drafter, int k) {
    const double tau = markov_tau(m, rule, k);
    const Simulated s = simulate(m, rule, k);
    const Ratio l = live(m, rule, k);
    print_message(
        "%-9s drafter %d, k = %d: exact %.4f; expected counts %.4f +- %.4f (z %+.1f); "
        "live %.4f +- %.4f (z %+.1f); uniform anchors %+.1f %%, product of means %+.1f %%, "
        "uniform with alpha %+.1f %%\n",
        rule_name(rule), drafter, k, tau, s.expected.ratio, s.expected.error,
        (s.expected.ratio - tau) / s.expected.error, l.ratio, l.error, (l.ratio - tau) / l.error,
        100 * (s.uniform / tau - 1), 100 * (s.product / tau - 1), 100 * (s.alpha / tau - 1));
    assert_true(fabs(s.expected.ratio - tau) < 3 * s.expected.error);
    assert_true(fabs(l.ratio - tau) < 3 * l.error);
    const double far = 4 * s.expected.error; // the biased forms miss, and by more than the noise
    assert_true(s.uniform - tau > far);
    assert_true(s.alpha - tau > far);
    assert_true(fabs(s.product - tau) > far);
}

static void expected_counts_are_what_rounds_give(void **state) {
    (void)state;
    static Markov m;
    const AcceptRule rules[] = {RULE_REJECTION, RULE_BEST, RULE_STRICT};
    for (int d = 0; d < MARKOV_DRAFTERS; d++) {
        markov_open(&m, MARKOV_V, MARKOV_K, d);
        for (int r = 0; r < 3; r++) check(&m, rules[r], d, MARKOV_K);
        markov_close(&m);
    }
}

// Expected rounds that live decoding needs for `left` more tokens behind x.
static double exact_rounds(const Markov *m, AcceptRule rule, int k, int left) {
    enum { MOST = 8 };
    static double round[MARKOV_V][MARKOV_K + 1][MARKOV_V], need[MOST + 1][MARKOV_V];
    for (int x = 0; x < m->V; x++) markov_round(m, rule, k, x, round[x]);
    for (int n = 1; n <= left; n++)
        for (int x = 0; x < m->V; x++) {
            need[n][x] = 1;
            for (int j = 0; j <= k && j + 1 < n; j++)
                for (int y = 0; y < m->V; y++) need[n][x] += round[x][j][y] * need[n - 1 - j][y];
        }
    return need[left][0];
}

// Every text of some tokens with its probability: no noise is left.
static void over_all_texts_the_counts_are_exact(void **state) {
    (void)state;
    enum { V = 3, N = 8 };
    static Markov m;
    markov_open(&m, V, MARKOV_K, 1);
    const AcceptRule rules[] = {RULE_REJECTION, RULE_BEST, RULE_STRICT};
    for (int r = 0; r < 3; r++)
        for (int k = 0; k <= MARKOV_K; k += k < 3 ? 1 : 4) {
            double rounds = 0, tokens = 0;
            for (int number = 0; number < 2187; number++) { // 3^7 texts behind token 0
                int32_t text[N] = {0};
                double keep[N * MARKOV_K], alpha[N * MARKOV_K], visit[N], weight = 1;
                for (int i = 1, rest = number; i < N; i++, rest /= V) text[i] = rest % V;
                for (int i = 1; i < N; i++) weight *= m.p[text[i - 1]].p[text[i]];
                markov_odds(&m, rules[r], text, N, keep, alpha);
                const DraftOdds odds = {.keep = keep, .anchors = N - 1, .K = MARKOV_K};
                Acceptance sum = {0};
                acceptance_expect(&sum, &odds, k, visit);
                rounds += weight * sum.rounds;
                tokens += weight * sum.tokens;
            }
            assert_true(fabs(tokens - (N - 1)) < 1e-12);
            assert_true(fabs(rounds - exact_rounds(&m, rules[r], k, N - 1)) < 1e-12);
        }
    markov_close(&m);
}

// Greedy text: odds of 0 and 1 from ids, as RULE_GREEDY is counted.
static void greedy_counts_are_those_of_the_best_token(void **state) {
    (void)state;
    static Markov m;
    static int32_t text[PIECE], drafts[PIECE * MARKOV_K];
    static double keep[PIECE * MARKOV_K], from_odds[PIECE * MARKOV_K], alpha[PIECE * MARKOV_K],
        visit[PIECE];
    markov_open(&m, MARKOV_V, MARKOV_K, 2);
    for (int n = 1; n < PIECE; n++) text[n] = dist_pick(&m.p[text[n - 1]], uniform(1, (uint64_t)n));
    for (int64_t a = 0; a < PIECE - 1; a++)
        for (int64_t j = 0; j < MARKOV_K; j++)
            drafts[a * MARKOV_K + j] =
                a + j < PIECE ? markov_best(&m.q[j][text[a + j]]) : -1; // behind the text's tokens
    acceptance_keep(keep, drafts, PIECE - 1, MARKOV_K, text, PIECE, 0);
    markov_odds(&m, RULE_GREEDY, text, PIECE, from_odds, alpha);
    const DraftOdds a = {.keep = keep, .anchors = PIECE - 1, .K = MARKOV_K};
    const DraftOdds b = {.keep = from_odds, .anchors = PIECE - 1, .K = MARKOV_K};
    for (int k = 0; k <= MARKOV_K; k++) {
        Acceptance x = {0}, y = {0};
        acceptance_expect(&x, &a, k, visit);
        acceptance_expect(&y, &b, k, visit);
        assert_memory_equal(&x, &y, sizeof x);
    }
    markov_close(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expected_counts_are_what_rounds_give),
        cmocka_unit_test(over_all_texts_the_counts_are_exact),
        cmocka_unit_test(greedy_counts_are_those_of_the_best_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
