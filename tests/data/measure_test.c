// tests/data/measure_test.c - captured sequences counted by every rule, head and p-min, against the
// simulator's drafts and scores of each sequence by itself.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/measure.h"

#define MINI_SOURCE_OWN
enum { SEQS = 5, K = 5, LONGEST = 64, P_MINS = 2 };
static const double P_MIN[P_MINS] = {0.3, 0.9};
static const int64_t length[SEQS] = {40, 9, 64, 25, 33}, prompt[SEQS] = {12, 8, 30, 5, 20};
#include "tests/data/mini_source.h"

static MeasureOptions options(const Sampler *s, int64_t anchors, int64_t tokens) {
    MeasureOptions o = {.K = K,
                        .head = {true, true},
                        .max_anchors = anchors,
                        .pack_tokens = tokens,
                        .sampler = *s,
                        .target = pair.target,
                        .p_mins = P_MINS,
                        .recall = true};
    memcpy(o.p_min, P_MIN, sizeof P_MIN);
    return o;
}

static void measure(const MeasureOptions *o, Measured *out, MeasuredPool *pool) {
    Err err = {0};
    Measurer *m = measurer_open(pair.assistant, target_config(pair.target), &source, o, &err);
    assert_ok(m, err);
    for (int twice = 0; twice < 2; twice++) // buffers serve again
        assert_ok(measurer_run(m, pair.assistant, out, pool, &err), err);
    measurer_close(m);
}

// What the simulator says of one sequence.
typedef struct {
    int32_t drafts[2][LONGEST * K];
    double top[2][LONGEST * K], drawn[2][LONGEST * K], keep[2][RULE_COUNT][LONGEST * K],
        alpha[2][RULE_COUNT][LONGEST * K];
    uint8_t recall[LONGEST * K];
} Scores;

static void scores_of(Scores *x, const Sampler *s, int i) {
    Err err = {0};
    const SimulatorOptions so = {.max_anchors = 100,
                                 .K = K,
                                 .head = {true, true},
                                 .recall = true,
                                 .sampler = *s,
                                 .target = pair.target};
    SimulateJob job = {.seq = i, .ids = ids[i], .n = length[i], .first = prompt[i]};
    for (int h = 0; h < 2; h++) {
        job.drafts[h] = x->drafts[h];
        job.score[h].top = x->top[h];
        if (h == HEAD_CENTROID) job.score[h].recall = x->recall;
        if (s->temperature == 0) continue;
        job.score[h].drawn = x->drawn[h];
        for (int r = RULE_REJECTION; r < RULE_COUNT; r++) {
            job.score[h].keep[r] = x->keep[h][r];
            job.score[h].alpha[r] = x->alpha[h][r];
        }
    }
    Simulator *sim = simulator_open_scored(pair.assistant, &so, &err);
    assert_ok(sim, err);
    assert_ok(simulator_run(sim, pair.assistant, &pack, &job, 1, &err), err);
    simulator_close(sim);
}

static void near(double a, double b) {
    if (fabs(a - b) > 1e-9 * (1 + fabs(b))) fail_msg("%.15g, expected %.15g", a, b);
}

static void assert_near(const Acceptance *a, const Acceptance *b) {
    const double *x = (const double *)a, *y = (const double *)b;
    for (size_t i = 0; i < sizeof *a / sizeof *x; i++) near(x[i], y[i]);
}

// Drafts of an anchor until one whose best token has less than p.
static int8_t let_through(const double *top, int64_t inside, double p) {
    for (int64_t i = 0; i < inside; i++)
        if (top[i] < p) return (int8_t)i;
    return K;
}

// The pool as it should be, from the scores of one sequence after the other.
static void expect_pool(const Sampler *s, AcceptRule rule, int h, const Measured *out,
                        MeasuredPool *pool) {
    static Scores x;
    double keep[LONGEST * K], visit[LONGEST];
    int8_t offered[LONGEST];
    for (int i = 0; i < SEQS; i++) {
        const int64_t anchors = length[i] - prompt[i] - 1;
        if (anchors < 1) continue;
        scores_of(&x, s, i);
        acceptance_keep(keep, x.drafts[h], anchors, K, ids[i], length[i], prompt[i]);
        const bool drawn = rule == RULE_REJECTION || rule == RULE_STRICT;
        DraftOdds odds = {.keep = rule == RULE_GREEDY ? keep : x.keep[h][rule],
                          .alpha = rule == RULE_GREEDY ? NULL : x.alpha[h][rule],
                          .anchors = anchors,
                          .K = K};
        acceptance_reach(&pool->all[rule][h], &odds);
        for (int k = 0; k <= K; k++) {
            Acceptance one = {0};
            acceptance_expect(&one, &odds, k, visit);
            near(out[i].k[rule][h][k].rounds, one.rounds);
            near(out[i].k[rule][h][k].tokens, one.tokens);
            acceptance_merge(&pool->k[rule][h][k], &one);
        }
        odds.offered = offered;
        for (int p = 0; p < P_MINS; p++) {
            for (int64_t a = 0; a < anchors; a++)
                offered[a] = let_through((drawn ? x.drawn[h] : x.top[h]) + a * K,
                                         anchors - a < K ? anchors - a : K, P_MIN[p]);
            for (int k = 0; k <= K; k++)
                acceptance_expect(&pool->p_min[rule][h][p][k], &odds, k, visit);
        }
    }
}

