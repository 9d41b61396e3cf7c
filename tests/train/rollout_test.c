// tests/train/rollout_test.c - gradients of whole rollouts by finite difference, and what must not
// change them: tiles, blocks, rows without weight, the scale of the weights.
#include "train/rollout.h"

#include "tests/infer/model/small_assistant.h"

enum { ROWS = 7, K = 3 };
static const int64_t LENGTHS[] = {17, 9};
static int32_t T[ROWS] = {1, 2, 5, 6, 12, 3, 7}, SEQ[ROWS] = {0, 0, 0, 0, 0, 1, 1};

typedef struct {
    Small s;
    Batch batch;
    RolloutOptions opt;
    int32_t *token, *label;
    uint8_t *valid;
    float *weight;
    Rollout *r;
    AssistantWeights g;
    Tensor flat; // of the gradients
    RolloutStats stats;
    Tensor *w, base, d; // of the tensor that a finite difference is about
} Case;

// Random text and weights; the last step of a sequence's last anchors runs past its end.
static void fill_batch(Case *c, int64_t rows, int32_t *t, int32_t *seq_of) {
    c->token = test_zeros(DT_I32, K, rows).data;
    c->label = test_zeros(DT_I32, K, rows).data;
    c->valid = test_zeros(DT_F32, K, rows).data;
    c->weight = test_zeros(DT_F32, K, rows).data;
    const float *x = test_random(DT_F32, 3, K * rows).data;
    for (int64_t i = 0; i < K * rows; i++) {
        const int64_t r = i % rows, at = t[r] + i / rows;
        const int64_t n = c->s.pack.start[seq_of[r] + 1] - c->s.pack.start[seq_of[r]];
        c->token[i] = at < n ? (int32_t)(fabsf(x[i]) * 13) % SMALL_V : -1;
        c->valid[i] = at + 1 < n;
        c->label[i] = c->valid[i] ? (int32_t)(fabsf(x[K * rows + i]) * 13) % SMALL_V : -1;
        c->weight[i] = c->valid[i] && i % 5 != 3 ? 0.3f + fabsf(x[2 * K * rows + i]) : 0.0f;
    }
    static int64_t lines[] = {41, 42};
    c->batch = (Batch){.nseq = c->s.pack.nseq,
                       .rows = rows,
                       .T = t,
                       .seq_of = seq_of,
                       .token = c->token,
                       .label = c->label,
                       .valid = c->valid,
                       .tokens = c->s.pack.rows};
    memcpy(c->batch.seq_index, lines, sizeof lines);
}

static void reopen(Case *c, const Assistant *a) {
    Err err = {0};
    Env *env = test_env();
    rollout_close(c->r);
    c->opt.K = K;
    c->opt.hybrid_kl = 0.7f;
    if (c->opt.temperature == 0) c->opt.temperature = 1.0f;
    c->opt.max_rows = c->batch.rows;
    c->opt.max_tokens = c->s.pack.rows;
    c->opt.max_seqs = c->s.pack.nseq;
    c->r = rollout_open(a, &c->s.tc, 30.0f, &c->opt, &env->arena, &err);
    if (c->r == NULL) fail_msg("%s", err.text);
}

static void open_case(Case *c, RolloutOptions o) {
    *c = (Case){.opt = o};
    small_open(&c->s, 2, LENGTHS);
    fill_batch(c, ROWS, T, SEQ);
    c->flat = test_zeros(DT_F32, 1, c->s.flat.cols);
    assistant_layout(&c->s.a.cfg, &c->g, c->flat.data, DT_F32);
    reopen(c, &c->s.a);
}

static void run(Case *c, const Assistant *a) {
    Err err = {0};
    op_zero(a->dev, c->flat);
    assert_ok(rollout_run(c->r, a, &c->batch, &c->s.pack, c->weight, &c->g, &c->stats, &err), err);
}

static Tensor saved(Tensor x) {
    const Tensor y = test_zeros(x.dtype, x.rows, x.cols);
    op_copy(test_env()->dev, y, x);
    return y;
}

