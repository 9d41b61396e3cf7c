// tests/eval/count/stats_test.c - the paired bootstrap: exact cases, reproducibility, coverage.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/count/stats.h"
#include "infer/base/rng.h"
#include "tests/testing.h"

enum { PROMPTS = 60 };

static Bootstrap *run(const double *tokens, const double *rounds, int64_t series, int64_t prompts,
                      int64_t resamples, uint64_t seed) {
    const BootstrapInput in = {.prompts = prompts,
                               .series = series,
                               .tokens = tokens,
                               .rounds = rounds,
                               .resamples = resamples,
                               .confidence = 0.95,
                               .seed = seed};
    Err err = {0};
    Bootstrap *b = bootstrap_run(&in, &err);
    if (b == NULL) fail_msg("%s", err.text);
    return b;
}

static void quantiles_are_linear_between_order_statistics(void **state) {
    (void)state;
    const double v[] = {1, 2, 4, 8, 16}; // numpy.quantile
    assert_true(sorted_quantile(v, 5, 0.0) == 1.0);
    assert_true(sorted_quantile(v, 5, 0.5) == 4.0);
    assert_true(fabs(sorted_quantile(v, 5, 0.9) - 12.8) < 1e-12);
    assert_true(sorted_quantile(v, 5, 1.0) == 16.0);
    assert_true(sorted_quantile(v, 1, 0.3) == 1.0);
}

static void equal_prompts_leave_no_width(void **state) {
    (void)state;
    double tokens[PROMPTS], rounds[PROMPTS];
    for (int i = 0; i < PROMPTS; i++) tokens[i] = 30, rounds[i] = 12;
    Bootstrap *b = run(tokens, rounds, 1, PROMPTS, 200, 1);
    const Interval t = bootstrap_tau(b, 0);
    assert_true(t.lo == 2.5 && t.hi == 2.5);
    bootstrap_free(b);
}

static void noisy(double *tokens, double *rounds, int n) {
    const Tensor x = test_random(DT_F32, 2, n);
    for (int i = 0; i < n; i++) {
        tokens[i] = 60 + floor(20 * fabs((double)test_get(x, 0, i)));
        rounds[i] = floor(tokens[i] / (2.5 + 0.5 * tanh((double)test_get(x, 1, i))));
    }
}

static void pairing_removes_what_two_drafters_share(void **state) {
    (void)state;
    double tokens[3 * PROMPTS], rounds[3 * PROMPTS];
    noisy(tokens, rounds, PROMPTS);
    for (int i = 0; i < PROMPTS; i++) { // 1: the same drafter; 2: half the rounds on every prompt
        tokens[PROMPTS + i] = tokens[2 * PROMPTS + i] = tokens[i];
        rounds[PROMPTS + i] = rounds[i];
        rounds[2 * PROMPTS + i] = rounds[i] / 2;
    }
    Bootstrap *b = run(tokens, rounds, 3, PROMPTS, 500, 7);
    const Interval tau = bootstrap_tau(b, 0), none = bootstrap_gain(b, 1, 0),
                   twice = bootstrap_gain(b, 2, 0);
    assert_true(tau.hi - tau.lo > 0.01);
    assert_true(none.lo == 0.0 && none.hi == 0.0);
    assert_true(fabs(twice.lo - 1.0) < 1e-12 && fabs(twice.hi - 1.0) < 1e-12);
    bootstrap_free(b);
}

static void the_seed_decides(void **state) {
    (void)state;
    double tokens[PROMPTS], rounds[PROMPTS];
    noisy(tokens, rounds, PROMPTS);
    Bootstrap *a = run(tokens, rounds, 1, PROMPTS, 300, 5),
              *b = run(tokens, rounds, 1, PROMPTS, 300, 5),
              *c = run(tokens, rounds, 1, PROMPTS, 300, 6);
    const Interval x = bootstrap_tau(a, 0), y = bootstrap_tau(b, 0), z = bootstrap_tau(c, 0);
    assert_true(x.lo == y.lo && x.hi == y.hi);
    assert_true(x.lo != z.lo || x.hi != z.hi);
    bootstrap_free(a);
    bootstrap_free(b);
    bootstrap_free(c);
}

static void nothing_measured_gives_zero(void **state) {
    (void)state;
    const double none[2] = {0, 0};
    Bootstrap *b = run(none, none, 1, 2, 100, 1), *empty = run(NULL, NULL, 1, 0, 100, 1);
    assert_true(bootstrap_tau(b, 0).hi == 0.0 && bootstrap_gain(b, 0, 0).hi == 0.0);
    assert_true(bootstrap_tau(empty, 0).hi == 0.0);
    bootstrap_free(b);
    bootstrap_free(empty);
}

static void normal_quantiles_are_the_tables(void **state) {
    (void)state;
    assert_true(fabs(normal_quantile(0.5)) < 1e-12);
    assert_true(fabs(normal_quantile(0.975) - 1.959963984540054) < 1e-12);
    assert_true(fabs(normal_quantile(0.8) - 0.8416212335729143) < 1e-12);
    assert_true(fabs(normal_quantile(1e-9) + 5.997807015008182) < 1e-9);
}

