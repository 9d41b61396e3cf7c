// tests/infer/model/target_golden_test.c - every layer, hidden state, logit and shared K/V against
// the reference tensors, however the tokens are fed: at once, in chunks, one by one, several
// sequences.
//
// Two float32 programs differ by about 3e-4 here (README of the set), a wrong formula by 1e-2 or
// more.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/log.h"
#include "infer/format/safetensors.h"
#include "infer/model/target.h"
#include "tests/testing.h"

enum { SEQS = 3, CHUNK = 7 };
// SAME: oneDNN gives a row the same bits in every batch, OpenBLAS sums another height of batch in
// another order, which these miniatures amplify to 2.2e-4.
static const double TOLERANCE = 2e-3, KV_TOLERANCE = 3e-4, SAME = 1e-3, KV_SAME = 1e-4;

typedef struct {
    const char *family;
    StFile *golden;
    Target *t;
    const TargetConfig *cfg;
    int64_t n[SEQS]; // tokens, 0 = sequence absent
    int32_t *ids[SEQS];
    Tensor hidden[SEQS]; // of the one-shot run
    int compared, skipped;
} Golden;

static const char *path_of(const char *family, const char *part) {
    char sub[128];
    snprintf(sub, sizeof sub, "%s/%s", family, part);
    return test_golden(sub);
}

// rows x cols floats of a key, or NULL (counted) where the set leaves it out.
static float *expected(Golden *g, const char *prefix, int seq, const char *what, int64_t count) {
    char key[96];
    Err err = {0};
    snprintf(key, sizeof key, "%sseq%d.%s", prefix, seq, what);
    const StTensor *t = st_find(g->golden, key);
    if (t == NULL) {
        print_message("skipped: %s has no %s\n", g->family, key);
        g->skipped++;
        return NULL;
    }
    assert_int_equal(t->count, count);
    float *x = malloc((size_t)count * sizeof *x);
    assert_ok(st_read_f32(g->golden, t, x, &err), err);
    g->compared++;
    return x;
}

static void compare(Golden *g, const char *prefix, int seq, const char *what, const float *got,
                    int64_t count, double tolerance) {
    char label[128];
    float *want = expected(g, prefix, seq, what, count);
    if (want == NULL) return;
    snprintf(label, sizeof label, "%s %sseq%d.%s", g->family, prefix, seq, what);
    assert_floats(label, got, want, count, tolerance);
    free(want);
}

static KvCache *cache(Golden *g, int slots, int64_t capacity, int64_t chunk, bool keep_all) {
    Err err = {0};
    KvCache *kv =
        kv_open(test_env()->dev, &g->cfg->text, slots, capacity, chunk, keep_all, DT_F32, &err);
    assert_ok(kv != NULL, err);
    return kv;
}

static void compare_kv(Golden *g, const char *prefix, int seq, KvCache *kv) {
    static const char *const NAMES[2][2] = {{"k_sliding", "v_sliding"}, {"k_full", "v_full"}};
    for (int kind = 0; kind < 2; kind++) {
        const KvView v = kv_view(kv, 0, g->cfg->kv_source[kind]);
        assert_int_equal(v.first, 0);
        assert_int_equal(v.k.rows, g->n[seq]);
        compare(g, prefix, seq, NAMES[kind][0], test_host(v.k).data, tensor_count(v.k),
                KV_TOLERANCE);
        compare(g, prefix, seq, NAMES[kind][1], test_host(v.v).data, tensor_count(v.v),
                KV_TOLERANCE);
    }
}

static void compare_top2(Golden *g, const float *logits, Tensor hidden) {
    const int64_t vocab = g->cfg->text.vocab;
    const Tensor best = test_zeros(DT_F32, hidden.rows, 2), id = test_zeros(DT_I32, hidden.rows, 2);
    target_top2(g->t, best, id, hidden);
    for (int64_t r = 0; r < hidden.rows; r++) {
        const float *z = logits + r * vocab;
        const int32_t *top = (int32_t *)id.data + 2 * r;
        for (int64_t v = 0; v < vocab; v++) {
            assert_true(z[v] <= z[top[0]] + 1e-5f);
            if (v != top[0]) assert_true(z[v] <= z[top[1]] + 1e-5f);
        }
        assert_true(top[0] != top[1]);
        assert_floats("top2", (float *)best.data + 2 * r, (float[]){z[top[0]], z[top[1]]}, 2, 1e-5);
    }
}

