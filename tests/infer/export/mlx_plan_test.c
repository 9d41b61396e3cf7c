// tests/infer/export/mlx_plan_test.c - which tensors an MLX export holds, and how many bytes, from
// shapes alone: no weights of these sizes are ever made.
#include "infer/export/mlx_plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/synthetic.h"
#include "infer/model/assistant.h"
#include "tests/testing.h"

enum { INPUTS_MAX = 64 };

static void add(MlxInput *in, int *n, const char *name, const char *dtype, int64_t rows,
                int64_t cols) {
    MlxInput *x = &in[(*n)++];
    *x = (MlxInput){.rank = rows > 1 ? 2 : 1};
    snprintf(x->name, sizeof x->name, "%.99s", name);
    snprintf(x->dtype, sizeof x->dtype, "%s", dtype);
    x->dim[0] = rows > 1 ? rows : cols;
    if (rows > 1) x->dim[1] = cols;
    x->head = strstr(name, "embed_tokens") != NULL || strstr(name, "centroids") != NULL;
}

// The tensors of a real assistant as the exporter sees them.
static int inputs_of(const char *family, MlxInput in[INPUTS_MAX]) {
    const PairShape *s = pair_shape(family);
    AssistantConfig c = {.backbone = s->hidden,
                         .ordered = s->clusters > 0,
                         .clusters = s->clusters,
                         .text = {.vocab = s->vocab,
                                  .hidden = s->draft_hidden,
                                  .inter = s->draft_inter,
                                  .layers = 4,
                                  .heads = s->draft_heads,
                                  .head_dim = 256,
                                  .global_head_dim = 512,
                                  .kind = {0, 0, 0, LAYER_FULL}}};
    AssistantWeights w;
    AssistantParam p[ASSISTANT_PARAMS_MAX];
    int n = 0;
    assistant_layout(&c, &w, NULL, DT_BF16);
    const int params = assistant_params(&c, &w, p);
    for (int i = 0; i < params; i++)
        add(in, &n, p[i].name, "BF16", p[i].tensor->rows, p[i].tensor->cols);
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%d.layer_scalar", i);
        add(in, &n, name, "BF16", 1, 1);
    }
    if (c.ordered) add(in, &n, "masked_embedding.token_ordering", "I32", 1, s->vocab);
    for (int i = 0; i < n; i++) in[i].head = in[i].head && c.ordered;
    assert_int_equal(n, c.ordered ? 50 : 48);
    return n;
}

typedef enum { HEADS_KEPT, TABLE_PACKED, ALL_PACKED } Heads;

static void plan(MlxPlan *p, const char *family, const char *recipe, Heads heads) {
    MlxInput in[INPUTS_MAX];
    MlxRecipe r;
    Err err = {0};
    const int n = inputs_of(family, in);
    assert_ok(mlx_recipe_named(&r, recipe, 64, &err), err);
    r.heads = heads != HEADS_KEPT;
    if (heads == TABLE_PACKED && pair_shape(family)->clusters > 0)
        mlx_rules_add(&r.own, "masked_embedding.centroids", true, &r.root);
    assert_ok(mlx_plan_make(p, in, n, &r, MLX_SHARD_BYTES, &err), err);
    assert_int_equal(p->shards, 1);
    mlx_recipe_free(&r);
}

static void size_is(const char *family, const char *recipe, Heads heads, double mb) {
    MlxPlan p;
    if (mb == 0) return; // not printed
    plan(&p, family, recipe, heads);
    if (fabs((double)p.bytes * 1e-6 - mb) >
        0.06) // printed with one decimal, not always rounded alike
        fail_msg("%s %s: %.3f MB, expected %.1f", family, recipe, (double)p.bytes * 1e-6, mb);
    mlx_plan_free(&p);
}

