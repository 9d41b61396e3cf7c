// tests/infer/export/mix_test.c - the file of a mixture: there and back, and what is refused.
#include "infer/export/mix.h"

#include <math.h>
#include <string.h>

#include "infer/base/file.h"
#include "tests/testing.h"

static const char *in_dir(const char *name) {
    static char path[PATH_ROOM];
    return path_join(path, test_dir(), name);
}

static void both_formats_come_back(void **state) {
    (void)state;
    Err err = {0};
    MixModule mlx[] = {{"model.layers.0.mlp.up_proj", mix_mlx(3, 64), 0.25, 0.125},
                       {"pre_projection", mix_mlx(16, 64), NAN, NAN}},
              gguf[] = {{"model.embed_tokens", mix_gguf(GGML_IQ4_XS), 0.5, -0.01}};
    mlx[0].type.mlx.group = 32;
    const Mix m[] = {
        {.format = MIX_MLX,
         .method = "optiq",
         .reference = "bf16",
         .weights = "ab",
         .target_bpw = 5,
         .achieved_bpw = 5.125,
         .bits_per_weight = 5.6,
         .bytes = 1234567890123,
         .high = 1,
         .low = 1,
         .n = 2,
         .module = mlx},
        {.format = MIX_GGUF, .target = true, .method = "tokens", .n = 1, .module = gguf}};
    for (int i = 0; i < 2; i++) {
        assert_ok(mix_write(in_dir("m.json"), &m[i], &err), err);
        Mix *b = mix_read(in_dir("m.json"), &err);
        assert_ok(b, err);
        assert_int_equal(b->format, m[i].format);
        assert_int_equal(b->target, m[i].target);
        assert_string_equal(b->method, m[i].method);
        assert_int_equal(b->bytes, m[i].bytes);
        assert_true(b->achieved_bpw == m[i].achieved_bpw && b->high == m[i].high);
        assert_int_equal(b->n, m[i].n);
        mix_free(b);
    }
    assert_ok(mix_write(in_dir("m.json"), &m[0], &err), err);
    Mix *b = mix_read(in_dir("m.json"), &err);
    assert_ok(b, err);
    const MixModule *up = mix_find(b, "model.layers.0.mlp.up_proj"),
                    *pre = mix_find(b, "pre_projection");
    assert_true(up && pre && mix_find(b, "post_projection") == NULL);
    assert_int_equal(up->type.mlx.bits, 3);
    assert_int_equal(up->type.mlx.group, 32);
    assert_true(up->kl == 0.25 && up->lost == 0.125 && isnan(pre->kl));
    assert_true(mix_type_plain(&pre->type) && !mix_type_plain(&up->type));
    mix_free(b);
}

static void types_have_their_names_and_bytes(void **state) {
    (void)state;
    static const struct {
        MixType type;
        const char *name;
        int64_t bytes; // of [10, 512]
    } cases[] = {
        {{MIX_MLX, {MLX_AFFINE, 4, 64, false}, 0}, "4", 10 * (512 / 2 + 512 / 64 * 4)},
        {{MIX_MLX, {MLX_AFFINE, 3, 128, false}, 0}, "3", 10 * (512 * 3 / 8 + 512 / 128 * 4)},
        {{MIX_MLX, {MLX_AFFINE, 16, 64, false}, 0}, "16", 10 * 1024},
        {{MIX_MLX, {MLX_MXFP4, 4, 32, false}, 0}, "mxfp4", 10 * (512 / 2 + 512 / 32)},
        {{MIX_GGUF, {0}, GGML_Q4_K}, "Q4_K", 10 * 2 * 144},
        {{MIX_GGUF, {0}, GGML_Q8_0}, "Q8_0", 10 * 16 * 34},
        {{MIX_GGUF, {0}, GGML_BF16}, "BF16", 10 * 1024},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32];
        mix_type_name(name, &cases[i].type);
        assert_string_equal(name, cases[i].name);
        assert_int_equal(mix_type_bytes(&cases[i].type, 10, 512), cases[i].bytes);
    }
    const MixType k = mix_gguf(GGML_Q4_K), four = mix_mlx(4, 64);
    assert_int_equal(mix_type_bytes(&k, 10, 500), -1);
    assert_int_equal(mix_type_bytes(&four, 10, 96), -1);
    assert_int_equal(mix_type_bytes(&k, INT64_MAX / 100, 512), -1);
}

static void refuse(const char *text, const char *message) {
    Err err = {0};
    assert_ok(file_write(in_dir("bad.json"), text, strlen(text), &err), err);
    assert_null(mix_read(in_dir("bad.json"), &err));
    assert_int_equal(err.code, ERR_INPUT);
    if (strstr(err.text, message) == NULL || strstr(err.text, "bad.json") == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.text, message);
}

#define MLX(modules)                                                                               \
    "{\"kind\":\"mix\",\"model\":\"assistant\",\"format\":\"mlx\",\"modules\":" modules "}"
#define GGUF(modules)                                                                              \
    "{\"kind\":\"mix\",\"model\":\"assistant\",\"format\":\"gguf\",\"modules\":" modules "}"

static void other_files_are_refused(void **state) {
    (void)state;
    refuse("[1]", "not a mixture");
    refuse("{\"kind\":\"sensitivity\"}", "\"kind\" is \"sensitivity\", expected \"mix\"");
    refuse("{\"kind\":\"mix\",\"format\":\"exl2\"}", "format is \"exl2\", expected mlx or gguf");
    refuse("{\"kind\":\"mix\",\"format\":\"mlx\",\"model\":\"x\"}", "model is \"x\"");
    refuse(MLX("{}"), "no modules named");
    refuse(MLX("{\"a\":4}"), "module a: not an object");
    refuse(MLX("{\"a.weight\":{\"bits\":4}}"), "leave \".weight\" out");
    refuse(MLX("{\"a\":{\"bits\":7}}"), "module a: ");
    refuse(MLX("{\"a\":{\"bits\":4,\"group_size\":48}}"), "module a: ");
    refuse(MLX("{\"a\":{\"bits\":4,\"mode\":\"nf4\"}}"), "no mode \"nf4\"");
    refuse(MLX("{\"a\":{\"bits\":\"4\"}}"), "bits");
    refuse(GGUF("{\"a\":{\"type\":\"Q9_K\"}}"), "no type \"Q9_K\"");
    refuse(GGUF("{\"a\":{\"bits\":4}}"), "no type \"\"");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_formats_come_back),
        cmocka_unit_test(types_have_their_names_and_bytes),
        cmocka_unit_test(other_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
