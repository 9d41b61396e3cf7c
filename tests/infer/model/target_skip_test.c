// tests/infer/model/target_skip_test.c - rows whose state nobody wants end early, and nobody
// notices: hidden states, K/V and later calls have the bits of a forward without skipping.
#include <stdlib.h>
#include <string.h>

#include "data/synthetic.h"
#include "infer/base/file.h"
#include "infer/base/log.h"
#include "infer/model/target.h"
#include "tests/testing.h"

enum { SLOTS = 3, ROOM = 160, ROWS = 150, CALLS = 4 };

// With AVX-512 products a row's bits do not depend on the other rows; OpenBLAS sums another height
// of batch in another order, which rounding to bf16 amplifies.
static bool rows_stand_alone;
static double tolerance;

static void see_products(void *ctx, const char *name, const char *value) {
    (void)ctx;
    if (strcmp(name, "oneDNN kernels") == 0) rows_stand_alone = strncmp(value, "none", 4) != 0;
}

// Every slot's tokens in each call, and how many of them are skipped in the second run: all but the
// last, some, all; answers (one token) beside prompts; one slot alone.
static const TargetPiece SCRIPT[CALLS][SLOTS] = {
    {{0, 37, 37}, {1, 5, 4}, {2, 90, 12}},
    {{0, 60, 59}, {1, 1, 0}, {2, 1, 0}},
    {{1, 20, 20}, {2, 3, 3}},
    {{0, 33, 28}, {1, 40, 39}, {2, 1, 1}},
};
static int pieces(int call) {
    int n = 0;
    while (n < SLOTS && SCRIPT[call][n].count > 0) n++;
    return n;
}

typedef struct {
    Target *t;
    KvCache *kv;
    float *hidden[CALLS];
} Run;

static void play(Run *r, bool skip) {
    Err err = {0};
    const TextConfig *c = &target_config(r->t)->text;
    assert_ok(r->kv = kv_open(test_env()->dev, c, SLOTS, ROOM, ROWS, true, DT_F32, &err), err);
    uint32_t x = 7;
    for (int call = 0; call < CALLS; call++) {
        TargetPiece piece[SLOTS];
        int32_t ids[ROWS];
        int64_t n = 0, wanted = 0;
        for (int i = 0; i < pieces(call); i++) {
            piece[i] = SCRIPT[call][i];
            if (!skip) piece[i].skip = 0;
            n += piece[i].count;
            wanted += piece[i].count - piece[i].skip;
        }
        for (int64_t i = 0; i < n; i++, x = x * 1664525u + 1013904223u)
            ids[i] = (int32_t)((x >> 8) % (uint32_t)c->vocab);
        r->hidden[call] = calloc((size_t)(wanted * c->hidden) + 1, sizeof(float));
        target_forward(r->t, r->kv, piece, pieces(call), ids,
                       tensor_of(r->hidden[call], DT_F32, wanted, c->hidden), NULL);
    }
}

static void compare(const char *what, const float *a, const float *b, int64_t n) {
    if (!rows_stand_alone)
        assert_floats(what, a, b, n, tolerance);
    else if (memcmp(a, b, (size_t)n * sizeof *a) != 0)
        fail_msg("%s: other bits", what);
}

static int64_t compare_hidden(const Run *all, const Run *some, int64_t width) {
    char what[64];
    int64_t rows = 0;
    for (int call = 0; call < CALLS; call++) {
        const float *a = all->hidden[call], *b = some->hidden[call];
        for (int i = 0; i < pieces(call); i++) {
            const TargetPiece *p = &SCRIPT[call][i];
            const int64_t n = p->count - p->skip;
            snprintf(what, sizeof what, "hidden of call %d, slot %d", call, p->slot);
            compare(what, b, a + p->skip * width, n * width);
            a += p->count * width;
            b += n * width;
            rows += n;
        }
    }
    return rows;
}

static void compare_caches(const Run *all, const Run *some, const TextConfig *c) {
    char what[64];
    for (int slot = 0; slot < SLOTS; slot++)
        for (int l = 0; l < c->layers - c->kv_shared; l++) {
            const KvView a = kv_view(all->kv, slot, l), b = kv_view(some->kv, slot, l);
            assert_int_equal(a.k.rows, b.k.rows);
            snprintf(what, sizeof what, "K/V of slot %d, layer %d", slot, l);
            compare(what, b.k.data, a.k.data, tensor_count(a.k));
            compare(what, b.v.data, a.v.data, tensor_count(a.v));
        }
}

static void check(const char *dir, DType dtype) {
    Err err = {0};
    const TargetOptions opt = {.dir = dir, .dtype = dtype, .max_rows = ROWS};
    Run all = {.t = target_open(test_env()->dev, &opt, &err)}, some = all;
    assert_ok(all.t, err);
    tolerance = dtype == DT_F32 ? 1e-3 : 0.1;
    const TextConfig *c = &target_config(all.t)->text;
    play(&all, false);
    play(&some, true);
    assert_int_equal(compare_hidden(&all, &some, c->hidden), 88);
    compare_caches(&all, &some, c);
    for (int call = 0; call < CALLS; call++) {
        free(all.hidden[call]);
        free(some.hidden[call]);
    }
    kv_close(all.kv);
    kv_close(some.kv);
    target_close(all.t);
}

static void skipped_rows_change_nothing_where_layers_share_kv(void **state) {
    (void)state;
    check("tests/golden/e2b/target", DT_F32);
    check("tests/golden/e4b/target", DT_F32);
    check("tests/golden/e2b/target", DT_BF16);
    check("configs/demo/base-target", DT_F32);
    check("configs/demo/base-target", DT_BF16);
}

// Then only the rest of the last layer is saved. Keys serve as values; no per-layer inputs.
static void nor_where_every_layer_has_its_own(void **state) {
    (void)state;
    Err err = {0};
    const PairShape shape = {.name = "own",
                             .hidden = 640,
                             .inter = 1300,
                             .layers = 6,
                             .period = 3,
                             .heads = 8,
                             .kv_heads = 4,
                             .global_kv_heads = 2,
                             .head_dim = 64,
                             .global_head_dim = 128,
                             .window = 24,
                             .vocab = 999,
                             .k_eq_v = true};
    char dir[PATH_ROOM];
    assert_ok(dir_make(path_join(dir, test_dir(), "own"), &err), err);
    assert_ok(synthetic_target(dir, &shape, 3, &err), err);
    check(dir, DT_F32);
    check(dir, DT_BF16);
}

static void nor_where_rows_go_through_experts(void **state) {
    (void)state;
    check("tests/golden/26b/target", DT_F32);
    check("tests/golden/26b/target", DT_BF16);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(skipped_rows_change_nothing_where_layers_share_kv),
        cmocka_unit_test(nor_where_every_layer_has_its_own),
        cmocka_unit_test(nor_where_rows_go_through_experts),
    };
    log_set_quiet(true);
    dev_describe(test_env()->dev, see_products, NULL);
    print_message("compared %s\n", rows_stand_alone ? "bit by bit" : "within a tolerance");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
