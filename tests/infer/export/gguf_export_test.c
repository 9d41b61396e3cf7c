// tests/infer/export/gguf_export_test.c - GGUF files of a made assistant and of the demo pair:
// keys, tensors, one reading, the same bytes every time, the same drafts when read back.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/export/gguf_importance.h"
#include "infer/export/gguf_mixed.h"
#include "infer/export/gguf_repo.h"
#include "infer/model/features.h"
#include "infer/model/source_gguf.h"
#include "infer/model/weight_source.h"
#include "tests/testing.h"

#define STOCK "configs/demo/stock-assistant"
#define TARGET "configs/demo/base-target"

static const char *fresh_dir(void) {
    static char dir[4][PATH_ROOM];
    static int turn;
    char name[32];
    Err err = {0};
    snprintf(name, sizeof name, "gguf%d", turn);
    char *path = path_join(dir[turn++ % 4], test_dir(), name);
    assert_ok(dir_make(path, &err), err);
    return path;
}

// An assistant narrower than its target, with the demo's vocabulary and kv heads of two kinds.
static AssistantConfig made_config(void) {
    AssistantConfig c = {.text = {.vocab = 8192,
                                  .hidden = 256,
                                  .inter = 512,
                                  .layers = 4,
                                  .heads = 4,
                                  .head_dim = 64,
                                  .global_head_dim = 128,
                                  .kv_heads = 2,
                                  .global_kv_heads = 1,
                                  .kv_shared = 4,
                                  .window = 64,
                                  .eps = 1e-6,
                                  .kind = {LAYER_SLIDING, LAYER_SLIDING, LAYER_SLIDING, LAYER_FULL},
                                  .max_positions = 8192},
                         .backbone = 512};
    c.text.rope[LAYER_SLIDING] = (RopeConfig){.theta = 1e4, .partial = 1, .factor = 1};
    c.text.rope[LAYER_FULL] =
        (RopeConfig){.theta = 1e6, .partial = 0.25, .factor = 1, .proportional = 1};
    return c;
}

// Values of a tensor as a function of its name and place, exact in bf16. Counts what is read.
typedef struct {
    int64_t values;
} Made;

static uint64_t made_seed(const char *key) {
    uint64_t h = 0xCBF29CE484222325u;
    for (; *key != '\0'; key++) h = (h ^ (unsigned char)*key) * 0x100000001B3u;
    return h;
}

static float made_value(uint64_t seed, int64_t i) {
    const uint64_t h = (seed ^ (uint64_t)i) * 0x9E3779B97F4A7C15u;
    return (float)((int)(h >> 40 & 255) - 128) / 1024;
}

static bool made_rows(void *ctx, const char *key, int64_t first, int64_t n, int64_t cols,
                      float *out, Err *err) {
    (void)err;
    const uint64_t seed = made_seed(key);
    for (int64_t i = 0; i < n * cols; i++) out[i] = made_value(seed, first * cols + i);
    ((Made *)ctx)->values += n * cols;
    return true;
}

static GgufJob made_job(const AssistantConfig *c, Made *made, GgufDialect d) {
    return (GgufJob){.dialect = d,
                     .config = c,
                     .weights = {made, made_rows},
                     .stock_dir = STOCK,
                     .tokenizer_dir = TARGET,
                     .name = "made/one",
                     .base_model = "org/stock-assistant"};
}

static GgufFile *open_in(const char *dir, const char *name) {
    Err err = {0};
    char path[PATH_ROOM];
    GgufFile *f = gguf_open(path_join(path, dir, name), &err);
    if (f == NULL) fail_msg("%s", err.text);
    return f;
}

