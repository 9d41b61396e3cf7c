// tests/infer/model/assistant_golden_test.c - the draft step against the official classes: every
// layer, both heads, six fed-back steps, free-running drafts, and the switches that imitate other
// runtimes.
#include "tests/infer/model/golden_pair.h"

enum { STEPS = 6, DRAFTS = 8, ROWS_MAX = 64 };
static const double TOLERANCE = 1e-4; // f32 against f32 differs by at most 2e-5 (reference/README)

static int compared; // by all tests

typedef struct {
    Pair pair;
    StFile *f; // assistant.safetensors
    int64_t rows;
    int32_t T[ROWS_MAX], seq[ROWS_MAX];
    int64_t *token; // (rows, STEPS)
    AttnSeg seg[2][PACK_SEQS_MAX];
    AnchorSet set;
    AnchorPlan plan;
    Tensor feature0;
} Case;

// sequences: how many of the recorded ones, `prefix` before their names.
static void open_case(Case *c, const char *family, const char *folder, const char *prefix,
                      int sequences, int pos_offset, int window_extra) {
    Err err = {0};
    int64_t n = 0, nt = 0;
    Env *env = test_env();
    *c = (Case){.pair = pair_open(family, folder, *prefix != '\0', pos_offset, window_extra)};
    c->f = st_open(pair_path(family, "assistant.safetensors"), &err);
    if (c->f == NULL) fail_msg("%s", err.text);
    for (int s = 0; s < sequences; s++) {
        char name[32];
        snprintf(name, sizeof name, "%sseq%d", prefix, s);
        pair_load(&c->pair, name);
    }
    int64_t *anchor = pair_ids(c->f, "anchors", &n);
    c->token = pair_ids(c->f, "tokens", &nt);
    for (int64_t i = 0; i < n / 2 && anchor[2 * i] < sequences; i++, c->rows++) {
        c->seq[i] = (int32_t)anchor[2 * i];
        c->T[i] = (int32_t)anchor[2 * i + 1];
    }
    free(anchor);
    assert_true(c->rows > 0 && nt == n / 2 * STEPS);
    c->feature0 = test_zeros(DT_F32, c->rows, c->pair.pack.width);
    features_anchors(&c->pair.pack, env->dev, c->pair.a, c->T, c->seq, c->rows, &c->set, c->seg[0],
                     c->seg[1], test_zeros(DT_I32, 1, c->rows), c->feature0);
    anchor_plan(c->pair.a, &c->set, &c->plan, &env->arena);
}

static void close_case(Case *c) {
    print_message("   %s: %d tensors compared, %d left out by this set\n", c->pair.family,
                  c->pair.compared, c->pair.skipped);
    compared += c->pair.compared;
    free(c->token);
    st_close(c->f);
    pair_close(&c->pair);
}

// got (rows, w) against the recorded [A, steps, w] at step j, `offset` columns into a group of
// `group`.
static void compare(Case *c, const char *name, int j, int steps, Tensor got, int64_t offset,
                    int64_t group) {
    const StTensor *t = st_find(c->f, name);
    float *all = pair_read(&c->pair, c->f, name, t ? t->count : 0);
    if (all == NULL) return;
    assert_true(t->dim[0] >= c->rows);
    for (int64_t r = 0; r < c->rows; r++) {
        char what[160];
        snprintf(what, sizeof what, "%s %s of step %d, anchor %lld", c->pair.family, name, j,
                 (long long)r);
        assert_floats(what, (float *)got.data + r * got.ld, all + (r * steps + j) * group + offset,
                      got.cols, TOLERANCE);
    }
    free(all);
}

static Tensor tokens_of_step(const Case *c, int j) {
    int32_t id[ROWS_MAX];
    for (int64_t r = 0; r < c->rows; r++) id[r] = (int32_t)c->token[r * STEPS + j];
    return test_ids(id, c->rows);
}

static Tensor dense_logits(const Case *c, Tensor y) {
    const Tensor z = test_zeros(DT_F32, y.rows, c->pair.a->w.table.rows);
    op_matmul_nt(test_env()->dev, z, y, c->pair.a->w.table, 0.0f);
    return z;
}

