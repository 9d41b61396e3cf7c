// tests/train/gradients_golden_test.c - six-step rollouts against autograd: values, every tensor's
// gradient, the gradients inside the rollout, and ten AdamW steps.
#include "tests/train/golden_rollout.h"

static const double GRADIENT = 5e-5; // relative L2; f32 autograd differs from f64 by up to 6e-6
static int compared;

static json_t *loss_doc(const GoldenCase *c, const char *loss) {
    return json_object_get(json_object_get(c->doc, "losses"), loss);
}

static bool has_no_gradient(const json_t *doc, const char *name) {
    size_t i;
    json_t *x;
    json_array_foreach(json_object_get(doc, "no_gradient"), i,
                       x) if (strcmp(json_string_value(x), name) == 0) return true;
    return false;
}

static double norm_of(Tensor t) {
    return sqrt(test_dot(t, t));
}

// got: gradients laid out like c->g.
static void compare_gradients(GoldenCase *c, const char *loss, AssistantWeights *got) {
    AssistantParam p[ASSISTANT_PARAMS_MAX];
    const int n = assistant_params(&c->pair.a->cfg, got, p);
    for (int i = 0; i < n; i++) {
        const Tensor t = *p[i].tensor;
        char key[160];
        snprintf(key, sizeof key, "%s.%.95s", loss, p[i].name);
        const bool centroids = got->centroids.data == t.data;
        if ((centroids && strncmp(loss, "route", 5) != 0) ||
            has_no_gradient(loss_doc(c, loss), p[i].name)) {
            if (norm_of(t) != 0.0)
                fail_msg("%s %s: a gradient of %.3g, expected none", c->pair.family, key,
                         norm_of(t));
            continue;
        }
        float *want = pair_read(&c->pair, c->f, key, tensor_count(t));
        if (want == NULL) continue;
        const double off = relative_l2(t.data, want, tensor_count(t));
        if (!(off <= GRADIENT)) fail_msg("%s %s: relative L2 %.3g", c->pair.family, key, off);
        free(want);
    }
}

static void compare_value(const GoldenCase *c, const char *loss, double got) {
    const double want = json_number_value(json_object_get(loss_doc(c, loss), "value_f64"));
    if (!(fabs(got - want) <= 5e-6 * (1.0 + fabs(want))))
        fail_msg("%s %s: %.9g, expected %.9g", c->pair.family, loss, got, want);
}

// Mean of a step's cells over the rows that carry weight.
static double mean_cell(const GoldenCase *c, const char *loss, int j) {
    const json_t *cells = json_object_get(loss_doc(c, loss), "cells_f64");
    double sum = 0.0;
    int n = 0;
    for (int r = 0; r < GOLDEN_ROWS; r++) {
        if (c->weight[j * GOLDEN_ROWS + r] == 0.0f) continue;
        sum += json_number_value(
            json_array_get(json_array_get(cells, (size_t)c->order[r]), (size_t)j));
        n++;
    }
    return sum / n;
}

static void check_loss(GoldenCase *c, const char *loss, RolloutOptions o) {
    const RolloutStats s = golden_run(c, o);
    compare_value(c, loss, s.loss);
    for (int j = 0; j < GOLDEN_K; j++)
        if (!(fabs(s.step_loss[j] - mean_cell(c, loss, j)) <= 5e-5))
            fail_msg("%s %s step %d: %.9g, expected %.9g", c->pair.family, loss, j, s.step_loss[j],
                     mean_cell(c, loss, j));
    compare_gradients(c, loss, &c->g);
}

// route comes on top of a loss: what it adds is compared.
static void check_route(GoldenCase *c, const char *loss, bool detached) {
    if (!c->pair.a->cfg.ordered) return;
    const RolloutStats without = golden_run(c, (RolloutOptions){.loss = LOSS_TV});
    Tensor before = test_zeros(DT_F32, 1, c->flat.cols),
           added = test_zeros(DT_F32, 1, c->flat.cols);
    op_copy(test_env()->dev, before, c->flat);
    const RolloutStats with =
        golden_run(c, (RolloutOptions){.loss = LOSS_TV, .route = 1.0f, .route_detached = detached});
    compare_value(c, loss, with.loss - without.loss);
    op_copy(test_env()->dev, added, c->flat);
    op_axpby(test_env()->dev, added, before, -1.0f, 1.0f);
    AssistantWeights w;
    assistant_layout(&c->pair.a->cfg, &w, added.data, DT_F32);
    compare_gradients(c, loss, &w);
}

