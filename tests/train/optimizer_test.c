// tests/train/optimizer_test.c - what the buffers of the optimiser promise beside AdamW's numbers
// (the golden test of ten steps has those): clipping, frozen parameters, decay, the average, the
// bf16 copy.
#include "tests/infer/model/golden_pair.h"

#include <math.h>

#include "train/optimizer.h"

static const OptimizerOptions PLAIN = {0.9f, 0.95f, 1e-8f, 0.0f, 0.0, 0.0};

static Optimizer open_with(Pair *p, OptimizerOptions opt, char **freeze, int n) {
    Optimizer o;
    Err err = {0};
    assert_ok(optimizer_open(&o, p->a, &opt, freeze, n, &test_env()->arena, &err), err);
    return o;
}

static float *data(Tensor t) {
    return t.data;
}

static const OptParam *named(const Optimizer *o, const char *name) {
    for (int i = 0; i < o->n; i++)
        if (strcmp(o->param[i].name, name) == 0) return &o->param[i];
    fail_msg("no parameter %s", name);
    return NULL;
}

static void masters_begin_as_the_weights_and_the_plan_holds_them(void **state) {
    (void)state;
    Pair p = pair_open("e2b", "assistant", false, 0, 0);
    Tensor before = test_zeros(DT_F32, 1, tensor_count(p.a->w.pre));
    op_copy(p.a->dev, before, tensor_view(p.a->w.pre, 1, before.cols));
    const size_t mark = arena_mark(&test_env()->arena);
    Optimizer o = open_with(&p, PLAIN, NULL, 0);
    assert_true(arena_mark(&test_env()->arena) - mark <= optimizer_bytes(&p.a->cfg, &PLAIN));
    assert_int_equal(o.trainable, o.count);
    assert_memory_equal(p.a->w.pre.data, before.data, tensor_bytes(before));
    assert_ptr_equal(p.a->w.pre.data, data(o.master) + named(&o, "pre_projection.weight")->offset);
    pair_close(&p);
}

static void norm_and_clip_follow_the_reference_rule(void **state) {
    (void)state;
    Pair p = pair_open("e2b", "assistant", false, 0, 0);
    OptimizerOptions opt = PLAIN;
    opt.clip = 0.5;
    Optimizer o = open_with(&p, opt, NULL, 0);
    Env *env = test_env();
    Err err = {0};
    double norm, sum = 0.0;
    for (int64_t i = 0; i < o.count; i++) {
        data(o.grad)[i] = (float)((i * 37) % 11 - 5) * 0.25f;
        sum += (double)data(o.grad)[i] * data(o.grad)[i];
    }
    assert_ok(optimizer_norm(&o, env->dev, &norm, &err), err);
    assert_true(fabs(norm - sqrt(sum)) < 1e-9 * norm);
    optimizer_step(&o, env->dev, norm, 1e-3, 1);
    const double scale = 0.5 / (norm + 1e-6);
    for (int64_t i = 0; i < o.count; i += 101) // the first moment tells the gradient that was used
        assert_true(fabs(data(o.m)[i] - 0.1 * scale * data(o.grad)[i]) < 1e-9);
    pair_close(&p);
}

static void frozen_parameters_neither_move_nor_count_in_the_norm(void **state) {
    (void)state;
    Pair p = pair_open("e2b", "assistant", false, 0, 0);
    OptimizerOptions opt = PLAIN;
    opt.decay = 0.1f, opt.ema = 0.9;
    char *freeze[] = {"model.embed_tokens.weight", "*q_norm*"};
    Optimizer o = open_with(&p, opt, freeze, 2);
    Env *env = test_env();
    Err err = {0};
    double norm;
    float *before = malloc((size_t)o.count * sizeof *before);
    memcpy(before, o.master.data, (size_t)o.count * sizeof *before);
    for (int step = 1; step <= 3; step++) {
        for (int64_t i = 0; i < o.count; i++) data(o.grad)[i] = 1.0f;
        optimizer_mask(&o, env->dev);
        assert_ok(optimizer_norm(&o, env->dev, &norm, &err), err);
        assert_true(fabs(norm - sqrt((double)o.trainable)) < 1e-6 * norm);
        optimizer_step(&o, env->dev, norm, 1e-2, step);
    }
    int frozen = 0;
    for (int i = 0; i < o.n; i++) {
        const OptParam *q = &o.param[i];
        const bool same =
            memcmp(before + q->offset, data(o.master) + q->offset, (size_t)q->count * 4) == 0;
        if (same != q->frozen) fail_msg("%s %s", q->name, same ? "did not move" : "moved");
        frozen += q->frozen;
    }
    assert_int_equal(frozen, 5); // the table and four q_norms
    free(before);
    pair_close(&p);
}

