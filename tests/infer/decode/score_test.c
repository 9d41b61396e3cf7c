// tests/infer/decode/score_test.c - the scores of drafts on sampled text, against one anchor after
// the other with whole rows of probabilities.
#include <math.h>

#include "infer/decode/simulate.h"
#include "tests/infer/decode/mini_pair.h"

enum { SEQS = 3, K = 4, LONGEST = 40, V_MAX = 1024 };

static MiniPair pair;
static FeaturePack pack;
static int32_t ids[SEQS][LONGEST];
static const int64_t length[SEQS] = {30, 11, 40}, first[SEQS] = {9, 10, 22}; // the second: none

static int open_pair(void **state) {
    (void)state;
    pair = mini_pair_open();
    features_take(&pack, target_config(pair.target), SEQS * LONGEST, DT_F32, &test_env()->arena);
    for (int s = 0; s < SEQS; s++) {
        if (s == 0)
            mini_fitted(ids[s], (size_t)length[s]);
        else
            mini_prompt(ids[s], length[s], s);
        mini_capture(&pair, &pack, ids[s], length[s]);
    }
    return 0;
}
static int close_pair(void **state) {
    (void)state;
    mini_pair_close(&pair);
    return 0;
}

typedef struct {
    int32_t drafts[SEQS][2][LONGEST * K];
    double top[SEQS][2][LONGEST * K], drawn[SEQS][2][LONGEST * K];
    double keep[RULE_COUNT][SEQS][2][LONGEST * K], alpha[RULE_COUNT][SEQS][2][LONGEST * K];
    uint8_t recall[SEQS][LONGEST * K];
    int64_t impossible;
} Output;

static bool reached; // SimulatorOptions

static void run(Output *o, const Sampler *sampler, int64_t max_anchors, size_t tile_bytes) {
    Err err = {0};
    SimulateJob job[SEQS] = {0};
    memset(o, 0, sizeof *o);
    for (int s = 0; s < SEQS; s++) {
        job[s] = (SimulateJob){.seq = s, .ids = ids[s], .n = length[s], .first = first[s]};
        for (int h = 0; h < 2; h++) {
            DraftScores *score = &job[s].score[h];
            job[s].drafts[h] = o->drafts[s][h];
            score->top = o->top[s][h];
            if (h == HEAD_CENTROID && !reached) score->recall = o->recall[s];
            if (sampler->temperature == 0) continue;
            score->drawn = o->drawn[s][h];
            for (int r = RULE_REJECTION; r < RULE_COUNT; r++) {
                score->keep[r] = o->keep[r][s][h];
                score->alpha[r] = o->alpha[r][s][h];
            }
        }
    }
    const SimulatorOptions opt = {.max_anchors = max_anchors,
                                  .K = K,
                                  .head = {true, true},
                                  .recall = !reached,
                                  .reached = reached,
                                  .sampler = *sampler,
                                  .target = pair.target,
                                  .tile_bytes = tile_bytes};
    Simulator *sim = simulator_open_scored(pair.assistant, &opt, &err);
    assert_ok(sim, err);
    assert_ok(simulator_run(sim, pair.assistant, &pack, job, SEQS, &err), err);
    o->impossible = simulator_impossible(sim);
    simulator_close(sim);
}

// Probabilities of a row of logits, by token.
static void warped(double *p, const float *z, int64_t V, const Sampler *s) {
    Dist d = {0};
    dist_from_logits(&d, z, V, s);
    for (int64_t v = 0; v < V; v++) p[v] = dist_prob(&d, (int32_t)v);
    dist_free(&d);
}

// What a head says of state y, by token; whether the clusters it chose hold one.
static void head_row(float *z, bool *offered, Head head, Tensor y, Arena *arena) {
    const int64_t cols = assistant_logit_cols(pair.assistant, head);
    const Tensor some = tensor_take(arena, DT_F32, 1, cols),
                 token = tensor_take(arena, DT_I32, 1, cols);
    assistant_logits(pair.assistant, head, some, head == HEAD_DENSE ? NO_TENSOR : token, y, arena);
    for (int64_t v = 0; v < pair.assistant->cfg.text.vocab; v++) {
        z[v] = -INFINITY;
        offered[v] = false;
    }
    for (int64_t c = 0; c < cols; c++) {
        const int64_t v = head == HEAD_DENSE ? c : ((const int32_t *)token.data)[c];
        z[v] = ((const float *)some.data)[c];
        offered[v] = true;
    }
}

typedef struct {
    double p[V_MAX], q[V_MAX], plain[V_MAX];
    float z[V_MAX];
    bool offered[V_MAX];
} Rows;

static void near(const char *what, double got, double want) {
    if (fabs(got - want) > 1e-6) fail_msg("%s: %.12g, expected %.12g", what, got, want);
}