static void losses_of(const char *family) {
    GoldenCase c;
    golden_case_open(&c, family);
    check_loss(&c, "fkl", (RolloutOptions){.loss = LOSS_FKL});
    check_loss(&c, "ce_label", (RolloutOptions){.loss = LOSS_CE_LABEL});
    check_loss(&c, "ce_argmax", (RolloutOptions){.loss = LOSS_CE_ARGMAX});
    check_loss(&c, "tv", (RolloutOptions){.loss = LOSS_TV});
    check_loss(&c, "hybrid", (RolloutOptions){.loss = LOSS_HYBRID});
    check_loss(&c, "fkl_detached_feature",
               (RolloutOptions){.loss = LOSS_FKL, .detach_feature = true});
    check_route(&c, "route", false);
    check_route(&c, "route_detached", true);
    print_message("   %s: %d gradients compared, %d left out by this set\n", family,
                  c.pair.compared, c.pair.skipped);
    compared += c.pair.compared;
    golden_case_close(&c);
}

static void every_loss_has_the_gradients_of_autograd(void **state) {
    (void)state;
    each_family(losses_of);
    assert_true(compared > 0);
}

// One tile of 64 columns at a time, where the whole vocabulary would fit.
static void tiles_of(const char *family) {
    GoldenCase c;
    golden_case_open(&c, family);
    const LossKind kind[] = {LOSS_FKL, LOSS_CE_LABEL, LOSS_CE_ARGMAX, LOSS_TV, LOSS_HYBRID};
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++) {
        RolloutOptions o = {.loss = kind[i], .route = c.pair.a->cfg.ordered ? 0.5f : 0.0f};
        const RolloutStats whole = golden_run(&c, o);
        const Tensor g = test_zeros(DT_F32, 1, c.flat.cols);
        op_copy(test_env()->dev, g, c.flat);
        o.head_bytes = 4096;
        const RolloutStats tiled = golden_run(&c, o);
        assert_true(fabs(whole.loss - tiled.loss) <= 2e-6 * fabs(whole.loss));
        assert_true(fabs(whole.tv - tiled.tv) <= 2e-6 && fabs(whole.fkl - tiled.fkl) <= 1e-5);
        for (int j = 0; j < GOLDEN_K; j++) assert_true(whole.step_match[j] == tiled.step_match[j]);
        const double off = relative_l2(c.flat.data, g.data, g.cols);
        if (!(off <= 1e-5)) fail_msg("%s: loss %d in tiles differs by %.3g", family, kind[i], off);
    }
    golden_case_close(&c);
}

static void tiles_of_the_vocabulary_change_nothing(void **state) {
    (void)state;
    each_family(tiles_of);
}

// rows x w of step j of a trace against the recorded (anchors, K, w).
static void compare_trace(GoldenCase *c, const char *key, int j, Tensor got) {
    float *all = pair_read(&c->pair, c->f, key, GOLDEN_ROWS * GOLDEN_K * got.cols);
    if (all == NULL) return;
    double d = 0.0, s = 1e-30;
    for (int r = 0; r < GOLDEN_ROWS; r++)
        for (int64_t i = 0; i < got.cols; i++) {
            const double want = all[(c->order[r] * GOLDEN_K + j) * got.cols + i],
                         x = test_get(got, r, i);
            d += (x - want) * (x - want);
            s += want * want;
        }
    if (!(sqrt(d / s) <= GRADIENT || d < 1e-20))
        fail_msg("%s %s step %d: relative L2 %.3g", c->pair.family, key, j, sqrt(d / s));
    free(all);
}

typedef struct {
    GoldenCase c;
    AttnSeg seg[2][PACK_SEQS_MAX];
    AnchorPlan plan;
    StepActs step[GOLDEN_K];
    Tensor dy[GOLDEN_K];
} Trace;