// The loss at w = base + d / 4: the helper's steps in d are too long for three fed-back steps.
static double loss(void *ctx) {
    Case *c = ctx;
    Err err = {0};
    RolloutStats stats;
    op_copy(c->s.a.dev, *c->w, c->base);
    op_axpby(c->s.a.dev, *c->w, c->d, 0.25f, 1.0f);
    assert_ok(rollout_run(c->r, &c->s.a, &c->batch, &c->s.pack, c->weight, NULL, &stats, &err),
              err);
    return stats.loss;
}

static void gradient_of(RolloutOptions o) {
    Case c;
    open_case(&c, o);
    run(&c, &c.s.a);
    AssistantParam w[ASSISTANT_PARAMS_MAX], g[ASSISTANT_PARAMS_MAX];
    const int n = assistant_params(&c.s.a.cfg, &c.s.a.w, w);
    assistant_params(&c.s.a.cfg, &c.g, g);
    for (int i = 0; i < n; i++) {
        c.w = w[i].tensor;
        c.base = saved(*c.w);
        c.d = test_zeros(DT_F32, c.w->rows, c.w->cols);
        op_axpby(c.s.a.dev, *g[i].tensor, *g[i].tensor, 0.25f, 0.0f);
        assert_gradient(loss, &c, c.d, *g[i].tensor, 3e-3);
        op_copy(c.s.a.dev, *c.w, c.base);
        const bool centroids = w[i].tensor == &c.s.a.w.centroids;
        assert_true((test_dot(*g[i].tensor, *g[i].tensor) > 1e-8) != (centroids && o.route == 0));
    }
    rollout_close(c.r);
}

static void three_steps_have_the_gradient_of_finite_differences(void **state) {
    (void)state;
    gradient_of((RolloutOptions){.loss = LOSS_FKL, .temperature = 1.7f, .route = 0.8f});
    gradient_of((RolloutOptions){.loss = LOSS_CE_LABEL});
    gradient_of((RolloutOptions){.loss = LOSS_HYBRID});
}

static void assert_same_run(Case *c, Tensor g, RolloutStats was, double tolerance) {
    const double off = relative_l2(c->flat.data, g.data, g.cols);
    if (!(off <= tolerance)) fail_msg("gradients differ by %.3g", off);
    if (!(fabs(c->stats.loss - was.loss) <= tolerance * fabs(was.loss)))
        fail_msg("loss %.9g, was %.9g", c->stats.loss, was.loss);
}

// Every position an anchor, so that there are more teacher rows than a block holds.
static void open_long_case(Case *c, RolloutOptions o) {
    static const int64_t lengths[] = {170, 90};
    static int32_t t[256], seq_of[256];
    int64_t n = 0;
    *c = (Case){.opt = o};
    small_open(&c->s, 2, lengths);
    for (int s = 0; s < 2; s++)
        for (int32_t i = 1; i + 1 < lengths[s]; i++) t[n] = i, seq_of[n++] = s;
    fill_batch(c, n, t, seq_of);
    c->flat = test_zeros(DT_F32, 1, c->s.flat.cols);
    assistant_layout(&c->s.a.cfg, &c->g, c->flat.data, DT_F32);
    reopen(c, &c->s.a);
}

static void blocks_and_tiles_change_nothing(void **state) {
    (void)state;
    const LossKind kind[] = {LOSS_FKL, LOSS_CE_ARGMAX, LOSS_HYBRID};
    for (int i = 0; i < 3; i++) {
        Case c;
        open_long_case(&c, (RolloutOptions){.loss = kind[i], .route = 0.3f});
        run(&c, &c.s.a);
        const Tensor g = saved(c.flat);
        const RolloutStats whole = c.stats;
        c.opt.head_bytes = 64 * 8 * SMALL_V; // 64 rows a block
        reopen(&c, &c.s.a);
        run(&c, &c.s.a);
        assert_same_run(&c, g, whole, 3e-6);
        assert_true(memcmp(c.stats.step_match, whole.step_match, sizeof whole.step_match) == 0);
        rollout_close(c.r);
    }
}

