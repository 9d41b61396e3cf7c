// tests/infer/model/assistant_test.c - what a draft step may see, that anchors do not know of each
// other, both heads, bf16, and the layout of the parameters.
#include "tests/infer/model/small_assistant.h"

enum { ROWS = 7, STEPS = 3 };
static const int64_t LENGTHS[] = {17, 9};
static const int32_t T[ROWS] = {1, 4, 5, 6, 12, 3, 8}, SEQ[ROWS] = {0, 0, 0, 0, 0, 1, 1};
static const int32_t TOKEN[STEPS * ROWS] = {3, 38, 0, 7, 7, 20, 11, 4,  2, 9, 30,
                                            1, 5,  6, 8, 8, 8,  12, 33, 2, 0};

static Tensor draft(Small *s, const Assistant *a) {
    return small_draft(s, a, T, SEQ, ROWS, TOKEN, STEPS);
}

static bool same(Tensor x, Tensor y) {
    return memcmp(x.data, y.data, tensor_bytes(x)) == 0;
}

static void overwrite_row(Tensor k, Tensor v, int64_t row) {
    memcpy((float *)k.data + row * k.ld, test_random(DT_F32, 1, k.cols).data, (size_t)k.cols * 4);
    memcpy((float *)v.data + row * v.ld, test_random(DT_F32, 1, v.cols).data, (size_t)v.cols * 4);
}

// The last anchor of sequence 0 has T = 12 and, with a window of 5, sees sliding rows 8 .. 11.
static void only_visible_rows_count(void **state) {
    (void)state;
    Small s;
    small_open(&s, 2, LENGTHS);
    const int32_t t = 12, q = 0, token[] = {3, 4, 8};
    const Tensor y = small_draft(&s, &s.a, &t, &q, 1, token, STEPS);
    for (int64_t row = 0; row < 17; row++)
        for (int kind = 0; kind < 2; kind++) {
            const bool seen = row < t && (kind == LAYER_FULL || row >= t - SMALL_W + 1);
            Small other;
            memcpy(&other, &s, sizeof s);
            other.pack.k[kind] = test_zeros(DT_F32, s.pack.room, s.pack.kv_width[kind]);
            other.pack.v[kind] = test_zeros(DT_F32, s.pack.room, s.pack.kv_width[kind]);
            op_copy(s.a.dev, other.pack.k[kind], s.pack.k[kind]);
            op_copy(s.a.dev, other.pack.v[kind], s.pack.v[kind]);
            overwrite_row(other.pack.k[kind], other.pack.v[kind], row);
            const Tensor z = small_draft(&other, &other.a, &t, &q, 1, token, STEPS);
            if (same(y, z) == seen)
                fail_msg("row %lld of kind %d %s", (long long)row, kind,
                         seen ? "is not seen" : "is seen");
        }
}

// One step at T = 12 with `end` rows visible, whatever T says.
static Tensor step_with_end(Small *s, int32_t end) {
    const Assistant *a = &s->a;
    const int32_t t = 12, q = 0;
    const Tensor f0 = test_zeros(DT_F32, 1, SMALL_B);
    AnchorSet set;
    AnchorPlan plan;
    StepActs acts;
    features_anchors(&s->pack, a->dev, a, &t, &q, 1, &set, s->seg[0], s->seg[1],
                     test_zeros(DT_I32, 1, 1), f0);
    anchor_plan(a, &set, &plan, &test_env()->arena);
    *(int32_t *)plan.end.data = end;
    for (int kind = 0; kind < 2; kind++) plan.attn[kind].end_host = &end;
    assistant_acts_take(a, &acts, 1, false, &test_env()->arena);
    assistant_step(a, &plan, test_ids((int32_t[]){3}, 1), f0, &acts, false);
    return acts.y;
}

static void row_T_and_the_position_would_matter(void **state) {
    (void)state;
    Small s;
    small_open(&s, 2, LENGTHS);
    const int32_t q = 0, t = 12, token[] = {3};
    const Tensor y = small_draft(&s, &s.a, &t, &q, 1, token, 1);
    assert_true(same(y, step_with_end(&s, 12)));
    assert_true(relative_l2(step_with_end(&s, 13).data, y.data, y.cols) > 1e-4);
    Assistant shifted = s.a;
    shifted.pos_offset = -1;
    const Tensor moved = small_draft(&s, &shifted, &t, &q, 1, token, 1);
    assert_true(relative_l2(moved.data, y.data, y.cols) > 1e-4);
    shifted.pos_offset = 0;
    shifted.window_extra = 1;
    const Tensor wider = small_draft(&s, &shifted, &t, &q, 1, token, 1);
    assert_true(relative_l2(wider.data, y.data, y.cols) > 1e-4);
}

