// tests/infer/export/mlx_target_test.c - merged targets as MLX folders: the same model, its names,
// its experts, its shards.
#include "infer/export/mlx_target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/synthetic.h"
#include "infer/base/file.h"
#include "infer/base/hash.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/export/hf.h"
#include "infer/format/mlx_model.h"
#include "infer/model/target.h"
#include "tests/testing.h"

#define DEMO "configs/demo/base-target"
#define LORA "configs/demo/adapter-german-facts"
enum { TOKENS = 8 };

// Two of a kind, small enough to run: experts and K = V as the 26B has them, and shared K/V with
// per-layer tables as the E2B has them.
static const PairShape MOE = {.name = "moe",
                              .hidden = 128,
                              .inter = 192,
                              .layers = 3,
                              .period = 3,
                              .heads = 4,
                              .kv_heads = 2,
                              .global_kv_heads = 1,
                              .head_dim = 32,
                              .global_head_dim = 64,
                              .window = 16,
                              .vocab = 512,
                              .experts = 4,
                              .top_experts = 2,
                              .expert_inter = 64,
                              .k_eq_v = true};
static const PairShape SMALL = {.name = "e",
                                .hidden = 128,
                                .inter = 192,
                                .layers = 6,
                                .period = 3,
                                .heads = 4,
                                .kv_heads = 1,
                                .head_dim = 32,
                                .global_head_dim = 64,
                                .shared = 3,
                                .ple = 64,
                                .window = 16,
                                .vocab = 512,
                                .wide = true};

static char *fresh(char out[PATH_ROOM]) {
    static int count;
    char name[32];
    Err err = {0};
    snprintf(name, sizeof name, "target%d", count++);
    path_join(out, test_dir(), name);
    assert_ok(dir_make(out, &err), err);
    return out;
}

static char *synthetic(char out[PATH_ROOM], const PairShape *shape) {
    Err err = {0};
    fresh(out);
    assert_ok(synthetic_target(out, shape, 7, &err), err);
    return out;
}

static void export_as(const char *dir, const char *adapter, const char *out, const char *recipe,
                      int64_t shard_bytes) {
    Err err = {0};
    MlxRecipe r;
    char encoding[256];
    assert_ok(mlx_recipe_named(&r, recipe, 64, &err), err);
    assert_ok(mlx_target_write(dir, adapter, out, &r, shard_bytes, encoding, &err), err);
}

static Tensor run(const char *dir, const char *lora) {
    Err err = {0};
    const TargetOptions opt = {.dir = dir, .adapter = lora, .dtype = DT_F32, .max_rows = TOKENS};
    Target *t = target_open(test_env()->dev, &opt, &err);
    if (t == NULL) fail_msg("%s", err.text);
    const TextConfig *c = &target_config(t)->text;
    const Tensor hidden = test_zeros(DT_F32, TOKENS, c->hidden);
    KvCache *kv = kv_open(test_env()->dev, c, 1, TOKENS, TOKENS, false, DT_F32, &err);
    assert_ok(kv != NULL, err);
    const int32_t ids[TOKENS] = {2, 7, 9, 200, 13, 3, 77, 78};
    target_forward(t, kv, &(TargetPiece){.slot = 0, .count = TOKENS}, 1, ids, hidden, NULL);
    kv_close(kv);
    target_close(t);
    return hidden;
}

static void same_model(const char *dir, const char *adapter, int64_t shard_bytes) {
    char out[PATH_ROOM];
    export_as(dir, adapter, fresh(out), "bf16", shard_bytes);
    const Tensor want = run(dir, adapter), got = run(out, NULL);
    assert_memory_equal(got.data, want.data, tensor_bytes(want));
}

static void an_unquantised_export_is_the_merged_model(void **state) {
    (void)state;
    char dir[PATH_ROOM];
    same_model(DEMO, LORA, MLX_SHARD_BYTES);
    same_model(synthetic(dir, &MOE), NULL, MLX_SHARD_BYTES);
    same_model(synthetic(dir, &SMALL), NULL, 100000); // in shards
}

static const MlxTensor *tensor(const MlxModel *m, const char *name) {
    const MlxTensor *t = mlx_model_find(m, name);
    if (t == NULL) fail_msg("no %s", name);
    return t;
}