static void tiles_of_anchors_change_the_order_of_sums_alone(void **state) {
    (void)state;
    Case c;
    open_long_case(&c, (RolloutOptions){.loss = LOSS_HYBRID, .route = 0.3f});
    run(&c, &c.s.a);
    const Tensor g = saved(c.flat);
    const RolloutStats whole = c.stats;
    const size_t bytes = rollout_bytes(&c.s.a, &c.s.tc, &c.opt);
    const int64_t tile[] = {c.batch.rows, 100, 33,
                            1}; // cut inside a sequence, and anchor by anchor
    for (int i = 0; i < 4; i++) {
        c.opt.tile = tile[i];
        assert_true(i == 0 || rollout_bytes(&c.s.a, &c.s.tc, &c.opt) < bytes);
        reopen(&c, &c.s.a);
        run(&c, &c.s.a);
        if (i == 0) {
            assert_memory_equal(c.flat.data, g.data, tensor_bytes(g));
            assert_memory_equal(&c.stats, &whole, sizeof whole);
        }
        assert_same_run(&c, g, whole, 3e-6);
        for (int j = 0; j < K; j++) {
            assert_true(c.stats.step_rows[j] == whole.step_rows[j]);
            assert_true(c.stats.step_reached[j] == whole.step_reached[j]);
            assert_true(c.stats.step_keep[j] == whole.step_keep[j]);
        }
    }
    rollout_close(c.r);
}

// The token that the drafter picks at step j of row r, found by asking for every label in turn.
static int32_t pick_of(Case *c, int64_t r, int64_t j) {
    const int64_t i = j * c->batch.rows + r;
    float kept[K * ROWS];
    memcpy(kept, c->weight, sizeof kept);
    memset(c->weight, 0, sizeof kept);
    c->weight[i] = 1.0f;
    int32_t pick = -1;
    for (int32_t v = 0; v < SMALL_V && pick < 0; v++) {
        c->label[i] = v;
        run(c, &c->s.a);
        if (c->stats.step_match[j] == 1.0) pick = v;
    }
    memcpy(c->weight, kept, sizeof kept);
    return pick;
}

static void steps_are_reached_where_all_before_them_matched(void **state) {
    (void)state;
    const int hits[ROWS] = {7, 3, 5, 0, 1, 6, 3}; // bit j: step j's label is what the drafter picks
    int64_t reached[K] = {0};
    double kept[K] = {0};
    Case c;
    open_case(&c, (RolloutOptions){.loss = LOSS_FKL});
    for (int64_t r = 0; r < ROWS; r++) {
        bool alive = true;
        for (int64_t j = 0; j < K; j++) {
            const int64_t i = j * ROWS + r;
            c.weight[i] = c.valid[i] ? 1.0f : 0.0f;
            if (!c.valid[i]) break;
            const int32_t pick = pick_of(&c, r, j);
            assert_true(pick >= 0);
            c.label[i] = hits[r] >> j & 1 ? pick : (pick + 1) % SMALL_V;
            reached[j] += alive;
            alive = alive && hits[r] >> j & 1;
            kept[j] += alive;
        }
    }
    run(&c, &c.s.a);
    for (int j = 0; j < K; j++) {
        assert_int_equal(c.stats.step_reached[j], reached[j]);
        assert_true(c.stats.step_keep[j] == kept[j] / (double)reached[j]);
        assert_true(reached[j] < c.stats.step_rows[j] || j == 0);
    }
    rollout_close(c.r);
}

static void one_seed_one_machine_one_result(void **state) {
    (void)state;
    Case c;
    open_long_case(&c, (RolloutOptions){.loss = LOSS_HYBRID, .route = 0.3f});
    run(&c, &c.s.a);
    const Tensor g = saved(c.flat);
    const RolloutStats was = c.stats;
    for (int i = 0; i < 3; i++) {
        run(&c, &c.s.a);
        assert_memory_equal(c.flat.data, g.data, tensor_bytes(g));
        assert_memory_equal(&c.stats, &was, sizeof was);
    }
    rollout_close(c.r);
}

