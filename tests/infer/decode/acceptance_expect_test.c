// tests/infer/decode/acceptance_expect_test.c - expected counts: against the walk where odds are 0
// or 1, and against every outcome of every coin on small texts.
#include <math.h>
#include <string.h>

#include "infer/base/rng.h"
#include "infer/decode/acceptance.h"
#include "tests/infer/decode/plain_walk.h"
#include "tests/testing.h"

enum { LONG = 60, SMALL = 8, SMALL_K = 3 };

static uint64_t draws;
static double draw(void) {
    return rng_uniform(11, RNG_TEST, 1, draws++);
}

static void odds_of_0_and_1_give_the_walk(void **state) {
    (void)state;
    for (int trial = 0; trial < 300; trial++) {
        const int64_t anchors = (int64_t)(draw() * LONG), n = anchors + 5, first = 4;
        const int K = 1 + (int)(draw() * DRAFT_MAX), ids = 1 + (int)(draw() * 4);
        int32_t text[LONG + 5], drafts[LONG * DRAFT_MAX], L[LONG];
        double keep[LONG * DRAFT_MAX], visit[LONG];
        uint8_t visited[LONG];
        for (int64_t i = 0; i < n; i++) text[i] = (int32_t)(draw() * ids);
        for (int64_t i = 0; i < anchors * K; i++) drafts[i] = (int32_t)(draw() * ids);
        acceptance_lengths(L, drafts, anchors, K, text, n, first);
        acceptance_keep(keep, drafts, anchors, K, text, n, first);
        const DraftOdds odds = {.keep = keep, .anchors = anchors, .K = K};
        for (int k = 0; k <= K; k++) {
            Acceptance walk = {0}, expected = {0};
            acceptance_walk(&walk, L, anchors, k, visited);
            acceptance_expect(&expected, &odds, k, visit);
            assert_memory_equal(&walk, &expected, sizeof walk);
            for (int64_t a = 0; a < anchors; a++) assert_true(visit[a] == visited[a]);
        }
    }
}

// One walk whose every draft stands or falls by `coins` (anchor, draft), with its probability.
static void walk_of_coins(Acceptance *sum, const DraftOdds *o, int k, uint32_t coins) {
    double weight = 1.0;
    Acceptance one = {0};
    for (int64_t a = 0; a < o->anchors;) {
        const int offered = o->offered != NULL && o->offered[a] < k ? o->offered[a] : k;
        int got = 0;
        while (got < offered && a + got < o->anchors && coins >> (a * o->K + got) & 1) got++;
        acceptance_round(&one, got, offered, k, o->anchors - a);
        a += got + 1;
    }
    for (int64_t i = 0; i < o->anchors * o->K; i++)
        weight *= coins >> i & 1 ? o->keep[i] : 1.0 - o->keep[i];
    const double *from = (const double *)&one;
    double *to = (double *)sum;
    for (size_t i = 0; i < sizeof one / sizeof *from; i++) to[i] += weight * from[i];
}

static void assert_counts(const Acceptance *a, const Acceptance *b) {
    const double *x = (const double *)a, *y = (const double *)b;
    for (size_t i = 0; i < sizeof *a / sizeof *x; i++)
        if (fabs(x[i] - y[i]) > 1e-12) fail_msg("count %zu: %.17g, expected %.17g", i, x[i], y[i]);
}