static void only_matrices_decay(void **state) {
    (void)state;
    Pair p = pair_open("e2b", "assistant", false, 0, 0);
    OptimizerOptions opt = PLAIN;
    opt.decay = 0.5f;
    Optimizer o = open_with(&p, opt, NULL, 0);
    const OptParam *matrix = named(&o, "post_projection.weight"),
                   *norm = named(&o, "model.norm.weight");
    const float m0 = data(o.master)[matrix->offset], n0 = data(o.master)[norm->offset];
    op_zero(test_env()->dev, o.grad);
    optimizer_step(&o, test_env()->dev, 0.0, 0.1, 1);
    assert_true(fabsf(data(o.master)[matrix->offset] - m0 * 0.95f) <= 1e-6f * fabsf(m0));
    assert_true(data(o.master)[norm->offset] == n0);
    pair_close(&p);
}

static void the_average_follows_its_warmed_up_decay_and_is_what_publish_shows(void **state) {
    (void)state;
    Pair p = pair_open("e2b", "assistant", false, 0, 0);
    OptimizerOptions opt = PLAIN;
    opt.ema = 0.5;
    Optimizer o = open_with(&p, opt, NULL, 0);
    Env *env = test_env();
    const int64_t at = named(&o, "pre_projection.weight")->offset;
    double want = data(o.master)[at];
    for (int step = 1; step <= 12; step++) {
        for (int64_t i = 0; i < o.count; i++) data(o.grad)[i] = 1.0f;
        optimizer_step(&o, env->dev, 1.0, 1e-2, step);
        const double d = fmin(0.5, (1.0 + step) / (10.0 + step));
        want = d * want + (1 - d) * data(o.master)[at];
    }
    assert_true(fabs(data(o.ema)[at] - want) < 1e-6);
    optimizer_publish(&o, env->dev, true);
    assert_true(((float *)p.a->w.pre.data)[0] == data(o.ema)[at]);
    optimizer_publish(&o, env->dev, false);
    assert_true(((float *)p.a->w.pre.data)[0] == data(o.master)[at]);
    assert_true(data(o.master)[at] != data(o.ema)[at]);
    pair_close(&p);
}

static void bf16_weights_are_the_rounded_masters_after_every_step(void **state) {
    (void)state;
    Pair p = pair_open("e2b", "assistant", false, 0, 0);
    Err err = {0};
    const AssistantOptions ao = {.dir = pair_path("e2b", "assistant"),
                                 .dtype = DT_BF16,
                                 .target_table = p.table,
                                 .target_scale = 1.0f};
    Assistant *a = assistant_open(test_env()->dev, &ao, &err);
    assert_non_null(a);
    Optimizer o;
    assert_ok(optimizer_open(&o, a, &PLAIN, NULL, 0, &test_env()->arena, &err), err);
    for (int64_t i = 0; i < o.count; i++) data(o.grad)[i] = (float)(i % 7) - 3.0f;
    optimizer_step(&o, test_env()->dev, 1.0, 3e-3, 1);
    for (int i = 0; i < o.n; i++) {
        const OptParam *q = &o.param[i];
        const bf16 *use = q->use->data;
        for (int64_t e = 0; e < q->count; e++)
            if (use[e].bits != bf16_from_f32(data(o.master)[q->offset + e]).bits)
                fail_msg("%s[%lld] is not its rounded master", q->name, (long long)e);
    }
    assistant_close(a);
    pair_close(&p);
}

static void freezing_everything_or_nothing_known_is_refused(void **state) {
    (void)state;
    Pair p = pair_open("e2b", "assistant", false, 0, 0);
    char *all[] = {"*"}, *typo[] = {"model.embed_tokns.weight"};
    Optimizer o;
    Err err = {0};
    assert_false(optimizer_open(&o, p.a, &PLAIN, all, 1, &test_env()->arena, &err));
    assert_int_equal(err.code, ERR_USAGE);
    err = (Err){0};
    assert_false(optimizer_open(&o, p.a, &PLAIN, typo, 1, &test_env()->arena, &err));
    assert_non_null(strstr(err.text, "embed_tokns"));
    pair_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masters_begin_as_the_weights_and_the_plan_holds_them),
        cmocka_unit_test(norm_and_clip_follow_the_reference_rule),
        cmocka_unit_test(frozen_parameters_neither_move_nor_count_in_the_norm),
        cmocka_unit_test(only_matrices_decay),
        cmocka_unit_test(the_average_follows_its_warmed_up_decay_and_is_what_publish_shows),
        cmocka_unit_test(bf16_weights_are_the_rounded_masters_after_every_step),
        cmocka_unit_test(freezing_everything_or_nothing_known_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