static void one_shot(Golden *g, const char *prefix, int seq) {
    const int64_t n = g->n[seq], b = g->cfg->text.hidden, layers = g->cfg->text.layers;
    const Tensor all = test_zeros(DT_F32, layers * n, b);
    const Tensor hidden = test_zeros(DT_F32, n, b),
                 logits = test_zeros(DT_F32, n, g->cfg->text.vocab);
    Tensor layer[LAYERS_MAX];
    for (int l = 0; l < layers; l++) layer[l] = tensor_rows(all, l * n, n);
    KvCache *kv = cache(g, 1, n, n, true);
    target_forward(g->t, kv, &(TargetPiece){.count = n}, 1, g->ids[seq], hidden, layer);
    target_logits(g->t, logits, hidden);
    compare(g, prefix, seq, "layers", all.data, layers * n * b, TOLERANCE);
    compare(g, prefix, seq, "hidden", hidden.data, n * b, TOLERANCE);
    compare(g, prefix, seq, "logits", logits.data, tensor_count(logits), TOLERANCE);
    compare_kv(g, prefix, seq, kv);
    compare_top2(g, logits.data, hidden);
    assert_int_equal(kv_length(kv, 0), n);
    kv_close(kv);
    g->hidden[seq] = hidden;
}

// The window of sliding layers is kept, older rows are not: results must not notice.
static void in_chunks(Golden *g, int seq, int64_t chunk) {
    const int64_t n = g->n[seq];
    const Tensor hidden = test_zeros(DT_F32, n, g->cfg->text.hidden);
    KvCache *kv = cache(g, 1, n, chunk, false), *whole = cache(g, 1, n, n, true);
    for (int64_t at = 0; at < n; at += chunk) {
        const int64_t count = n - at < chunk ? n - at : chunk;
        target_forward(g->t, kv, &(TargetPiece){.count = count}, 1, g->ids[seq] + at,
                       tensor_rows(hidden, at, count), NULL);
    }
    assert_close("chunks", hidden, g->hidden[seq], SAME, 0);
    target_forward(g->t, whole, &(TargetPiece){.count = n}, 1, g->ids[seq], hidden, NULL);
    for (int kind = 0; kind < 2; kind++) {
        const int layer = g->cfg->kv_source[kind];
        const KvView a = kv_view(kv, 0, layer), b = kv_rows(whole, 0, layer, a.first, n - a.first);
        assert_true(kind == LAYER_FULL ? a.first == 0 : n - a.first >= g->cfg->text.window - 1);
        assert_close("K of chunks", test_host(a.k), test_host(b.k), KV_SAME, 0);
        assert_close("V of chunks", test_host(a.v), test_host(b.v), KV_SAME, 0);
    }
    kv_close(kv);
    kv_close(whole);
}

// Drafts that are rejected leave no trace: feed wrong tokens, rewind, feed the right ones.
static void with_rejected_drafts(Golden *g, int seq) {
    const int64_t n = g->n[seq], prompt = n / 2;
    const Tensor hidden = test_zeros(DT_F32, n, g->cfg->text.hidden);
    const Tensor junk = test_zeros(DT_F32, CHUNK, g->cfg->text.hidden);
    const int32_t wrong[CHUNK] = {3, 4, 5, 6, 7, 8, 9};
    KvCache *kv = cache(g, 1, n + CHUNK, n, false);
    target_forward(g->t, kv, &(TargetPiece){.count = prompt}, 1, g->ids[seq],
                   tensor_rows(hidden, 0, prompt), NULL);
    for (int64_t at = prompt; at < n; at++) {
        target_forward(g->t, kv, &(TargetPiece){.count = CHUNK}, 1, wrong, junk, NULL);
        kv_rewind(kv, 0, at);
        target_forward(g->t, kv, &(TargetPiece){.count = 1}, 1, g->ids[seq] + at,
                       tensor_rows(hidden, at, 1), NULL);
    }
    assert_close("after rejected drafts", hidden, g->hidden[seq], SAME, 0);
    kv_close(kv);
}

// All sequences in one cache, pieces of different lengths in every call, each at its own position.
static void batched(Golden *g) {
    const int64_t b = g->cfg->text.hidden;
    int64_t at[SEQS] = {0}, most = 0;
    Tensor hidden[SEQS];
    for (int s = 0; s < SEQS; s++) {
        hidden[s] = test_zeros(DT_F32, g->n[s], b);
        if (g->n[s] > most) most = g->n[s];
    }
    KvCache *kv = cache(g, SEQS, most, 9, false);
    for (int step = 0;; step++) {
        TargetPiece piece[SEQS];
        int32_t ids[64];
        int n = 0;
        int64_t rows = 0;
        for (int s = SEQS - 1; s >= 0; s--) { // slots out of order on purpose
            int64_t count = (step + 3 * s) % 4 == 0 ? 9 : 1 + (step + s) % 3;
            if (count > g->n[s] - at[s]) count = g->n[s] - at[s];
            if (count == 0) continue;
            memcpy(ids + rows, g->ids[s] + at[s], (size_t)count * sizeof *ids);
            piece[n++] = (TargetPiece){.slot = s, .count = count};
            rows += count;
        }
        if (n == 0) break;
        const size_t mark = arena_mark(&test_env()->arena);
        const Tensor out = test_zeros(DT_F32, rows, b);
        target_forward(g->t, kv, piece, n, ids, out, NULL);
        for (int i = 0, r = 0; i < n; r += (int)piece[i++].count) {
            const int s = piece[i].slot;
            op_copy(test_env()->dev, tensor_rows(hidden[s], at[s], piece[i].count),
                    tensor_rows(out, r, piece[i].count));
            at[s] += piece[i].count;
        }
        arena_reset(&test_env()->arena, mark);
    }
    for (int s = 0; s < SEQS; s++)
        if (g->n[s] > 0) assert_close("batched", hidden[s], g->hidden[s], SAME, 0);
    kv_close(kv);
}

