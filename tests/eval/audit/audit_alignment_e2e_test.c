// tests/eval/audit/audit_alignment_e2e_test.c - drafts made with explicit rows, positions and
// inputs, anchor by anchor: the table must find the wiring that made them.
#include <stdio.h>
#include <string.h>

#include "eval/audit/alignment.h"
#include "infer/model/assistant.h"
#include "tests/infer/decode/mini_pair.h"

enum { N = 112, FIRST = 40, ANCHORS = N - FIRST - 1, PROMPTS = 6 };

static MiniPair pair;
static FeaturePack pack[PROMPTS];
static Tensor pre_norm[PROMPTS];
static int32_t ids[PROMPTS][N], want[PROMPTS][ANCHORS * ALIGN_STEPS];
static Tensor swapped;

// What a drafter was trained with, at anchor T: RoPE position, hidden row, rows lo .. end - 1.
typedef struct {
    int position, feature, lo, end; // relative to T; lo: of the sliding layers
    bool pre_norm, swapped;
    float scale; // 0: the target's
} Trained;

static Trained trained_with(AlignWiring w) {
    const int W = (int)pair.assistant->cfg.text.window;
    Trained t = {.position = 0, .feature = -1, .lo = 1 - W, .end = 0};
    switch (w) {
    case ALIGN_POSITION_BEFORE:
        t.position = -1;
        break;
    case ALIGN_POSITION_AFTER:
        t.position = 1;
        break;
    case ALIGN_PRE_NORM:
        t.pre_norm = true;
        break;
    case ALIGN_FEATURE_BEFORE:
        t.feature = -2;
        break;
    case ALIGN_FEATURE_AFTER:
        t.feature = 0;
        break;
    case ALIGN_ROW_T:
        t.end = 1;
        break;
    case ALIGN_ROW_MISSING:
        t.end = -1;
        break;
    case ALIGN_SAME_ROW:
        t.feature = 0, t.end = 1;
        break;
    case ALIGN_SWAPPED:
        t.swapped = true;
        break;
    case ALIGN_UNSCALED:
        t.scale = 1.0f;
        break;
    case ALIGN_WINDOW_WIDE:
        t.lo = -W;
        break;
    case ALIGN_WINDOW_NARROW:
        t.lo = 2 - W;
        break;
    default:
        break;
    }
    return t;
}

// Columns of pre_projection, its halves exchanged.
static void swap_halves(void) {
    const Tensor pre = pair.assistant->w.pre;
    swapped = test_zeros(pre.dtype, pre.rows, pre.cols);
    float *to = swapped.data;
    const float *from = pre.data;
    for (int64_t h = 0; h < pre.rows; h++)
        for (int64_t i = 0; i < pre.cols; i++)
            to[h * pre.cols + i] = from[h * pre.cols + (i + pre.cols / 2) % pre.cols];
}

// The drafts of one anchor, through the step itself.
static void draft(int prompt, const Trained *t, int64_t T, int32_t out[ALIGN_STEPS]) {
    Arena *arena = &test_env()->arena;
    const size_t mark = arena_mark(arena);
    Assistant a = *pair.assistant;
    const FeaturePack *p = &pack[prompt];
    const int64_t end = T + t->end, lo = T + t->lo > 0 ? T + t->lo : 0;
    const Tensor hidden = t->pre_norm ? pre_norm[prompt] : p->hidden;
    AttnSeg seg[2];
    AnchorPlan plan;
    StepActs acts;
    const int32_t visible = (int32_t)end;
    for (int kind = 0; kind < 2; kind++) {
        const int64_t from = kind == LAYER_SLIDING ? lo : 0;
        seg[kind] = (AttnSeg){.k = tensor_rows(p->k[kind], from, end - from),
                              .v = tensor_rows(p->v[kind], from, end - from),
                              .first = from,
                              .nq = 1};
    }
    const AnchorSet set = {.rows = 1, .T = &visible, .seg = {&seg[0], &seg[1]}, .nseg = 1};
    a.pos_offset = (int)(T + t->position - end);
    a.window_extra = 1 << 20; // the rows are those given
    if (t->scale > 0) a.target_scale = t->scale;
    if (t->swapped) a.w.pre = swapped;
    anchor_plan(&a, &set, &plan, arena);
    assistant_acts_take(&a, &acts, 1, false, arena);
    const Tensor token = tensor_take(arena, DT_I32, 1, 1), best = tensor_take(arena, DT_F32, 1, 2),
                 id = tensor_take(arena, DT_I32, 1, 2);
    for (int j = 0; j < ALIGN_STEPS && T + 1 + j < N; j++) {
        int32_t two[2];
        dev_upload(a.dev, token, &ids[prompt][T + j]);
        assistant_step(&a, &plan, token, j == 0 ? tensor_rows(hidden, T + t->feature, 1) : acts.f,
                       &acts, true);
        assistant_top2(&a, assistant_deployed_head(&a.cfg), best, id, NO_TENSOR, acts.y, arena);
        dev_download(a.dev, two, id);
        out[j] = two[0];
    }
    arena_reset(arena, mark);
}