static void compare_centroid_head(Case *c, int j, Tensor y) {
    const Assistant *a = c->pair.a;
    Device *dev = a->dev;
    if (!a->cfg.ordered) return;
    const int64_t k = a->cfg.cluster_topk, per = a->ordering.cols;
    const Tensor z = test_zeros(DT_F32, c->rows, a->cfg.clusters),
                 idx = test_zeros(DT_I32, c->rows, k);
    const Tensor chosen = test_zeros(DT_F32, c->rows, k * per),
                 token = test_zeros(DT_I32, c->rows, k * per);
    op_matmul_nt(dev, z, y, a->w.centroids, 0.0f);
    compare(c, "centroid", j, STEPS, z, 0, z.cols);
    op_topk(dev, idx, z, (int)k);
    op_cluster_logits(dev, chosen, token, y, a->w.table, a->ordering, idx);
    int64_t n = 0, m = 0;
    int64_t *clusters = pair_ids(c->f, "clusters", &n);
    const int64_t V = a->cfg.text.vocab;
    const StTensor *t = st_find(c->f, "masked");
    float *masked = pair_read(&c->pair, c->f, "masked", t ? t->count : 0);
    for (int64_t i = 0; i < c->rows * k; i++)
        assert_int_equal(((int32_t *)idx.data)[i], clusters[(i / k * STEPS + j) * k + i % k]);
    for (int64_t r = 0; masked != NULL && r < c->rows; r++)
        for (int64_t i = 0; i < k * per; i++, m++) {
            const float want =
                masked[(r * STEPS + j) * V + ((int32_t *)token.data)[r * k * per + i]];
            assert_floats("masked logit", (float *)chosen.data + r * k * per + i, &want, 1,
                          TOLERANCE);
        }
    free(clusters);
    free(masked);
    assert_true(masked == NULL || m == c->rows * k * per);
}

static void check_step(Case *c, int j, const StepActs *s) {
    const Assistant *a = c->pair.a;
    const int64_t H = a->cfg.text.hidden, L = a->cfg.text.layers;
    compare(c, "pre", j, STEPS, s->layer[0].x, 0, H);
    for (int i = 0; i < L; i++)
        compare(c, "layers", j, STEPS, i + 1 < L ? s->layer[i + 1].x : s->x_out, i * H, L * H);
    compare(c, "y", j, STEPS, s->y, 0, H);
    compare(c, "feature", j, STEPS, s->f, 0, s->f.cols);
    compare(c, "dense", j, STEPS, dense_logits(c, s->y), 0, a->cfg.text.vocab);
    compare_centroid_head(c, j, s->y);
}

static void steps_of(const char *family) {
    Case c;
    open_case(&c, family, "assistant", "", 3, 0, 0);
    const Assistant *a = c.pair.a;
    StepActs train, infer;
    assistant_acts_take(a, &train, c.rows, true, &test_env()->arena);
    assistant_acts_take(a, &infer, c.rows, false, &test_env()->arena);
    train.y = test_zeros(DT_F32, c.rows, a->cfg.text.hidden);
    train.f = test_zeros(DT_F32, c.rows, a->cfg.backbone);
    Tensor feature = c.feature0;
    for (int j = 0; j < STEPS; j++) {
        const Tensor ids = tokens_of_step(&c, j);
        assistant_step(a, &c.plan, ids, j ? train.f : feature, &train, true);
        check_step(&c, j, &train);
        assistant_step(a, &c.plan, ids, j ? infer.f : feature, &infer, true);
        assert_memory_equal(infer.y.data, train.y.data, tensor_bytes(infer.y));
        assert_memory_equal(infer.f.data, train.f.data, tensor_bytes(infer.f));
    }
    close_case(&c);
}

static void steps_match_the_official_class(void **state) {
    (void)state;
    each_family(steps_of);
}

