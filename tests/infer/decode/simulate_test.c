// tests/infer/decode/simulate_test.c - drafts do not depend on how anchors are packed into calls.
#include "infer/decode/simulate.h"
#include "tests/infer/decode/mini_pair.h"

enum { SEQS = 3, K = 5, LONGEST = 70 };

static MiniPair pair;
static FeaturePack pack;
static int32_t ids[SEQS][LONGEST];
static const int64_t length[SEQS] = {40, 11, 70},
                     first[SEQS] = {9, 10, 33}; // the second has no anchor

static int open_pair(void **state) {
    (void)state;
    pair = mini_pair_open();
    features_take(&pack, target_config(pair.target), SEQS * LONGEST, DT_F32, &test_env()->arena);
    for (int s = 0; s < SEQS; s++) {
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
    float margin[SEQS][2][LONGEST * K];
} Output;

static void run(Output *o, int64_t max_anchors, bool dense, bool centroid) {
    Err err = {0};
    SimulateJob job[SEQS] = {0};
    memset(o, 0xee, sizeof *o);
    for (int s = 0; s < SEQS; s++) {
        job[s] = (SimulateJob){.seq = s, .ids = ids[s], .n = length[s], .first = first[s]};
        for (int h = 0; h < 2; h++) {
            if (h == HEAD_DENSE ? !dense : !centroid) continue;
            job[s].drafts[h] = o->drafts[s][h];
            job[s].margin[h] = o->margin[s][h];
        }
    }
    Simulator *sim = simulator_open(pair.assistant, max_anchors, K, &err);
    assert_ok(sim, err);
    assert_ok(simulator_run(sim, pair.assistant, &pack, job, SEQS, &err), err);
    simulator_close(sim);
}

static void calls_of_any_size_give_the_same_drafts(void **state) {
    (void)state;
    static Output want, got;
    run(&want, 1000, true, true);
    const int64_t sizes[] = {1, 7, 66};
    for (int i = 0; i < 3; i++) {
        run(&got, sizes[i], true, true);
        assert_memory_equal(want.drafts, got.drafts, sizeof want.drafts);
        for (int s = 0; s < SEQS; s++)
            for (int h = 0; h < 2; h++)
                assert_floats("margin", got.margin[s][h], want.margin[s][h],
                              (length[s] - first[s] - 1) * K, 1e-4);
    }
}

static void one_head_alone_gives_what_both_give(void **state) {
    (void)state;
    static Output both, one;
    run(&both, 50, true, true);
    for (int h = 0; h < 2; h++) {
        run(&one, 50, h == HEAD_DENSE, h == HEAD_CENTROID);
        for (int s = 0; s < SEQS; s++) {
            assert_memory_equal(both.drafts[s][h], one.drafts[s][h], sizeof both.drafts[s][h]);
            assert_int_equal(one.drafts[s][1 - h][0], (int32_t)0xeeeeeeee);
        }
    }
}

static void what_lies_past_the_text_is_marked(void **state) {
    (void)state;
    static Output o;
    run(&o, 1000, true, true);
    for (int s = 0; s < SEQS; s++)
        for (int64_t a = 0; a < length[s] - first[s] - 1; a++)
            for (int j = 0; j < K; j++) {
                const bool inside = first[s] + a + 1 + j < length[s];
                assert_int_equal(o.drafts[s][0][a * K + j] >= 0, inside);
                assert_true(inside ? o.margin[s][0][a * K + j] >= 0
                                   : o.margin[s][0][a * K + j] == 0);
            }
}

static void a_drafter_with_nan_weights_is_an_error(void **state) {
    (void)state;
    Err err = {0};
    const Tensor first_weight = tensor_cols(pair.assistant->w.norm, 0, 1);
    const float nan = __builtin_nanf("");
    float saved;
    dev_download(test_env()->dev, &saved, first_weight);
    int32_t drafts[LONGEST * K];
    Simulator *sim = simulator_open(pair.assistant, 64, K, &err);
    assert_ok(sim, err);
    dev_upload(test_env()->dev, first_weight, &nan);
    assert_false(simulator_drafts(sim, pair.assistant, &pack, 0, ids[0], length[0], first[0],
                                  HEAD_DENSE, drafts, NULL, &err));
    dev_upload(test_env()->dev, first_weight, &saved);
    assert_int_equal(err.code, ERR_FAILED);
    simulator_close(sim);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_of_any_size_give_the_same_drafts),
        cmocka_unit_test(one_head_alone_gives_what_both_give),
        cmocka_unit_test(what_lies_past_the_text_is_marked),
        cmocka_unit_test(a_drafter_with_nan_weights_is_an_error),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