static void check_draft(const Output *o, int s, int h, int64_t at, const Rows *x, int32_t y,
                        int32_t best) {
    const int64_t V = pair.assistant->cfg.text.vocab;
    double overlap = 0, equal = 0, most = 0, top = 0;
    int32_t draft = 0;
    for (int64_t v = 0; v < V; v++) {
        overlap += fmin(x->p[v], x->q[v]);
        equal += x->p[v] * x->q[v];
        most = fmax(most, x->q[v]);
        top = fmax(top, x->plain[v]);
        if (x->z[v] > x->z[draft]) draft = (int32_t)v;
    }
    assert_int_equal(o->drafts[s][h][at], draft);
    near("top", o->top[s][h][at], top);
    near("drawn", o->drawn[s][h][at], most);
    const double kept = x->p[y] > 0 ? fmin(1, x->q[y] / x->p[y]) : x->q[y] > 0;
    near("kept by rejection", o->keep[RULE_REJECTION][s][h][at], kept);
    near("overlap", o->alpha[RULE_REJECTION][s][h][at], overlap);
    near("kept as best", o->keep[RULE_BEST][s][h][at], draft == y);
    near("p of the best", o->alpha[RULE_BEST][s][h][at], x->p[draft]);
    near("kept strictly", o->keep[RULE_STRICT][s][h][at], x->q[y]);
    near("equality", o->alpha[RULE_STRICT][s][h][at], equal);
    if (h == HEAD_CENTROID)
        assert_int_equal(o->recall[s][at],
                         (x->offered[best] ? RECALL_BEST : 0) | (x->offered[y] ? RECALL_TEXT : 0));
}

// Draft by draft: anchor T of sequence s rolled out by itself.
static int64_t check_anchor(const Output *o, const Sampler *sampler, int s, int32_t T) {
    static Rows x;
    Arena *arena = &test_env()->arena;
    const size_t mark = arena_mark(arena);
    const Sampler plain = {.temperature = 1, .top_p = 1};
    const int64_t V = pair.assistant->cfg.text.vocab, a = T - first[s];
    const int32_t seq = s;
    AnchorSet set = {0};
    AnchorPlan plan = {0};
    AttnSeg seg[2][PACK_SEQS_MAX];
    StepActs acts;
    int64_t impossible = 0;
    const Tensor row = tensor_take(arena, DT_I32, 1, 1), token = tensor_take(arena, DT_I32, 1, 1),
                 f = tensor_take(arena, DT_F32, 1, pair.assistant->cfg.backbone),
                 z = tensor_take(arena, DT_F32, 1, V);
    assistant_acts_take(pair.assistant, &acts, 1, false, arena);
    features_anchors(&pack, test_env()->dev, pair.assistant, &T, &seq, 1, &set, seg[0], seg[1], row,
                     f);
    anchor_plan(pair.assistant, &set, &plan, arena);
    for (int j = 0; j < K && T + 1 + j < length[s]; j++) {
        const int32_t y = ids[s][T + 1 + j];
        *(int32_t *)token.data = ids[s][T + j];
        assistant_step(pair.assistant, &plan, token, j == 0 ? f : acts.f, &acts, true);
        target_logits(pair.target, z, tensor_rows(pack.hidden, pack.start[s] + T + j, 1));
        const float *logits = z.data;
        int32_t best = 0;
        for (int64_t v = 0; v < V; v++)
            if (logits[v] > logits[best]) best = (int32_t)v;
        warped(x.p, logits, V, sampler);
        impossible += j == 0 && x.p[y] == 0;
        for (int h = 0; h < 2; h++) {
            head_row(x.z, x.offered, (Head)h, acts.y, arena);
            warped(x.q, x.z, V, sampler);
            warped(x.plain, x.z, V, &plain);
            check_draft(o, s, h, a * K + j, &x, y, best);
        }
    }
    arena_reset(arena, mark);
    return impossible;
}

static void scores_are_those_of_single_anchors(void **state) {
    (void)state;
    static Output o;
    const Sampler samplers[] = {{.temperature = 1, .top_p = 1},
                                {.temperature = 0.7, .top_p = 0.9},
                                {.temperature = 1.3, .top_k = 5, .top_p = 0.95}};
    assert_true(pair.assistant->cfg.text.vocab <= V_MAX);
    for (int i = 0; i < 3; i++) {
        int64_t impossible = 0;
        run(&o, &samplers[i], 1000, 0);
        for (int s = 0; s < SEQS; s++)
            for (int64_t T = first[s]; T < length[s] - 1; T++)
                impossible += check_anchor(&o, &samplers[i], s, (int32_t)T);
        assert_int_equal(o.impossible, impossible);
        assert_true(i < 2 || impossible > 0); // made-up text: top-k 5 has not all of it
    }
}

static void calls_of_any_size_give_the_same_scores(void **state) {
    (void)state;
    static Output want, got;
    const Sampler sampler = {.temperature = 1, .top_k = 20, .top_p = 0.9};
    const int64_t sizes[] = {1, 7, 33}, V = pair.assistant->cfg.text.vocab;
    run(&want, &sampler, 1000, 0);
    for (int i = 0; i < 3; i++) {
        run(&got, &sampler, sizes[i], (size_t)(4 * V * (i + 1))); // few positions at once
        assert_int_equal(got.impossible, want.impossible);
        assert_memory_equal(got.recall, want.recall, sizeof want.recall);
        const double *x = &want.top[0][0][0], *y = &got.top[0][0][0];
        const size_t n =
            (sizeof want.top + sizeof want.drawn + sizeof want.keep + sizeof want.alpha) /
            sizeof *x;
        for (size_t v = 0; v < n; v++) near("score", y[v], x[v]);
    }
}