static void compare_drafts(Case *c, const char *key, Head head) {
    const Assistant *a = c->pair.a;
    Env *env = test_env();
    if (st_find(c->f, key) == NULL) {
        c->pair.skipped++;
        return;
    }
    int64_t n = 0;
    int64_t *want = pair_ids(c->f, key, &n);
    const Tensor best = test_zeros(DT_F32, c->rows, 2), id = test_zeros(DT_I32, c->rows, 2);
    const Tensor ids = test_zeros(DT_I32, 1, c->rows);
    StepActs s;
    assistant_acts_take(a, &s, c->rows, false, &env->arena);
    const size_t bytes = assistant_head_bytes(a, c->rows);
    Arena scratch;
    arena_open(&scratch, arena_take(&env->arena, bytes), bytes);
    memcpy(ids.data, tokens_of_step(c, 0).data, tensor_bytes(ids));
    for (int j = 0; j < DRAFTS; j++) {
        assistant_step(a, &c->plan, ids, j ? s.f : c->feature0, &s, true);
        assistant_top2(a, head, best, id, NO_TENSOR, s.y, &scratch);
        for (int64_t r = 0; r < c->rows; r++) {
            ((int32_t *)ids.data)[r] = ((int32_t *)id.data)[2 * r];
            if (((int32_t *)ids.data)[r] != want[r * DRAFTS + j])
                fail_msg("%s %s: anchor %lld drafts %d as token %d, expected %lld", c->pair.family,
                         key, (long long)r, ((int32_t *)ids.data)[r], j + 1,
                         (long long)want[r * DRAFTS + j]);
        }
    }
    c->pair.compared++;
    free(want);
}

static void drafts_of(const char *family) {
    Case c;
    open_case(&c, family, "assistant", "", 3, 0, 0);
    compare_drafts(&c, "drafts_dense", HEAD_DENSE);
    if (c.pair.a->cfg.ordered) compare_drafts(&c, "drafts_masked", HEAD_CENTROID);
    close_case(&c);
}

static void free_running_drafts_are_the_official_ones(void **state) {
    (void)state;
    each_family(drafts_of);
}

static void bf16_scale_of(const char *family) {
    Case c;
    open_case(&c, family, "assistant", "bf16scale.", 1, 0, 0);
    StepActs s;
    assistant_acts_take(c.pair.a, &s, c.rows, false, &test_env()->arena);
    for (int j = 0; j < STEPS; j++) {
        assistant_step(c.pair.a, &c.plan, tokens_of_step(&c, j), j ? s.f : c.feature0, &s, true);
        compare(&c, "bf16scale.y", j, STEPS, s.y, 0, s.y.cols);
        compare(&c, "bf16scale.dense", j, STEPS, dense_logits(&c, s.y), 0,
                c.pair.a->cfg.text.vocab);
    }
    close_case(&c);
}

static void rounded_embedding_scale_is_followed(void **state) {
    (void)state;
    each_family(bf16_scale_of);
}

static void first_step_with(const char *family, const char *key, int pos_offset, int window_extra) {
    Case c;
    open_case(&c, family, "assistant", "", 3, pos_offset, window_extra);
    StepActs s;
    assistant_acts_take(c.pair.a, &s, c.rows, false, &test_env()->arena);
    assistant_step(c.pair.a, &c.plan, tokens_of_step(&c, 0), c.feature0, &s, true);
    compare(&c, key, 0, 1, dense_logits(&c, s.y), 0, c.pair.a->cfg.text.vocab);
    close_case(&c);
}

static void alternatives_of(const char *family) {
    first_step_with(family, "alt.pos_T_minus_1.dense", -1, 0);
    first_step_with(family, "alt.sliding_W_rows.dense", 0, 1);
}

static void switches_imitate_other_runtimes(void **state) {
    (void)state;
    each_family(alternatives_of);
}

static void fitted_of(const char *family) {
    Pair p = pair_open(family, "assistant-fitted", false, 0, 0);
    for (int i = 0; i < p.a->cfg.text.layers; i++) assert_true(p.a->layer_scalar[i] > 0.0f);
    pair_close(&p);
}

static void fitted_assistant_loads(void **state) {
    (void)state;
    each_family(fitted_of);
}

static void something_was_compared(void **state) {
    (void)state;
    assert_true(compared > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_match_the_official_class),
        cmocka_unit_test(free_running_drafts_are_the_official_ones),
        cmocka_unit_test(rounded_embedding_scale_is_followed),
        cmocka_unit_test(switches_imitate_other_runtimes),
        cmocka_unit_test(fitted_assistant_loads),
        cmocka_unit_test(something_was_compared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