// Codec and back, of rows of the source.
static void expect_rows(const MlxModel *m, const char *name, const StFile *f, const char *from,
                        int64_t first, int64_t of, int64_t rows) {
    Err err = {0};
    const MlxTensor *t = tensor(m, name);
    const StTensor *s = st_find(f, from);
    const int64_t cols = t->dim[t->rank - 1], n = rows * cols, all = s->dim[0];
    assert_true(t->quantised);
    for (int64_t e = 0; e < all; e++) {
        bf16 *w = malloc((size_t)n * 2), *back = malloc((size_t)n * 2);
        uint32_t *words = malloc((size_t)n * 4);
        bf16 *scales = malloc((size_t)n * 2), *biases = malloc((size_t)n * 2);
        float *is = malloc((size_t)n * sizeof *is);
        assert_ok(st_read_part(f, s, (e * of + first) * cols * 2, n * 2, w, &err), err);
        assert_ok(mlx_encode(&t->scheme, words, scales, biases, w, rows, cols, &err), err);
        assert_ok(mlx_decode(&t->scheme, back, words, scales, biases, rows, cols, &err), err);
        assert_ok(mlx_model_rows(m, t, e * rows, rows, is, &err), err);
        for (int64_t i = 0; i < n; i++) assert_true(is[i] == bf16_to_f32(back[i]));
        free(w);
        free(back);
        free(words);
        free(scales);
        free(biases);
        free(is);
    }
}

static void experts_are_split_and_packed_one_by_one(void **state) {
    (void)state;
    char dir[PATH_ROOM], out[PATH_ROOM];
    Err err = {0};
    export_as(synthetic(dir, &MOE), NULL, fresh(out), "q4", MLX_SHARD_BYTES);
    MlxModel *m = mlx_model_open(out, &err);
    if (m == NULL) fail_msg("%s", err.text);
    StFile *f = st_open(dir, &err);
    const char *layer = "language_model.model.layers.1.";
    char name[128], gate_up[128] = "", down[128] = "";
    for (int i = 0; i < st_count(f); i++) {
        const char *key = st_at(f, i)->name;
        if (strstr(key, "layers.1.experts.gate_up_proj")) snprintf(gate_up, 128, "%.120s", key);
        if (strstr(key, "layers.1.experts.down_proj")) snprintf(down, 128, "%.120s", key);
    }
    snprintf(name, sizeof name, "%sexperts.switch_glu.gate_proj.weight", layer);
    assert_int_equal(tensor(m, name)->rank, 3);
    expect_rows(m, name, f, gate_up, 0, 128, 64);
    snprintf(name, sizeof name, "%sexperts.switch_glu.up_proj.weight", layer);
    expect_rows(m, name, f, gate_up, 64, 128, 64);
    snprintf(name, sizeof name, "%sexperts.switch_glu.down_proj.weight", layer);
    expect_rows(m, name, f, down, 0, 128, 128);
    snprintf(name, sizeof name, "%srouter.proj.weight", layer);
    assert_int_equal(tensor(m, name)->scheme.bits, 8);
    assert_int_equal(tensor(m, name)->scheme.group, 64);
    snprintf(name, sizeof name, "%srouter.proj", layer);
    assert_int_equal(mlx_rules_find(mlx_model_rules(m), name)->scheme.bits, 8);
    assert_true(tensor(m, "language_model.model.embed_tokens.weight")->quantised);
    snprintf(name, sizeof name, "%srouter.scale", layer);
    assert_false(tensor(m, name)->quantised);
    st_close(f);
    mlx_model_close(m);
}

static void what_mlx_lm_drops_is_not_written(void **state) {
    (void)state;
    char out[PATH_ROOM], path[PATH_ROOM];
    Err err = {0};
    TargetConfig *c = malloc(sizeof *c);
    assert_ok(target_config_load(c, DEMO, &err), err);
    export_as(DEMO, LORA, fresh(out), "q4", MLX_SHARD_BYTES);
    MlxModel *m = mlx_model_open(out, &err);
    if (m == NULL) fail_msg("%s", err.text);
    int own = 0, shared = 0;
    for (int i = 0; i < mlx_model_count(m); i++) {
        const char *name = mlx_model_at(m, i)->name;
        int layer;
        assert_int_equal(strncmp(name, "language_model.model.", 21), 0);
        if (sscanf(name, "language_model.model.layers.%d.", &layer) != 1) continue;
        const bool kv =
            strstr(name, ".k_proj") || strstr(name, ".v_proj") || strstr(name, ".k_norm");
        own += kv && layer_owns_kv(&c->text, layer);
        shared += kv && !layer_owns_kv(&c->text, layer);
    }
    assert_int_equal(own, 12);
    assert_int_equal(shared, 0);
    assert_false(tensor(m, "language_model.model.per_layer_model_projection.weight")->quantised);
    mlx_model_close(m);
    free(c);
    json_t *config = json_read_file(path_join(path, out, "config.json"), 1 << 20, &err);
    assert_int_equal(json_integer_value(json_object_get(config, "vocab_size")), 8192);
    assert_true(json_equal(json_object_get(config, "quantization"),
                           json_object_get(config, "quantization_config")));
    json_decref(config);
    json_t *g = json_read_file(path_join(path, out, "generation_config.json"), 1 << 20, &err);
    static const char *const KEYS[] = {"temperature", "top_p", "top_k"};
    for (int i = 0; i < 3; i++) assert_true(json_is_number(json_object_get(g, KEYS[i])));
    assert_null(json_object_get(g, "num_assistant_tokens"));
    json_decref(g);
}

