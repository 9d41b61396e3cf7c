// tests/infer/model/weights_test.c - names of every tool, and an adapter merged by hand in double.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/log.h"
#include "infer/model/weights.h"
#include "tests/testing.h"

enum { OUT = 5, IN = 7, RANK = 3 };

static void names_of_every_tool_become_canonical(void **state) {
    (void)state;
    static const char *const CASES[][2] = {
        {"model.language_model.layers.3.mlp.up_proj.weight", "layers.3.mlp.up_proj.weight"},
        {"language_model.model.layers.3.layer_scalar", "layers.3.layer_scalar"},
        {"base_model.model.model.language_model.layers.0.self_attn.q_proj",
         "layers.0.self_attn.q_proj"},
        {"base_model.model.model.language_model.per_layer_model_projection",
         "per_layer_model_projection"},
        {"base_model.model.language_model.model.embed_tokens.weight", "embed_tokens.weight"},
        {"model.norm.weight", "norm.weight"},
        {"embed_tokens_per_layer.weight", "embed_tokens_per_layer.weight"},
        {"lm_head.weight", "lm_head.weight"},
        {"language_model.lm_head.weight", "lm_head.weight"},
        {"model.vision_tower.encoder.layers.0.mlp.up_proj.weight", NULL},
        {"model.audio_tower.norm.weight", NULL},
        {"model.embed_vision.embedding_projection.weight", NULL},
        {"pre_projection.weight", NULL},
        {"model.layersx.weight", NULL},
        {"", NULL},
    };
    char out[256];
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        assert_int_equal(weight_canonical(CASES[i][0], out), CASES[i][1] != NULL);
        if (CASES[i][1] != NULL) assert_string_equal(out, CASES[i][1]);
    }
    assert_string_equal(weight_tower("model.vision_tower.encoder.layers.0.norm.weight"),
                        "vision_tower");
    assert_string_equal(weight_tower("base_model.model.model.audio_tower.x"), "audio_tower");
    assert_null(weight_tower("model.language_model.layers.0.vision_tower"));
    assert_null(weight_tower("vision_towers.x"));
}

// --- adapters in a fresh folder

typedef struct {
    const char *name;
    int64_t rows, cols;
} Part;

static const char *fresh_dir(void) {
    static char dir[PATH_ROOM];
    static int turn;
    char name[32];
    Err err = {0};
    snprintf(name, sizeof name, "adapter-%d", turn++);
    assert_ok(dir_make(path_join(dir, test_dir(), name), &err), err);
    return dir;
}

// Element i of a part is a fixed function of part and index.
static float element(const Part *p, int64_t i) {
    return (float)sin(0.7 * (double)i + (double)(p->rows * 3 + p->cols)) * 0.25f;
}

static const char *write_adapter(const char *config, const Part *part, int n, const char *dtype) {
    const char *dir = fresh_dir();
    char path[PATH_ROOM];
    Err err = {0};
    assert_ok(file_write(path_join(path, dir, "adapter_config.json"), config, strlen(config), &err),
              err);
    StWriter *w = st_writer_open(path_join(path, dir, "adapter_model.safetensors"), &err);
    assert_ok(w != NULL, err);
    for (int i = 0; i < n; i++)
        assert_ok(st_writer_declare(w, part[i].name, dtype, 2,
                                    (int64_t[]){part[i].rows, part[i].cols}, &err),
                  err);
    assert_ok(st_writer_begin(w, &err), err);
    for (int i = 0; i < n; i++) {
        const StTensor *t = st_writer_order(w, i);
        const Part *p = part;
        while (strcmp(p->name, t->name) != 0) p++;
        for (int64_t k = 0; k < t->count; k++) {
            const float f = element(p, k);
            const bf16 h = bf16_from_f32(f);
            assert_ok(dtype[0] == 'F' ? st_writer_data(w, &f, 4, &err)
                                      : st_writer_data(w, &h, 2, &err),
                      err);
        }
    }
    assert_ok(st_writer_commit(w, &err), err);
    return dir;
}

#define MODULE "layers.1.mlp.up_proj"
#define KEY(tail) "base_model.model.model.language_model." MODULE tail
static const Part PAIR[] = {{KEY(".lora_A.weight"), RANK, IN}, {KEY(".lora_B.weight"), OUT, RANK}};

// w + scale B A in double, from the values as stored.
static void merge_by_hand(double *w, double scale, bool stored_bf16) {
    for (int o = 0; o < OUT; o++)
        for (int i = 0; i < IN; i++) {
            double sum = 0.0;
            for (int r = 0; r < RANK; r++) {
                const float a = element(&PAIR[0], r * IN + i), b = element(&PAIR[1], o * RANK + r);
                sum += stored_bf16 ? (double)round_bf16(a) * round_bf16(b) : (double)a * b;
            }
            w[o * IN + i] += scale * sum;
        }
}

