// tests/eval/quant/sensitivity_test.c - what a quantised matrix costs, against a drafter that was
// written with that matrix and measured by itself.
#include "eval/quant/sensitivity_json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "infer/format/safetensors.h"
#include "tests/infer/decode/mini_pair.h"

enum { SEQS = 2, K = 2, PROMPT = 8, LENGTH = 32 };

#define STOCK "configs/demo/stock-assistant"

static MiniPair pair; // the demo's
static FeaturePack pack;
static int32_t ids[SEQS][LENGTH];

// The target's greedy text behind a prompt.
static void answer(int32_t *text, int number) {
    Err err = {0};
    Env *env = test_env();
    const TargetConfig *tc = target_config(pair.target);
    KvCache *kv = kv_open(env->dev, &tc->text, 1, MINI_ROWS, MINI_ROWS, true, DT_F32, &err);
    assert_ok(kv, err);
    mini_prompt(text, PROMPT, number);
    const size_t mark = arena_mark(&env->arena);
    const Tensor hidden = tensor_take(&env->arena, DT_F32, 1, tc->text.hidden),
                 best = tensor_take(&env->arena, DT_F32, 1, 2),
                 id = tensor_take(&env->arena, DT_I32, 1, 2);
    for (int n = PROMPT, at = 0; n < LENGTH; at = n++) {
        const TargetPiece piece = {.count = n - at, .skip = n - at - 1};
        target_forward(pair.target, kv, &piece, 1, text + at, hidden, NULL);
        target_top2(pair.target, best, id, hidden);
        text[n] = *(int32_t *)id.data;
    }
    arena_reset(&env->arena, mark);
    kv_close(kv);
}

static Assistant *drafter(const char *dir) {
    Err err = {0};
    const AssistantOptions ao = {.dir = dir,
                                 .dtype = DT_F32,
                                 .target_table = target_embedding(pair.target),
                                 .target_scale = target_embed_scale(pair.target)};
    Assistant *a = assistant_open(test_env()->dev, &ao, &err);
    assert_ok(a, err);
    return a;
}

static int open_all(void **state) {
    (void)state;
    Err err = {0};
    const TargetOptions to = {
        .dir = "configs/demo/base-target", .dtype = DT_F32, .max_rows = MINI_ROWS};
    assert_ok(pair.target = target_open(test_env()->dev, &to, &err), err);
    pair.assistant = drafter(STOCK);
    features_take(&pack, target_config(pair.target), SEQS * LENGTH, DT_BF16, &test_env()->arena);
    for (int i = 0; i < SEQS; i++) {
        answer(ids[i], i);
        mini_capture(&pair, &pack, ids[i], LENGTH);
    }
    return 0;
}

static int close_all(void **state) {
    (void)state;
    mini_pair_close(&pair);
    return 0;
}

static void *rows_of(Tensor t, int64_t i) {
    const size_t size = (size_t)(t.cols * LENGTH) * 2;
    void *out = malloc(size);
    assert_non_null(out);
    memcpy(out, (const char *)t.data + size * (size_t)i, size);
    return out;
}

static int64_t length_of(void *ctx, int64_t i) {
    (void)ctx, (void)i;
    return LENGTH;
}

static bool read_seq(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    (void)ctx, (void)err;
    *out = (CapturedSeq){.sample = {.id = "s", .prompt = PROMPT, .n = LENGTH}};
    out->sample.ids = malloc(sizeof ids[i]);
    memcpy(out->sample.ids, ids[i], sizeof ids[i]);
    out->sample.kind = calloc(LENGTH, 1);
    out->hidden = rows_of(pack.hidden, i);
    for (int kind = 0; kind < 2; kind++) {
        out->k[kind] = rows_of(pack.k[kind], i);
        out->v[kind] = rows_of(pack.v[kind], i);
    }
    return true;
}
static const SeqSource source = {.count = SEQS, .length = length_of, .read = read_seq};

static Sensitivity *measured(MixFormat format, const Imatrix *importance, const char *only) {
    Err err = {0};
    const SensitivityOptions o = {.format = format,
                                  .k = K,
                                  .sampler = {.top_p = 1},
                                  .importance = importance,
                                  .max_anchors = 64,
                                  .pack_tokens = 1000,
                                  .only = only};
    Sensitivity *s =
        sensitivity_measure(pair.assistant, target_config(pair.target), &source, &o, &err);
    assert_ok(s, err);
    return s;
}

