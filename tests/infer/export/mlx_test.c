// tests/infer/export/mlx_test.c - MLX exports of an assistant: container, values, rules, read back.
#include "infer/export/mlx.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/hash.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/export/describe.h"
#include "infer/export/repo.h"
#include "infer/format/mlx_model.h"
#include "infer/model/weight_source.h"
#include "tests/testing.h"

#define STOCK "configs/demo/stock-assistant"

static const char *fresh(void) {
    static char dir[PATH_ROOM];
    static int count;
    char name[32];
    Err err = {0};
    snprintf(name, sizeof name, "mlx%d", count++);
    path_join(dir, test_dir(), name);
    assert_ok(dir_make(dir, &err), err);
    return dir;
}

// The stock assistant as an MLX folder by a recipe.
static const char *exported(const char *recipe, bool heads, Requant requant) {
    Err err = {0};
    MlxRecipe r;
    bool packed;
    char encoding[256];
    const char *dir = fresh();
    StFile *f = st_open(STOCK, &err);
    assert_non_null(f);
    assert_ok(mlx_recipe_named(&r, recipe, 64, &err), err);
    r.heads = heads;
    r.requant = requant;
    const RepoInputs in = {.stock_dir = STOCK,
                           .target_dir = "configs/demo/base-target",
                           .weights = hf_source_file(f),
                           .mlx = &r,
                           .card = {.draft_tokens = 5}};
    assert_ok(repo_fill(&in, dir, encoding, &packed, &err), err);
    assert_int_equal(packed, r.quantise && heads);
    st_close(f);
    return dir;
}

static void container_rules_hold(const char *dir, int tensors) {
    Err err = {0};
    char path[PATH_ROOM];
    size_t size;
    uint64_t header;
    char *raw = file_read(path_join(path, dir, "model.safetensors"), 1 << 30, &size, &err);
    assert_non_null(raw);
    memcpy(&header, raw, 8);
    assert_int_equal(header % 8, 0);
    assert_int_equal(raw[8], '{');
    StFile *f = st_open(dir, &err); // refuses holes, overlaps, trailing bytes
    if (f == NULL) fail_msg("%s", err.text);
    assert_string_equal(st_metadata(f, "format"), "mlx");
    assert_int_equal(st_count(f), tensors);
    int64_t bytes = 0;
    json_t *index =
        json_read_file(path_join(path, dir, "model.safetensors.index.json"), 1 << 20, &err);
    const json_t *map = json_object_get(index, "weight_map");
    assert_int_equal(json_object_size(map), tensors);
    for (int i = 0; i < st_count(f); i++) {
        const StTensor *t = st_at(f, i);
        bytes += t->bytes;
        assert_string_equal(json_string_value(json_object_get(map, t->name)), "model.safetensors");
        const char *want = strstr(t->name, "token_ordering") ? "I32" : NULL;
        if (want != NULL) assert_string_equal(t->dtype, want);
    }
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(index, "metadata"), "total_size")),
        bytes);
    assert_int_equal(8 + header + (uint64_t)bytes, size);
    json_decref(index);
    st_close(f);
    free(raw);
}

static void configuration_rules_hold(const char *dir, bool packed) {
    Err err = {0};
    char path[PATH_ROOM];
    json_t *c = json_read_file(path_join(path, dir, "config.json"), 1 << 20, &err);
    json_t *stock = json_read_file(STOCK "/config.json", 1 << 20, &err);
    assert_int_equal(json_integer_value(json_object_get(c, "block_size")), 6);
    assert_true(
        json_equal(json_object_get(c, "quantization"), json_object_get(c, "quantization_config")) ||
        !packed);
    assert_int_equal(json_is_object(json_object_get(c, "quantization")), packed);
    json_object_del(c, "block_size");
    json_object_del(c, "quantization");
    json_object_del(c, "quantization_config");
    assert_true(json_equal(c, stock)); // null keys and all
    json_decref(c);
    json_decref(stock);
    json_t *g = json_read_file(path_join(path, dir, "generation_config.json"), 1 << 20, &err);
    static const char *const KEYS[] = {"temperature", "top_p", "top_k", "num_assistant_tokens"};
    for (size_t i = 0; i < 4; i++) assert_true(json_is_number(json_object_get(g, KEYS[i])));
    json_decref(g);
}