static void open_target(Golden *g, EmbedScale scale, DType dtype) {
    Err err = {0};
    const TargetOptions opt = {
        .dir = path_of(g->family, "target"), .dtype = dtype, .scale = scale, .max_rows = 128};
    g->t = target_open(test_env()->dev, &opt, &err);
    assert_ok(g->t != NULL, err);
    g->cfg = target_config(g->t);
}

static void read_ids(Golden *g) {
    for (int s = 0; s < SEQS; s++) {
        char key[32];
        Err err = {0};
        snprintf(key, sizeof key, "seq%d.ids", s);
        const StTensor *t = st_find(g->golden, key);
        if (t == NULL) continue;
        g->n[s] = t->count;
        int64_t *wide = malloc((size_t)t->bytes);
        assert_ok(st_read(g->golden, t, wide, &err), err);
        g->ids[s] = malloc((size_t)t->count * sizeof **g->ids);
        for (int64_t i = 0; i < t->count; i++) g->ids[s][i] = (int32_t)wide[i];
        free(wide);
    }
}

// bf16 storage rounds everything that enters a GEMM: near, not equal. A wrong layout would be far.
static void bf16_stays_near(Golden *g) {
    open_target(g, EMBED_SCALE_AUTO, DT_BF16);
    const int64_t n = g->n[0], b = g->cfg->text.hidden;
    float *want = expected(g, "bf16scale.", 0, "hidden", n * b);
    if (want == NULL) {
        target_close(g->t);
        return;
    }
    const Tensor hidden = test_zeros(DT_F32, n, b);
    KvCache *kv = kv_open(test_env()->dev, &g->cfg->text, 1, n, n, false, DT_BF16, &(Err){0});
    assert_non_null(kv);
    target_forward(g->t, kv, &(TargetPiece){.count = n}, 1, g->ids[0], hidden, NULL);
    const double off = relative_l2(hidden.data, want, n * b);
    print_message("%s: bf16 hidden differs by %.3g of its length\n", g->family, off);
    assert_true(off < 0.12 && off > 1e-5);
    kv_close(kv);
    target_close(g->t);
    free(want);
}

static bool wanted(const char *family) {
    const char *list = getenv("FAMILIES");
    if (list == NULL || *list == '\0') return true;
    const char *at = strstr(list, family);
    return at != NULL && (at == list || at[-1] == ' ') && strchr(" ", at[strlen(family)]) != NULL;
}

static void run_family(const char *family, int *compared, int *skipped) {
    Golden g = {.family = family};
    Err err = {0};
    TargetConfig cfg;
    assert_ok(target_config_load(&cfg, path_of(family, "target"), &err), err);
    g.golden = st_open(path_of(family, "target.safetensors"), &err);
    assert_ok(g.golden != NULL, err);
    read_ids(&g);
    open_target(&g, EMBED_SCALE_F32, DT_F32);
    for (int s = 0; s < SEQS; s++) {
        if (g.n[s] == 0) continue;
        one_shot(&g, "", s);
        in_chunks(&g, s, CHUNK);
        in_chunks(&g, s, 1);
        with_rejected_drafts(&g, s);
    }
    batched(&g);
    target_close(g.t);
    open_target(&g, EMBED_SCALE_AUTO, DT_F32); // the files are bf16, so auto rounds the scale
    assert_true(target_embed_scale(g.t) == (float)g.cfg->embed_scale_bf16);
    if (g.n[0] > 0) one_shot(&g, "bf16scale.", 0);
    target_close(g.t);
    if (g.n[0] > 0) bf16_stays_near(&g);
    st_close(g.golden);
    for (int s = 0; s < SEQS; s++) free(g.ids[s]);
    print_message("%s: %d tensors compared, %d skipped\n", family, g.compared, g.skipped);
    *compared += g.compared;
    *skipped += g.skipped;
}

static void every_family_gives_the_reference_tensors(void **state) {
    (void)state;
    static const char *const ALL[] = {"e2b", "e4b", "12b", "26b", "31b"};
    int compared = 0, skipped = 0;
    for (size_t i = 0; i < sizeof ALL / sizeof *ALL; i++) {
        if (!wanted(ALL[i])) continue;
        if (!file_exists(path_of(ALL[i], "target.safetensors"))) {
            print_message("skipped: %s is not in this set\n", ALL[i]);
            skipped++;
            continue;
        }
        run_family(ALL[i], &compared, &skipped);
    }
    print_message("%d tensors compared, %d families or tensors skipped\n", compared, skipped);
    assert_true(compared > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_gives_the_reference_tensors),
    };
    log_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