// A folder with the stock drafter in F32, one matrix stored in a type and read back.
static const char *written_with(const char *module, const MixType *t, const float *importance) {
    static char dir[PATH_ROOM];
    char path[PATH_ROOM], key[128];
    Err err = {0};
    snprintf(dir, sizeof dir, "%.200s/with", test_dir());
    snprintf(key, sizeof key, "%s.weight", module);
    assert_ok(dir_make(dir, &err), err);
    assert_ok(file_copy(STOCK "/config.json", path_join(path, dir, "config.json"), &err), err);
    StFile *from = st_open(STOCK, &err);
    StWriter *w = st_writer_open(path_join(path, dir, "model.safetensors"), &err);
    assert_ok(from && w, err);
    for (int i = 0; i < st_count(from); i++) {
        const StTensor *x = st_at(from, i);
        const bool whole = x->dtype[0] == 'I';
        assert_ok(st_writer_declare(w, x->name, whole ? x->dtype : "F32", x->rank, x->dim, &err),
                  err);
    }
    assert_ok(st_writer_begin(w, &err), err);
    for (int i = 0; i < st_writer_count(w); i++) {
        const StTensor *x = st_find(from, st_writer_order(w, i)->name);
        const bool whole = x->dtype[0] == 'I';
        float *data = malloc((size_t)x->count * 8);
        assert_ok(whole ? st_read(from, x, data, &err) : st_read_f32(from, x, data, &err), err);
        if (strcmp(x->name, key) == 0)
            assert_ok(roundtrip(t, data, x->dim[0], x->dim[1], importance, &err), err);
        assert_ok(st_writer_data(w, data, whole ? x->bytes : 4 * x->count, &err), err);
        free(data);
    }
    assert_ok(st_writer_commit(w, &err), err);
    st_close(from);
    return dir;
}

static double tau_of(const Assistant *a, Head head, double rounds[SEQS]) {
    Err err = {0};
    Measured counts[SEQS];
    MeasuredPool *pool = calloc(1, sizeof *pool);
    const MeasureOptions o = {.K = K,
                              .head = {head == HEAD_DENSE, head == HEAD_CENTROID},
                              .max_anchors = 50,
                              .pack_tokens = 70,
                              .sampler = {.top_p = 1}};
    Measurer *m = measurer_open(a, target_config(pair.target), &source, &o, &err);
    assert_ok(m, err);
    assert_ok(measurer_run(m, a, counts, pool, &err), err);
    measurer_close(m);
    const double tau = acceptance_tau(&pool->k[RULE_GREEDY][head][K]);
    for (int i = 0; i < SEQS; i++) rounds[i] = counts[i].k[RULE_GREEDY][head][K].rounds;
    free(pool);
    return tau;
}

static const ModuleSensitivity *module(const Sensitivity *s, const char *name) {
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->module[i].module, name) == 0) return &s->module[i];
    fail_msg("no module %s", name);
    return NULL;
}

static void expect_direct(const Sensitivity *s, const char *name, int width,
                          const float *importance) {
    double now[SEQS], was[SEQS];
    const ModuleSensitivity *m = module(s, name);
    Assistant *a = drafter(written_with(name, &m->type[width], importance));
    const double tau = tau_of(a, s->head, now), base = tau_of(pair.assistant, s->head, was);
    assistant_close(a);
    assert_true(base > 1.05); // the text is the target's: drafts stand now and then
    assert_true(fabs(s->tau - base) < 1e-12);
    if (fabs(m->lost[width] - (base - tau)) > 1e-12)
        fail_msg("%s: lost %.12g, directly %.12g", name, m->lost[width], base - tau);
    // of two values the standard deviation is their distance / sqrt 2, of their sum the distance
    const double apart = fabs((now[0] - was[0]) - (now[1] - was[1])), rounds = now[0] + now[1],
                 se = tau / rounds * fmax(apart, 1.0);
    assert_true(fabs(m->se[width] - se) < 1e-9);
}

static void lost_tokens_are_those_of_a_drafter_written_so(void **state) {
    (void)state;
    Sensitivity *s = measured(MIX_MLX, NULL, NULL);
    assert_int_equal(s->head, HEAD_CENTROID);
    assert_int_equal(s->n, 22); // no table, no centroids
    for (int i = 0; i < s->n; i++) {
        assert_int_equal(s->module[i].widths, 6);
        assert_true(s->module[i].kl[0] > s->module[i].kl[2]); // 2 bits beside 4
        assert_true(s->module[i].kl[2] > s->module[i].kl[5]); // 4 beside 8
        assert_true(s->module[i].kl[5] > 0);
    }
    expect_direct(s, "pre_projection", 0, NULL);
    expect_direct(s, "model.layers.2.mlp.up_proj", 0, NULL);
    expect_direct(s, "model.layers.2.mlp.gate_proj", 1, NULL);
    free(s);
}

