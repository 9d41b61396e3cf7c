// tests/infer/format/mlx_model_test.c - the block of a quantised MLX model read and written, and
// its tensors found, checked and decoded.
#include "infer/format/mlx_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "tests/testing.h"

enum { ROWS = 6, COLS = 128 };

static json_t *parse(const char *text) {
    Err err = {0};
    json_t *o = json_read_text(text, strlen(text), &err);
    if (o == NULL) fail_msg("%s", err.text);
    return o;
}

static void a_block_is_read_and_written_back(void **state) {
    (void)state;
    Err err = {0};
    MlxRules rules = {0};
    json_t *config = parse("{\"quantization\": {\"group_size\": 64, \"bits\": 4, \"mode\": "
                           "\"affine\", \"a.b\": {\"group_size\": 32, \"bits\": 8}, \"c\": false, "
                           "\"d\": {\"group_size\": 32, \"bits\": 4, \"mode\": \"mxfp4\"}}}");
    json_t *block = json_object_get(config, "quantization");
    json_object_set(config, "quantization_config", block);
    assert_ok(mlx_rules_read(&rules, config, &err), err);
    assert_true(rules.present);
    assert_int_equal(rules.n, 3);
    assert_int_equal(mlx_rules_find(&rules, "a.b")->scheme.bits, 8);
    assert_true(mlx_rules_find(&rules, "c")->keep);
    assert_int_equal(mlx_rules_find(&rules, "d")->scheme.mode, MLX_MXFP4);
    assert_null(mlx_rules_find(&rules, "e"));
    json_t *again = mlx_rules_json(&rules);
    assert_true(json_equal(block, again));
    json_decref(again);
    json_decref(config);
    config = parse("{\"model_type\": \"gemma4\", \"quantization\": null}");
    assert_ok(mlx_rules_read(&rules, config, &err), err);
    assert_false(rules.present);
    assert_int_equal(rules.n, 0);
    json_decref(config);
    mlx_rules_free(&rules);
}

static void refuse_block(const char *block, const char *said) {
    Err err = {0};
    MlxRules rules = {0};
    char text[512];
    snprintf(text, sizeof text, "{\"quantization\": %s}", block);
    json_t *config = parse(text);
    assert_false(mlx_rules_read(&rules, config, &err));
    assert_int_equal(err.code, ERR_INPUT);
    if (strstr(err.text, said) == NULL) fail_msg("\"%s\" is not in \"%s\"", said, err.text);
    json_decref(config);
    mlx_rules_free(&rules);
}

static void a_wrong_block_is_refused_by_name(void **state) {
    (void)state;
    refuse_block("3", "no object");
    refuse_block("{\"bits\": 4}", "group_size");
    refuse_block("{\"group_size\": 64}", "bits");
    refuse_block("{\"group_size\": 64, \"bits\": 7}", "7");
    refuse_block("{\"group_size\": 48, \"bits\": 4}", "48");
    refuse_block("{\"group_size\": 64, \"bits\": \"4\"}", "bits");
    refuse_block("{\"group_size\": 64, \"bits\": 4, \"mode\": \"int4\"}", "int4");
    refuse_block("{\"group_size\": 64, \"bits\": 4, \"a\": 3}", "\"a\"");
    refuse_block("{\"group_size\": 64, \"bits\": 4, \"a\": {\"bits\": 4}}", "\"a\"");
    Err err = {0};
    MlxRules rules = {0};
    json_t *config = parse("{\"quantization\": {\"group_size\": 64, \"bits\": 4}, "
                           "\"quantization_config\": {\"group_size\": 64, \"bits\": 8}}");
    assert_false(mlx_rules_read(&rules, config, &err));
    assert_non_null(strstr(err.text, "differ"));
    json_decref(config);
    mlx_rules_free(&rules);
}

// A model folder of one matrix "m", one plain vector "norm" and what a case adds or leaves out.
typedef struct {
    MlxScheme scheme;
    const char *rules; // members behind the default's
    const char *scales_dtype, *extra;
    int64_t words, groups; // 0: what the scheme says
    bool no_scales, no_biases, more_biases, no_block;
} Case;

static bf16 weights[ROWS * COLS];