// Every weight of the export is what the codec makes of the stock's, or the stock's own.
static void values_are_those_of_the_codec(const char *dir, Requant requant) {
    Err err = {0};
    MlxModel *m = mlx_model_open(dir, &err);
    if (m == NULL) fail_msg("%s", err.text);
    StFile *f = st_open(STOCK, &err);
    for (int i = 0; i < mlx_model_count(m); i++) {
        const MlxTensor *t = mlx_model_at(m, i);
        const StTensor *from = st_find(f, t->name);
        assert_non_null(from);
        if (strcmp(from->dtype, "BF16") != 0) continue;
        bf16 *w = malloc((size_t)from->bytes);
        assert_ok(st_read(f, from, w, &err), err);
        float *is = malloc((size_t)t->count * sizeof *is);
        assert_ok(mlx_model_read(m, t, is, &err), err);
        if (t->quantised) {
            MlxScheme s = t->scheme;
            s.requant = s.mode == MLX_AFFINE && requant != REQUANT_NEVER && s.bits == 8;
            const int64_t rows = t->dim[0], cols = t->dim[1];
            uint32_t *words = malloc((size_t)(rows * mlx_row_words(&s, cols)) * 4);
            void *scales = malloc((size_t)(rows * mlx_row_scale_bytes(&s, cols)));
            bf16 *biases = mlx_has_biases(&s) ? malloc((size_t)(rows * cols)) : NULL;
            assert_ok(mlx_encode(&s, words, scales, biases, w, rows, cols, &err), err);
            assert_ok(mlx_decode(&s, w, words, scales, biases, rows, cols, &err), err);
            free(words);
            free(scales);
            free(biases);
        }
        for (int64_t k = 0; k < t->count; k++)
            if (is[k] != bf16_to_f32(w[k])) fail_msg("%s[%lld]", t->name, (long long)k);
        free(w);
        free(is);
    }
    st_close(f);
    mlx_model_close(m);
}

static void every_recipe_gives_a_sound_folder(void **state) {
    (void)state;
    static const struct {
        const char *recipe;
        bool heads;
        int tensors;
    } CASE[] = {{"bf16", false, 50}, {"q8", false, 94},   {"q4", true, 98},
                {"q3", false, 94},   {"mxfp4", true, 74}, {"mxfp8", false, 72}};
    for (size_t i = 0; i < sizeof CASE / sizeof *CASE; i++) {
        const char *dir = exported(CASE[i].recipe, CASE[i].heads, REQUANT_AUTO);
        container_rules_hold(dir, CASE[i].tensors);
        configuration_rules_hold(dir, strcmp(CASE[i].recipe, "bf16") != 0);
        values_are_those_of_the_codec(dir, REQUANT_AUTO);
    }
    values_are_those_of_the_codec(exported("q8", false, REQUANT_NEVER), REQUANT_NEVER);
}

static void the_same_inputs_give_the_same_bytes(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM], first[PATH_ROOM];
    static const char *const FILES[] = {"model.safetensors", "model.safetensors.index.json",
                                        "config.json", "generation_config.json"};
    snprintf(first, sizeof first, "%s", exported("q6", false, REQUANT_AUTO));
    const char *second = exported("q6", false, REQUANT_AUTO);
    for (size_t i = 0; i < 4; i++) {
        Sha256 a, b;
        assert_ok(sha256_file(&a, path_join(path, first, FILES[i]), &err), err);
        assert_ok(sha256_file(&b, path_join(path, second, FILES[i]), &err), err);
        assert_string_equal(a.hex, b.hex);
    }
}

static void a_quantised_folder_is_read_as_an_assistant(void **state) {
    (void)state;
    Err err = {0};
    AssistantConfig c;
    ArtifactInfo info;
    SourceTensor t;
    const char *dir = exported("q4", false, REQUANT_AUTO);
    assert_ok(weight_source_config(&c, dir, &err), err);
    assert_true(c.ordered);
    WeightSource *s = weight_source_open(dir, &err);
    if (s == NULL) fail_msg("%s", err.text);
    assert_true(weight_source_find(s, "model.layers.0.mlp.up_proj.weight", &t));
    assert_string_equal(t.type, "affine 4 bit g64");
    assert_int_equal(t.count, c.text.inter * c.text.hidden);
    assert_int_equal(t.bytes, t.count / 2 + t.count / 64 * 4);
    weight_source_info(s, &c, &info);
    assert_string_equal(info.format, "MLX");
    assert_string_equal(info.label, "affine 4 bit g64, table BF16");
    json_t *o = describe(dir, &err);
    assert_string_equal(json_string_value(json_object_get(o, "kind")), "assistant");
    assert_string_equal(json_string_value(json_object_get(o, "quantization")),
                        "affine, 4 bits, groups of 64; as they were: masked_embedding.centroids, "
                        "model.embed_tokens");
    assert_int_equal(json_integer_value(json_object_get(o, "tensor_count")), 94);
    json_decref(o);
    float *a = malloc((size_t)t.count * sizeof *a), *b = malloc((size_t)t.count * sizeof *b);
    MlxModel *m = mlx_model_open(dir, &err);
    assert_ok(weight_source_read(s, &t, DT_F32, a, &err), err);
    assert_ok(mlx_model_read(m, mlx_model_find(m, t.key), b, &err), err);
    assert_memory_equal(a, b, (size_t)t.count * sizeof *a);
    free(a);
    free(b);
    assert_true(weight_source_find(s, "masked_embedding.token_ordering", &t));
    int64_t *ids = malloc((size_t)t.count * sizeof *ids);
    assert_ok(weight_source_read_ints(s, &t, ids, &err), err);
    char *seen = calloc((size_t)t.count, 1);
    for (int64_t i = 0; i < t.count; i++) {
        assert_true(ids[i] >= 0 && ids[i] < t.count && !seen[ids[i]]);
        seen[ids[i]] = 1;
    }
    free(ids);
    free(seen);
    mlx_model_close(m);
    weight_source_close(s);
}