static void anchors_do_not_know_of_each_other(void **state) {
    (void)state;
    Small s;
    small_open(&s, 2, LENGTHS);
    const Tensor all = draft(&s, &s.a);
    for (int r = 0; r < ROWS; r++) {
        int32_t token[STEPS];
        for (int j = 0; j < STEPS; j++) token[j] = TOKEN[j * ROWS + r];
        const Tensor one = small_draft(&s, &s.a, T + r, SEQ + r, 1, token, STEPS);
        for (int j = 0; j < STEPS; j++) {
            const float *x = (float *)one.data + j * one.cols;
            const double off =
                relative_l2(x, (float *)all.data + (j * ROWS + r) * all.cols, all.cols);
            if (!(off <= 1e-6)) fail_msg("anchor %d alone, step %d: relative L2 %.3g", r, j, off);
        }
    }
}

static void padding_leaves_the_other_rows_alone(void **state) {
    (void)state;
    Small s;
    small_open(&s, 2, LENGTHS);
    int32_t token[STEPS * ROWS];
    memcpy(token, TOKEN, sizeof token);
    token[1 * ROWS + 2] = token[2 * ROWS + 2] =
        -1; // the text of anchor 2 ends after its first step
    const Tensor y = draft(&s, &s.a), z = small_draft(&s, &s.a, T, SEQ, ROWS, token, STEPS);
    for (int64_t r = 0; r < STEPS * ROWS; r++) {
        const bool padded = r % ROWS == 2 && r >= ROWS;
        assert_true(same(tensor_rows(y, r, 1), tensor_rows(z, r, 1)) != padded);
        for (int64_t c = 0; c < y.cols; c++) assert_true(isfinite(test_get(z, r, c)));
    }
}

static void bf16_stays_close_to_f32(void **state) {
    (void)state;
    Small s;
    small_open(&s, 2, LENGTHS);
    const Assistant b = small_bf16(&s);
    Tensor exact = draft(&s, &s.a), y = test_zeros(DT_F32, exact.rows, exact.cols);
    op_copy(s.a.dev, y, draft(&s, &b));
    const double off = relative_l2(y.data, exact.data, tensor_count(y));
    if (!(off > 1e-5 && off < 2e-2)) fail_msg("relative L2 %.3g", off);
}

static Arena head_scratch(const Assistant *a, int64_t rows) {
    Arena scratch;
    const size_t bytes = assistant_head_bytes(a, rows);
    arena_open(&scratch, arena_take(&test_env()->arena, bytes), bytes);
    return scratch;
}

// in (rows, V): 1 where the centroid head has a logit.
static Tensor chosen_tokens(const Assistant *a, Tensor y) {
    const Tensor c = test_zeros(DT_F32, y.rows, a->cfg.clusters),
                 in = test_zeros(DT_F32, y.rows, SMALL_V);
    op_matmul_nt(a->dev, c, y, a->w.centroids, 0.0f);
    for (int64_t r = 0; r < y.rows; r++)
        for (int64_t i = 0; i < a->cfg.clusters; i++) {
            int better = 0;
            for (int64_t k = 0; k < a->cfg.clusters; k++)
                better += test_get(c, r, k) > test_get(c, r, i);
            for (int64_t k = 0; better < a->cfg.cluster_topk && k < a->ordering.cols; k++)
                ((float *)in
                     .data)[r * SMALL_V + ((int32_t *)a->ordering.data)[i * a->ordering.cols + k]] =
                    1;
        }
    return in;
}

static void both_heads_find_the_two_best(void **state) {
    (void)state;
    Small s;
    small_open(&s, 2, LENGTHS);
    const Assistant *a = &s.a;
    const Tensor y = draft(&s, a), z = test_zeros(DT_F32, y.rows, SMALL_V),
                 in = chosen_tokens(a, y);
    op_matmul_nt(a->dev, z, y, a->w.table, 0.0f);
    Arena scratch = head_scratch(a, y.rows);
    int differ = 0;
    for (int head = 0; head < 2; head++) {
        const Tensor best = test_zeros(DT_F32, y.rows, 2), id = test_zeros(DT_I32, y.rows, 2);
        assistant_top2(a, head, best, id, NO_TENSOR, y, &scratch);
        assert_int_equal(scratch.used, 0);
        for (int64_t r = 0; r < y.rows; r++) {
            int first = -1, second = -1, dense = 0;
            for (int v = 0; v < SMALL_V; v++) {
                if (test_get(z, r, v) > test_get(z, r, dense)) dense = v;
                if (head == HEAD_CENTROID && test_get(in, r, v) == 0) continue;
                if (first < 0 || test_get(z, r, v) > test_get(z, r, first))
                    second = first, first = v;
                else if (second < 0 || test_get(z, r, v) > test_get(z, r, second))
                    second = v;
            }
            assert_int_equal(((int32_t *)id.data)[2 * r], first);
            assert_int_equal(((int32_t *)id.data)[2 * r + 1], second);
            assert_true(fabsf(test_get(best, r, 0) - test_get(z, r, first)) < 1e-5f);
            differ += first != dense;
        }
    }
    assert_true(differ > 0); // else the centroid head was not tested
}