static void trace_forward(Trace *t) {
    GoldenCase *c = &t->c;
    const Assistant *a = c->pair.a;
    Env *env = test_env();
    AnchorSet set;
    Tensor f = test_zeros(DT_F32, GOLDEN_ROWS, a->cfg.backbone);
    features_anchors(&c->pair.pack, env->dev, a, c->T, c->seq_of, GOLDEN_ROWS, &set, t->seg[0],
                     t->seg[1], test_zeros(DT_I32, 1, GOLDEN_ROWS), f);
    anchor_plan(a, &set, &t->plan, &env->arena);
    for (int j = 0; j < GOLDEN_K; j++) {
        StepActs *s = &t->step[j];
        assistant_acts_take(a, s, GOLDEN_ROWS, true, &env->arena);
        s->y = test_zeros(DT_F32, GOLDEN_ROWS, a->cfg.text.hidden);
        s->f = test_zeros(DT_F32, GOLDEN_ROWS, a->cfg.backbone);
        assistant_step(a, &t->plan, test_ids(c->token + j * GOLDEN_ROWS, GOLDEN_ROWS), f, s, true);
        f = s->f;
    }
}

// Forward KL of step j over whole rows: gradient of the logits, then of y by the head alone.
static void trace_head(Trace *t, int j) {
    GoldenCase *c = &t->c;
    const Assistant *a = c->pair.a;
    Device *dev = a->dev;
    const int64_t V = a->cfg.text.vocab, n = GOLDEN_ROWS;
    const Tensor sz = test_zeros(DT_F32, n, V), tz = test_zeros(DT_F32, n, V),
                 h = test_zeros(DT_F32, n, a->cfg.backbone);
    const Tensor ss = test_zeros(DT_F32, n, 2), ts = test_zeros(DT_F32, n, 2),
                 stat = test_zeros(DT_F64, n, 4), psum = test_zeros(DT_F64, n, 2);
    const Tensor w = test_zeros(DT_F32, 1, n);
    int32_t row[GOLDEN_ROWS], self[GOLDEN_ROWS];
    double sum = 0.0;
    for (int i = 0; i < n * GOLDEN_K; i++) sum += c->weight[i];
    for (int r = 0; r < n; r++) {
        const FeaturePack *p = &c->pair.pack;
        const int64_t at = p->start[c->seq_of[r]] + c->T[r] + j,
                      last = p->start[c->seq_of[r] + 1] - 1;
        row[r] = (int32_t)(at < last ? at : last);
        self[r] = r;
        ((float *)w.data)[r] = (float)(c->weight[j * n + r] / sum);
    }
    op_gather(dev, h, c->pair.pack.hidden, test_ids(row, n), 1.0f);
    op_matmul_nt(dev, tz, h, c->pair.table, 0.0f);
    op_matmul_nt(dev, sz, t->step[j].y, a->w.table, 0.0f);
    op_lse_tile(dev, ts, NO_TENSOR, NO_TENSOR, tz, (float)c->pair.tc.text.softcap, 1.0f, 0);
    op_prob_tile(dev, tz, psum, tz, ts, 0.0f, 1.0f);
    op_lse_tile(dev, ss, NO_TENSOR, NO_TENSOR, sz, 0.0f, 1.0f, 0);
    const LossArgs args = {.p = tz,
                           .psum = psum,
                           .trow = test_ids(self, n),
                           .weight = w,
                           .kind = LOSS_FKL,
                           .temp = 1.0f,
                           .parts = LOSS_STATS | LOSS_GRAD};
    op_loss_tile(dev, stat, sz, sz, ss, &args, 0);
    compare_trace(c, "trace.fkl.dlogits", j, sz);
    t->dy[j] = test_zeros(DT_F32, n, a->cfg.text.hidden);
    op_matmul_nn(dev, t->dy[j], sz, a->w.table, 0.0f);
}

static void trace_of(const char *family) {
    Trace t;
    GoldenCase *c = &t.c;
    golden_case_open(c, family);
    const Assistant *a = c->pair.a;
    trace_forward(&t);
    const size_t bytes = assistant_back_bytes(a, GOLDEN_ROWS);
    Arena scratch;
    arena_open(&scratch, arena_take(&test_env()->arena, bytes), bytes);
    Tensor df = test_zeros(DT_F32, GOLDEN_ROWS, a->cfg.backbone);
    for (int j = GOLDEN_K - 1; j >= 0; j--) {
        trace_head(&t, j);
        compare_trace(c, "trace.fkl.dfeature", j, df);
        const Tensor before = test_zeros(DT_F32, GOLDEN_ROWS, a->cfg.backbone);
        assistant_step_back(a, &t.plan, &t.step[j], t.dy[j], df, &c->g, before, &scratch);
        compare_trace(c, "trace.fkl.dy", j, t.dy[j]);
        df = before;
    }
    golden_case_close(c);
}

static void gradients_between_steps_are_those_of_autograd(void **state) {
    (void)state;
    each_family(trace_of);
}