static void a_flat_configuration_keeps_its_short_names(void **state) {
    (void)state;
    char dir[PATH_ROOM], out[PATH_ROOM], path[PATH_ROOM];
    Err err = {0};
    synthetic(dir, &SMALL);
    json_t *c = json_read_file(path_join(path, dir, "config.json"), 1 << 20, &err);
    assert_ok(json_write_file(path, json_object_get(c, "text_config"), &err), err);
    json_decref(c);
    export_as(dir, NULL, fresh(out), "q8", MLX_SHARD_BYTES);
    MlxModel *m = mlx_model_open(out, &err);
    if (m == NULL) fail_msg("%s", err.text);
    assert_true(tensor(m, "model.layers.0.mlp.up_proj.weight")->quantised);
    mlx_model_close(m);
}

// transformers since 5.22 writes sizes by layer and drops the flat keys, which MLX runtimes read.
static void sizes_by_layer_get_their_flat_keys_back(void **state) {
    (void)state;
    char dir[PATH_ROOM], out[PATH_ROOM], path[PATH_ROOM];
    Err err = {0};
    synthetic(dir, &MOE);
    json_t *c = json_read_file(path_join(path, dir, "config.json"), 1 << 20, &err),
           *text = json_object_get(c, "text_config");
    json_object_del(text, "global_head_dim");
    json_object_del(text, "num_global_key_value_heads");
    json_object_set_new(text, "per_layer_config",
                        json_pack("{s:{s:i, s:i}}", "2", "head_dim", 64, "num_key_value_heads", 1));
    assert_ok(json_write_file(path, c, &err), err);
    json_decref(c);
    export_as(dir, NULL, fresh(out), "q8", MLX_SHARD_BYTES);
    c = json_read_file(path_join(path, out, "config.json"), 1 << 20, &err);
    text = json_object_get(c, "text_config");
    assert_int_equal(json_integer_value(json_object_get(text, "global_head_dim")), 64);
    assert_int_equal(json_integer_value(json_object_get(text, "num_global_key_value_heads")), 1);
    json_decref(c);
}

static void shards_hold_what_the_index_says(void **state) {
    (void)state;
    char dir[PATH_ROOM], out[PATH_ROOM], again[PATH_ROOM], path[PATH_ROOM];
    Err err = {0};
    int n = 0, tensors = 0;
    export_as(synthetic(dir, &SMALL), NULL, fresh(out), "q6", 40000);
    export_as(dir, NULL, fresh(again), "q6", 40000);
    char **files = hf_weight_files(out, &n, &err);
    assert_true(n > 3);
    json_t *index =
        json_read_file(path_join(path, out, "model.safetensors.index.json"), 1 << 20, &err);
    for (int i = 0; i < n; i++) {
        Sha256 a, b;
        int64_t size;
        StFile *f = st_open(path_join(path, out, files[i]), &err);
        if (f == NULL) fail_msg("%s", err.text);
        assert_ok(file_size(path, &size, &err), err);
        for (int k = 0; k < st_count(f); k++)
            assert_string_equal(json_string_value(json_object_get(
                                    json_object_get(index, "weight_map"), st_at(f, k)->name)),
                                files[i]);
        tensors += st_count(f);
        st_close(f);
        assert_ok(sha256_file(&a, path, &err), err);
        assert_ok(sha256_file(&b, path_join(path, again, files[i]), &err), err);
        assert_string_equal(a.hex, b.hex);
    }
    assert_int_equal(tensors, json_object_size(json_object_get(index, "weight_map")));
    json_decref(index);
    dir_list_free(files, n);
}

static void an_adapter_for_another_model_is_refused(void **state) {
    (void)state;
    char dir[PATH_ROOM], out[PATH_ROOM], path[PATH_ROOM], encoding[256];
    Err err = {0};
    MlxRecipe r;
    assert_ok(mlx_recipe_named(&r, "q4", 64, &err), err);
    assert_false(mlx_target_write(synthetic(dir, &MOE), LORA, fresh(out), &r, MLX_SHARD_BYTES,
                                  encoding, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_false(file_exists(path_join(path, out, "model.safetensors")));
}

int main(void) {
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unquantised_export_is_the_merged_model),
        cmocka_unit_test(experts_are_split_and_packed_one_by_one),
        cmocka_unit_test(what_mlx_lm_drops_is_not_written),
        cmocka_unit_test(a_flat_configuration_keeps_its_short_names),
        cmocka_unit_test(shards_hold_what_the_index_says),
        cmocka_unit_test(an_adapter_for_another_model_is_refused),
        cmocka_unit_test(sizes_by_layer_get_their_flat_keys_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
