// tests/infer/export/gguf_mix_quant_test.c - every tensor's type as llama-quantize chose it, and
// the bytes of the real shapes' data sections. $GOLDEN names a folder with a mixes.json of that
// layout.
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/export/gguf_mix.h"
#include "tests/testing.h"

static json_t *mixes(void) {
    Err err = {0};
    char path[PATH_ROOM];
    const char *folder = getenv("GOLDEN");
    path_join(path, folder != NULL && *folder ? folder : "tests/golden/quant", "mixes.json");
    if (!file_exists(path)) {
        printf("skipped: no %s\n", path);
        skip();
    }
    json_t *o = json_read_file(path, 1 << 20, &err);
    if (o == NULL) fail_msg("%s", err.text);
    return o;
}

// Widths of the published assistants; what no size depends on is left at 0.
static AssistantConfig shape(const char *name) {
    static const struct {
        const char *name;
        int64_t hidden, inter, heads, kv, global_kv, backbone;
    } SHAPES[] = {
        {"E2B", 256, 2048, 4, 1, 1, 1536},
        {"E4B", 256, 2048, 4, 2, 2, 2560},
        {"26B-A4B", 1024, 8192, 16, 8, 2, 2816},
        {"31B", 1024, 8192, 32, 16, 4, 5376},
    };
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        if (strcmp(SHAPES[i].name, name) == 0)
            return (AssistantConfig){
                .text = {.vocab = 262144,
                         .hidden = SHAPES[i].hidden,
                         .inter = SHAPES[i].inter,
                         .layers = 4,
                         .heads = SHAPES[i].heads,
                         .head_dim = 256,
                         .global_head_dim = 512,
                         .kv_heads = SHAPES[i].kv,
                         .global_kv_heads = SHAPES[i].global_kv,
                         .kv_shared = 4,
                         .kind = {LAYER_SLIDING, LAYER_SLIDING, LAYER_SLIDING, LAYER_FULL}},
                .backbone = SHAPES[i].backbone};
    fail_msg("no shape %s", name);
    return (AssistantConfig){0};
}

static void types_are_those_of_llama_quantize(void **state) {
    (void)state;
    Err err = {0};
    json_t *o = mixes();
    const char *name, *tensor;
    json_t *mix, *type;
    int compared = 0;
    json_object_foreach(json_object_get(o, "llama_quantize"), name, mix) {
        GgufMix m;
        assert_ok(gguf_mix_named(&m, name, &err), err);
        assert_int_equal(m.file_type, json_integer_value(json_object_get(mix, "file_type")));
        const json_t *tensors = json_object_get(mix, "tensors");
        GgufEntry e[GGUF_ENTRIES_MAX];
        const AssistantConfig c = shape("E4B");
        const int n = gguf_assistant_tensors(GGUF_UNIVERSAL, &c, e);
        assert_int_equal(n, json_object_size(tensors));
        json_object_foreach((json_t *)tensors, tensor, type) {
            int i = 0;
            while (i < n && strcmp(e[i].name, tensor) != 0) i++;
            if (i == n) fail_msg("%s: no tensor %s", name, tensor);
            const char *ours = ggml_type(gguf_mix_type(&m, &e[i], 4))->name;
            if (strcmp(ours, json_string_value(type)) != 0)
                fail_msg("%s: %s is %s, expected %s", name, tensor, ours, json_string_value(type));
            compared++;
        }
    }
    json_decref(o);
    assert_true(compared > 0);
}

static void data_sections_have_their_size_to_the_byte(void **state) {
    (void)state;
    Err err = {0};
    json_t *o = mixes();
    const char *model, *name;
    json_t *sizes, *bytes;
    int compared = 0;
    json_object_foreach(json_object_get(o, "data_bytes"), model, sizes) {
        if (!json_is_object(sizes)) continue; // a note
        const AssistantConfig c = shape(model);
        GgufEntry e[GGUF_ENTRIES_MAX];
        const int n = gguf_assistant_tensors(GGUF_UNIVERSAL, &c, e);
        json_object_foreach(sizes, name, bytes) {
            GgufMix m;
            assert_ok(gguf_mix_named(&m, name, &err), err);
            const int64_t ours = gguf_plan(&m, e, n, 4, NULL);
            if (ours != json_integer_value(bytes))
                fail_msg("%s %s: %lld bytes, expected %lld", model, name, (long long)ours,
                         (long long)json_integer_value(bytes));
            compared++;
        }
        // 4.25 bits a weight and the head at Q6_K: the bytes of IQ4_XS
        GgufMix mxfp4;
        assert_ok(gguf_mix_named(&mxfp4, "MXFP4", &err), err);
        if (json_object_get(sizes, "IQ4_XS") != NULL)
            assert_int_equal(gguf_plan(&mxfp4, e, n, 4, NULL),
                             json_integer_value(json_object_get(sizes, "IQ4_XS")));
    }
    json_decref(o);
    assert_true(compared > 0);
}

