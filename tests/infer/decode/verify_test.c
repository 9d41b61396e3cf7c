// tests/infer/decode/verify_test.c - the rule of rejection is exact: every pair of distributions
// and every path of a round is enumerated; known wrong rules are caught by the same enumeration.
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "infer/base/rng.h"
#include "infer/decode/verify.h"
#include "tests/testing.h"

enum { PAIRS = 100000, SIZE = 64, V = 4, K = 3 };

static uint64_t draws;
static double uniform(void) {
    return rng_uniform(11, RNG_TEST, 1, draws++);
}

static void renew(Dist *d, const double *w, int64_t n) {
    double total = 0.0;
    dist_room(d, n);
    d->n = 0;
    for (int64_t v = 0; v < n; v++) {
        if (w[v] <= 0.0) continue;
        d->id[d->n] = (int32_t)v;
        total += d->p[d->n++] = w[v];
    }
    for (int64_t i = 0; i < d->n; i++) d->p[i] /= total;
}

typedef enum { DENSE, ONE_HOT, SUBNORMAL, SPARSE, LOW_HALF, HIGH_HALF, SHAPES } Shape;

static void random_dist(Dist *d, int64_t n, Shape shape) {
    double w[SIZE];
    const int64_t hot = (int64_t)(uniform() * (double)n);
    for (int64_t v = 0; v < n; v++) {
        const double x = uniform() + 1e-9;
        w[v] = shape == ONE_HOT     ? v == hot
               : shape == SUBNORMAL ? (v == hot ? 1.0 : x * 4 * DBL_MIN * DBL_EPSILON)
               : shape == SPARSE    ? (v == hot || uniform() < 0.3 ? x : 0.0)
               : shape == LOW_HALF  ? (v < (n + 1) / 2 ? x : 0.0)
               : shape == HIGH_HALF ? (v >= n / 2 ? x : 0.0)
                                    : pow(x, 6);
    }
    renew(d, w, n);
}

// What warped logits give: top-k and top-p cut.
static void warped_dist(Dist *d, int64_t n) {
    float z[SIZE];
    for (int64_t v = 0; v < n; v++) z[v] = (float)(8 * uniform());
    const Sampler s = {.temperature = 0.4 + uniform(),
                       .top_k = 1 + (int64_t)(uniform() * 8),
                       .top_p = 0.5 + 0.5 * uniform()};
    dist_from_logits(d, z, n, &s);
}

// The rule under test, or a wrong one.
typedef struct {
    double (*accept)(const Dist *p, const Dist *q, int32_t x);
    void (*residual)(Dist *r, const Dist *p, const Dist *q);
} Rule;

// Largest error of the emitted token's probability.
static double worst_of(const Rule *rule, const Dist *p, const Dist *q, int64_t n, Dist *r) {
    double out[SIZE] = {0}, fallen = 0.0, worst = 0.0;
    for (int64_t i = 0; i < q->n; i++) {
        if (q->p[i] <= 0.0) continue;
        const double a = rule->accept(p, q, q->id[i]);
        out[q->id[i]] += q->p[i] * a;
        fallen += q->p[i] * (1.0 - a);
    }
    rule->residual(r, p, q);
    for (int64_t i = 0; i < r->n; i++) out[r->id[i]] += fallen * r->p[i];
    for (int64_t v = 0; v < n; v++) worst = fmax(worst, fabs(out[v] - dist_prob(p, (int32_t)v)));
    return worst;
}

static double worst_of_pairs(const Rule *rule, int pairs) {
    Dist p = {0}, q = {0}, r = {0};
    double worst = 0.0;
    draws = 0;
    for (int i = 0; i < pairs; i++) {
        const int64_t n = 2 + i % (SIZE - 1);
        const int kind = (int)(uniform() * (SHAPES * SHAPES + 2));
        if (kind < SHAPES * SHAPES) {
            random_dist(&p, n, (Shape)(kind / SHAPES));
            random_dist(&q, n, (Shape)(kind % SHAPES));
        } else {
            warped_dist(&p, n);
            if (kind == SHAPES * SHAPES)
                warped_dist(&q, n);
            else
                dist_copy(&q, &p);
        }
        worst = fmax(worst, worst_of(rule, &p, &q, n, &r));
    }
    dist_free(&p), dist_free(&q), dist_free(&r);
    return worst;
}

static const Rule right = {verify_accept, verify_residual};