static void check_sampler(const Sampler *s, int64_t anchors, int64_t tokens) {
    static Measured out[SEQS];
    static MeasuredPool pool, want;
    AcceptRule rule[RULE_COUNT];
    const MeasureOptions o = options(s, anchors, tokens);
    memset(&want, 0, sizeof want);
    measure(&o, out, &pool);
    const int rules = measure_rules(s, rule);
    assert_int_equal(rules, s->temperature == 0 ? 1 : 3);
    for (int r = 0; r < rules; r++)
        for (int h = 0; h < 2; h++) {
            expect_pool(s, rule[r], h, out, &want);
            for (int k = 0; k <= K; k++) {
                assert_near(&pool.k[rule[r]][h][k], &want.k[rule[r]][h][k]);
                for (int p = 0; p < P_MINS; p++)
                    assert_near(&pool.p_min[rule[r]][h][p][k], &want.p_min[rule[r]][h][p][k]);
            }
            for (int i = 0; i <= K; i++)
                near(pool.all[rule[r]][h].reached[i], want.all[rule[r]][h].reached[i]);
            // A threshold drafts less, and never gains tokens a round.
            assert_true(pool.p_min[rule[r]][h][1][K].drafted < pool.k[rule[r]][h][K].drafted);
            assert_true(acceptance_tau(&pool.p_min[rule[r]][h][1][K]) <=
                        acceptance_tau(&pool.k[rule[r]][h][K]));
        }
    for (int i = 0; i < SEQS; i++) // parts: kinds make the whole, contexts too
        for (int k = 0; k <= K; k++) {
            StepCount kinds = {0}, contexts = {0};
            for (int p = 0; p < PART_COUNT; p++) {
                StepCount *to = p < PART_KINDS ? &kinds : &contexts;
                to->rounds += out[i].part[HEAD_CENTROID][k][p].rounds;
                to->tokens += out[i].part[HEAD_CENTROID][k][p].tokens;
            }
            near(kinds.rounds, out[i].k[rule[0]][HEAD_CENTROID][k].rounds);
            near(contexts.tokens, out[i].k[rule[0]][HEAD_CENTROID][k].tokens);
        }
}

static void greedy_text_is_counted_by_the_greedy_rule(void **state) {
    (void)state;
    const Sampler s = {0};
    check_sampler(&s, 1000, 1000);
    check_sampler(&s, 13, 70);
}

static void sampled_text_is_counted_by_three_rules(void **state) {
    (void)state;
    const Sampler s = {.temperature = 0.9, .top_k = 30, .top_p = 0.95},
                  all = {.temperature = 1, .top_p = 1};
    check_sampler(&s, 1000, 1000);
    check_sampler(&s, 13, 70);
    check_sampler(&all, 31, 100);
}

// Shares and ceilings from the bits of every draft; on greedy text nothing accepted goes beyond.
static void recall_bounds_the_centroid_head(void **state) {
    (void)state;
    static Measured out[SEQS];
    static MeasuredPool pool;
    static Scores x;
    const Sampler s = {0};
    const MeasureOptions o = options(&s, 50, 200);
    double anchors[K + 1] = {0}, recalled[K + 1] = {0};
    measure(&o, out, &pool);
    for (int i = 0; i < SEQS; i++) {
        const int64_t n = length[i] - prompt[i] - 1;
        if (n > 0) scores_of(&x, &s, i);
        for (int64_t a = 0; a < n; a++)
            for (int64_t j = 0; j < K && j < n - a; j++) {
                anchors[j + 1] += 1;
                recalled[j + 1] += x.recall[a * K + j] != 0;
            }
    }
    for (int k = 1; k <= K; k++) {
        assert_true(pool.anchors[k] == anchors[k] && pool.recalled[k] == recalled[k]);
        assert_true(recalled[k] > 0 && recalled[k] < anchors[k]);
        assert_true(acceptance_tau(&pool.ceiling[k]) >=
                    acceptance_tau(&pool.k[RULE_GREEDY][HEAD_CENTROID][k]));
    }
    assert_int_equal(pool.impossible, 0);
}

