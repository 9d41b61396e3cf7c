// tests/infer/export/gguf_export_test.c - GGUF files of a made assistant: keys, tensors,
// vocabulary, one reading, the same bytes every time.
#include <math.h>

#include "infer/base/hash.h"
#include "infer/base/json.h"
#include "infer/model/source_gguf.h"
#include "tests/infer/export/gguf_made.h"

static void one_reading_makes_twelve_files(void **state) {
    (void)state;
    Err err = {0};
    Made made = {0};
    GgufMix mix[GGUF_MIXES_MAX];
    GgufEntry e[GGUF_ENTRIES_MAX];
    int n;
    const AssistantConfig c = made_config(SMALL_VOCAB);
    const GgufJob job = made_job(&c, &made, GGUF_UNIVERSAL);
    const char *dir = fresh_dir();
    assert_ok(gguf_option("all", mix, &n, &err), err);
    assert_int_equal(n, 12);
    assert_ok(gguf_export(&job, mix, n, dir, &err), err);
    const int count = gguf_assistant_tensors(GGUF_UNIVERSAL, &c, e);
    int64_t values = 0;
    for (int i = 0; i < count; i++)
        if (e[i].key[0] != '\0') values += e[i].dim[0] * e[i].dim[1];
    assert_int_equal(made.values, values); // each value once
    for (int i = 0; i < n; i++) {
        char name[256];
        GgmlType type[GGUF_ENTRIES_MAX];
        GgufFile *f = open_in(dir, gguf_file_name(name, "made/one", mix[i].name));
        assert_int_equal(gguf_plan(&mix[i], e, count, 4, type), gguf_data_bytes(f));
        assert_int_equal(gguf_count(f), count);
        for (int k = 0; k < count; k++) {
            const GgufTensor *t = gguf_at(f, k);
            assert_string_equal(t->name, e[k].name);
            assert_int_equal(t->type->type, type[k]);
        }
        gguf_close(f);
    }
}

// Relative error of what a file holds against what it was made from.
static double error_of(const GgufFile *f, const char *name, const char *key) {
    Err err = {0};
    const GgufTensor *t = gguf_find(f, name);
    float *x = malloc((size_t)t->count * sizeof *x);
    assert_ok(gguf_read_f32(f, t, 0, t->rows, x, &err), err);
    const uint64_t seed = made_seed(key);
    double diff = 0, all = 0;
    for (int64_t i = 0; i < t->count; i++) {
        const double y = (double)made_value(seed, i);
        diff += (x[i] - y) * (x[i] - y);
        all += y * y;
    }
    free(x);
    return sqrt(diff / all);
}

static void files_hold_what_they_were_given(void **state) {
    (void)state;
    static const struct {
        const char *mix;
        double matrix, head;
    } LIMITS[] = {{"BF16", 0, 0},       {"Q8_0", .007, .007}, {"Q5_K_M", .05, .025},
                  {"Q3_K_L", .2, .025}, {"MXFP4", .15, .025}, {"Q4_K_M-head4", .1, .1}};
    Err err = {0};
    Made made = {0};
    const AssistantConfig c = made_config(SMALL_VOCAB);
    const GgufJob job = made_job(&c, &made, GGUF_IK);
    const char *dir = fresh_dir();
    for (size_t i = 0; i < sizeof LIMITS / sizeof *LIMITS; i++) {
        GgufMix m;
        char name[256];
        assert_ok(gguf_mix_named(&m, LIMITS[i].mix, &err), err);
        assert_ok(gguf_export(&job, &m, 1, dir, &err), err);
        GgufFile *f = open_in(dir, gguf_file_name(name, "made/one", m.name));
        const double q = error_of(f, "blk.1.attn_q.weight",
                                  "model.layers.1.self_attn.q_proj.weight"),
                     h = error_of(f, "token_embd.weight", "model.embed_tokens.weight");
        if (!(q <= LIMITS[i].matrix && h <= LIMITS[i].head))
            fail_msg("%s: relative error %g and %g", LIMITS[i].mix, q, h);
        assert_true(error_of(f, "blk.3.layer_output_scale.weight", "model.layers.3.layer_scalar") ==
                    0);
        gguf_close(f);
    }
}