static void one_reading_makes_twelve_files(void **state) {
    (void)state;
    Err err = {0};
    Made made = {0};
    GgufMix mix[GGUF_MIXES_MAX];
    GgufEntry e[GGUF_ENTRIES_MAX];
    int n;
    const AssistantConfig c = made_config();
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
    const AssistantConfig c = made_config();
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
    const AssistantConfig c = made_config();
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

// A key's type and value as one word: "u32 256", "[bool] 1 1 1 0", "text gemma4".
static const char *value_text(const GgufFile *f, const char *key) {
    static char out[256];
    const GgufValue *v = gguf_value(f, key);
    if (v == NULL) return "absent";
    int at = snprintf(out, sizeof out, v->array ? "[%s]" : "%s", gguf_kind_name(v->kind));
    GgufCursor cursor = {0};
    GgufText text;
    int64_t x;
    double y;
    for (int64_t i = 0; i < v->count && i < 6 && at < 200; i++) {
        const size_t room = sizeof out - (size_t)at;
        if (v->kind == GGUF_TEXT && gguf_text_next(f, v, &cursor, &text))
            at += snprintf(out + at, room, " %.*s", text.size > 60 ? 60 : (int)text.size, text.at);
        else if (gguf_int_at(f, v, i, &x))
            at += snprintf(out + at, room, " %lld", (long long)x);
        else if (gguf_real_at(f, v, i, &y))
            at += snprintf(out + at, room, " %g", y);
    }
    return out;
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
    {"general.base_model.0.repo_url", "text https://huggingface.co/org/stock-assistant"},
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
        AssistantConfig c = made_config(), back;
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
    AssistantConfig c = made_config();
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
    const AssistantConfig c = made_config();
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

static void an_imatrix_changes_bytes_and_is_recorded(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM], name[256];
    GgufMix m;
    const AssistantConfig c = made_config();
    double mean[1024];
    ImatrixEntry entry[2];
    GgufImatrix im;
    for (int i = 0; i < 1024; i++) mean[i] = 0.01 + i % 7;
    memset(entry, 0, sizeof entry);
    assert_ok(imatrix_set(&entry[0], "blk.0.attn_q.weight", mean, 256, 64, &err), err);
    assert_ok(imatrix_set(&entry[1], "mtp_pre_proj.weight", mean, 1024, 64, &err), err);
    Imatrix file = {.dataset = "train", .chunks = 3, .chunk_size = 512, .n = 2, .entry = entry};
    imatrix_sort(&file);
    const char *dir = fresh_dir();
    path_join(path, dir, "imatrix.dat");
    assert_ok(imatrix_write_dat(path, &file, &err), err);
    assert_ok(gguf_imatrix_open(&im, path, GGUF_UNIVERSAL, &c, &err), err);
    assert_ok(gguf_mix_named(&m, "Q4_K_S", &err), err);
    void *data[2][3];
    static const char *const TENSORS[] = {"blk.0.attn_q.weight", "nextn.pre_projection.weight",
                                          "blk.0.ffn_up.weight"};
    for (int with = 0; with < 2; with++) {
        Made made = {0};
        GgufJob job = made_job(&c, &made, GGUF_UNIVERSAL);
        job.importance = with ? &im.importance : NULL;
        assert_ok(gguf_export(&job, &m, 1, dir, &err), err);
        GgufFile *f = open_in(dir, gguf_file_name(name, "made/one", m.name));
        assert_string_equal(value_text(f, "quantize.imatrix.file"),
                            with ? "text imatrix.dat" : "absent");
        assert_string_equal(value_text(f, "quantize.imatrix.entries_count"),
                            with ? "u32 2" : "absent");
        for (int i = 0; i < 3; i++) {
            const GgufTensor *t = gguf_find(f, TENSORS[i]);
            data[with][i] = malloc((size_t)t->bytes);
            assert_ok(gguf_read(f, t, data[with][i], &err), err);
        }
        gguf_close(f);
    }
    const size_t bytes[] = {256 * 144, 256 * 4 * 144, 512 * 144};
    assert_int_not_equal(memcmp(data[0][0], data[1][0], bytes[0]), 0);
    assert_int_not_equal(memcmp(data[0][1], data[1][1], bytes[1]), 0); // under its other name
    assert_int_equal(memcmp(data[0][2], data[1][2], bytes[2]), 0);     // has no entry
    for (int i = 0; i < 6; i++) free(data[i / 3][i % 3]);
    gguf_imatrix_close(&im);
    // columns of another drafter
    AssistantConfig wide = c;
    wide.text.hidden = 512;
    assert_false(gguf_imatrix_open(&im, path, GGUF_UNIVERSAL, &wide, &err));
    assert_non_null(
        strstr(err.text, "blk.0.attn_q.weight has 256 columns, the drafter's tensor 512"));
    gguf_imatrix_close(&im);
    for (int i = 0; i < 2; i++) free(entry[i].iw);
}

static void a_mixture_gives_every_module_its_type(void **state) {
    (void)state;
    Err err = {0};
    const AssistantConfig c = made_config();
    MixModule module[] = {{"model.embed_tokens", mix_gguf(GGML_Q5_K), 0, 0},
                          {"model.layers.1.mlp.up_proj", mix_gguf(GGML_Q5_K), 0, 0},
                          {"post_projection", mix_gguf(GGML_BF16), 0, 0}};
    Mix file = {.format = MIX_GGUF, .n = 3, .module = module};
    GgufPin pin[3];
    GgufMix m;
    GgufEntry e[GGUF_ENTRIES_MAX];
    assert_ok(gguf_mix_of(&m, pin, &file, &c, &err), err);
    assert_true(m.own && m.file_type == 17);
    const int n = gguf_assistant_tensors(GGUF_IK, &c, e);
    for (int i = 0; i < n; i++) {
        const GgmlType want = e[i].role == GGUF_VECTOR                         ? GGML_F32
                              : strcmp(e[i].name, "token_embd.weight") == 0    ? GGML_Q5_K
                              : strcmp(e[i].name, "blk.1.ffn_up.weight") == 0  ? GGML_Q5_K
                              : strcmp(e[i].name, "mtp_post_proj.weight") == 0 ? GGML_BF16
                                                                               : GGML_Q8_0;
        assert_int_equal(gguf_mix_type(&m, &e[i], 4), want);
    }
    strcpy(module[1].module, "model.layers.7.mlp.up_proj");
    assert_false(gguf_mix_of(&m, pin, &file, &c, &err));
    assert_non_null(strstr(err.text, "module model.layers.7.mlp.up_proj is no matrix"));
}

// Two draft steps of a drafter over the same made features: y and the last feature.
static void draft(const char *artifact, const TargetConfig *tc, Tensor table, FeaturePack *pack,
                  Tensor *y, Tensor *f) {
    Env *env = test_env();
    Err err = {0};
    AttnSeg seg[2][PACK_SEQS_MAX];
    AnchorSet set;
    AnchorPlan plan;
    StepActs acts;
    const int32_t T[] = {3, 9, 20}, seq_of[] = {0, 0, 0}, token[] = {5, 900, 8000};
    const AssistantOptions o = {.dir = artifact,
                                .dtype = DT_F32,
                                .target_table = table,
                                .target_scale = (float)tc->embed_scale_f32};
    Assistant *a = assistant_open(env->dev, &o, &err);
    if (a == NULL) fail_msg("%s", err.text);
    const Tensor f0 = test_zeros(DT_F32, 3, 256);
    features_anchors(pack, env->dev, a, T, seq_of, 3, &set, seg[0], seg[1],
                     test_zeros(DT_I32, 1, 3), f0);
    anchor_plan(a, &set, &plan, &env->arena);
    assistant_acts_take(a, &acts, 3, false, &env->arena);
    for (int j = 0; j < 2; j++)
        assistant_step(a, &plan, test_ids(token, 3), j ? acts.f : f0, &acts, true);
    *y = test_zeros(DT_F32, 3, acts.y.cols);
    *f = test_zeros(DT_F32, 3, 256);
    memcpy(y->data, acts.y.data, tensor_bytes(acts.y));
    memcpy(f->data, acts.f.data, tensor_bytes(acts.f));
    assistant_close(a);
}

// The demo assistant is as wide as its target: the file for llama.cpp is widened, the other not.
static void a_file_read_back_drafts_as_the_folder_it_was_made_from(void **state) {
    (void)state;
    Err err = {0};
    Env *env = test_env();
    char path[PATH_ROOM];
    static TargetConfig tc;
    GgufMix m;
    const char *dir = fresh_dir(), *ik = fresh_dir();
    StFile *weights = st_open(STOCK, &err);
    const GgufRepoInputs in = {.stock_dir = STOCK,
                               .target_dir = TARGET,
                               .name = "demo",
                               .base_model = "",
                               .weights = hf_source_file(weights)};
    assert_ok(gguf_mix_named(&m, "BF16", &err), err);
    assert_ok(gguf_repo_files(&in, GGUF_UNIVERSAL, &m, 1, dir, &err), err);
    assert_ok(gguf_repo_files(&in, GGUF_IK, &m, 1, ik, &err), err);
    st_close(weights);
    assert_ok(target_config_load(&tc, TARGET, &err), err);
    FeaturePack pack;
    const int64_t rows = 24;
    features_take(&pack, &tc, rows, DT_F32, &env->arena);
    const Tensor table = test_random(DT_F32, 8192, 256), h = test_random(DT_F32, rows, 256);
    Tensor kv[4];
    for (int i = 0; i < 4; i++) kv[i] = test_random(DT_F32, rows, pack.kv_width[i % 2]);
    features_begin(&pack);
    features_load(&pack, env->dev, h.data, (const void *[]){kv[0].data, kv[1].data},
                  (const void *[]){kv[2].data, kv[3].data}, rows);
    Tensor y[3], f[3];
    draft(STOCK, &tc, table, &pack, &y[0], &f[0]);
    draft(path_join(path, ik, "mtp-demo-BF16.gguf"), &tc, table, &pack, &y[1], &f[1]);
    draft(path_join(path, dir, "mtp-demo-BF16.gguf"), &tc, table, &pack, &y[2], &f[2]);
    assert_int_equal(memcmp(y[0].data, y[1].data, tensor_bytes(y[0])), 0); // every bit
    assert_int_equal(memcmp(f[0].data, f[1].data, tensor_bytes(f[0])), 0);
    assert_int_equal(y[2].cols, 1024);
    for (int r = 0; r < 3; r++)
        for (int i = 256; i < 1024; i++) assert_true(test_get(y[2], r, i) == 0.0f);
    // eps stands under heads' norms too, where nothing was widened: 1e-6 of a mean square
    assert_close("the feature of a widened drafter", f[2], f[0], 1e-4, 1e-4);
}

static void artifacts_of_another_sort_are_refused(void **state) {
    (void)state;
    Err err = {0};
    Made made = {0};
    GgufMix m;
    char path[PATH_ROOM];
    SourceTensor t;
    ArtifactInfo info;
    AssistantConfig c = made_config(), back;
    const GgufJob job = made_job(&c, &made, GGUF_UNIVERSAL);
    const char *dir = fresh_dir();
    assert_ok(gguf_mix_named(&m, "Q4_K_M-head4", &err), err);
    assert_ok(gguf_export(&job, &m, 1, dir, &err), err);
    path_join(path, dir, "mtp-made-one-Q4_K_M-head4.gguf");
    assert_true(weight_source_is(path) && weight_source_whole(path));
    assert_ok(weight_source_config(&back, path, &err), err);
    WeightSource *s = weight_source_open(path, &err);
    assert_non_null(s);
    weight_source_info(s, &back, &info);
    assert_string_equal(info.format, "GGUF");
    assert_string_equal(info.label, "Q4_K_M-head4, gemma4-assistant");
    assert_true(info.bits_per_weight > 4.4 && info.bits_per_weight < 5.5);
    assert_false(weight_source_find(s, "masked_embedding.token_ordering", &t));
    assert_true(weight_source_find(s, "model.layers.2.layer_scalar", &t));
    assert_int_equal(t.count, 1);
    assert_true(weight_source_find(s, "pre_projection.weight", &t));
    assert_true(t.rank == 2 && t.dim[0] == 256 && t.dim[1] == 1024);
    weight_source_close(s);
    // the architecture's name is the first value: another one
    size_t size;
    char *bytes = file_read(path, 1 << 30, &size, &err);
    char *at = memmem(bytes, 200, "gemma4-assistant", 16);
    at[6] = '+';
    assert_ok(file_write(path, bytes, size, &err), err);
    free(bytes);
    assert_null(weight_source_open(path, &err));
    assert_non_null(strstr(err.text, "architecture gemma4+assistant, supported: gemma4-assistant"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_reading_makes_twelve_files),
        cmocka_unit_test(files_hold_what_they_were_given),
        cmocka_unit_test(the_same_job_gives_the_same_bytes),
        cmocka_unit_test(keys_are_those_of_the_converter),
        cmocka_unit_test(the_vocabulary_is_the_targets),
        cmocka_unit_test(values_that_a_type_cannot_hold_are_refused),
        cmocka_unit_test(an_imatrix_changes_bytes_and_is_recorded),
        cmocka_unit_test(a_mixture_gives_every_module_its_type),
        cmocka_unit_test(a_file_read_back_drafts_as_the_folder_it_was_made_from),
        cmocka_unit_test(artifacts_of_another_sort_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
