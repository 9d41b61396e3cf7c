// tests/infer/model/gemma4_config_test.c - published and re-saved configurations of a family give
// the same numbers; what is not understood is refused by name.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/model/gemma4_config.h"
#include "tests/testing.h"

// A folder with config.json (and generation_config.json unless NULL), fresh at every call.
static const char *config_dir(const char *config, const char *generation) {
    static char dir[PATH_ROOM];
    static int turn;
    char path[PATH_ROOM], name[32];
    Err err = {0};
    snprintf(name, sizeof name, "config-%d", turn++);
    path_join(dir, test_dir(), name);
    assert_ok(dir_make(dir, &err), err);
    assert_ok(file_write(path_join(path, dir, "config.json"), config, strlen(config), &err), err);
    path_join(path, dir, "generation_config.json");
    if (generation != NULL) assert_ok(file_write(path, generation, strlen(generation), &err), err);
    return dir;
}

static void assert_target_refused(const char *config, const char *message) {
    Err err = {0};
    TargetConfig c;
    if (target_config_load(&c, config_dir(config, NULL), &err))
        fail_msg("accepted, expected: %s", message);
    if (strstr(err.text, message) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.text, message);
    assert_int_equal(err.code, ERR_INPUT);
}

static const char *const FAMILIES[] = {"e2b", "e4b", "12b", "26b", "31b"};

static char *resaved_part(const char *family, const char *part) {
    char sub[64];
    Err err = {0};
    snprintf(sub, sizeof sub, "%s/config.resaved.json", family);
    if (!file_exists(test_golden(sub))) return NULL;
    json_t *both = json_read_file(test_golden(sub), 1 << 20, &err);
    assert_ok(both != NULL, err);
    char *text = json_dumps(json_object_get(both, part), JSON_INDENT(1));
    json_decref(both);
    return text;
}

static void compare_text(const TextConfig *a, const TextConfig *b) {
    assert_string_equal(a->model_type, b->model_type);
    assert_int_equal(a->global_head_dim, b->global_head_dim);
    assert_int_equal(a->global_kv_heads, b->global_kv_heads);
    assert_memory_equal(a, b, sizeof *a); // both were zeroed before they were filled
}

static void resaved_configs_give_the_same_numbers(void **state) {
    (void)state;
    int compared = 0;
    for (size_t i = 0; i < sizeof FAMILIES / sizeof *FAMILIES; i++) {
        char *target = resaved_part(FAMILIES[i], "target"), sub[64];
        if (target == NULL) {
            print_message("skipped: %s is not in this set\n", FAMILIES[i]);
            continue;
        }
        char *assistant = resaved_part(FAMILIES[i], "assistant");
        TargetConfig t[2];
        AssistantConfig a[2];
        Err err = {0};
        snprintf(sub, sizeof sub, "%s/target", FAMILIES[i]);
        assert_ok(target_config_load(&t[0], test_golden(sub), &err), err);
        assert_ok(target_config_load(&t[1], config_dir(target, NULL), &err), err);
        compare_text(&t[0].text, &t[1].text);
        assert_memory_equal(t[0].kv_source, t[1].kv_source, sizeof t[0].kv_source);
        assert_int_equal(t[0].nstop, 3); // generation_config.json
        assert_int_equal(t[1].nstop, 2); // config.json
        assert_int_equal(t[1].stop[1], 106);
        snprintf(sub, sizeof sub, "%s/assistant", FAMILIES[i]);
        assert_ok(assistant_config_load(&a[0], test_golden(sub), &err), err);
        assert_ok(assistant_config_load(&a[1], config_dir(assistant, NULL), &err), err);
        compare_text(&a[0].text, &a[1].text);
        assert_int_equal(a[0].draft_tokens, 6);
        assert_int_equal(a[1].draft_tokens, 0);
        assert_ok(pair_check(&t[0], &a[1], &err), err);
        free(target);
        free(assistant);
        compared++;
    }
    assert_true(compared > 0);
}