static void a_hundred_thousand_pairs_give_p(void **state) {
    (void)state;
    const double worst = worst_of_pairs(&right, PAIRS);
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
    const Rule wrong[] = {{equal_best_only, verify_residual},
                          {always, verify_residual},
                          {by_target_alone, verify_residual},
                          {verify_accept, whole_target}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_true(worst_of_pairs(&wrong[i], 1000) > 1e-3);
}

// A Markov target and drafter over V tokens.
typedef struct {
    Dist p[V], q[V];
    const int32_t *draft;
    int32_t before;
} Toy;

static const Dist *toy_target(void *ctx, int j) {
    const Toy *t = ctx;
    return &t->p[j == 0 ? t->before : t->draft[j - 1]];
}

typedef int RoundFn(const VerifyRound *v, VerifyTarget *target, void *ctx, Dist *r, int32_t *next);

static double middle(const Dist *d, int64_t i) { // a uniform that picks the i-th
    double below = 0.0;
    for (int64_t k = 0; k < i; k++) below += d->p[k];
    return below + d->p[i] / 2;
}

static double chain(const Toy *t, int32_t before, const int32_t *x, int n) {
    double w = 1.0;
    for (int i = 0; i < n; before = x[i++]) w *= dist_prob(&t->p[before], x[i]);
    return w;
}

// Adds `weight` to every way of going on from the first n of four tokens.
static void go_on(const Toy *t, int32_t *x, int n, double weight, double *joint) {
    for (int rest = 0, ways = (int)pow(V, K + 1 - n); rest < ways; rest++) {
        for (int i = n, left = rest; i <= K; i++, left /= V) x[i] = left % V;
        joint[((x[0] * V + x[1]) * V + x[2]) * V + x[3]] +=
            weight * chain(t, x[n - 1], x + n, K + 1 - n);
    }
}

// One vector of drafts whose first `stand` coins fall below the acceptance and the next above it;
// every token behind them, weighted.
static void add_branch(Toy *t, RoundFn *round, const Dist *q, const int32_t *draft, int stand,
                       double weight, double *joint) {
    double coin[K], pick[K + 1];
    Dist r = {0}, room = {0};
    t->draft = draft;
    for (int j = 0; j < K; j++) {
        const double a = verify_accept(toy_target(t, j), &q[j], draft[j]);
        coin[j] = j < stand ? a / 2 : (1.0 + a) / 2;
        if (j <= stand) weight *= j < stand ? a : 1.0 - a;
    }
    if (weight > 0.0) {
        if (stand < K)
            verify_residual(&r, toy_target(t, stand), &q[stand]);
        else
            dist_copy(&r, toy_target(t, K));
        for (int64_t i = 0; i < r.n; i++) {
            int32_t x[K + 1], next;
            for (int j = 0; j <= K; j++) pick[j] = middle(&r, i);
            const VerifyRound v = {.k = K, .draft = draft, .q = q, .coin = coin, .pick = pick};
            const int got = round(&v, toy_target, t, &room, &next);
            for (int j = 0; j < got; j++) x[j] = draft[j];
            x[got] = next;
            go_on(t, x, got + 1, weight * r.p[i], joint);
        }
    }
    dist_free(&r), dist_free(&room);
}

// Largest error of the V^4 joint probabilities of four tokens, of which the round gives the first
// ones. Drafts are a chain of the drafter; each coin and pick is integrated exactly.
static double worst_of_paths(Toy *t, RoundFn *round) {
    double joint[V * V * V * V] = {0}, worst = 0.0;
    for (int path = 0; path < V * V * V; path++) {
        const int32_t draft[K] = {path / (V * V), path / V % V, path % V};
        Dist q[K];
        double weight = 1.0;
        for (int j = 0; j < K; j++) {
            q[j] = t->q[j == 0 ? t->before : draft[j - 1]];
            weight *= dist_prob(&q[j], draft[j]);
        }
        for (int stand = 0; weight > 0.0 && stand <= K; stand++)
            add_branch(t, round, q, draft, stand, weight, joint);
    }
    for (int i = 0; i < V * V * V * V; i++) {
        const int32_t x[K + 1] = {i / (V * V * V), i / (V * V) % V, i / V % V, i % V};
        worst = fmax(worst, fabs(joint[i] - chain(t, t->before, x, K + 1)));
    }
    return worst;
}

static double worst_of_toys(RoundFn *round, int toys) {
    double worst = 0.0;
    Toy t = {0};
    draws = 0;
    for (int n = 0; n < toys; n++) {
        for (int v = 0; v < V; v++) {
            random_dist(&t.p[v], V, n % 3 == 2 ? SPARSE : DENSE);
            random_dist(&t.q[v], V, n % 3 == 1 ? SPARSE : n % 7 == 6 ? ONE_HOT : DENSE);
        }
        t.before = n % V;
        worst = fmax(worst, worst_of_paths(&t, round));
    }
    for (int v = 0; v < V; v++) dist_free(&t.p[v]), dist_free(&t.q[v]);
    return worst;
}

static void every_path_of_a_round_has_its_probability(void **state) {
    (void)state;
    const double worst = worst_of_toys(verify_round, 60);
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
    RoundFn *const wrong[] = {trusts_the_first, draws_from_the_target, bonus_of_the_row_before};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_true(worst_of_toys(wrong[i], 6) > 1e-3);
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
    renew(&d[0], w, 2);
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
        renew(&q, &hot, 1);
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
        const int64_t n = 2 + (int64_t)(uniform() * (SIZE - 1)), m = i % 3 ? n : 2 + n / 2;
        double overlap = 0, equal = 0;
        random_dist(&p, n, (Shape)(i % SHAPES));
        random_dist(&q, m, (Shape)(i / SHAPES % SHAPES));
        for (int32_t v = 0; v < SIZE; v++) {
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