static void the_same_job_gives_the_same_bytes(void **state) {
    (void)state;
    Err err = {0};
    Made made = {0};
    Sha256 sha[2];
    GgufMix m;
    const AssistantConfig c = made_config(SMALL_VOCAB);
    const GgufJob job = made_job(&c, &made, GGUF_UNIVERSAL);
    assert_ok(gguf_mix_named(&m, "Q4_K_M", &err), err);
    for (int i = 0; i < 2; i++) {
        char path[PATH_ROOM], name[256];
        const char *dir = fresh_dir();
        assert_ok(gguf_export(&job, &m, 1, dir, &err), err);
        path_join(path, dir, gguf_file_name(name, "made/one", "Q4_K_M"));
        assert_ok(sha256_file(&sha[i], path, &err), err);
    }
    assert_string_equal(sha[0].hex, sha[1].hex);
}

typedef struct {
    const char *key, *value;
} Key;

static const Key COMMON[] = {
    {"general.type", "text model"},
    {"general.name", "text made/one"},
    {"general.size_label", "text 4.7M"},
    {"general.license", "text apache-2.0"},
    {"general.base_model.count", "u32 1"},
    {"general.base_model.0.name", "text stock-assistant"},
    {"general.base_model.0.organization", "text org"},
    {"general.file_type", "u32 7"},
    {"general.quantization_version", "u32 2"},
    {"general.alignment", "absent"},
    {"draftsmith.mix", "absent"},
    {"A.block_count", "u32 4"},
    {"A.context_length", "u32 8192"},
    {"A.embedding_length", "u32 256"},
    {"A.feed_forward_length", "u32 512"},
    {"A.attention.head_count", "u32 4"},
    {"A.attention.head_count_kv", "[i32] 2 2 2 1"},
    {"A.attention.key_length", "u32 128"},
    {"A.attention.value_length", "u32 128"},
    {"A.attention.key_length_swa", "u32 64"},
    {"A.attention.value_length_swa", "u32 64"},
    {"A.attention.layer_norm_rms_epsilon", "f32 1e-06"},
    {"A.attention.sliding_window", "u32 64"},
    {"A.attention.sliding_window_pattern", "[bool] 1 1 1 0"},
    {"A.rope.dimension_count", "u32 128"},
    {"A.rope.dimension_count_swa", "u32 64"},
    {"A.rope.freq_base", "f32 1e+06"},
    {"A.rope.freq_base_swa", "f32 10000"},
    {"tokenizer.ggml.model", "text gemma4"},
    {"tokenizer.ggml.pre", "absent"},
    {"tokenizer.ggml.tokens", "[text] <pad> <eos> <bos> <unk> <mask> <|tool>"},
    {"tokenizer.ggml.scores", "[f32] -1000 -1000 -1000 -1000 -1000 -1000"},
    {"tokenizer.ggml.token_type", "[i32] 3 3 3 3 3 3"},
    {"tokenizer.ggml.bos_token_id", "u32 2"},
    {"tokenizer.ggml.eos_token_id", "u32 1"},
    {"tokenizer.ggml.unknown_token_id", "u32 3"},
    {"tokenizer.ggml.padding_token_id", "u32 0"},
    {"tokenizer.ggml.mask_token_id", "u32 4"},
    {"tokenizer.ggml.add_bos_token", "bool 1"},
    {"tokenizer.ggml.add_eos_token", "bool 0"},
    {"tokenizer.ggml.add_space_prefix", "bool 0"},
};
static const Key UNIVERSAL[] = {
    {"A.attention.shared_kv_layers", "u32 4"}, {"A.embedding_length_per_layer_input", "u32 0"},
    {"A.embedding_length_out", "u32 512"},     {"A.nextn_predict_layers", "u32 4"},
    {"A.backbone_embedding_length", "absent"},
};
static const Key IK[] = {
    {"A.backbone_embedding_length", "u32 512"},
    {"A.use_ordered_embeddings", "bool 0"},
    {"A.centroid_count", "u32 0"},
    {"A.centroid_top_k", "u32 0"},
    {"A.embedding_length_out", "absent"},
    {"A.nextn_predict_layers", "absent"},
};