// What llama-quantize has no mix for.
static void our_own_mixes_shrink_what_they_should(void **state) {
    (void)state;
    Err err = {0};
    GgufMix plain, head4, mxfp4;
    GgufEntry e[GGUF_ENTRIES_MAX];
    const AssistantConfig c = shape("E2B");
    const int n = gguf_assistant_tensors(GGUF_UNIVERSAL, &c, e);
    assert_ok(gguf_mix_named(&plain, "Q4_K_S", &err), err);
    assert_ok(gguf_mix_named(&head4, "Q4_K_S-head4", &err), err);
    assert_ok(gguf_mix_named(&mxfp4, "MXFP4", &err), err);
    // 262144 rows of 256: 210 bytes each at Q6_K, 144 at Q4_K
    assert_int_equal(gguf_plan(&plain, e, n, 4, NULL) - gguf_plan(&head4, e, n, 4, NULL),
                     262144 * (210 - 144));
    assert_true(head4.own && !plain.own && head4.file_type == plain.file_type);
    for (int i = 0; i < n; i++) {
        const GgmlType want = e[i].role == GGUF_VECTOR ? GGML_F32
                              : e[i].role == GGUF_HEAD ? GGML_Q6_K
                                                       : GGML_MXFP4;
        assert_int_equal(gguf_mix_type(&mxfp4, &e[i], 4), want);
    }
    const char *const *all;
    assert_int_equal(gguf_mix_all(&all), 12);
    err = (Err){0};
    assert_false(gguf_mix_named(&plain, "Q4_K", &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "no GGUF type Q4_K: all, BF16, F16"));
    assert_false(gguf_mix_named(&plain, "-head4", &err));
}

static void rows_of_other_lengths_fall_back(void **state) {
    (void)state;
    Err err = {0};
    const struct {
        const char *mix;
        int64_t cols;
        GgmlType type;
    } CASES[] = {
        {"Q3_K_S", 256, GGML_Q3_K},   {"Q3_K_S", 288, GGML_Q4_0}, {"Q4_K_S", 288, GGML_Q5_0},
        {"Q5_K_S", 288, GGML_Q5_1},   {"Q6_K", 288, GGML_Q8_0},   {"IQ4_XS", 288, GGML_IQ4_NL},
        {"IQ4_NL", 288, GGML_IQ4_NL}, {"Q4_K_S", 100, GGML_F16},  {"Q6_K", 100, GGML_F16},
        {"Q8_0", 100, GGML_F16},      {"MXFP4", 100, GGML_F16},   {"BF16", 100, GGML_BF16},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        GgufMix m;
        const GgufEntry e = {.role = GGUF_MATRIX, .rank = 2, .dim = {CASES[i].cols, 8}};
        assert_ok(gguf_mix_named(&m, CASES[i].mix, &err), err);
        assert_int_equal(gguf_mix_type(&m, &e, 4), CASES[i].type);
    }
}

static void the_older_dialect_has_48_tensors(void **state) {
    (void)state;
    GgufEntry e[GGUF_ENTRIES_MAX];
    const AssistantConfig c = shape("31B");
    assert_int_equal(gguf_assistant_tensors(GGUF_UNIVERSAL, &c, e), 49);
    const int n = gguf_assistant_tensors(GGUF_IK, &c, e);
    assert_int_equal(n, 48);
    for (int i = 0; i < n; i++) {
        assert_null(strstr(e[i].name, "nextn"));
        assert_null(strstr(e[i].name, "rope_freqs"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_are_those_of_llama_quantize),
        cmocka_unit_test(data_sections_have_their_size_to_the_byte),
        cmocka_unit_test(our_own_mixes_shrink_what_they_should),
        cmocka_unit_test(rows_of_other_lengths_fall_back),
        cmocka_unit_test(the_older_dialect_has_48_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
