// tests/train/weighting_test.c - step weights; visits against an enumeration of every decoding
// path.
#include "tests/testing.h"

#include <math.h>
#include <string.h>

#include "train/weighting.h"

static void assert_near(double a, double b, double tolerance) {
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.17g, expected %.17g", a, b);
}

enum { N = 9, FIRST = 2, ANCHORS = N - FIRST - 1, K = 3 };

static void fixed_weights_decay(void **state) {
    (void)state;
    double w[DRAFT_MAX];
    const Weighting f = {.kind = WEIGHTS_FIXED, .K = 4, .decay = 0.5};
    weighting_steps(&f, w);
    const double want[] = {1, 0.5, 0.25, 0.125};
    for (int j = 0; j < 4; j++) assert_near(w[j], want[j], 0.0);
}

static void reach_multiplies_smoothed_match_rates(void **state) {
    (void)state;
    double w[DRAFT_MAX];
    Weighting r = {.kind = WEIGHTS_REACH, .K = 3, .smooth = 0.1};
    weighting_steps(&r, w);
    assert_near(w[2], 1.0, 0.0); // nothing seen yet: all alike
    weighting_observe(&r, (double[DRAFT_MAX]){0.8, 0.5, 0.2}, (double[DRAFT_MAX]){5, 5, 5});
    weighting_steps(&r, w);
    assert_near(w[0], 1.0, 0.0);
    assert_near(w[1], 0.82, 1e-12);
    assert_near(w[2], 0.82 * 0.55, 1e-12);
    weighting_observe(&r, (double[DRAFT_MAX]){1.0, 0.0, 0.0}, (double[DRAFT_MAX]){5, 0, 5});
    assert_near(r.match[0], 0.9 * 0.8 + 0.1, 1e-12);
    assert_near(r.match[1], 0.5, 0.0); // a step without rows keeps its rate
}

static void fill_zeroes_what_is_not_valid(void **state) {
    (void)state;
    const Weighting f = {.kind = WEIGHTS_FIXED, .K = 2, .decay = 0.5};
    uint8_t valid[6] = {1, 0, 1, 1, 1, 0};
    const Batch b = {.rows = 3, .valid = valid};
    float w[6];
    weighting_fill(&f, &b, w);
    const float want[6] = {1, 0, 1, 0.5f, 0.5f, 0};
    assert_memory_equal(w, want, sizeof w);
}

// Expected number of rounds over all ways the coins of `a` can fall, from anchor t on; with the
// probability of getting there added into visit.
static double walk(const double *a, int64_t t, double p, double *visit) {
    if (t >= ANCHORS) return 0.0;
    visit[t] += p;
    const int64_t left = N - FIRST - t - 1;
    const int steps = left < K ? (int)left : K;
    double rounds = p, reach = 1.0;
    for (int j = 0; j <= steps; j++) {
        const double stop = j < steps ? 1.0 - a[t * K + j] : 1.0;
        rounds += walk(a, t + 1 + j, p * reach * stop, visit);
        if (j < steps) reach *= a[t * K + j];
    }
    return rounds;
}

static void visits_agree_with_every_path_and_worth_with_its_formula(void **state) {
    (void)state;
    const Weighting v = {.kind = WEIGHTS_VISIT, .K = K, .smooth = 0.25};
    const int32_t ids[N] = {2, 3, 10, 11, 12, 13, 14, 15, 16};
    int32_t drafts[ANCHORS * K];
    double a[ANCHORS * K], visit[ANCHORS], out[ANCHORS * K], want[ANCHORS] = {0};
    for (int64_t t = 0; t < ANCHORS; t++)
        for (int j = 0; j < K; j++) {
            const bool inside = FIRST + t + 1 + j < N, hit = (t * 5 + j * 3) % 4 != 0;
            drafts[t * K + j] = inside ? ids[FIRST + t + 1 + j] + (hit ? 0 : 100) : -1;
            a[t * K + j] = hit ? 1.0 : 0.25;
        }
    weighting_visits(&v, drafts, ANCHORS, ids, N, FIRST, visit, out);
    walk(a, 0, 1.0, want);
    for (int64_t t = 0; t < ANCHORS; t++) {
        assert_near(visit[t], want[t], 1e-12);
        const int steps = ANCHORS - t < K ? (int)(ANCHORS - t) : K;
        for (int j = 0; j < K; j++) {
            double sum = 0.0; // v_t sum_{m >= j} prod_{i <= m, i != j} a_i
            for (int m = j; m < steps; m++) {
                double product = 1.0;
                for (int i = 0; i <= m; i++)
                    if (i != j) product *= a[t * K + i];
                sum += product;
            }
            assert_near(out[t * K + j], visit[t] * sum, 1e-12);
        }
    }
}