static void compare_keys(const GgufFile *f, GgufDialect d, const Key *key, size_t n) {
    for (size_t i = 0; i < n; i++) {
        char name[96];
        if (strncmp(key[i].key, "A.", 2) == 0)
            snprintf(name, sizeof name, "%s.%s", gguf_architecture(d), key[i].key + 2);
        else
            snprintf(name, sizeof name, "%s", key[i].key);
        const char *is = value_text(f, name);
        if (strcmp(is, key[i].value) != 0)
            fail_msg("%s is \"%s\", expected \"%s\"", name, is, key[i].value);
    }
}

static void keys_are_those_of_the_converter(void **state) {
    (void)state;
    Err err = {0};
    for (int d = 0; d < 2; d++) {
        Made made = {0};
        GgufMix m;
        AssistantConfig c = made_config(DEMO_VOCAB), back;
        GgufDialect dialect;
        const GgufJob job = made_job(&c, &made, (GgufDialect)d);
        const char *dir = fresh_dir();
        assert_ok(gguf_mix_named(&m, "Q8_0", &err), err);
        assert_ok(gguf_export(&job, &m, 1, dir, &err), err);
        GgufFile *f = open_in(dir, "mtp-made-one-Q8_0.gguf");
        assert_string_equal(gguf_value_at(f, 0)->key, "general.architecture");
        compare_keys(f, (GgufDialect)d, COMMON, sizeof COMMON / sizeof *COMMON);
        if (d == GGUF_IK)
            compare_keys(f, GGUF_IK, IK, sizeof IK / sizeof *IK);
        else
            compare_keys(f, GGUF_UNIVERSAL, UNIVERSAL, sizeof UNIVERSAL / sizeof *UNIVERSAL);
        // and they say what the assistant is
        assert_ok(gguf_assistant_config(&back, &dialect, f, &err), err);
        assert_int_equal(dialect, d);
        assert_false(back.ordered);
        assert_int_equal(back.backbone, 512);
        assert_true(back.text.vocab == 8192 && back.text.kv_heads == 2 &&
                    back.text.global_kv_heads == 1 && back.text.window == 64);
        assert_true(back.text.rope[LAYER_FULL].partial == 0.25 &&
                    back.text.rope[LAYER_FULL].theta == 1e6);
        assert_true((float)back.text.eps == 1e-6f);
        gguf_close(f);
    }
}

static int64_t type_at(const GgufFile *f, const char *token) {
    const GgufValue *tokens = gguf_value(f, "tokenizer.ggml.tokens");
    GgufCursor c = {0};
    GgufText text;
    int64_t x = -1;
    for (int64_t i = 0; gguf_text_next(f, tokens, &c, &text); i++)
        if (text.size == strlen(token) && memcmp(text.at, token, text.size) == 0)
            assert_true(gguf_int_at(f, gguf_value(f, "tokenizer.ggml.token_type"), i, &x));
    return x;
}