static void assert_merges(const char *config, const Part *part, const char *dtype, double scale) {
    Err err = {0};
    float w[OUT * IN];
    double want[OUT * IN];
    bool merged = false;
    for (int i = 0; i < OUT * IN; i++) want[i] = w[i] = (float)(i - 17) / 8.0f;
    Adapter *a = adapter_open(write_adapter(config, part, 2, dtype), &err);
    assert_ok(a != NULL, err);
    assert_int_equal(adapter_modules(a), 1);
    assert_false(adapter_all_used(a, &err));
    assert_non_null(strstr(err.text, "module " MODULE " has no weight in the model"));
    err = (Err){0};
    assert_ok(adapter_merge(a, "layers.2.mlp.up_proj", w, OUT, IN, &merged, &err), err);
    assert_false(merged);
    assert_ok(adapter_merge(a, MODULE, w, OUT, IN, &merged, &err), err);
    assert_true(merged);
    assert_ok(adapter_all_used(a, &err), err);
    merge_by_hand(want, scale, dtype[0] == 'B');
    for (int i = 0; i < OUT * IN; i++)
        assert_true(fabs(w[i] - want[i]) < 1e-6 * (1.0 + fabs(want[i])));
    adapter_close(a);
}

static void an_adapter_is_added_as_its_config_says(void **state) {
    (void)state;
#define CONFIG(more) "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":12" more "}"
    assert_merges(CONFIG(""), PAIR, "F32", 4.0);
    assert_merges(CONFIG(""), PAIR, "BF16", 4.0);
    assert_merges(CONFIG(",\"use_rslora\":true"), PAIR, "F32", 12.0 / sqrt(3.0));
    assert_merges(CONFIG(",\"modules_to_save\":[],\"use_dora\":false,\"bias\":\"none\""), PAIR,
                  "F32", 4.0);
    // patterns match the end of the name, the first that matches counts
    assert_merges(CONFIG(",\"alpha_pattern\":{\"p_proj\":1,\"up_proj\":6,\"mlp.up_proj\":9}"), PAIR,
                  "F32", 2.0);
    assert_merges(
        CONFIG(",\"alpha_pattern\":{\"layers\\\\.\\\\d+\\\\.mlp\\\\.(?:up|gate)_proj\":3}"), PAIR,
        "F32", 1.0);
    assert_merges(CONFIG(",\"alpha_pattern\":{\"layers.0.mlp.up_proj\":6}"), PAIR, "F32", 4.0);
    assert_merges("{\"r\":64,\"lora_alpha\":12,\"rank_pattern\":{\"^model.language_model.layers.1."
                  "mlp.up_proj\":3}}",
                  PAIR, "F32", 4.0);
    static const Part DEFAULT[] = {{KEY(".lora_A.default.weight"), RANK, IN},
                                   {KEY(".lora_B.default.weight"), OUT, RANK}};
    assert_merges(CONFIG(""), DEFAULT, "F32", 4.0);
    Err err = {0};
    Adapter *none = adapter_open("", &err);
    assert_ok(none != NULL, err);
    assert_int_equal(adapter_modules(none), 0);
    assert_ok(adapter_all_used(none, &err), err);
    adapter_close(none);
}

static void assert_refused(const char *config, const Part *part, int n, const char *message) {
    Err err = {0};
    Adapter *a = adapter_open(write_adapter(config, part, n, "F32"), &err);
    if (a != NULL) fail_msg("accepted, expected: %s", message);
    if (strstr(err.text, message) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.text, message);
    assert_int_equal(err.code, ERR_INPUT);
}