// Two drafters whose rounds differ by a coin for each prompt: the variance of the gain is known.
static void power_counts_the_prompts_a_gain_takes(void **state) {
    (void)state;
    enum { N = 400 };
    double tokens[2 * N], rounds[2 * N];
    for (int i = 0; i < N; i++) {
        tokens[i] = tokens[N + i] = 100;
        rounds[i] = 40;
        rounds[N + i] = i % 2 ? 39 : 41;
    }
    Bootstrap *b = run(tokens, rounds, 2, N, 4000, 3);
    const Power p = stats_power(b, 0, 1, 0.01, 0.8);
    const double se = 1.0 / 40 / sqrt(N), z = 1.959963984540054 + 0.8416212335729143;
    assert_true(fabs(p.se / se - 1.0) < 0.05); // 4000 draws: 1.1 % is one standard deviation
    assert_true(p.prompts == ceil(N * pow(z * p.se / 0.01, 2)));
    assert_true(fabs(p.prompts / 49.06 - 1.0) < 0.1); // (2.8 / 40 / .01)^2
    const Power half = stats_power(b, 0, 1, 0.005, 0.8), same = stats_power(b, 1, 1, 0.01, 0.8);
    assert_true(fabs(half.prompts - 4 * p.prompts) <= 4);
    assert_true(same.se == 0.0 && same.prompts == 0.0);
    bootstrap_free(b);
}

// As many prompts as power asks for do show the gain in about four of five experiments.
static void that_many_prompts_show_it(void **state) {
    (void)state;
    enum { REPEAT = 300 };
    const double need = pow((1.959963984540054 + 0.8416212335729143) / 40 / 0.01, 2);
    const int n = (int)ceil(need);
    double tokens[2 * 64], rounds[2 * 64];
    int seen = 0;
    assert_in_range(n, 49, 50);
    for (int r = 0; r < REPEAT; r++) {
        for (int i = 0; i < n; i++) {
            tokens[i] = tokens[n + i] = 100;
            const double u = rng_uniform(17, RNG_TEST, (uint64_t)r, (uint64_t)i);
            rounds[n + i] = 40.4 + sqrt(3.0) * (2 * u - 1); // standard deviation 1
            rounds[i] = 40;                                 // 1 % more tokens a round
        }
        Bootstrap *b = run(tokens, rounds, 2, n, 400, (uint64_t)r);
        const Interval gain = bootstrap_gain(b, 0, 1);
        seen += gain.lo > 0;
        bootstrap_free(b);
    }
    print_message("a gain of 1 %% is seen in %d of %d experiments\n", seen, REPEAT);
    assert_in_range(seen, REPEAT * 72 / 100, REPEAT * 88 / 100);
}

static void comparisons_are_counted_in_words(void **state) {
    (void)state;
    char text[512];
    stats_multiplicity(text, sizeof text, 9, 0.95);
    assert_non_null(strstr(text, "9 draft lengths"));
    assert_non_null(strstr(text, "99.44 % interval"));
    stats_multiplicity(text, sizeof text, 1, 0.95);
    assert_non_null(strstr(text, "One draft length"));
}

// Prompts drawn anew each time; truth is the ratio of means over very many.
static void intervals_cover_the_truth(void **state) {
    (void)state;
    enum { REPEAT = 400, MANY = 400000 };
    double *tokens = malloc(MANY * sizeof *tokens), *rounds = malloc(MANY * sizeof *rounds), t = 0,
           r = 0;
    Env *env = test_env();
    const size_t mark = arena_mark(&env->arena);
    noisy(tokens, rounds, MANY);
    for (int i = 0; i < MANY; i++) t += tokens[i], r += rounds[i];
    arena_reset(&env->arena, mark);
    int covered = 0;
    for (int i = 0; i < REPEAT; i++) {
        noisy(tokens, rounds, PROMPTS);
        arena_reset(&env->arena, mark);
        Bootstrap *b = run(tokens, rounds, 1, PROMPTS, 400, (uint64_t)i);
        const Interval tau = bootstrap_tau(b, 0);
        covered += tau.lo <= t / r && t / r <= tau.hi;
        bootstrap_free(b);
    }
    print_message("coverage of the 95 %% interval: %.1f %%\n", 100.0 * covered / REPEAT);
    assert_in_range(covered, REPEAT * 91 / 100,
                    REPEAT * 98 / 100); // two sd of a 400-fold count is 2 %
    free(tokens);
    free(rounds);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles_are_linear_between_order_statistics),
        cmocka_unit_test(equal_prompts_leave_no_width),
        cmocka_unit_test(pairing_removes_what_two_drafters_share),
        cmocka_unit_test(the_seed_decides),
        cmocka_unit_test(nothing_measured_gives_zero),
        cmocka_unit_test(normal_quantiles_are_the_tables),
        cmocka_unit_test(power_counts_the_prompts_a_gain_takes),
        cmocka_unit_test(that_many_prompts_show_it),
        cmocka_unit_test(comparisons_are_counted_in_words),
        cmocka_unit_test(intervals_cover_the_truth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
