// tests/infer/decode/verify_test.c - the rule of rejection is exact: every pair of distributions
// and every path of a round is enumerated; known wrong rules are caught by the same enumeration.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "infer/decode/exactness.h"
#include "tests/testing.h"

enum { PAIRS = 100000, SEED = 11, K = EXACT_DRAFTS };

static void a_hundred_thousand_pairs_give_p(void **state) {
    (void)state;
    const double worst = exactness_of_pairs(&exact_own_rule, PAIRS, SEED);
    print_message("largest error of a probability: %.2g\n", worst);
    assert_true(worst < 1e-12);
}

static double equal_best_only(const Dist *p, const Dist *q, int32_t x) {
    (void)q;
    int64_t best = 0;
    for (int64_t i = 1; i < p->n; i++)
        if (p->p[i] > p->p[best]) best = i;
    return p->id[best] == x;
}
static double always(const Dist *p, const Dist *q, int32_t x) {
    (void)p, (void)q, (void)x;
    return 1.0;
}
static double by_target_alone(const Dist *p, const Dist *q, int32_t x) {
    (void)q;
    return dist_prob(p, x);
}
static void whole_target(Dist *r, const Dist *p, const Dist *q) {
    (void)q;
    dist_copy(r, p);
}

static void wrong_rules_are_seen(void **state) {
    (void)state;
    const ExactRule wrong[] = {{equal_best_only, verify_residual},
                               {always, verify_residual},
                               {by_target_alone, verify_residual},
                               {verify_accept, whole_target}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_true(exactness_of_pairs(&wrong[i], 1000, SEED) > 1e-3);
}

static void every_path_of_a_round_has_its_probability(void **state) {
    (void)state;
    const double worst = exactness_of_rounds(verify_round, 60, SEED);
    print_message("largest error of a joint probability: %.2g\n", worst);
    assert_true(worst < 1e-12);
}

// The first draft is never looked at (lattice#243).
static int trusts_the_first(const VerifyRound *v, VerifyTarget *target, void *ctx, Dist *r,
                            int32_t *next) {
    double coin[K];
    memcpy(coin, v->coin, sizeof coin);
    coin[0] = -1.0;
    VerifyRound w = *v;
    w.coin = coin;
    return dist_prob(target(ctx, 0), v->draft[0]) > 0.0 ? verify_round(&w, target, ctx, r, next)
                                                        : verify_round(v, target, ctx, r, next);
}
// The token behind a rejection comes from the target, not from the residual.
static int draws_from_the_target(const VerifyRound *v, VerifyTarget *target, void *ctx, Dist *r,
                                 int32_t *next) {
    const int got = verify_round(v, target, ctx, r, next);
    *next = dist_pick(target(ctx, got), v->pick[got]);
    return got;
}
// The bonus is drawn a position too early.
static int bonus_of_the_row_before(const VerifyRound *v, VerifyTarget *target, void *ctx, Dist *r,
                                   int32_t *next) {
    const int got = verify_round(v, target, ctx, r, next);
    if (got == v->k) *next = dist_pick(target(ctx, got - 1), v->pick[got]);
    return got;
}

static void wrong_rounds_are_seen(void **state) {
    (void)state;
    ExactRound *const wrong[] = {trusts_the_first, draws_from_the_target, bonus_of_the_row_before};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_true(exactness_of_rounds(wrong[i], 6, SEED) > 1e-3);
}

static const Dist *no_distribution(void *ctx, int j) {
    const Dist *d = ctx;
    return &d[j == 0 ? 0 : 1];
}

static void a_row_without_a_distribution_ends_the_round(void **state) {
    (void)state;
    Dist d[2] = {{0}}, r = {0};
    int32_t next, draft = 1;
    const double w[2] = {1, 3}, coin = 0.5, pick[2] = {0.1, 0.1};
    dist_from_weights(&d[0], w, 2);
    const VerifyRound v = {.k = 1, .draft = &draft, .q = d, .coin = &coin, .pick = pick};
    assert_int_equal(verify_round(&v, no_distribution, d, &r, &next), -1);
    dist_free(&d[0]), dist_free(&r);
}

static void given_dist(Dist *d, const json_t *o) {
    const json_t *ids = json_object_get(o, "ids"), *probs = json_object_get(o, "probs");
    dist_room(d, (int64_t)json_array_size(ids));
    d->n = (int64_t)json_array_size(ids);
    for (int64_t i = 0; i < d->n; i++) {
        d->id[i] = (int32_t)json_integer_value(json_array_get(ids, (size_t)i));
        d->p[i] = json_number_value(json_array_get(probs, (size_t)i));
    }
}

static void same(const Dist *a, const Dist *b) {
    assert_int_equal(a->n, b->n);
    for (int64_t i = 0; i < a->n; i++) {
        assert_int_equal(a->id[i], b->id[i]);
        assert_true(fabs(a->p[i] - b->p[i]) < 1e-12);
    }
}

// p and q as transformers warps them; acceptance and residual in float64 beside them.
static void pairs_of_the_reference(void **state) {
    (void)state;
    json_error_t where;
    json_t *all = json_load_file(test_golden("sampling.json"), 0, &where), *one;
    Dist p = {0}, q = {0}, r = {0}, want = {0};
    size_t i;
    if (all == NULL) {
        print_message("[ SKIPPED ] no sampling.json in this golden set\n");
        skip();
    }
    assert_true(json_array_size(json_object_get(all, "pairs")) > 0);
    json_array_foreach(json_object_get(all, "pairs"), i, one) {
        const json_t *accept = json_object_get(one, "accept_given_draft");
        const json_t *best = json_object_get(one, "argmax_draft");
        given_dist(&p, json_object_get(one, "p"));
        given_dist(&q, json_object_get(one, "q"));
        double expected = 0.0;
        for (int64_t k = 0; k < q.n; k++) {
            const double a = verify_accept(&p, &q, q.id[k]);
            const json_t *given = json_array_get(accept, (size_t)k); // of the first 40
            expected += q.p[k] * a;
            if (given == NULL) continue;
            assert_int_equal(json_integer_value(json_object_get(given, "id")), q.id[k]);
            assert_true(fabs(a - json_number_value(json_object_get(given, "prob"))) < 1e-12);
        }
        assert_true(fabs(expected -
                         json_number_value(json_object_get(one, "expected_acceptance"))) < 1e-12);
        verify_residual(&r, &p, &q);
        given_dist(&want, json_object_get(one, "residual"));
        same(&r, &want);
        const double hot = 1.0;
        dist_from_weights(&q, &hot, 1);
        q.id[0] = (int32_t)json_integer_value(json_object_get(best, "id"));
        assert_true(fabs(verify_accept(&p, &q, q.id[0]) -
                         json_number_value(json_object_get(best, "accept"))) < 1e-12);
        verify_residual(&r, &p, &q);
        given_dist(&want, json_object_get(best, "residual"));
        same(&r, &want);
    }
    dist_free(&p), dist_free(&q), dist_free(&r), dist_free(&want);
    json_decref(all);
}

// Sums over both supports, in whatever way the supports lie.
static void sums_of_both_are_over_all_tokens(void **state) {
    (void)state;
    Dist p = {0}, q = {0};
    for (int i = 0; i < 2000; i++) {
        const int64_t n = 2 + i * 31 % (EXACT_SIZE - 1), m = i % 3 ? n : 2 + n / 2;
        double overlap = 0, equal = 0;
        exactness_dist(&p, n, i % EXACT_SHAPES, SEED, (uint64_t)(2 * i));
        exactness_dist(&q, m, i / EXACT_SHAPES % EXACT_SHAPES, SEED, (uint64_t)(2 * i + 1));
        for (int32_t v = 0; v < EXACT_SIZE; v++) {
            overlap += fmin(dist_prob(&p, v), dist_prob(&q, v));
            equal += dist_prob(&p, v) * dist_prob(&q, v);
        }
        assert_true(fabs(verify_overlap(&p, &q) - overlap) < 1e-12);
        assert_true(fabs(verify_equality(&p, &q) - equal) < 1e-12);
        assert_true(verify_overlap(&q, &p) - verify_overlap(&p, &q) < 1e-12);
    }
    p.n = 0;
    assert_true(verify_overlap(&p, &q) == 0 && verify_equality(&q, &p) == 0);
    dist_free(&p);
    dist_free(&q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hundred_thousand_pairs_give_p),
        cmocka_unit_test(wrong_rules_are_seen),
        cmocka_unit_test(every_path_of_a_round_has_its_probability),
        cmocka_unit_test(wrong_rounds_are_seen),
        cmocka_unit_test(a_row_without_a_distribution_ends_the_round),
        cmocka_unit_test(pairs_of_the_reference),
        cmocka_unit_test(sums_of_both_are_over_all_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