// Greedy text behind a prompt would do as well; any ids have features.
static void capture(int prompt) {
    Env *env = test_env();
    Err err = {0};
    const TargetConfig *tc = target_config(pair.target);
    const TargetPiece piece = {.count = N};
    Tensor layers[LAYERS_MAX];
    mini_prompt(ids[prompt], N, prompt);
    features_take(&pack[prompt], tc, N, DT_F32, &env->arena);
    mini_capture(&pair, &pack[prompt], ids[prompt], N);
    pre_norm[prompt] = test_zeros(DT_F32, N, tc->text.hidden);
    const size_t mark = arena_mark(&env->arena);
    const Tensor hidden = tensor_take(&env->arena, DT_F32, N, tc->text.hidden),
                 before = tensor_take(&env->arena, DT_F32, N, tc->text.hidden);
    for (int64_t l = 0; l < tc->text.layers; l++)
        layers[l] = l + 1 < tc->text.layers ? before : pre_norm[prompt];
    KvCache *kv = kv_open(env->dev, &tc->text, 1, MINI_ROWS, MINI_ROWS, true, DT_F32, &err);
    assert_ok(kv, err);
    target_forward(pair.target, kv, &piece, 1, ids[prompt], hidden, layers);
    kv_close(kv);
    arena_reset(&env->arena, mark);
}

static int open_pair(void **state) {
    (void)state;
    pair = mini_pair_open();
    swap_halves();
    for (int i = 0; i < PROMPTS; i++) capture(i);
    return 0;
}
static int close_pair(void **state) {
    (void)state;
    mini_pair_close(&pair);
    return 0;
}

// The table over texts whose every token is what a drafter trained with w predicts.
static Alignment *table_of(AlignWiring w, int prompts) {
    Err err = {0};
    const Trained t = trained_with(w);
    Alignment *al = alignment_open(pair.assistant, target_config(pair.target), N, &err);
    assert_ok(al, err);
    for (int i = 0; i < prompts; i++) {
        for (int64_t a = 0; a < ANCHORS; a++) draft(i, &t, FIRST + a, &want[i][a * ALIGN_STEPS]);
        const AlignText text = {.pack = &pack[i],
                                .pre_norm = pre_norm[i],
                                .ids = ids[i],
                                .n = N,
                                .first = FIRST,
                                .want = want[i]};
        assert_ok(alignment_add(al, &text, &err), err);
    }
    assert_int_equal(alignment_prompts(al), prompts);
    return al;
}

static void every_wiring_is_found_in_its_own_drafts(void **state) {
    (void)state;
    for (int w = 0; w < ALIGN_WIRINGS; w++) {
        Alignment *al = table_of((AlignWiring)w, PROMPTS);
        const AlignShare own = alignment_share(al, (AlignWiring)w);
        print_message("%-16s own %.4f, as deployed %.4f, p %.2g\n", align_key((AlignWiring)w),
                      own.mean, own.mean - own.gain, own.p);
        if (own.mean < 0.995) fail_msg("%s: %.4f", align_key((AlignWiring)w), own.mean);
        for (int v = 0; v < ALIGN_WIRINGS; v++)
            assert_true(v == w || alignment_share(al, (AlignWiring)v).mean < own.mean);
        alignment_close(al);
    }
}

static void a_wrong_wiring_fails_the_gate_by_name(void **state) {
    (void)state;
    for (int w = 1; w < ALIGN_WIRINGS; w++) {
        Err err = {0};
        Alignment *al = table_of((AlignWiring)w, PROMPTS);
        assert_int_equal(alignment_misfit(al), w);
        assert_false(alignment_gate(al, &err));
        assert_int_equal(err.code, ERR_GATE);
        json_t *o = alignment_json(al);
        assert_string_equal(json_string_value(json_object_get(o, "fits")),
                            align_key((AlignWiring)w));
        const char *name = json_string_value(
            json_object_get(json_array_get(json_object_get(o, "wirings"), (size_t)w), "name"));
        if (strstr(err.text, name) == NULL) fail_msg("%s: not in %s", name, err.text);
        json_decref(o);
        alignment_close(al);
    }
}

static void the_right_wiring_passes_and_one_prompt_decides_nothing(void **state) {
    (void)state;
    Err err = {0};
    Alignment *al = table_of(ALIGN_RIGHT, PROMPTS);
    assert_ok(alignment_gate(al, &err), err);
    alignment_close(al);
    al = table_of(ALIGN_SWAPPED, 1);
    assert_true(alignment_share(al, ALIGN_SWAPPED).gain > 0.1);
    assert_ok(alignment_gate(al, &err), err);
    alignment_close(al);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_wiring_is_found_in_its_own_drafts),
        cmocka_unit_test(a_wrong_wiring_fails_the_gate_by_name),
        cmocka_unit_test(the_right_wiring_passes_and_one_prompt_decides_nothing),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