// Adds the drafts that some walk comes to, by one rule of one head, to need (anchors, K): bit 0,
// and those that none before lets fall, bit 1.
static void add_needed(uint8_t *need, const double *keep, int64_t anchors) {
    const DraftOdds odds = {.keep = keep, .anchors = anchors, .K = K};
    for (int k = 1; k <= K; k++) {
        Acceptance sum = {0};
        double visit[LONGEST];
        acceptance_expect(&sum, &odds, k, visit);
        for (int64_t a = 0; a < anchors; a++) {
            double stands = 1.0;
            for (int64_t j = 0; j < k && a + j < anchors && stands > 0.0; j++) {
                need[a * K + j] |= 2 | (visit[a] > 0.0);
                stands *= keep[a * K + j];
            }
        }
    }
}

static void needed(uint8_t *need, const Output *all, bool greedy, int s) {
    const int64_t anchors = length[s] - first[s] - 1;
    for (int h = 0; h < 2; h++)
        for (int r = greedy ? 0 : RULE_REJECTION; r < (greedy ? 1 : RULE_COUNT); r++) {
            double keep[LONGEST * K];
            memcpy(keep, all->keep[r][s][h], sizeof keep);
            if (greedy)
                acceptance_keep(keep, all->drafts[s][h], anchors, K, ids[s], length[s], first[s]);
            add_needed(need, keep, anchors);
        }
}

// Nobody needs what is left out; the rest is the same.
static void check_reached(const Output *all, const Output *some, bool greedy, int s, int64_t at,
                          uint8_t need) {
    for (int h = 0; h < 2; h++) {
        const bool made = some->drafts[s][h][at] >= 0;
        assert_true(made || !(need & 1));
        if (made) assert_int_equal(some->drafts[s][h][at], all->drafts[s][h][at]);
        for (int r = RULE_REJECTION; r < RULE_COUNT && !greedy; r++) {
            near("kept", some->keep[r][s][h][at], made ? all->keep[r][s][h][at] : 0);
            near("alpha", some->alpha[r][s][h][at], made ? all->alpha[r][s][h][at] : 0);
        }
    }
}

static void drafts_that_no_walk_comes_to_are_left_out(void **state) {
    (void)state;
    static Output all, some;
    const Sampler samplers[] = {{0}, {.temperature = 1, .top_k = 3, .top_p = 0.9}};
    for (int i = 0; i < 4; i++) {
        int64_t fallen = 0, passed_by = 0;
        run(&all, &samplers[i % 2], 1000, 0);
        reached = true;
        run(&some, &samplers[i % 2], i < 2 ? 1000 : 7, 0);
        reached = false;
        for (int s = 0; s < SEQS; s++) {
            uint8_t need[LONGEST * K] = {0};
            needed(need, &all, i % 2 == 0, s);
            for (int64_t a = 0; a < length[s] - first[s] - 1; a++)
                for (int64_t j = 0; j < K && first[s] + a + 1 + j < length[s]; j++) {
                    const int64_t at = a * K + j;
                    check_reached(&all, &some, i % 2 == 0, s, at, need[at]);
                    fallen += some.drafts[s][0][at] < 0 && need[at] == 0;
                    passed_by += some.drafts[s][0][at] < 0 && need[at] == 2;
                }
        }
        print_message("left out: %lld behind fallen ones, %lld of anchors passed by\n",
                      (long long)fallen, (long long)passed_by);
        assert_true(fallen > 0 && (i % 2 == 1 || passed_by > 0));
        assert_int_equal(some.impossible, all.impossible);
    }
}

static void greedy_text_is_its_own_best_token(void **state) {
    (void)state;
    static Output o;
    const Sampler greedy = {0};
    run(&o, &greedy, 13, 0);
    int64_t recalled = 0, drafts = 0;
    for (int s = 0; s < SEQS; s++)
        for (int64_t a = 0; a < length[s] - first[s] - 1; a++)
            for (int64_t j = 0; j < K && first[s] + a + 1 + j < length[s]; j++) {
                const int64_t at = a * K + j;
                const int32_t y = ids[s][first[s] + a + 1 + j];
                assert_true(o.recall[s][at] == 0 || o.recall[s][at] == (RECALL_BEST | RECALL_TEXT));
                if (o.drafts[s][HEAD_CENTROID][at] == y) assert_true(o.recall[s][at] != 0);
                assert_true(o.top[s][0][at] > 0 && o.top[s][0][at] <= 1);
                recalled += o.recall[s][at] != 0;
                drafts++;
            }
    assert_true(recalled > 0 && recalled < drafts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_those_of_single_anchors),
        cmocka_unit_test(calls_of_any_size_give_the_same_scores),
        cmocka_unit_test(drafts_that_no_walk_comes_to_are_left_out),
        cmocka_unit_test(greedy_text_is_its_own_best_token),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
