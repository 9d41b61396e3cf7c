// tests/eval/count/coverage_test.c - how often the 95 % intervals hold the truth, where it is
// known.
//
// A toy of decoding: a prompt has a length and a hardness, each draft of a round stands with its
// alpha, the last round is cut at the end. The expected rounds of N tokens follow from
// R(N) = 1 + sum_j P(L = j) R(N - 1 - j), hence the pooled tau E[N] / E[R] and the gain of a second
// drafter, exactly.
#include <math.h>

#include "eval/count/stats.h"
#include "infer/base/log.h"
#include "infer/base/rng.h"
#include "tests/testing.h"

enum { REPEAT = 400, PROMPTS = 120, K = 7, LENGTHS = 24, HARD = 8, RESAMPLES = 1000, MOST = 700 };

// Lengths from 20 to about 600 tokens; hard prompts are longer: pooled and per-prompt tau differ.
static int64_t length_of(int i) {
    return (int64_t)(20 * pow(30.0, i / (LENGTHS - 1.0)));
}
static double alpha_of(int hard, int drafter) {
    return 0.86 - 0.05 * hard + (drafter ? 0.02 + 0.004 * hard : 0.0);
}
// P(hardness | length), by a uniform.
static int hardness(int length, double u) {
    const double tilt = 0.6 * length / (LENGTHS - 1.0) - 0.3; // -.3 .. .3
    const double x = u + tilt * u * (1 - u);                  // monotone in u, onto [0, 1]
    return x >= 1.0 ? HARD - 1 : (int)(x * HARD);
}
// The same by its inverse at the edges of the bins.
static double hardness_share(int length, int hard) {
    const double tilt = 0.6 * length / (LENGTHS - 1.0) - 0.3;
    double edge[2];
    for (int e = 0; e < 2; e++) { // u with u + tilt u (1 - u) = x
        const double x = (hard + e) / (double)HARD, b = 1 + tilt;
        edge[e] = fabs(tilt) < 1e-12 ? x : (b - sqrt(b * b - 4 * tilt * x)) / (2 * tilt);
    }
    return edge[1] - edge[0];
}

static void expected_rounds(double *R, double alpha) { // R[0 .. MOST]
    R[0] = 0;
    for (int n = 1; n <= MOST; n++) {
        double reach = 1, sum = 1; // reach: the first j drafts stand
        for (int j = 0; j <= K; j++) {
            const double ends = j < K ? reach * (1 - alpha) : reach;
            if (n - 1 - j > 0) sum += ends * R[n - 1 - j];
            reach *= alpha;
        }
        R[n] = sum;
    }
}

typedef struct {
    double tau, gain;
} Truth;

static Truth truth(void) {
    static double R[MOST + 1];
    double tokens = 0, rounds[2] = {0};
    for (int h = 0; h < HARD; h++)
        for (int d = 0; d < 2; d++) {
            expected_rounds(R, alpha_of(h, d));
            for (int l = 0; l < LENGTHS; l++) {
                const double share = hardness_share(l, h) / LENGTHS;
                rounds[d] += share * R[length_of(l)];
                if (d == 0) tokens += share * (double)length_of(l);
            }
        }
    return (Truth){tokens / rounds[0], rounds[0] / rounds[1] - 1};
}

// Rounds that n tokens took; the two drafters of a prompt share nothing but its hardness.
static double simulated(int64_t n, double alpha, uint64_t a, uint64_t *b) {
    double rounds = 0;
    for (int64_t left = n; left > 0; rounds++) {
        const double u = rng_uniform(29, RNG_TEST, a, (*b)++);
        int L = 0;
        for (double reach = alpha; L < K && u < reach; reach *= alpha) L++;
        left -= L + 1;
    }
    return rounds;
}

static double total(const double *x) {
    double sum = 0;
    for (int i = 0; i < PROMPTS; i++) sum += x[i];
    return sum;
}

static void experiment(uint64_t number, double *tokens, double *rounds) {
    uint64_t b = 0;
    for (int i = 0; i < PROMPTS; i++) {
        const int l = (int)rng_below(29, RNG_TEST, number, b++, LENGTHS);
        const int h = hardness(l, rng_uniform(29, RNG_TEST, number, b++));
        for (int d = 0; d < 2; d++) {
            tokens[d * PROMPTS + i] = (double)length_of(l);
            rounds[d * PROMPTS + i] = simulated(length_of(l), alpha_of(h, d), number, &b);
        }
    }
}

static bool holds(Interval x, double value) {
    return x.lo <= value && value <= x.hi;
}

static void intervals_of_tau_and_gain_cover_the_truth(void **state) {
    (void)state;
    const Truth want = truth();
    const double start = now_s();
    double tokens[2 * PROMPTS], rounds[2 * PROMPTS], all_tokens = 0, all_rounds[2] = {0}, width = 0;
    int tau = 0, gain = 0;
    for (int r = 0; r < REPEAT; r++) {
        experiment((uint64_t)r, tokens, rounds);
        const BootstrapInput in = {.prompts = PROMPTS,
                                   .series = 2,
                                   .tokens = tokens,
                                   .rounds = rounds,
                                   .resamples = RESAMPLES,
                                   .confidence = 0.95,
                                   .seed = (uint64_t)r};
        Err err = {0};
        Bootstrap *b = bootstrap_run(&in, &err);
        assert_ok(b, err);
        const Interval g = bootstrap_gain(b, 1, 0);
        tau += holds(bootstrap_tau(b, 0), want.tau);
        gain += holds(g, want.gain);
        width += (g.hi - g.lo) / REPEAT;
        bootstrap_free(b);
        all_tokens += total(tokens);
        for (int d = 0; d < 2; d++) all_rounds[d] += total(rounds + d * PROMPTS);
    }
    print_message("true tau %.4f, gain %.4f (intervals %.4f wide): covered in %.1f %% and %.1f %%, "
                  "%.1f s\n",
                  want.tau, want.gain, width, 100.0 * tau / REPEAT, 100.0 * gain / REPEAT,
                  now_s() - start);
    // the truth is the truth: all 48000 prompts together come near it
    assert_true(fabs(all_tokens / all_rounds[0] / want.tau - 1) < 0.005);
    assert_true(fabs(all_rounds[0] / all_rounds[1] - 1 - want.gain) < 0.003);
    assert_in_range(tau, REPEAT * 92 / 100, REPEAT * 98 / 100);
    assert_in_range(gain, REPEAT * 92 / 100, REPEAT * 98 / 100);
}

// Shares of the hardness sum to one and are what the draws follow.
static void the_toy_draws_what_it_says(void **state) {
    (void)state;
    enum { DRAWS = 200000 };
    for (int l = 0; l < LENGTHS; l += 23) {
        int count[HARD] = {0};
        double sum = 0;
        for (int i = 0; i < DRAWS; i++)
            count[hardness(l, rng_uniform(31, RNG_TEST, (uint64_t)l, (uint64_t)i))]++;
        for (int h = 0; h < HARD; h++) {
            const double share = hardness_share(l, h);
            sum += share;
            assert_true(fabs(count[h] - share * DRAWS) < 5 * sqrt(share * DRAWS));
        }
        assert_true(fabs(sum - 1) < 1e-12);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_toy_draws_what_it_says),
        cmocka_unit_test(intervals_of_tau_and_gain_cover_the_truth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