static AssistantConfig e2b_config(void) {
    AssistantConfig c = {.backbone = 1536, .ordered = 1, .clusters = 2048, .cluster_topk = 32};
    c.text = (TextConfig){.vocab = 262144,
                          .hidden = 256,
                          .inter = 2048,
                          .layers = 4,
                          .heads = 4,
                          .head_dim = 256,
                          .global_head_dim = 512,
                          .kv_heads = 1,
                          .global_kv_heads = 1,
                          .kv_shared = 4,
                          .kind = {LAYER_SLIDING, LAYER_SLIDING, LAYER_SLIDING, LAYER_FULL}};
    return c;
}

static void layout_of_E2B_has_its_parameters_in_the_order_of_the_file(void **state) {
    (void)state;
    const AssistantConfig c = e2b_config();
    AssistantWeights w;
    AssistantParam p[ASSISTANT_PARAMS_MAX];
    char *base = (char *)(uintptr_t)4096;
    assert_int_equal(assistant_layout(&c, &w, NULL, DT_BF16), 77731328);
    assert_null(w.table.data);
    assert_int_equal(assistant_layout(&c, &w, base, DT_BF16), 77731328);
    const int n = assistant_params(&c, &w, p);
    assert_int_equal(n, 50 - 4 - 1); // all keys of the file but layer_scalar and token_ordering
    int64_t at = 0;
    for (int i = 0; i < n; i++) {
        assert_true(i == 0 || strcmp(p[i - 1].name, p[i].name) < 0);
        assert_ptr_equal(p[i].tensor->data, base + 2 * at);
        assert_int_equal(p[i].decay, p[i].tensor->rows > 1);
        at += tensor_count(*p[i].tensor);
    }
    assert_int_equal(at, 77731328);
    assert_int_equal(assistant_deployed_head(&c), HEAD_CENTROID);
}

static void a_pack_rounds_once_and_rewinds(void **state) {
    (void)state;
    Small s;
    small_open(&s, 2, LENGTHS);
    FeaturePack *p = &s.pack;
    assert_int_equal(
        features_bytes(&s.tc, p->room, DT_BF16) <= features_bytes(&s.tc, p->room, DT_F32), 1);
    assert_int_equal(p->rows, 26);
    features_rewind(p, 4);
    assert_int_equal(p->rows, 21);
    assert_int_equal(p->start[2], 21);
    const float *h = test_random(DT_F32, 5, SMALL_B).data;
    const Tensor k0 = test_random(DT_F32, 5, p->kv_width[0]),
                 k1 = test_random(DT_F32, 5, p->kv_width[1]);
    features_load(p, s.a.dev, h, 0, (const void *[]){k0.data, k1.data},
                  (const void *[]){k0.data, k1.data}, 5);
    assert_int_equal(p->start[2], 26);
    assert_memory_equal((float *)p->hidden.data + 21 * SMALL_B, h, 5 * SMALL_B * sizeof *h);
    assert_int_equal(p->bare[1], 0);
    features_rewind(p, 4);
    features_load(p, s.a.dev, h, 2, (const void *[]){k0.data, k1.data}, // h: of rows 2 .. 4
                  (const void *[]){k0.data, k1.data}, 5);
    assert_int_equal(p->bare[1], 6);
    assert_memory_equal((float *)p->hidden.data + 23 * SMALL_B, h, 3 * SMALL_B * sizeof *h);
    features_rewind(p, 3); // the next row has a state, none before it
    assert_int_equal(p->bare[1], 3);
    features_clear(p);
    assert_int_equal(features_begin(p), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_visible_rows_count),
        cmocka_unit_test(row_T_and_the_position_would_matter),
        cmocka_unit_test(anchors_do_not_know_of_each_other),
        cmocka_unit_test(padding_leaves_the_other_rows_alone),
        cmocka_unit_test(bf16_stays_close_to_f32),
        cmocka_unit_test(both_heads_find_the_two_best),
        cmocka_unit_test(layout_of_E2B_has_its_parameters_in_the_order_of_the_file),
        cmocka_unit_test(a_pack_rounds_once_and_rewinds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
