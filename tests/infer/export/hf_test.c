// tests/infer/export/hf_test.c - mirrored weights: untouched bytes, trained bytes, MLX's layout.
#include "tests/testing.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"
#include "infer/export/hf.h"
#include "infer/export/mlx.h"

#define STOCK "configs/demo/stock-assistant"

static char *folder(const char *name) {
    static char path[4][PATH_ROOM];
    static int turn;
    Err err = {0};
    char *p = path_join(path[turn++ % 4], test_dir(), name);
    assert_ok(dir_make(p, &err), err);
    return p;
}

static void assert_same_file(const char *a, const char *b) {
    Err err = {0};
    size_t na, nb;
    char *x = file_read(a, 1 << 30, &na, &err), *y = file_read(b, 1 << 30, &nb, &err);
    if (x == NULL || y == NULL) fail_msg("%s", err.text);
    if (na != nb || memcmp(x, y, na) != 0) fail_msg("%s and %s differ", a, b);
    free(x);
    free(y);
}

static bool keep_all(void *ctx, const StTensor *t, void *out, bool *have, Err *err) {
    (void)ctx, (void)t, (void)out, (void)err;
    *have = false;
    return true;
}

static void an_untrained_assistant_comes_out_byte_for_byte(void **state) {
    (void)state;
    Err err = {0};
    char out[PATH_ROOM];
    const char *dir = folder("same");
    assert_ok(hf_mirror(STOCK, dir, &(HfSource){NULL, keep_all}, &err), err);
    assert_same_file(path_join(out, dir, "model.safetensors"), STOCK "/model.safetensors");
    // and through a file of the same values
    StFile *stock = st_open(STOCK, &err);
    assert_non_null(stock);
    const HfSource same = hf_source_file(stock);
    dir = folder("copied");
    assert_ok(hf_mirror(STOCK, dir, &same, &err), err);
    assert_same_file(path_join(out, dir, "model.safetensors"), STOCK "/model.safetensors");
    st_close(stock);
}

// Adds 1 to every element of the tensor named by ctx, through f32 and back.
static bool one_trained(void *ctx, const StTensor *t, void *out, bool *have, Err *err) {
    StFile *stock = st_open(STOCK, err);
    *have = strcmp(t->name, ctx) == 0;
    float *x = malloc((size_t)t->count * sizeof *x);
    bool ok = stock != NULL && (!*have || st_read_f32(stock, st_find(stock, t->name), x, err));
    for (int64_t i = 0; ok && *have && i < t->count; i++) x[i] += 1.0f;
    ok = ok && (!*have || hf_store_f32(t, x, out, err));
    free(x);
    st_close(stock);
    return ok;
}

static void only_trained_tensors_differ(void **state) {
    (void)state;
    Err err = {0};
    const char *dir = folder("trained"), *name = "model.layers.2.self_attn.q_norm.weight";
    assert_ok(hf_mirror(STOCK, dir, &(HfSource){(void *)name, one_trained}, &err), err);
    StFile *a = st_open(STOCK, &err), *b = st_open(dir, &err);
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(st_count(a), st_count(b));
    for (int i = 0; i < st_count(a); i++) {
        const StTensor *s = st_at(a, i), *t = st_at(b, i);
        assert_string_equal(s->name, t->name);
        assert_string_equal(s->dtype, t->dtype);
        char *x = malloc((size_t)s->bytes), *y = malloc((size_t)s->bytes);
        assert_ok(st_read(a, s, x, &err) && st_read(b, t, y, &err), err);
        const bool same = memcmp(x, y, (size_t)s->bytes) == 0;
        if (same == (strcmp(s->name, name) == 0))
            fail_msg("%s: %s", s->name, same ? "unchanged" : "changed");
        free(x);
        free(y);
    }
    float before[64], after[64];
    assert_ok(st_read_f32(a, st_find(a, name), before, &err) &&
                  st_read_f32(b, st_find(b, name), after, &err),
              err);
    for (int i = 0; i < 64; i++) assert_true(after[i] == round_bf16(before[i] + 1.0f));
    st_close(a);
    st_close(b);
}

static void a_drafter_of_another_shape_or_without_a_key_is_refused_by_name(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    const char *dir = folder("odd");
    const int64_t dim[2] = {256, 255};
    StWriter *w = st_writer_open(path_join(path, dir, "model.safetensors"), &err);
    assert_non_null(w);
    assert_ok(st_writer_declare(w, "masked_embedding.token_ordering", "I64", 2, dim, &err), err);
    assert_ok(st_writer_begin(w, &err), err);
    char *zeros = calloc(256 * 255, 8);
    assert_ok(st_writer_data(w, zeros, 256 * 255 * 8, &err) && st_writer_commit(w, &err), err);
    free(zeros);
    StFile *odd = st_open(dir, &err);
    assert_non_null(odd);
    HfSource src = hf_source_file(odd);
    assert_false(hf_mirror(STOCK, folder("refused"), &src, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "masked_embedding.token_ordering"));
    st_close(odd);
    assert_false(file_exists(path_join(path, folder("refused"), "model.safetensors")));
}

static void mlx_has_the_same_keys_and_an_i32_ordering(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    const char *dir = folder("mlx");
    MlxRules rules = {0};
    const MlxRecipe floats = {.name = "bf16"};
    assert_ok(mlx_write(STOCK, dir, &(HfSource){NULL, keep_all}, &floats, &rules, &err), err);
    assert_false(rules.present);
    StFile *a = st_open(STOCK, &err), *b = st_open(path_join(path, dir, "model.safetensors"), &err);
    assert_non_null(a);
    assert_non_null(b);
    assert_string_equal(st_metadata(b, "format"), "mlx");
    assert_int_equal(st_count(a), st_count(b));
    int64_t total = 0;
    for (int i = 0; i < st_count(a); i++) {
        const StTensor *s = st_at(a, i), *t = st_find(b, s->name);
        assert_non_null(t);
        assert_int_equal(s->count, t->count);
        char *x = malloc((size_t)s->bytes), *y = malloc((size_t)t->bytes);
        assert_ok(st_read(a, s, x, &err) && st_read(b, t, y, &err), err);
        if (strcmp(s->dtype, "I64") == 0) {
            assert_string_equal(t->dtype, "I32");
            for (int64_t e = 0; e < s->count; e++)
                assert_true(((int64_t *)x)[e] == ((int32_t *)y)[e]);
        } else {
            assert_string_equal(s->dtype, t->dtype);
            assert_memory_equal(x, y, (size_t)s->bytes);
        }
        total += t->bytes;
        free(x);
        free(y);
    }
    st_close(a);
    st_close(b);
    json_t *index =
        json_read_file(path_join(path, dir, "model.safetensors.index.json"), 1 << 20, &err);
    assert_non_null(index);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(index, "metadata"), "total_size")),
        total);
    assert_int_equal(json_object_size(json_object_get(index, "weight_map")), 50);
    json_decref(index);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_untrained_assistant_comes_out_byte_for_byte),
        cmocka_unit_test(only_trained_tensors_differ),
        cmocka_unit_test(a_drafter_of_another_shape_or_without_a_key_is_refused_by_name),
        cmocka_unit_test(mlx_has_the_same_keys_and_an_i32_ordering),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