// Drafts behind one that cannot stand are left out, whole calls of them too; counts stay, to the
// bit.
static void drafts_that_nothing_reaches_do_not_count(void **state) {
    (void)state;
    static Measured all[SEQS], some[SEQS];
    const Sampler samplers[] = {{0},
                                {.temperature = 0.9, .top_k = 30, .top_p = 0.9},
                                {.temperature = 1, .top_k = 2, .top_p = 1},
                                {.temperature = 1, .top_p = 0.9}};
    const int64_t anchors[] = {1000, 13, 1};
    for (int s = 0; s < 4; s++)
        for (int i = 0; i < 3; i++)
            for (int heads = 1; heads < 4; heads++) {
                MeasureOptions o = options(&samplers[s], anchors[i], 200);
                o.p_mins = 0;
                o.recall = false;
                o.head[HEAD_DENSE] = heads & 1;
                o.head[HEAD_CENTROID] = heads >> 1;
                measure(&o, all, NULL);
                o.reached = true;
                measure(&o, some, NULL);
                assert_memory_equal(all, some, sizeof all);
            }
}

static void memory_grows_with_what_is_asked(void **state) {
    (void)state;
    const TargetConfig *tc = target_config(pair.target);
    const Sampler greedy = {0}, drawn = {.temperature = 1, .top_p = 1};
    MeasureOptions plain = options(&greedy, 100, 200), full = options(&drawn, 100, 200);
    plain.p_mins = 0;
    plain.recall = false;
    full.target = NULL; // as where nothing is loaded yet
    const size_t a = measurer_bytes(pair.assistant, tc, &source, &plain),
                 b = measurer_bytes(pair.assistant, tc, &source, &full);
    // Scores of 2 heads: top, drawn, keep and alpha of 3 rules; the target's logits; recall.
    assert_true(b > a + 2 * 171 * K * 8 * (size_t)8 + 171 * K);
    const Sampler cut = {.temperature = 1, .top_k = 8, .top_p = 1};
    full.sampler = cut;
    assert_true(measurer_bytes(pair.assistant, tc, &source, &full) < b);
}

// A drafter without centroids (out of a GGUF file) beside one with them, in one reading.
static void a_drafter_without_centroids_counts_its_dense_head(void **state) {
    (void)state;
    Err err = {0};
    Assistant dense = *pair.assistant;
    dense.cfg.ordered = 0;
    static Measured out[2][SEQS];
    static MeasuredPool pool[2];
    const Sampler samplers[] = {{.top_p = 1}, {.temperature = 0.7, .top_p = 0.9}};
    for (int i = 0; i < 2; i++) {
        const MeasureOptions o = options(&samplers[i], 33, 80);
        AcceptRule rule[RULE_COUNT];
        const int rules = measure_rules(&samplers[i], rule);
        Measurer *m = measurer_open(pair.assistant, target_config(pair.target), &source, &o, &err);
        assert_ok(m, err);
        assert_ok(measurer_add(m, &dense, &err), err);
        const MeasureTask task[] = {{pair.assistant, out[0], &pool[0]}, {&dense, out[1], &pool[1]}};
        assert_ok(measurer_run_all(m, task, 2, &err), err);
        measurer_close(m);
        for (int r = 0; r < rules; r++)
            for (int k = 0; k <= K; k++) {
                assert_memory_equal(&pool[0].k[rule[r]][HEAD_DENSE][k],
                                    &pool[1].k[rule[r]][HEAD_DENSE][k], sizeof(Acceptance));
                assert_true(pool[0].k[rule[r]][HEAD_CENTROID][k].rounds > 0);
                assert_true(pool[1].k[rule[r]][HEAD_CENTROID][k].rounds == 0);
            }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_drafter_without_centroids_counts_its_dense_head),
        cmocka_unit_test(greedy_text_is_counted_by_the_greedy_rule),
        cmocka_unit_test(sampled_text_is_counted_by_three_rules),
        cmocka_unit_test(recall_bounds_the_centroid_head),
        cmocka_unit_test(drafts_that_nothing_reaches_do_not_count),
        cmocka_unit_test(memory_grows_with_what_is_asked),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