static void the_vocabulary_is_the_targets(void **state) {
    (void)state;
    Err err = {0};
    size_t size;
    Made made = {0};
    GgufMix m;
    AssistantConfig c = made_config(DEMO_VOCAB);
    GgufJob job = made_job(&c, &made, GGUF_UNIVERSAL);
    const char *dir = fresh_dir();
    assert_ok(gguf_mix_named(&m, "BF16", &err), err);
    assert_ok(gguf_export(&job, &m, 1, dir, &err), err);
    GgufFile *f = open_in(dir, "mtp-made-one-BF16.gguf");
    json_t *j = json_read_file(TARGET "/tokenizer.json", 1 << 24, &err);
    const json_t *model = json_object_get(j, "model"), *merges = json_object_get(model, "merges");
    GgufCursor cursor = {0};
    GgufText text;
    for (size_t i = 0; gguf_text_next(f, gguf_value(f, "tokenizer.ggml.merges"), &cursor, &text);
         i++) {
        char want[256];
        snprintf(want, sizeof want, "%s %s",
                 json_string_value(json_array_get(json_array_get(merges, i), 0)),
                 json_string_value(json_array_get(json_array_get(merges, i), 1)));
        assert_true(strlen(want) == text.size && memcmp(want, text.at, text.size) == 0);
    }
    assert_int_equal(cursor.done, json_array_size(merges));
    cursor = (GgufCursor){0};
    while (gguf_text_next(f, gguf_value(f, "tokenizer.ggml.tokens"), &cursor, &text)) {
        char key[256];
        snprintf(key, sizeof key, "%.*s", (int)text.size, text.at);
        assert_int_equal(json_integer_value(json_object_get(json_object_get(model, "vocab"), key)),
                         cursor.done - 1);
    }
    json_decref(j);
    assert_int_equal(type_at(f, "<0x0A>"), 6);
    assert_int_equal(type_at(f, "<|channel>"), 4);
    assert_int_equal(type_at(f, "<|\"|>"), 4);
    assert_int_equal(type_at(f, "<turn|>"), 3);
    assert_int_equal(type_at(f, "<|video|>"), 3);
    assert_int_equal(type_at(f, "e"), 1);
    char *template = file_read(TARGET "/chat_template.jinja", 1 << 20, &size, &err);
    assert_ok(gguf_text(f, "tokenizer.chat_template", &text, &err), err);
    assert_true(text.size == size && memcmp(text.at, template, size) == 0);
    free(template);
    gguf_close(f);
    // another vocabulary is refused before a file appears
    c.text.vocab = 8191;
    job.name = "other";
    assert_false(gguf_export(&job, &m, 1, dir, &err));
    assert_non_null(strstr(err.text, "has 8192 pieces, the assistant's vocabulary has 8191"));
    char path[PATH_ROOM];
    assert_false(file_exists(path_join(path, dir, "mtp-other-BF16.gguf")));
    assert_false(file_exists(path_join(path, dir, "mtp-other-BF16.gguf.tmp")));
}

static bool too_large(void *ctx, const char *key, int64_t first, int64_t n, int64_t cols,
                      float *out, Err *err) {
    const bool ok = made_rows(ctx, key, first, n, cols, out, err);
    if (strcmp(key, "model.layers.2.mlp.up_proj.weight") == 0) out[5] = 70000;
    return ok;
}

static void values_that_a_type_cannot_hold_are_refused(void **state) {
    (void)state;
    Err err = {0};
    GgufMix mix[2];
    char path[PATH_ROOM];
    const AssistantConfig c = made_config(SMALL_VOCAB);
    Made made = {0};
    GgufJob job = made_job(&c, &made, GGUF_UNIVERSAL);
    job.weights.rows = too_large;
    const char *dir = fresh_dir();
    assert_ok(gguf_mix_named(&mix[0], "Q8_0", &err), err);
    assert_ok(gguf_mix_named(&mix[1], "F16", &err), err);
    assert_false(gguf_export(&job, mix, 2, dir, &err));
    if (strstr(err.text, "blk.2.ffn_up.weight as F16") == NULL) fail_msg("%s", err.text);
    assert_false(file_exists(path_join(path, dir, "mtp-made-one-Q8_0.gguf")));
    assert_false(file_exists(path_join(path, dir, "mtp-made-one-Q8_0.gguf.tmp")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_reading_makes_twelve_files),
        cmocka_unit_test(files_hold_what_they_were_given),
        cmocka_unit_test(the_same_job_gives_the_same_bytes),
        cmocka_unit_test(keys_are_those_of_the_converter),
        cmocka_unit_test(the_vocabulary_is_the_targets),
        cmocka_unit_test(values_that_a_type_cannot_hold_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