// Columns of the specification's table: table packed, table kept. 0: not printed.
static void real_shapes_have_the_sizes_of_the_specification(void **state) {
    (void)state;
    static const char *const RECIPE[] = {"q8", "q6", "q5", "q4", "q3", "mxfp8", "mxfp4", "nvfp4"};
    static const struct {
        const char *family;
        double packed[8], kept[8];
    } ROW[] = {
        {"e2b",
         {84.1, 64.8, 55.2, 45.5, 35.9, 81.7, 43.1, 45.5},
         {147.1, 144.5, 143.3, 142.0, 140.7}},
        {"e4b",
         {85.0, 65.5, 55.7, 46.0, 36.2, 82.5, 43.5, 46.0},
         {147.9, 145.2, 143.8, 142.5, 141.1}},
        {"26b", {446.0, 341.0, 288.6, 236.1, 183.7, 432.9, 223.0, 236.1}, {0}},
        {"31b", {498.9, 381.5, 322.8, 264.1, 205.4, 484.2, 249.5, 264.1}, {0}},
    };
    for (size_t f = 0; f < sizeof ROW / sizeof *ROW; f++)
        for (int i = 0; i < 8; i++) {
            size_is(ROW[f].family, RECIPE[i], TABLE_PACKED, ROW[f].packed[i]);
            size_is(ROW[f].family, RECIPE[i], HEADS_KEPT, ROW[f].kept[i]);
        }
}

static void bytes_are(const char *family, int64_t bytes) {
    MlxPlan p;
    plan(&p, family, "bf16", HEADS_KEPT);
    assert_int_equal(p.bytes, bytes);
    mlx_plan_free(&p);
}

static void unquantised_files_have_known_bytes(void **state) {
    (void)state;
    bytes_are("e2b", 156511240);
    bytes_are("e4b", 158084104);
    bytes_are("26b", 839422472);
    bytes_are("31b", 939037192);
}

static void counts_are(const char *family, const char *recipe, Heads heads, int tensors,
                       int modules) {
    MlxPlan p;
    int packed = 0;
    plan(&p, family, recipe, heads);
    for (int i = 0; i < p.n; i++) packed += p.out[i].part == MLX_WORDS;
    assert_int_equal(p.n, tensors);
    assert_int_equal(packed, modules);
    assert_int_equal(p.rules.present, modules > 0);
    mlx_plan_free(&p);
}

static void files_have_the_published_number_of_tensors(void **state) {
    (void)state;
    counts_are("31b", "q4", HEADS_KEPT, 94, 23);
    counts_are("26b", "q8", HEADS_KEPT, 94, 23);
    counts_are("e2b", "q8", HEADS_KEPT, 94, 22);
    counts_are("e4b", "q4", ALL_PACKED, 98, 24);
    counts_are("e2b", "mxfp4", ALL_PACKED, 74, 24); // no biases
    counts_are("e2b", "bf16", HEADS_KEPT, 50, 0);
}

static void what_stays_is_said_in_the_rules(void **state) {
    (void)state;
    MlxPlan p;
    plan(&p, "e2b", "q4", HEADS_KEPT);
    assert_int_equal(p.kept_heads, 2);
    assert_int_equal(p.rules.n, 2);
    assert_true(mlx_rules_find(&p.rules, "model.embed_tokens")->keep);
    assert_true(mlx_rules_find(&p.rules, "masked_embedding.centroids")->keep);
    json_t *block = mlx_rules_json(&p.rules);
    assert_true(json_is_false(json_object_get(block, "model.embed_tokens")));
    assert_int_equal(json_integer_value(json_object_get(block, "bits")), 4);
    json_decref(block);
    mlx_plan_free(&p);
}

// A made-up model of a few matrices.
static void small(MlxInput in[4]) {
    int n = 0;
    add(in, &n, "layers.0.mlp.up_proj.weight", "BF16", 64, 128);
    add(in, &n, "layers.0.router.proj.weight", "BF16", 8, 128);
    add(in, &n, "layers.0.odd.weight", "BF16", 64, 96);
    add(in, &n, "layers.0.never.weight", "F32", 64, 128);
    in[1].fixed = true;
    in[3].never = true;
}

