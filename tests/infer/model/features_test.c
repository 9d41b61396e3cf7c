// tests/infer/model/features_test.c - what a pack takes from a running target is what was recorded.
#include "tests/infer/model/golden_pair.h"

// f32 target against the recorded one (reference/README, three times the f32-f64 difference).
static const double TOLERANCE = 1e-3;

static void compare_rows(const Pair *p, const FeaturePack *got, const char *part, Tensor t) {
    char name[64];
    snprintf(name, sizeof name, "seq1.%s", part);
    const Tensor want = pair_tensor(p->target, name, got->rows, t.cols);
    assert_close(name, tensor_rows(t, 0, got->rows), want, TOLERANCE, 0);
}

static Tensor forward(Target *t, KvCache *kv, const int32_t *ids, int64_t n) {
    const Tensor hidden = test_zeros(DT_F32, n, target_config(t)->text.hidden);
    const TargetPiece piece = {.slot = 0, .count = n};
    target_forward(t, kv, &piece, 1, ids, hidden, NULL);
    return hidden;
}

static void pack_of(const char *family) {
    Env *env = test_env();
    Err err = {0};
    Pair p = pair_open(family, "assistant", false, 0, 0);
    const TargetOptions o = {.dir = pair_path(family, "target"),
                             .dtype = DT_F32,
                             .scale = EMBED_SCALE_F32,
                             .max_rows = 64};
    Target *t = target_open(env->dev, &o, &err);
    if (t == NULL) fail_msg("%s", err.text);
    KvCache *kv = kv_open(env->dev, &p.tc.text, 1, 128, 64, true, DT_F32, &err);
    if (kv == NULL) fail_msg("%s", err.text);
    int64_t n = 0;
    int64_t *ids64 = pair_ids(p.target, "seq1.ids", &n);
    int32_t ids[128];
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)ids64[i];
    FeaturePack *pack = &p.pack;
    features_begin(pack);
    features_append(pack, env->dev, t, kv, 0, 0, 20, forward(t, kv, ids, 20));
    features_append(pack, env->dev, t, kv, 0, 20, 5, forward(t, kv, ids + 30, 5)); // a wrong draft
    features_rewind(pack, 20);
    kv_rewind(kv, 0, 20);
    features_append(pack, env->dev, t, kv, 0, 20, n - 20, forward(t, kv, ids + 20, n - 20));
    assert_int_equal(pack->rows, n);
    compare_rows(&p, pack, "hidden", pack->hidden);
    compare_rows(&p, pack, "k_sliding", pack->k[LAYER_SLIDING]);
    compare_rows(&p, pack, "v_sliding", pack->v[LAYER_SLIDING]);
    compare_rows(&p, pack, "k_full", pack->k[LAYER_FULL]);
    compare_rows(&p, pack, "v_full", pack->v[LAYER_FULL]);
    free(ids64);
    kv_close(kv);
    target_close(t);
    pair_close(&p);
}

static void appended_rows_are_the_recorded_ones(void **state) {
    (void)state;
    each_family(pack_of);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(appended_rows_are_the_recorded_ones)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