static void a_mixture_names_every_module(void **state) {
    (void)state;
    Err err = {0};
    MlxRecipe r;
    char encoding[256], path[PATH_ROOM];
    bool packed;
    MixModule module[] = {{"model.layers.0.mlp.up_proj", mix_mlx(8, 64), 0.25, 0.5},
                          {"model.layers.1.mlp.up_proj", mix_mlx(4, 64), 0.5, NAN},
                          {"post_projection", mix_mlx(16, 64), NAN, NAN}};
    const Mix mix = {.format = MIX_MLX,
                     .method = "optiq",
                     .reference = "bf16",
                     .target_bpw = 5,
                     .achieved_bpw = 5.5,
                     .high = 1,
                     .low = 1,
                     .n = 3,
                     .module = module};
    const char *dir = fresh();
    StFile *f = st_open(STOCK, &err);
    assert_ok(mlx_recipe_mix(&r, &mix, "", &err), err);
    const RepoInputs in = {.stock_dir = STOCK,
                           .target_dir = "configs/demo/base-target",
                           .weights = hf_source_file(f),
                           .mlx = &r,
                           .card = {.draft_tokens = 5}};
    assert_ok(repo_fill(&in, dir, encoding, &packed, &err), err);
    st_close(f);
    values_are_those_of_the_codec(dir, REQUANT_AUTO);
    json_t *c = json_read_file(path_join(path, dir, "config.json"), 1 << 20, &err);
    const json_t *q = json_object_get(c, "quantization"),
                 *up = json_object_get(q, "model.layers.0.mlp.up_proj");
    assert_int_equal(json_integer_value(json_object_get(q, "bits")), 4);
    assert_int_equal(json_integer_value(json_object_get(up, "bits")), 8);
    assert_true(json_is_false(json_object_get(q, "post_projection")));
    assert_int_equal(json_object_size(q), 3 + 24); // every module, and the default
    json_t *o = json_read_file(path_join(path, dir, "optiq_metadata.json"), 1 << 20, &err);
    assert_string_equal(json_string_value(json_object_get(o, "method")), "optiq_mixed_precision");
    const json_t *list = json_object_get(o, "per_layer");
    const char *name;
    json_t *entry;
    assert_int_equal(json_object_size(list), 3);
    json_object_foreach((json_t *)list, name, entry) {
        const json_t *rule = json_object_get(q, name);
        const json_int_t bits = json_integer_value(json_object_get(entry, "bits"));
        assert_int_equal(
            bits, json_is_false(rule) ? 16 : json_integer_value(json_object_get(rule, "bits")));
    }
    json_decref(o);
    json_decref(c);
    mlx_recipe_free(&r);
}

// Supplies the stock's values with one of them replaced by NaN.
static bool poisoned(void *ctx, const StTensor *t, void *out, bool *have, Err *err) {
    StFile *f = ctx;
    if (!st_read(f, t, out, err)) return false;
    if (strcmp(t->name, "pre_projection.weight") == 0) ((uint16_t *)out)[700] = 0x7fc0;
    *have = true;
    return true;
}

static void a_weight_that_is_no_number_is_refused_by_name(void **state) {
    (void)state;
    static const char *const RECIPE[] = {"bf16", "q8", "mxfp4"};
    for (int i = 0; i < 3; i++) {
        Err err = {0};
        MlxRecipe r;
        MlxRules rules = {0};
        char path[PATH_ROOM];
        StFile *f = st_open(STOCK, &err);
        const HfSource src = {f, poisoned};
        const char *dir = fresh();
        assert_ok(mlx_recipe_named(&r, RECIPE[i], 64, &err), err);
        assert_false(mlx_write(STOCK, dir, &src, &r, &rules, &err));
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, "pre_projection"));
        assert_false(file_exists(path_join(path, dir, "model.safetensors")));
        st_close(f);
    }
}

static void a_packed_stock_is_refused(void **state) {
    (void)state;
    Err err = {0};
    MlxRecipe r;
    MlxRules rules = {0};
    char stock[PATH_ROOM];
    snprintf(stock, sizeof stock, "%s", exported("q4", false, REQUANT_AUTO));
    StFile *f = st_open(stock, &err);
    const HfSource src = hf_source_file(f);
    assert_ok(mlx_recipe_named(&r, "q8", 64, &err), err);
    assert_false(mlx_write(stock, fresh(), &src, &r, &rules, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "packed (U32)"));
    st_close(f);
}

int main(void) {
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_recipe_gives_a_sound_folder),
        cmocka_unit_test(the_same_inputs_give_the_same_bytes),
        cmocka_unit_test(a_quantised_folder_is_read_as_an_assistant),
        cmocka_unit_test(a_mixture_names_every_module),
        cmocka_unit_test(a_weight_that_is_no_number_is_refused_by_name),
        cmocka_unit_test(a_packed_stock_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