static void modules_have_rules_of_their_own(void **state) {
    (void)state;
    MlxInput in[4];
    MlxRecipe r;
    MlxPlan p;
    Err err = {0};
    small(in);
    assert_ok(mlx_recipe_named(&r, "mxfp4", 64, &err), err);
    assert_ok(mlx_plan_make(&p, in, 4, &r, MLX_SHARD_BYTES, &err), err);
    assert_null(mlx_rules_find(&p.rules, "layers.0.mlp.up_proj")); // by the default
    const MlxRule *router = mlx_rules_find(&p.rules, "layers.0.router.proj");
    assert_int_equal(router->scheme.mode, MLX_AFFINE);
    assert_int_equal(router->scheme.bits, 8);
    assert_int_equal(router->scheme.group, 64);
    assert_true(mlx_rules_find(&p.rules, "layers.0.never")->keep);
    assert_true(p.quantised[2]); // 96 is a multiple of mxfp4's 32
    mlx_plan_free(&p);
    assert_ok(mlx_recipe_named(&r, "q4", 64, &err), err);
    const MlxScheme wide = {.mode = MLX_AFFINE, .bits = 6, .group = 32};
    mlx_rules_add(&r.own, "layers.0.odd", false, &wide);
    assert_ok(mlx_plan_make(&p, in, 4, &r, MLX_SHARD_BYTES, &err), err);
    assert_true(mlx_scheme_same(&mlx_rules_find(&p.rules, "layers.0.odd")->scheme, &wide));
    assert_false(mlx_rules_find(&p.rules, "layers.0.mlp.up_proj")->keep); // mixed: all are named
    assert_int_equal(p.kept_rows, 0);
    mlx_plan_free(&p);
    mlx_recipe_free(&r);
    assert_ok(mlx_recipe_named(&r, "q4", 64, &err), err);
    assert_ok(mlx_plan_make(&p, in, 4, &r, MLX_SHARD_BYTES, &err), err);
    assert_int_equal(p.kept_rows, 1);
    assert_string_equal(p.unfit, "layers.0.odd");
    mlx_plan_free(&p);
}

static void codes_follow_the_stored_scale_at_eight_bits(void **state) {
    (void)state;
    MlxInput in[4];
    MlxRecipe r;
    MlxPlan p;
    Err err = {0};
    static const struct {
        const char *recipe;
        Requant requant;
        bool is;
    } CASE[] = {{"q8", REQUANT_AUTO, true},
                {"q8", REQUANT_NEVER, false},
                {"q4", REQUANT_AUTO, false},
                {"q4", REQUANT_ALWAYS, true}};
    for (size_t i = 0; i < sizeof CASE / sizeof *CASE; i++) {
        small(in);
        assert_ok(mlx_recipe_named(&r, CASE[i].recipe, 64, &err), err);
        r.requant = CASE[i].requant;
        assert_ok(mlx_plan_make(&p, in, 4, &r, MLX_SHARD_BYTES, &err), err);
        assert_int_equal(p.scheme[0].requant, CASE[i].is);
        mlx_plan_free(&p);
    }
}

static void shards_fill_in_order_and_keep_modules_whole(void **state) {
    (void)state;
    MlxInput in[4];
    MlxRecipe r;
    MlxPlan p;
    Err err = {0};
    char name[64];
    small(in);
    assert_ok(mlx_recipe_named(&r, "q4", 64, &err), err);
    // up_proj: 4096 words' bytes + 256 + 256; router at 8 bits: 1024 + 32 + 32
    assert_ok(mlx_plan_make(&p, in, 4, &r, 5696, &err), err);
    assert_int_equal(p.shards, 3);
    for (int i = 0; i < p.n; i++)
        assert_int_equal(p.out[i].shard, p.out[i].input < 2 ? 0 : p.out[i].input - 1);
    assert_int_equal(p.bytes, 4608 + 1088 + 64 * 96 * 2 + 64 * 128 * 4);
    assert_string_equal(mlx_shard_name(&p, 1, name), "model-00002-of-00003.safetensors");
    mlx_plan_free(&p);
}

static void refusals_name_what_is_wrong(void **state) {
    (void)state;
    MlxInput in[4];
    MlxRecipe r;
    MlxPlan p;
    Err err = {0};
    small(in);
    assert_false(mlx_recipe_named(&r, "q7", 64, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "q7"));
    err = (Err){0};
    assert_false(mlx_recipe_named(&r, "q4", 48, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "48"));
    err = (Err){0};
    assert_ok(mlx_recipe_named(&r, "q4", 64, &err), err);
    mlx_rules_add(&r.own, "layers.7.mlp.up_proj", true, &r.root);
    assert_false(mlx_plan_make(&p, in, 4, &r, MLX_SHARD_BYTES, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "layers.7.mlp.up_proj"));
    mlx_recipe_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_shapes_have_the_sizes_of_the_specification),
        cmocka_unit_test(unquantised_files_have_known_bytes),
        cmocka_unit_test(files_have_the_published_number_of_tensors),
        cmocka_unit_test(what_stays_is_said_in_the_rules),
        cmocka_unit_test(modules_have_rules_of_their_own),
        cmocka_unit_test(codes_follow_the_stored_scale_at_eight_bits),
        cmocka_unit_test(shards_fill_in_order_and_keep_modules_whole),
        cmocka_unit_test(refusals_name_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