static void gradients_are_added_and_weights_normalised(void **state) {
    (void)state;
    Case c;
    Err err = {0};
    open_case(&c, (RolloutOptions){.loss = LOSS_FKL});
    run(&c, &c.s.a);
    const Tensor g = saved(c.flat);
    const RolloutStats was = c.stats;
    for (int i = 0; i < K * ROWS; i++) c.weight[i] *= 4;
    run(&c, &c.s.a);
    assert_same_run(&c, g, was, 1e-6);
    assert_true(fabs(c.stats.weight - 4 * was.weight) < 1e-5);
    assert_ok(rollout_run(c.r, &c.s.a, &c.batch, &c.s.pack, c.weight, &c.g, &c.stats, &err), err);
    op_axpby(c.s.a.dev, c.flat, c.flat, 0.5f, 0.0f);
    assert_same_run(&c, g, was, 1e-6);
    rollout_close(c.r);
}

static void the_loss_is_that_of_its_sequences(void **state) {
    (void)state;
    Case c;
    open_case(&c, (RolloutOptions){.loss = LOSS_FKL, .route = 0.3f});
    run(&c, &c.s.a);
    double loss[2] = {0}, weight[2] = {0}, want = 0;
    rollout_by_sequence(c.r, &c.batch, loss, weight);
    for (int i = 0; i < K * ROWS; i++) want += SEQ[i % ROWS] == 1 ? c.weight[i] : 0.0;
    assert_true(fabs(loss[0] + loss[1] - c.stats.loss) < 1e-12 * c.stats.loss);
    assert_true(fabs(weight[0] + weight[1] - 1.0) < 1e-6);
    assert_true(fabs(weight[1] - want / c.stats.weight) < 1e-6);
    for (int i = 0; i < K * ROWS; i++) // the second sequence alone
        if (SEQ[i % ROWS] == 0) c.weight[i] = 0;
    run(&c, &c.s.a);
    assert_true(fabs(c.stats.loss - loss[1] / weight[1]) < 1e-5 * c.stats.loss);
    rollout_close(c.r);
}

static void nothing_weighted_is_no_loss(void **state) {
    (void)state;
    Case c;
    open_case(&c, (RolloutOptions){.loss = LOSS_FKL});
    memset(c.weight, 0, K * ROWS * sizeof *c.weight);
    run(&c, &c.s.a);
    assert_true(c.stats.loss == 0.0 && c.stats.weight == 0.0 && test_dot(c.flat, c.flat) == 0.0);
    rollout_close(c.r);
}

static void detached_features_cut_the_gradient(void **state) {
    (void)state;
    Case c;
    open_case(&c, (RolloutOptions){.loss = LOSS_FKL, .detach_feature = true});
    run(&c, &c.s.a);
    assert_true(test_dot(c.g.post, c.g.post) == 0.0);
    assert_true(test_dot(c.g.pre, c.g.pre) > 0.0);
    rollout_close(c.r);
}

static void a_frozen_table_costs_no_gradient(void **state) {
    (void)state;
    Case c;
    open_case(&c, (RolloutOptions){.loss = LOSS_FKL, .route = 0.3f});
    run(&c, &c.s.a);
    const Tensor g = saved(c.flat), table = c.g.table, centroids = c.g.centroids;
    c.g.table.data = c.g.centroids.data = NULL;
    run(&c, &c.s.a);
    assert_true(test_dot(table, table) == 0.0 && test_dot(centroids, centroids) == 0.0);
    const int64_t rest = tensor_count(table) + tensor_count(centroids); // they come first
    assert_memory_equal((float *)c.flat.data + rest, (float *)g.data + rest,
                        (size_t)(g.cols - rest) * 4);
    rollout_close(c.r);
}

static void a_loss_that_is_not_finite_is_named(void **state) {
    (void)state;
    Case c;
    Err err = {0};
    open_case(&c, (RolloutOptions){.loss = LOSS_FKL});
    ((float *)c.s.pack.hidden.data)[(17 + 3 - 1) * SMALL_B] =
        INFINITY; // feature of T = 3 in sequence 1
    assert_false(rollout_run(c.r, &c.s.a, &c.batch, &c.s.pack, c.weight, &c.g, &c.stats, &err));
    assert_int_equal(err.code, ERR_FAILED);
    assert_non_null(strstr(err.text, "draft step 0"));
    assert_non_null(strstr(err.text, "T 3 in sequence 42"));
    rollout_close(c.r);
}