static void family_sheets_agree(void **state) {
    (void)state;
    int compared = 0;
    for (size_t i = 0; i < sizeof FAMILIES / sizeof *FAMILIES; i++) {
        char sub[64];
        Err err = {0};
        TargetConfig t;
        snprintf(sub, sizeof sub, "%s/family.json", FAMILIES[i]);
        if (!file_exists(test_golden(sub))) continue;
        json_t *sheet = json_read_file(test_golden(sub), 1 << 20, &err);
        assert_ok(sheet != NULL, err);
        snprintf(sub, sizeof sub, "%s/target", FAMILIES[i]);
        assert_ok(target_config_load(&t, test_golden(sub), &err), err);
        const json_t *source = json_object_get(sheet, "kv_source_layer");
#define SHEET(key) json_integer_value(json_object_get(sheet, key))
        assert_int_equal(t.text.hidden, SHEET("hidden"));
        assert_int_equal(t.text.inter, SHEET("inter"));
        assert_int_equal(t.text.ple, SHEET("ple"));
        assert_int_equal(t.text.window, SHEET("W"));
        assert_int_equal(t.text.global_head_dim, SHEET("ghd"));
        assert_int_equal(t.text.moe ? t.text.experts : 0, SHEET("experts"));
        assert_int_equal(t.kv_source[0], json_integer_value(json_object_get(source, "sliding")));
        assert_int_equal(t.kv_source[1], json_integer_value(json_object_get(source, "full")));
        const int64_t gkv = SHEET("gkv") > 0 ? SHEET("gkv") : SHEET("kv");
        assert_int_equal(layer_kv_heads(&t.text, (int)t.text.layers - 1), gkv);
        const int last = (int)t.text.layers - 1;
        assert_int_equal(layer_inter(&t.text, last),
                         SHEET("inter") * (json_is_true(json_object_get(sheet, "wide")) ? 2 : 1));
        assert_true(t.embed_scale_f32 == json_real_value(json_object_get(sheet, "scale_f32")));
        assert_true(t.embed_scale_bf16 == json_real_value(json_object_get(sheet, "scale_bf16")));
#undef SHEET
        json_decref(sheet);
        compared++;
    }
    assert_true(compared > 0);
}

static void defaults_depend_on_the_model_type(void **state) {
    (void)state;
    Err err = {0};
    TargetConfig c;
    assert_ok(target_config_load(&c, config_dir("{\"model_type\":\"gemma4_text\"}", NULL), &err),
              err);
    assert_int_equal(c.text.hidden, 2304);
    assert_int_equal(c.text.ple, 256);
    assert_int_equal(c.text.window, 512);
    assert_int_equal(c.text.global_head_dim, 512);
    assert_int_equal(c.text.layers, 30);
    assert_int_equal(c.text.kind[4], LAYER_SLIDING);
    assert_int_equal(c.text.kind[5], LAYER_FULL);
    assert_true(c.text.rope[LAYER_FULL].partial == 0.25 && c.text.rope[LAYER_FULL].theta == 1e6);
    assert_int_equal(c.kv_source[LAYER_SLIDING], 28);
    assert_int_equal(c.kv_source[LAYER_FULL], 29);
    assert_int_equal(c.nstop, 1);
    assert_int_equal(c.stop[0], 1);
    assert_ok(target_config_load(&c,
                                 config_dir("{\"model_type\":\"gemma4_unified\",\"text_config\":"
                                            "{\"model_type\":\"gemma4_unified_text\"}}",
                                            NULL),
                                 &err),
              err);
    assert_int_equal(c.text.ple, 0);
    assert_int_equal(c.text.window, 1024);
    // the kv heads of full layers count only with k_eq_v; the last layer is forced full
    assert_ok(target_config_load(
                  &c,
                  config_dir("{\"model_type\":\"gemma4_text\",\"num_hidden_layers\":2,"
                             "\"layer_types\":[\"sliding_attention\",\"sliding_attention\"],"
                             "\"num_global_key_value_heads\":1,\"hidden_size_per_layer_input\":0}",
                             "{\"eos_token_id\":7,\"temperature\":1,\"top_k\":64}"),
                  &err),
              err);
    assert_int_equal(c.text.global_kv_heads, 4);
    assert_int_equal(c.text.kind[1], LAYER_FULL);
    assert_int_equal(c.nstop, 1);
    assert_int_equal(c.stop[0], 7);
    assert_true(c.temperature == 1.0 && c.top_k == 64 && c.top_p == 0.0);
}