static void fill_weights(void) {
    for (int i = 0; i < ROWS * COLS; i++)
        weights[i] = bf16_from_f32((float)((i * 37) % 101 - 50) / 64 * (float)(i / COLS + 1));
}

static void put(StWriter *w, const void *data, int64_t bytes) {
    Err err = {0};
    assert_ok(st_writer_data(w, data, bytes, &err), err);
}

static void write_weights(const char *dir, const Case *c) {
    char path[PATH_ROOM];
    Err err = {0};
    const MlxScheme *s = &c->scheme;
    const bool affine = mlx_has_biases(s);
    const int64_t words = c->words ? c->words : mlx_row_words(s, COLS),
                  groups = c->groups ? c->groups : mlx_row_groups(s, COLS), one[] = {ROWS, words},
                  two[] = {ROWS, groups}, norm[] = {COLS};
    uint32_t *packed = calloc((size_t)(ROWS * COLS), 4);
    char *scales = calloc(ROWS * COLS, 4);
    bf16 *biases = calloc(ROWS * COLS, 2);
    assert_ok(mlx_encode(s, packed, scales, affine ? biases : NULL, weights, ROWS, COLS, &err),
              err);
    StWriter *w = st_writer_open(path_join(path, dir, "model.safetensors"), &err);
    assert_non_null(w);
    const char *kind = c->scales_dtype ? c->scales_dtype : affine ? "BF16" : "U8";
    assert_ok(st_writer_declare(w, "m.weight", "U32", 2, one, &err), err);
    assert_ok(st_writer_declare(w, "norm.weight", "BF16", 1, norm, &err), err);
    if (!c->no_scales) assert_ok(st_writer_declare(w, "m.scales", kind, 2, two, &err), err);
    if ((affine && !c->no_biases) || c->more_biases)
        assert_ok(st_writer_declare(w, "m.biases", "BF16", 2, two, &err), err);
    if (c->extra) assert_ok(st_writer_declare(w, c->extra, "BF16", 1, norm, &err), err);
    assert_ok(st_writer_begin(w, &err), err);
    for (int i = 0; i < st_writer_count(w); i++) {
        const StTensor *t = st_writer_order(w, i);
        put(w,
            strcmp(t->name, "m.weight") == 0   ? (void *)packed
            : strcmp(t->name, "m.scales") == 0 ? (void *)scales
            : strcmp(t->name, "m.biases") == 0 ? (void *)biases
                                               : (void *)weights,
            t->bytes);
    }
    assert_ok(st_writer_commit(w, &err), err);
    free(packed);
    free(scales);
    free(biases);
}

static const char *made(const Case *c) {
    static char dir[PATH_ROOM];
    static int count;
    char path[PATH_ROOM], text[1024], name[32];
    Err err = {0};
    snprintf(name, sizeof name, "model%d", count++);
    path_join(dir, test_dir(), name);
    assert_ok(dir_make(dir, &err), err);
    snprintf(text, sizeof text,
             "{\"quantization\": {\"group_size\": %d, \"bits\": %d, \"mode\": \"%s\"%s}}",
             c->scheme.group, c->scheme.bits, mlx_mode_name(c->scheme.mode),
             c->rules ? c->rules : "");
    if (c->no_block) strcpy(text, "{}");
    assert_ok(file_write(path_join(path, dir, "config.json"), text, strlen(text), &err), err);
    write_weights(dir, c);
    return dir;
}

static const MlxScheme SCHEMES[] = {
    {MLX_AFFINE, 2, 32, false}, {MLX_AFFINE, 3, 64, false}, {MLX_AFFINE, 4, 128, false},
    {MLX_AFFINE, 5, 64, false}, {MLX_AFFINE, 6, 32, false}, {MLX_AFFINE, 8, 64, true},
    {MLX_MXFP4, 4, 32, false},  {MLX_MXFP8, 8, 32, false},  {MLX_NVFP4, 4, 16, false},
};