static void gguf_types_use_the_importance(void **state) {
    (void)state;
    Err err = {0};
    double mean[256];
    ImatrixEntry e;
    for (int i = 0; i < 256; i++) mean[i] = i % 16 == 3 ? 100.0 : 0.01;
    assert_ok(imatrix_set(&e, "blk.1.attn_q.weight", mean, 256, 10, &err), err);
    const Imatrix importance = {.n = 1, .entry = &e};
    Sensitivity *s = measured(MIX_GGUF, &importance, "*.[01].*q_proj"),
                *plain = measured(MIX_GGUF, NULL, "*.[01].*q_proj");
    assert_int_equal(s->head, HEAD_DENSE);
    assert_int_equal(s->n, 2);
    char name[32];
    mix_type_name(name, &s->module[0].type[0]);
    assert_string_equal(name, "Q3_K");
    expect_direct(s, "model.layers.1.self_attn.q_proj", 0, e.iw);
    expect_direct(plain, "model.layers.1.self_attn.q_proj", 0, NULL);
    assert_true(plain->module[0].kl[0] == s->module[0].kl[0]); // layer 0 has no entry
    assert_true(plain->module[1].kl[0] != s->module[1].kl[0]);
    free(plain);
    free(s);
    free(e.iw);
}

static void sums_of(const Mix *m, int64_t *bytes, int64_t *params) {
    AssistantWeights w;
    AssistantParam p[ASSISTANT_PARAMS_MAX];
    assistant_layout(&pair.assistant->cfg, &w, NULL, DT_F32);
    const int n = assistant_params(&pair.assistant->cfg, &w, p);
    *bytes = *params = 0;
    for (int i = 0; i < n; i++) {
        char path[128];
        snprintf(path, sizeof path, "%.*s", (int)(strlen(p[i].name) - 7), p[i].name);
        const MixModule *x = mix_find(m, path);
        if (x == NULL || mix_type_plain(&x->type)) continue;
        *bytes += mix_type_bytes(&x->type, p[i].tensor->rows, p[i].tensor->cols);
        *params += tensor_count(*p[i].tensor);
    }
}

static void mixtures_keep_to_their_size(void **state) {
    (void)state;
    Err err = {0};
    Sensitivity *s = measured(MIX_MLX, NULL, "*o_proj");
    json_t *report = sensitivity_json(s);
    char path[PATH_ROOM];
    for (double bpw = 3.0; bpw < 8.0; bpw += 0.75) {
        int64_t bytes, params;
        Mix *m = mix_of_sensitivity(report, &(MixWish){"tokens", bpw}, &err);
        assert_ok(m, err);
        sums_of(m, &bytes, &params);
        assert_int_equal(bytes, m->bytes);
        assert_true(8.0 * (double)bytes <= bpw * (double)params);
        assert_true(fabs(m->bits_per_weight - 8.0 * (double)bytes / (double)params) < 1e-9);
        assert_int_equal(m->n, 4 + 2); // table and centroids stay as they are
        assert_true(mix_type_plain(&mix_find(m, "model.embed_tokens")->type));
        mix_free(m);
        m = mix_of_sensitivity(report, &(MixWish){"optiq", bpw}, &err);
        assert_ok(m, err);
        assert_true(m->achieved_bpw >= bpw);
        mix_free(m);
    }
    Mix *m = mix_of_sensitivity(report, &(MixWish){"tokens", 5.0}, &err);
    assert_ok(mix_write(path_join(path, test_dir(), "mix.json"), m, &err), err);
    Mix *back = mix_read(path, &err);
    assert_ok(back, err);
    assert_int_equal(back->n, m->n);
    for (int i = 0; i < m->n; i++) {
        const MixModule *x = mix_find(back, m->module[i].module);
        assert_non_null(x);
        assert_int_equal(x->type.mlx.bits, m->module[i].type.mlx.bits);
    }
    assert_string_equal(back->method, "tokens");
    assert_null(mix_of_sensitivity(report, &(MixWish){"tokens", 2.2}, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "the smallest types already have 2.500 bits per weight"));
    mix_free(m);
    mix_free(back);
    json_decref(report);
    free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lost_tokens_are_those_of_a_drafter_written_so),
        cmocka_unit_test(gguf_types_use_the_importance),
        cmocka_unit_test(mixtures_keep_to_their_size),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