static void round_to_bf16(Tensor x) {
    const Tensor y = test_zeros(DT_BF16, x.rows, x.cols);
    op_copy(test_env()->dev, y, x);
    op_copy(test_env()->dev, x, y);
}

// From the same rounded weights, so that only the arithmetic differs.
static void bf16_gradients_stay_close_to_f32(void **state) {
    (void)state;
    Case c;
    open_case(&c, (RolloutOptions){.loss = LOSS_FKL, .route = 0.3f});
    round_to_bf16(c.s.flat);
    round_to_bf16(c.s.a.target_table);
    run(&c, &c.s.a);
    const Tensor g = saved(c.flat);
    const RolloutStats was = c.stats;
    const Assistant b = small_bf16(&c.s);
    reopen(&c, &b);
    run(&c, &b);
    const double off = relative_l2(c.flat.data, g.data, g.cols);
    if (!(off > 1e-5 && off < 4e-2)) fail_msg("relative L2 %.3g", off);
    assert_true(fabs(c.stats.loss - was.loss) < 1e-2 * was.loss);
    rollout_close(c.r);
}

// A token that the target never chooses weighs as much as one whose logit is as low as can be.
static void the_teacher_does_not_say_what_is_suppressed(void **state) {
    (void)state;
    enum { NEVER = 23 };
    const LossKind kind[] = {LOSS_FKL, LOSS_CE_ARGMAX, LOSS_HYBRID};
    for (int i = 0; i < 3; i++) {
        Case c;
        open_long_case(&c, (RolloutOptions){.loss = kind[i], .route = 0.3f});
        float *row = (float *)c.s.a.target_table.data + NEVER * SMALL_B;
        for (int64_t t = 0; t < K * c.batch.rows; t++) // the row is the teacher's alone
            if (c.token[t] == NEVER) c.token[t]++;
        for (int64_t r = 0; r < c.s.pack.rows; r++)
            ((float *)c.s.pack.hidden.data)[r * SMALL_B] = 1.0f;
        memset(row, 0, SMALL_B * sizeof *row);
        row[0] = -1e4f;
        run(&c, &c.s.a);
        const Tensor g = saved(c.flat);
        const RolloutStats was = c.stats;
        row[0] = 25.0f;
        run(&c, &c.s.a);
        assert_true(relative_l2(c.flat.data, g.data, g.cols) > 0.1); // it would be said
        c.s.tc.suppress = (Suppress){.id = {NEVER, NEVER}, .n = 2};
        reopen(&c, &c.s.a);
        run(&c, &c.s.a);
        assert_same_run(&c, g, was, 3e-6);
        rollout_close(c.r);
    }
}

static void routing_needs_a_centroid_head(void **state) {
    (void)state;
    Case c;
    Err err = {0};
    open_case(&c, (RolloutOptions){.loss = LOSS_FKL});
    c.opt.route = 0.1f;
    c.s.a.cfg.ordered = 0;
    assert_null(rollout_open(&c.s.a, &c.s.tc, 30.0f, &c.opt, &test_env()->arena, &err));
    assert_int_equal(err.code, ERR_USAGE);
    rollout_close(c.r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_steps_have_the_gradient_of_finite_differences),
        cmocka_unit_test(blocks_and_tiles_change_nothing),
        cmocka_unit_test(tiles_of_anchors_change_the_order_of_sums_alone),
        cmocka_unit_test(steps_are_reached_where_all_before_them_matched),
        cmocka_unit_test(one_seed_one_machine_one_result),
        cmocka_unit_test(gradients_are_added_and_weights_normalised),
        cmocka_unit_test(the_loss_is_that_of_its_sequences),
        cmocka_unit_test(nothing_weighted_is_no_loss),
        cmocka_unit_test(detached_features_cut_the_gradient),
        cmocka_unit_test(a_frozen_table_costs_no_gradient),
        cmocka_unit_test(a_loss_that_is_not_finite_is_named),
        cmocka_unit_test(bf16_gradients_stay_close_to_f32),
        cmocka_unit_test(the_teacher_does_not_say_what_is_suppressed),
        cmocka_unit_test(routing_needs_a_centroid_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