static void suppressed_tokens_are_ids_of_the_vocabulary(void **state) {
    (void)state;
    static const struct {
        const char *generation, *refused;
        int n;
    } cases[] = {{"{}", NULL, 0},
                 {"{\"suppress_tokens\":null}", NULL, 0},
                 {"{\"suppress_tokens\":[]}", NULL, 0},
                 {"{\"suppress_tokens\":[258882,258883]}", NULL, 2},
                 {"{\"suppress_tokens\":[5,262144]}", "suppress_tokens holds 262144, the", 0},
                 {"{\"suppress_tokens\":[-1]}", "suppress_tokens is not a token id", 0},
                 {"{\"suppress_tokens\":{}}", "suppress_tokens is not a token id", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static TargetConfig c;
        Err err = {0};
        const char *dir = config_dir("{\"model_type\":\"gemma4_text\"}", cases[i].generation);
        if (cases[i].refused) {
            assert_false(target_config_load(&c, dir, &err));
            if (!strstr(err.text, cases[i].refused)) fail_msg("%s", err.text);
            continue;
        }
        assert_ok(target_config_load(&c, dir, &err), err);
        assert_int_equal(c.suppress.n, cases[i].n);
        if (cases[i].n > 0) assert_int_equal(c.suppress.id[1], 258883);
    }
}

static void what_is_not_understood_is_refused_by_name(void **state) {
    (void)state;
#define TEXT(more) "{\"model_type\":\"gemma4_text\"," more "}"
    assert_target_refused("{\"model_type\":\"gemma3\"}", "model_type gemma3 is not supported");
    assert_target_refused("{\"model_type\":\"gemma4_assistant\"}",
                          "is an assistant where a target");
    assert_target_refused("{}", "no model_type");
    assert_target_refused("[]", "not a JSON object");
    assert_target_refused("{\"model_type\":3}", "model_type");
    assert_target_refused("{", "config.json");
    assert_target_refused("{\"model_type\":\"gemma4\",\"text_config\":{\"model_type\":\"llama\"}}",
                          "text_config.model_type is llama");
    assert_target_refused("{\"model_type\":\"gemma4\",\"text_config\":[]}",
                          "text_config is not an object");
    assert_target_refused(TEXT("\"num_hidden_layers\":257"),
                          "num_hidden_layers is 257, must be 1 to 256");
    assert_target_refused(TEXT("\"num_hidden_layers\":0"), "num_hidden_layers is 0");
    assert_target_refused(TEXT("\"hidden_size\":-4"), "hidden_size is -4");
    assert_target_refused(TEXT("\"hidden_size\":\"4\""), "hidden_size");
    assert_target_refused(TEXT("\"num_attention_heads\":6"),
                          "6 heads are no multiple of 4 kv heads");
    assert_target_refused(TEXT("\"head_dim\":15"), "head size 15");
    assert_target_refused(TEXT("\"global_head_dim\":33"), "head size 33");
    assert_target_refused(TEXT("\"layer_types\":[\"full_attention\"]"),
                          "layer_types has 1 entries");
    assert_target_refused(TEXT("\"num_hidden_layers\":1,\"layer_types\":[\"mamba\"]"),
                          "layer_types[0] is mamba");
    assert_target_refused(TEXT("\"num_hidden_layers\":1"), "no sliding layer owns K/V");
    assert_target_refused(TEXT("\"num_kv_shared_layers\":30"), "no sliding layer owns K/V");
    assert_target_refused(TEXT("\"num_kv_shared_layers\":31"), "num_kv_shared_layers is 31");
    assert_target_refused(TEXT("\"hidden_activation\":\"silu\""), "hidden_activation is silu");
    assert_target_refused(TEXT("\"use_bidirectional_attention\":\"all\""), "is all");
    assert_target_refused(TEXT("\"attention_bias\":true"), "attention_bias is true");
    assert_target_refused(TEXT("\"rms_norm_eps\":0"), "rms_norm_eps is 0");
    assert_target_refused(
        TEXT("\"rope_parameters\":{\"sliding_attention\":{\"rope_type\":\"yarn\"}}"),
        "rope_parameters.sliding_attention: rope_type is yarn");
    assert_target_refused(TEXT("\"rope_parameters\":{\"rope_theta\":1e4}"),
                          "rope_parameters.sliding_attention: not an object");
    assert_target_refused(TEXT("\"per_layer_config\":{\"5\":{\"head_dim\":32}}"),
                          "layers 5 and 11, both full_attention");
    assert_target_refused(TEXT("\"per_layer_config\":{\"30\":{}}"),
                          "\"30\" is no layer of 0 to 29");
    assert_target_refused(TEXT("\"per_layer_config\":{\"2\":{\"sliding_window\":3}}"),
                          "layer 2 overrides sliding_window");
    assert_target_refused(TEXT("\"vocab_size\":262145"), "vocab_size_per_layer_input is 262144");
    assert_target_refused(TEXT("\"bos_token_id\":262144"), "beyond vocab_size");
    assert_target_refused(TEXT("\"eos_token_id\":\"x\""), "eos_token_id is not a token id");
    assert_target_refused(TEXT("\"enable_moe_block\":true"), "num_experts 0");
    assert_target_refused(TEXT("\"vocab_size\":9,\"vocab_size\":10"), "uplicate");
#undef TEXT
}

static void an_assistant_that_cannot_be_one_is_refused(void **state) {
    (void)state;
#define ASSISTANT(top, text)                                                                       \
    "{\"model_type\":\"gemma4_assistant\"" top                                                     \
    ",\"text_config\":{\"num_hidden_layers\":2,\"layer_types\":"                                   \
    "[\"sliding_attention\",\"full_attention\"]" text "}}"
    static const char *const CASES[][2] = {
        {"{\"model_type\":\"gemma4\"}", "is a target where an assistant"},
        {ASSISTANT("", ",\"hidden_size_per_layer_input\":8,\"vocab_size_per_layer_input\":262144"),
         "no hidden_size_per_layer_input (8)"},
        {ASSISTANT("", ",\"use_double_wide_mlp\":true"), "no use_double_wide_mlp (1)"},
        {ASSISTANT("", ",\"num_kv_shared_layers\":1"), "num_kv_shared_layers is 1"},
        {ASSISTANT(",\"use_ordered_embeddings\":true,\"num_centroids\":7", ""),
         "no multiple of num_centroids 7"},
        {ASSISTANT(",\"use_ordered_embeddings\":true,\"num_centroids\":8", ""),
         "is 32, num_centroids is 8"},
        {ASSISTANT(",\"backbone_hidden_size\":0", ""), "backbone_hidden_size is 0"},
        {"{\"model_type\":\"gemma4_assistant\"}", "num_hidden_layers is 30, at most 8"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        Err err = {0};
        AssistantConfig a;
        if (assistant_config_load(&a, config_dir(CASES[i][0], NULL), &err))
            fail_msg("accepted, expected: %s", CASES[i][1]);
        if (strstr(err.text, CASES[i][1]) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", err.text, CASES[i][1]);
    }
    Err err = {0};
    AssistantConfig a;
    assert_ok(assistant_config_load(&a, config_dir(ASSISTANT("", ""), NULL), &err), err);
    assert_int_equal(a.text.kv_shared, 2);
    assert_int_equal(a.backbone, 1536);
    assert_false(a.ordered);
#undef ASSISTANT
}

static void a_pair_that_does_not_fit_names_both_values(void **state) {
    (void)state;
    Err err = {0};
    TargetConfig t;
    AssistantConfig a, b;
    assert_ok(target_config_load(&t, "configs/demo/base-target", &err), err);
    assert_ok(assistant_config_load(&a, "configs/demo/stock-assistant", &err), err);
    assert_ok(pair_check(&t, &a, &err), err);
    b = a;
    b.backbone = 255;
    assert_false(pair_check(&t, &b, &err));
    assert_non_null(
        strstr(err.text, "backbone_hidden_size is 256 in the target, 255 in the assistant"));
    b = a;
    b.text.window = 63;
    err = (Err){0};
    assert_false(pair_check(&t, &b, &err));
    assert_non_null(strstr(err.text, "sliding_window is 64 in the target, 63 in the assistant"));
    b = a;
    b.text.rope[LAYER_FULL].theta = 5;
    err = (Err){0};
    assert_false(pair_check(&t, &b, &err));
    assert_non_null(strstr(err.text, "full_attention has theta 1e+06"));
}

static void frequencies_follow_the_formula(void **state) {
    (void)state;
    float f[256];
    const RopeConfig full = {.theta = 1e6, .partial = 0.25, .factor = 1.0, .proportional = 1};
    rope_frequencies(&full, 512, f);
    assert_true(f[0] == 1.0f);
    assert_true(fabs(f[63] - pow(1e6, -126.0 / 512)) < 1e-8);
    for (int i = 64; i < 256; i++) assert_true(f[i] == 0.0f);
    const RopeConfig sliding = {.theta = 1e4, .partial = 1.0, .factor = 1.0};
    rope_frequencies(&sliding, 256, f);
    for (int i = 0; i < 128; i++) assert_true(fabs(f[i] / pow(1e4, -i / 128.0) - 1.0) < 3e-7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resaved_configs_give_the_same_numbers),
        cmocka_unit_test(family_sheets_agree),
        cmocka_unit_test(defaults_depend_on_the_model_type),
        cmocka_unit_test(suppressed_tokens_are_ids_of_the_vocabulary),
        cmocka_unit_test(what_is_not_understood_is_refused_by_name),
        cmocka_unit_test(an_assistant_that_cannot_be_one_is_refused),
        cmocka_unit_test(a_pair_that_does_not_fit_names_both_values),
        cmocka_unit_test(frequencies_follow_the_formula),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