static void place_uses_the_walk_and_the_mean_before_it(void **state) {
    (void)state;
    const Weighting v = {.kind = WEIGHTS_VISIT, .K = 1};
    const double out[2] = {0.25, 0.75};
    int32_t T[4] = {3, 5, 6, 5}, seq_of[4] = {0, 0, 0, 1};
    uint8_t valid[4] = {1, 1, 1, 1};
    float w[4] = {9, 9, 9, 9};
    const Batch b = {.rows = 4, .T = T, .seq_of = seq_of, .valid = valid};
    weighting_place(&v, &b, 0, out, 2, 5, w);
    const float want[4] = {0.5f, 0.25f, 0.75f, 9};
    assert_memory_equal(w, want, sizeof w);
}

static void a_share_multiplies_every_weight(void **state) {
    (void)state;
    const Weighting f = {.kind = WEIGHTS_FIXED, .K = 2, .decay = 0.5}, v = {.K = 1};
    int32_t T[3] = {5, 6, 7}, seq_of[3] = {0, 0, 0};
    uint8_t valid[6] = {1, 1, 1, 1, 0, 1};
    float share[3] = {0.5f, 2, 1}, w[6];
    const Batch b = {.rows = 3, .T = T, .seq_of = seq_of, .valid = valid, .share = share};
    weighting_fill(&f, &b, w);
    const float fixed[6] = {0.5f, 2, 1, 0.25f, 0, 0.5f};
    assert_memory_equal(w, fixed, sizeof w);
    weighting_place(&v, &b, 0, (double[]){3, 4, 5}, 3, 5, w);
    const float placed[3] = {1.5f, 8, 5};
    assert_memory_equal(w, placed, sizeof placed);
}

static void odds_follow_visits_and_grow_with_doublings_beyond_the_window(void **state) {
    (void)state;
    enum { LENGTH = 40, PROMPT = 4, WALK = LENGTH - PROMPT - 1 };
    double visit[WALK], odds[LENGTH], sum = 0.0;
    for (int i = 0; i < WALK; i++) visit[i] = i % 2 ? 0.0 : 0.5;
    weighting_odds(visit, WALK, PROMPT, LENGTH, 8, 0.5, odds);
    for (int i = 0; i < WALK; i++)
        sum += visit[i] * (i + PROMPT > 8 ? 1 + 0.5 * log2((i + PROMPT) / 8.0) : 1);
    const double scale = 0.75 * WALK / sum;
    assert_near(odds[0], 1.0, 1e-12);                  // outside the walk
    assert_near(odds[5], 0.25, 1e-12);                 // never visited
    assert_near(odds[8], 0.25 + scale * 0.5, 1e-12);   // within the window
    assert_near(odds[16], 0.25 + scale * 0.75, 1e-12); // one doubling beyond
    assert_near(odds[32], 0.25 + scale * 1.0, 1e-12);
    assert_near(odds[LENGTH - 1], 1.0, 1e-12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixed_weights_decay),
        cmocka_unit_test(reach_multiplies_smoothed_match_rates),
        cmocka_unit_test(fill_zeroes_what_is_not_valid),
        cmocka_unit_test(visits_agree_with_every_path_and_worth_with_its_formula),
        cmocka_unit_test(place_uses_the_walk_and_the_mean_before_it),
        cmocka_unit_test(a_share_multiplies_every_weight),
        cmocka_unit_test(odds_follow_visits_and_grow_with_doublings_beyond_the_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
