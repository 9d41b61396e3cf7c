// tests/eval/quant/target_sensitivity_test.c - KL of a target with one module stored in fewer bits,
// against logits of a target changed by hand.
#include "eval/quant/target_sensitivity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/quant/roundtrip.h"
#include "eval/quant/sensitivity_json.h"
#include "tests/testing.h"

enum { SEQS = 2, LENGTH = 14, CUT = 8, ROWS = 5 };

static Target *target;

static int open_target_(void **state) {
    (void)state;
    Err err = {0};
    const TargetOptions to = {.dir = "configs/demo/base-target", .dtype = DT_F32, .max_rows = 32};
    assert_ok(target = target_open(test_env()->dev, &to, &err), err);
    return 0;
}

static int close_target_(void **state) {
    (void)state;
    target_close(target);
    return 0;
}

static int32_t id_at(int64_t seq, int64_t t) {
    return t == 0 ? 2 : 300 + (int32_t)((t * 37 + seq * 101) % 5000);
}

static int64_t length_of(void *ctx, int64_t i) {
    (void)ctx;
    return LENGTH - 10 * i;
}

static bool read_seq(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    (void)ctx, (void)err;
    *out = (CapturedSeq){.sample = {.n = length_of(NULL, i)}};
    out->sample.ids = malloc(LENGTH * sizeof *out->sample.ids);
    for (int64_t t = 0; t < LENGTH; t++) out->sample.ids[t] = id_at(i, t);
    return true;
}
static const SeqSource source = {.count = SEQS, .length = length_of, .read = read_seq};
static const TargetSensitivityOptions options = {
    .max_tokens = CUT, .max_rows = ROWS, .only = "layers.[01].[mp]*"};

// Logits of all positions that count: (rows, V).
static float *logits(int64_t *rows) {
    Err err = {0};
    Env *env = test_env();
    const TextConfig *c = &target_config(target)->text;
    float *out = malloc(SEQS * CUT * (size_t)c->vocab * sizeof *out);
    *rows = 0;
    for (int64_t i = 0; i < SEQS; i++) {
        int32_t ids[CUT];
        const int64_t n = length_of(NULL, i) < CUT ? length_of(NULL, i) : CUT;
        for (int64_t t = 0; t < n; t++) ids[t] = id_at(i, t);
        KvCache *kv = kv_open(env->dev, c, 1, CUT, CUT, false, DT_F32, &err);
        assert_ok(kv, err);
        const size_t mark = arena_mark(&env->arena);
        const Tensor hidden = tensor_take(&env->arena, DT_F32, n, c->hidden),
                     z = tensor_of(out + *rows * c->vocab, DT_F32, n, c->vocab);
        const TargetPiece piece = {.count = n};
        target_forward(target, kv, &piece, 1, ids, hidden, NULL);
        target_logits(target, z, hidden);
        arena_reset(&env->arena, mark);
        kv_close(kv);
        *rows += n;
    }
    return out;
}

static double kl_of(const float *p, const float *q, int64_t n) {
    double sp = 0, sq = 0, mp = -INFINITY, mq = -INFINITY, kl = 0;
    for (int64_t i = 0; i < n; i++) mp = fmax(mp, p[i]), mq = fmax(mq, q[i]);
    for (int64_t i = 0; i < n; i++) sp += exp(p[i] - mp), sq += exp(q[i] - mq);
    for (int64_t i = 0; i < n; i++)
        kl += exp(p[i] - mp) / sp * (p[i] - mp - log(sp) - (q[i] - mq - log(sq)));
    return kl;
}

static double direct(const char *name, int bits) {
    Err err = {0};
    const int n = target_modules(target, NULL);
    const int64_t V = target_config(target)->text.vocab;
    TargetModule *m = calloc((size_t)n, sizeof *m);
    int64_t rows;
    double sum = 0;
    target_modules(target, m);
    float *before = logits(&rows);
    for (int i = 0; i < n; i++) {
        if (strcmp(m[i].name, name) != 0) continue;
        const Tensor t = m[i].first;
        MixType type = mix_mlx(bits, 64);
        type.mlx.requant = bits == 8;
        float *saved = malloc(tensor_bytes(t));
        memcpy(saved, t.data, tensor_bytes(t));
        assert_ok(roundtrip(&type, t.data, t.rows, t.cols, NULL, &err), err);
        float *after = logits(&rows);
        memcpy(t.data, saved, tensor_bytes(t));
        for (int64_t r = 0; r < rows; r++) sum += kl_of(before + r * V, after + r * V, V);
        free(after);
        free(saved);
    }
    free(before);
    free(m);
    assert_true(sum > 0);
    return sum / (double)rows;
}

static void every_module_is_measured_and_put_back(void **state) {
    (void)state;
    Err err = {0};
    int n;
    int64_t rows;
    const int64_t V = target_config(target)->text.vocab;
    float *before = logits(&rows);
    TargetModuleSensitivity *m = target_sensitivity(target, &source, &options, &n, &err);
    assert_ok(m, err);
    float *after = logits(&rows);
    assert_memory_equal(before, after, (size_t)(rows * V) * sizeof *before);
    free(before);
    free(after);
    assert_int_equal(n, 2 * 4); // per_layer_projection has rows of 32: it stays as it is
    int found = 0;
    for (int i = 0; i < n; i++) {
        assert_true(m[i].kl[0] > m[i].kl[1] && m[i].kl[1] >= 0);
        assert_int_equal(m[i].bytes[0], m[i].params / 2 + m[i].params / 64 * 4);
        if (strcmp(m[i].module, "layers.0.mlp.down_proj") != 0 &&
            strcmp(m[i].module, "layers.1.per_layer_input_gate") != 0)
            continue;
        const double want = direct(m[i].module, 4);
        if (fabs(m[i].kl[0] - want) > 1e-3 * want)
            fail_msg("%s: %g, directly %g", m[i].module, m[i].kl[0], want);
        found++;
    }
    assert_int_equal(found, 2);
    json_t *report = target_sensitivity_json(target, m, n);
    assert_null(mix_of_sensitivity(report, &(MixWish){"tokens", 5}, &err));
    assert_non_null(strstr(err.text, "a target has no lost tokens"));
    err = (Err){0};
    Mix *mix = mix_of_sensitivity(report, &(MixWish){"optiq", 5}, &err);
    assert_ok(mix, err);
    assert_true(mix->target && mix->achieved_bpw >= 5 && mix->high + mix->low == n);
    assert_int_equal(mix_find(mix, "embed_tokens")->type.mlx.bits, 8); // not measured: the widest
    mix_free(mix);
    json_decref(report);
    free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_module_is_measured_and_put_back),
    };
    return cmocka_run_group_tests(tests, open_target_, close_target_);
}