static void every_scheme_decodes_as_the_codec_does(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof SCHEMES / sizeof *SCHEMES; i++) {
        Err err = {0};
        const MlxScheme *s = &SCHEMES[i];
        uint32_t packed[ROWS * COLS];
        bf16 scales[ROWS * COLS], biases[ROWS * COLS], want[ROWS * COLS];
        float is[ROWS * COLS];
        const Case c = {.scheme = *s};
        MlxModel *m = mlx_model_open(made(&c), &err);
        if (m == NULL) fail_msg("%s", err.text);
        assert_int_equal(mlx_model_count(m), 2);
        const MlxTensor *t = mlx_model_find(m, "m.weight");
        assert_true(t->quantised && t->rank == 2 && t->dim[0] == ROWS && t->dim[1] == COLS);
        assert_int_equal(t->count, ROWS * COLS);
        assert_true(mlx_scheme_same(&t->scheme, s));
        bf16 *b = mlx_has_biases(s) ? biases : NULL;
        assert_ok(mlx_encode(s, packed, scales, b, weights, ROWS, COLS, &err), err);
        assert_ok(mlx_decode(s, want, packed, scales, b, ROWS, COLS, &err), err);
        assert_ok(mlx_model_read(m, t, is, &err), err);
        for (int k = 0; k < ROWS * COLS; k++) assert_true(is[k] == bf16_to_f32(want[k]));
        assert_ok(mlx_model_rows(m, t, 3, 2, is, &err), err);
        for (int k = 0; k < 2 * COLS; k++) assert_true(is[k] == bf16_to_f32(want[3 * COLS + k]));
        const MlxTensor *norm = mlx_model_find(m, "norm.weight");
        assert_false(norm->quantised);
        assert_ok(mlx_model_read(m, norm, is, &err), err);
        for (int k = 0; k < COLS; k++) assert_true(is[k] == bf16_to_f32(weights[k]));
        mlx_model_close(m);
    }
}

static void refused(Case c, const char *said) {
    Err err = {0};
    if (c.scheme.bits == 0) c.scheme = (MlxScheme){MLX_AFFINE, 4, 64, false};
    assert_null(mlx_model_open(made(&c), &err));
    assert_int_equal(err.code, ERR_INPUT);
    if (strstr(err.text, said) == NULL) fail_msg("\"%s\" is not in \"%s\"", said, err.text);
}

static void tensors_that_do_not_fit_the_rules_are_refused(void **state) {
    (void)state;
    refused((Case){.no_scales = true, .no_biases = true}, "packed (U32) and has no scales");
    refused((Case){.no_scales = true}, "packed (U32) and has no scales");
    refused((Case){.no_biases = true}, "has biases, the file has none");
    refused((Case){.scheme = {MLX_MXFP4, 4, 32, false}, .more_biases = true}, "has no biases");
    refused((Case){.scales_dtype = "F16"}, "m.scales is F16, expected BF16");
    refused((Case){.words = 15}, "15 words and 2 scales");
    refused((Case){.groups = 3}, "16 words and 3 scales");
    refused((Case){.rules = ", \"m\": false"}, "keeps m, the file has scales");
    refused((Case){.rules = ", \"m\": {\"group_size\": 64, \"bits\": 8}"}, "are not 8 bits");
    refused((Case){.rules = ", \"norm\": {\"group_size\": 64, \"bits\": 8}"}, "quantises norm");
    refused((Case){.rules = ", \"gone\": {\"group_size\": 64, \"bits\": 8}"}, "quantises gone");
    refused((Case){.extra = "lost.scales"}, "lost.scales has no lost.weight");
    refused((Case){.extra = "norm.biases"}, "norm.biases has no norm.scales");
    refused((Case){.no_block = true}, "no quantization");
    const Case whole = {.scheme = {MLX_AFFINE, 4, 64, false}, .rules = ", \"absent\": false"};
    Err err = {0};
    MlxModel *m = mlx_model_open(made(&whole), &err); // others write entries of towers
    if (m == NULL) fail_msg("%s", err.text);
    mlx_model_close(m);
}

int main(void) {
    fill_weights();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_is_read_and_written_back),
        cmocka_unit_test(a_wrong_block_is_refused_by_name),
        cmocka_unit_test(every_scheme_decodes_as_the_codec_does),
        cmocka_unit_test(tensors_that_do_not_fit_the_rules_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