// Parameters, moments and gradients of the trainable tensors: all but the centroids.
typedef struct {
    AssistantParam w[ASSISTANT_PARAMS_MAX], m[ASSISTANT_PARAMS_MAX], v[ASSISTANT_PARAMS_MAX],
        g[ASSISTANT_PARAMS_MAX];
    AssistantWeights moment[2];
    int n;
} Adam;

static void adam_open(Adam *o, GoldenCase *c) {
    const AssistantConfig *cfg = &c->pair.a->cfg;
    for (int i = 0; i < 2; i++)
        assistant_layout(cfg, &o->moment[i], test_zeros(DT_F32, 1, c->flat.cols).data, DT_F32);
    o->n = assistant_params(cfg, &c->pair.a->w, o->w);
    assistant_params(cfg, &o->moment[0], o->m);
    assistant_params(cfg, &o->moment[1], o->v);
    assistant_params(cfg, &c->g, o->g);
}

static double number(const json_t *o, const char *key) {
    const json_t *x = json_object_get(o, key);
    assert_true(json_is_number(x));
    return json_number_value(x);
}

static void adam_step(Adam *o, GoldenCase *c, const json_t *doc, int step) {
    Device *dev = test_env()->dev;
    const double clip = number(doc, "clip_global_norm");
    const Tensor sum = test_zeros(DT_F64, 1, 1);
    double total = 0.0;
    for (int i = 0; i < o->n; i++) {
        op_sumsq(dev, sum, *o->g[i].tensor);
        total += *(double *)sum.data;
    }
    const double norm = sqrt(total),
                 want = json_number_value(json_array_get(
                     json_object_get(doc, "grad_norm_before_clip_f64"), (size_t)step));
    assert_true(fabs(norm - want) <= 2e-5 * want);
    const float scale = (float)fmin(1.0, clip / (norm + 1e-6));
    for (int i = 0; i < o->n; i++) {
        if (o->w[i].tensor == &c->pair.a->w.centroids) continue;
        op_adamw(dev, *o->w[i].tensor, *o->m[i].tensor, *o->v[i].tensor, NO_TENSOR, *o->g[i].tensor,
                 scale, (float)number(doc, "lr"), (float)number(doc, "beta1"),
                 (float)number(doc, "beta2"), (float)number(doc, "eps"),
                 o->w[i].decay ? (float)number(doc, "weight_decay") : 0.0f, step + 1);
    }
}

static void ten_steps_of(const char *family) {
    GoldenCase c;
    Adam o;
    golden_case_open(&c, family);
    adam_open(&o, &c);
    const json_t *doc = json_object_get(c.doc, "adamw");
    const int steps = (int)number(doc, "steps");
    for (int step = 0; step <= steps; step++) {
        const double loss = golden_run(&c, (RolloutOptions){.loss = LOSS_FKL}).loss;
        const double want =
            json_number_value(json_array_get(json_object_get(doc, "loss_f64"), (size_t)step));
        if (!(fabs(loss - want) <= 1e-5))
            fail_msg("%s: loss %.9g after %d steps, expected %.9g", family, loss, step, want);
        if (step < steps) adam_step(&o, &c, doc, step);
    }
    double sum = 0.0;
    int64_t count = 0;
    for (int i = 0; i < o.n; i++) {
        char key[160];
        snprintf(key, sizeof key, "adamw_final.%.95s", o.w[i].name);
        const Tensor t = test_host(*o.w[i].tensor);
        float *want = pair_read(&c.pair, c.f, key, tensor_count(t));
        if (want == NULL) continue;
        for (int64_t k = 0; k < tensor_count(t); k++)
            sum += pow(((float *)t.data)[k] - (double)want[k], 2);
        count += tensor_count(t);
        free(want);
    }
    print_message("   %s: rms %.3g over %lld weights\n", family, sqrt(sum / (double)count),
                  (long long)count);
    assert_true(count > 0 && sqrt(sum / (double)count) <= 1e-5);
    golden_case_close(&c);
}

static void ten_adamw_steps_end_where_the_reference_does(void **state) {
    (void)state;
    each_family(ten_steps_of);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_loss_has_the_gradients_of_autograd),
        cmocka_unit_test(tiles_of_the_vocabulary_change_nothing),
        cmocka_unit_test(gradients_between_steps_are_those_of_autograd),
        cmocka_unit_test(ten_adamw_steps_end_where_the_reference_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