static void expected_counts_are_the_mean_over_all_coins(void **state) {
    (void)state;
    for (int trial = 0; trial < 24; trial++) {
        const int64_t anchors = trial < 2 ? SMALL - trial : 1 + trial % 5;
        const int K = trial < 2 ? 2 : 1 + trial % SMALL_K;
        double keep[SMALL * SMALL_K], visit[SMALL];
        int8_t offered[SMALL];
        for (int64_t i = 0; i < anchors * K; i++)
            keep[i] = draw() < 0.2 ? (double)(draw() < 0.5) : draw();
        for (int64_t a = 0; a < anchors; a++) offered[a] = (int8_t)(draw() * (K + 1));
        const DraftOdds odds = {
            .keep = keep, .offered = trial % 2 ? offered : NULL, .anchors = anchors, .K = K};
        for (int k = 0; k <= K; k++) {
            Acceptance mean = {0}, expected = {0};
            for (uint32_t coins = 0; coins < 1u << (anchors * K); coins++)
                walk_of_coins(&mean, &odds, k, coins);
            acceptance_expect(&expected, &odds, k, visit);
            assert_counts(&expected, &mean);
            assert_true(fabs(expected.tokens - (double)anchors) < 1e-12);
        }
    }
}

static void eight_anchors_and_three_drafts(void **state) {
    (void)state;
    double keep[SMALL * SMALL_K], visit[SMALL];
    int8_t offered[SMALL] = {3, 1, 3, 0, 2, 3, 3, 1};
    for (int i = 0; i < SMALL * SMALL_K; i++) keep[i] = draw();
    for (int p = 0; p < 2; p++) {
        const DraftOdds odds = {
            .keep = keep, .offered = p ? offered : NULL, .anchors = SMALL, .K = SMALL_K};
        Acceptance mean = {0}, expected = {0};
        // Coins behind the end of the text decide nothing: those of the last two anchors but one
        // and two drafts.
        for (uint32_t coins = 0; coins < 1u << (SMALL * SMALL_K - 2); coins++)
            walk_of_coins(&mean, &odds, SMALL_K, coins);
        const double seen = mean.rounds;
        acceptance_expect(&expected, &odds, SMALL_K, visit);
        // The last anchor's coins 2 and 3 were always 0: their weight is what is missing.
        const double share = (1 - keep[SMALL * SMALL_K - 1]) * (1 - keep[SMALL * SMALL_K - 2]);
        double *m = (double *)&mean;
        for (size_t i = 0; i < sizeof mean / sizeof *m; i++) m[i] /= share;
        assert_true(seen > 0);
        assert_counts(&expected, &mean);
    }
}

// The rounds of parts are those of the whole.
static void rounds_one_by_one_add_up(void **state) {
    (void)state;
    double keep[LONG * 5], visit[LONG];
    int8_t offered[LONG];
    for (int i = 0; i < LONG * 5; i++) keep[i] = draw();
    for (int a = 0; a < LONG; a++) offered[a] = (int8_t)(draw() * 6);
    const DraftOdds odds = {.keep = keep, .offered = offered, .anchors = LONG, .K = 5};
    Acceptance whole = {0}, sum = {0};
    acceptance_expect(&whole, &odds, 4, visit);
    for (int a = 0; a < LONG; a++) acceptance_expect_round(&sum, &odds, a, 4, visit[a]);
    assert_memory_equal(&whole, &sum, sizeof sum);
}

static void alpha_takes_the_place_of_the_last_factor(void **state) {
    (void)state;
    const double keep[4] = {0.5, 0.25, 0.125, 9}, alpha[4] = {0.7, 0.3, 0.9, 9};
    const DraftOdds odds = {.keep = keep, .alpha = alpha, .anchors = 2, .K = 2};
    AnchorReach r = {0};
    acceptance_reach(&r, &odds);
    assert_true(r.anchors[1] == 2 && r.anchors[2] == 1);
    assert_true(r.reached[1] == 0.7 + 0.9 && r.reached[2] == 0.5 * 0.3);
    assert_true(r.match[1] == 0.7 + 0.9 && r.match[2] == 0.3);
    assert_true(r.alphas[2] == 0.7 * 0.3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odds_of_0_and_1_give_the_walk),
        cmocka_unit_test(expected_counts_are_the_mean_over_all_coins),
        cmocka_unit_test(eight_anchors_and_three_drafts),
        cmocka_unit_test(rounds_one_by_one_add_up),
        cmocka_unit_test(alpha_takes_the_place_of_the_last_factor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