static void what_is_no_plain_lora_is_refused_by_name(void **state) {
    (void)state;
    assert_refused("{\"peft_type\":\"LOHA\"}", PAIR, 2, "peft_type is LOHA");
    assert_refused(CONFIG(",\"use_dora\":true"), PAIR, 2, "use_dora is set");
    assert_refused(CONFIG(",\"modules_to_save\":[\"lm_head\"]"), PAIR, 2, "modules_to_save is set");
    assert_refused(CONFIG(",\"bias\":\"all\""), PAIR, 2, "bias is all");
    assert_refused(CONFIG(",\"lora_bias\":true"), PAIR, 2, "lora_bias is set");
    assert_refused(CONFIG(",\"layer_replication\":[[0,4]]"), PAIR, 2, "layer_replication is set");
    assert_refused(CONFIG(",\"rank_pattern\":{\"up_proj\":2}"), PAIR, 2,
                   "the configured rank is 2");
    assert_refused(CONFIG(",\"rank_pattern\":{\"(\":2}"), PAIR, 2,
                   "pattern \"(\" is not understood");
    assert_refused(CONFIG(",\"rank_pattern\":{\"up_proj\":\"x\"}"), PAIR, 2, "is not a number");
    assert_refused("{\"r\":0}", PAIR, 2, "rank 0, must be 1");
    assert_refused("[]", PAIR, 2, "not a JSON object");
    assert_refused(CONFIG(""), PAIR, 1, "module " MODULE " has no lora_B");
    assert_refused(CONFIG(""), PAIR, 0, "no module of the text model");
    const Part dora[] = {PAIR[0], PAIR[1], {KEY(".lora_magnitude_vector"), 1, OUT}};
    assert_refused(CONFIG(""), dora, 3, "DoRA is not supported");
    const Part embedding[] = {
        {"base_model.model.model.language_model.embed_tokens.lora_embedding_A", RANK, 9}};
    assert_refused(CONFIG(""), embedding, 1, "LoRA of an embedding is not supported");
    const Part saved[] = {{"base_model.model.lm_head.modules_to_save.weight", 3, 9}};
    assert_refused(CONFIG(""), saved, 1, "modules_to_save is not supported");
    const Part odd[] = {{KEY(".weight"), 3, 9}};
    assert_refused(CONFIG(""), odd, 1, "neither lora_A nor lora_B");
    const Part other[] = {{"base_model.model.transformer.h.0.lora_A.weight", 3, 9}};
    assert_refused(CONFIG(""), other, 1, "module base_model.model.transformer.h.0 is no part");
    const Part twice[] = {PAIR[0], PAIR[1], {"model." MODULE ".lora_A.weight", RANK, IN}};
    assert_refused(CONFIG(""), twice, 3, "are the same tensor");
    const Part tower[] = {
        PAIR[0],
        PAIR[1],
        {"base_model.model.model.vision_tower.layers.0.q_proj.linear.lora_A.weight", RANK, IN}};
    Err err = {0};
    Adapter *a = adapter_open(write_adapter(CONFIG(""), tower, 3, "F32"), &err);
    assert_ok(a != NULL, err); // skipped aloud
    assert_int_equal(adapter_modules(a), 1);
    float w[OUT * IN] = {0};
    bool merged;
    assert_false(adapter_merge(a, MODULE, w, IN, OUT, &merged, &err));
    assert_non_null(strstr(err.text, "maps 7 to 5 values, its weight maps 5 to 7"));
    adapter_close(a);
    err = (Err){0};
    assert_null(adapter_open("/nowhere/at/all", &err));
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
#undef CONFIG
}

static void a_map_finds_text_tensors_and_names_what_is_left(void **state) {
    (void)state;
    const Part parts[] = {{"model.language_model.norm.weight", 1, 2},
                          {"model.language_model.layers.0.x.weight", 1, 2},
                          {"model.vision_tower.y", 1, 2}};
    char path[PATH_ROOM];
    Err err = {0};
    path_join(path, write_adapter("{}", parts, 3, "F32"), "adapter_model.safetensors");
    StFile *f = st_open(path, &err);
    assert_ok(f != NULL, err);
    WeightMap *m = weight_map_open(f, &err);
    assert_ok(m != NULL, err);
    assert_ptr_equal(weight_map_find(m, "norm.weight"), st_find(f, parts[0].name));
    assert_null(weight_map_find(m, "norm"));
    assert_false(weight_map_all_used(m, &err));
    assert_non_null(strstr(err.text, "tensor model.language_model.layers.0.x.weight is no part"));
    weight_map_close(m);
    st_close(f);
    const Part same[] = {{"model.language_model.norm.weight", 1, 2},
                         {"language_model.model.norm.weight", 1, 2}};
    f = st_open(path_join(path, write_adapter("{}", same, 2, "F32"), "adapter_model.safetensors"),
                &err);
    assert_non_null(f);
    err = (Err){0};
    assert_null(weight_map_open(f, &err));
    assert_non_null(strstr(err.text, "are the same tensor"));
    st_close(f);
    const Part foreign[] = {{"transformer.h.0.weight", 1, 2}};
    f = st_open(
        path_join(path, write_adapter("{}", foreign, 1, "F32"), "adapter_model.safetensors"), &err);
    err = (Err){0};
    assert_null(weight_map_open(f, &err));
    assert_non_null(
        strstr(err.text, "tensor transformer.h.0.weight is no part of a Gemma 4 model"));
    st_close(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_every_tool_become_canonical),
        cmocka_unit_test(an_adapter_is_added_as_its_config_says),
        cmocka_unit_test(what_is_no_plain_lora_is_refused_by_name),
        cmocka_unit_test(a_map_finds_text_tensors_and_names_what_is_left),
    };
    log_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
