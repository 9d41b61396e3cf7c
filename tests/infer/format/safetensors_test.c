// tests/infer/format/safetensors_test.c - one broken file per rule, and bytes equal to the
// reference writer's.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "infer/format/safetensors.h"
#include "tests/testing.h"

static const char *path_in_dir(const char *name) {
    static char path[8][PATH_ROOM];
    static int turn;
    return path_join(path[turn++ % 8], test_dir(), name);
}

// N, header, then `data` bytes 0, 1, 2, ...; length < 0: N as it is.
static const char *write_case(const char *name, const char *header, int64_t length, int data) {
    const char *path = path_in_dir(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    const uint64_t n = length < 0 ? strlen(header) : (uint64_t)length;
    for (int i = 0; i < 8; i++) fputc((int)(n >> 8 * i & 255), f);
    fputs(header, f);
    for (int i = 0; i < data; i++) fputc(i & 255, f);
    assert_int_equal(fclose(f), 0);
    return path;
}

static void assert_refused(const char *path, const char *what, ErrCode code) {
    Err err = {0};
    StFile *f = st_open(path, &err);
    if (f != NULL) fail_msg("%s was accepted, expected: %s", path, what);
    if (strstr(err.text, what) == NULL)
        fail_msg("%s: \"%s\" does not say \"%s\"", path, err.text, what);
    assert_int_equal(err.code, code);
}

#define F32_2 "\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]"
static const struct {
    const char *name, *header;
    int64_t length;
    int data;
    const char *message;
} BROKEN[] = {
    {"too-long-header", "{}", 100000001, 0, "header of 100000001 bytes, at most 100000000"},
    {"header-past-end", "{}", 3, 0, "header of 3 bytes in a file of 10"},
    {"header-huge", "{}", INT64_MAX, 0, "at most 100000000"},
    {"no-brace", " {}", -1, 0, "does not begin with {"},
    {"empty-header", "", -1, 0, "does not begin with {"},
    {"not-json", "{\"a\":", -1, 0, "not-json"},
    {"not-utf8", "{\"\xff\":{" F32_2 "}}", -1, 8, "not-utf8"},
    {"garbage-behind", "{} x", -1, 0, "garbage-behind"},
    {"duplicate", "{\"a\":{" F32_2 "},\"a\":{" F32_2 "}}", -1, 8, "uplicate"},
    {"metadata-list", "{\"__metadata__\":[]}", -1, 0, "__metadata__ is not an object"},
    {"metadata-number", "{\"__metadata__\":{\"k\":1}}", -1, 0, "__metadata__.k is not a string"},
    {"entry-number", "{\"a\":1}", -1, 0, "tensor a: not an object"},
    {"no-dtype", "{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", -1, 8, "exactly dtype, shape"},
    {"extra-key", "{\"a\":{" F32_2 ",\"x\":1}}", -1, 8, "exactly dtype, shape"},
    {"dtype-number", "{\"a\":{\"dtype\":4,\"shape\":[2],\"data_offsets\":[0,8]}}", -1, 8,
     "dtype is not a string"},
    {"dtype-unknown", "{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", -1, 8,
     "tensor a: unknown dtype F33"},
    {"shape-string", "{\"a\":{\"dtype\":\"F32\",\"shape\":\"2\",\"data_offsets\":[0,8]}}", -1, 8,
     "shape is not an array"},
    {"shape-negative", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", -1, 8,
     "shape[0] is not a natural number"},
    {"shape-real", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", -1, 8,
     "shape[0] is not a natural number"},
    {"rank-nine", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}",
     -1, 1, "shape has 9 entries, at most 8"},
    {"offsets-three", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", -1, 1,
     "data_offsets has 3 entries, at most 2"},
    {"offsets-one", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1]}}", -1, 1,
     "data_offsets needs two numbers"},
    {"offsets-backward",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[4,2]}}",
     -1, 4, "[4, 2]"},
    {"hole-at-start", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", -1, 2,
     "tensor a: data_offsets [1, 2], but the previous tensor ends at 0"},
    {"hole",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
     -1, 3, "tensor b: data_offsets [2, 3]"},
    {"overlap",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
     -1, 3, "tensor b: data_offsets [1, 3]"},
    {"same-bytes",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
     -1, 2, "tensor b: data_offsets [0, 2]"},
    {"overflow",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]}}", -1, 8,
     "the product of its shape overflows"},
    {"overflow-bits",
     "{\"a\":{\"dtype\":\"F64\",\"shape\":[1152921504606846976],\"data_offsets\":[0,8]}}", -1, 8,
     "the product of its shape overflows"},
    {"half-byte", "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", -1, 1,
     "12 bits are no whole number of bytes"},
    {"size-mismatch", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", -1, 4,
     "tensor a: data_offsets span 4 bytes, dtype and shape need 8"},
    {"trailing-byte", "{\"a\":{" F32_2 "}}", -1, 9,
     "header describes 8 bytes of data, the file holds 9"},
    {"missing-byte", "{\"a\":{" F32_2 "}}", -1, 7,
     "header describes 8 bytes of data, the file holds 7"},
    {"name-empty", "{\"\":{" F32_2 "}}", -1, 8, "is empty"},
    {"name-control", "{\"a\\nb\":{" F32_2 "}}", -1, 8, "control character"},
    {"name-nul", "{\"a\\u0000b\":{" F32_2 "}}", -1, 8, "name-nul"},
    {"huge-integer",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[99999999999999999999],\"data_offsets\":[0,1]}}", -1, 1,
     "huge-integer"},
};

static void every_broken_file_is_refused_with_its_reason(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BROKEN / sizeof *BROKEN; i++)
        assert_refused(
            write_case(BROKEN[i].name, BROKEN[i].header, BROKEN[i].length, BROKEN[i].data),
            BROKEN[i].message, ERR_INPUT);
    char header[600] = "{\"", *p = header + 2;
    memset(p, 'n', 257);
    strcpy(p + 257, "\":{" F32_2 "}}");
    assert_refused(write_case("name-long", header, -1, 8), "longer than 256 bytes", ERR_INPUT);
    Err err = {0};
    assert_ok(file_write(path_in_dir("tiny"), "1234567", 7, &err), err);
    assert_refused(path_in_dir("tiny"), "7 bytes, a header needs at least 8", ERR_INPUT);
    assert_refused(path_in_dir("absent"), "absent", ERR_FAILED);
}

static void legal_oddities_are_accepted(void **state) {
    (void)state;
    Err err = {0};
    const char *path =
        write_case("odd",
                   "{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},\"__metadata__"
                   "\":{\"a\":\"1\","
                   "\"b\":\"2\"},\"e\":{\"dtype\":\"BF16\",\"shape\":[0,7],\"data_offsets\":[4,4]},"
                   "\"f\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[4,5]}}   ",
                   -1, 5);
    StFile *f = st_open(path, &err);
    assert_ok(f != NULL, err);
    assert_int_equal(st_count(f), 3);
    assert_int_equal(st_find(f, "s")->rank, 0);
    assert_int_equal(st_find(f, "s")->count, 1);
    assert_int_equal(st_find(f, "e")->count, 0);
    assert_int_equal(st_find(f, "f")->bytes, 1);
    assert_null(st_find(f, "nowhere"));
    assert_string_equal(st_metadata(f, "b"), "2");
    assert_null(st_metadata(f, "c"));
    unsigned char scalar[4];
    assert_ok(st_read(f, st_find(f, "s"), scalar, &err), err);
    assert_int_equal(scalar[3], 3);
    st_close(f);
    f = st_open(write_case("none", "{}", -1, 0), &err);
    assert_ok(f != NULL, err);
    assert_int_equal(st_count(f), 0);
    st_close(f);
}

static void a_file_that_shrinks_is_an_error(void **state) {
    (void)state;
    Err err = {0};
    const char *path = write_case("shrink", "{\"a\":{" F32_2 "}}", -1, 8);
    StFile *f = st_open(path, &err);
    assert_ok(f != NULL, err);
    assert_int_equal(truncate(path, st_at(f, 0)->offset + 3), 0);
    char out[8];
    assert_false(st_read(f, st_at(f, 0), out, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "tensor a"));
    assert_non_null(strstr(err.text, "when opened"));
    st_close(f);
}

static void every_truncation_of_a_real_file_is_refused(void **state) {
    (void)state;
    Err err = {0};
    size_t size = 0;
    char *data = file_read("tests/golden/e2b/assistant/model.safetensors", 1 << 24, &size, &err);
    assert_ok(data != NULL, err);
    for (size_t n = 0; n < size; n += n < 64 ? 1 : 997) {
        err = (Err){0};
        assert_ok(file_write(path_in_dir("cut"), data, n, &err), err);
        assert_refused(path_in_dir("cut"), "cut", ERR_INPUT);
    }
    free(data);
}

static void floats_of_every_width_become_f32(void **state) {
    (void)state;
    Err err = {0};
    const char *path = path_in_dir("floats");
    FILE *out = fopen(path, "wb");
    const char header[] = "{\"d\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[0,16]},"
                          "\"h\":{\"dtype\":\"F16\",\"shape\":[6],\"data_offsets\":[16,28]},"
                          "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[28,32]},"
                          "\"i\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[32,36]}}";
    const uint64_t n = sizeof header - 1;
    const double d[2] = {0.1, -1e300};
    // 1, -2, smallest subnormal, largest, infinity, -0
    const uint16_t h[6] = {0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00, 0x8000}, b[2] = {0x3f80, 0xc0a0};
    const int32_t i = 7;
    fwrite(&n, 8, 1, out);
    fwrite(header, 1, n, out);
    fwrite(d, 8, 2, out);
    fwrite(h, 2, 6, out);
    fwrite(b, 2, 2, out);
    fwrite(&i, 4, 1, out);
    fclose(out);
    StFile *f = st_open(path, &err);
    assert_ok(f != NULL, err);
    float x[6];
    assert_ok(st_read_f32(f, st_find(f, "d"), x, &err), err);
    assert_true(x[0] == 0.1f && x[1] < -3e38f);
    assert_ok(st_read_f32(f, st_find(f, "h"), x, &err), err);
    assert_true(x[0] == 1.0f && x[1] == -2.0f && x[2] == 5.9604644775390625e-8f &&
                x[3] == 65504.0f);
    assert_true(x[4] > 3.4e38f && x[5] == 0.0f && 1.0f / x[5] < 0.0f);
    assert_ok(st_read_f32(f, st_find(f, "b"), x, &err), err);
    assert_true(x[0] == 1.0f && x[1] == -5.0f);
    assert_false(st_read_f32(f, st_find(f, "i"), x, &err));
    assert_non_null(strstr(err.text, "tensor i has dtype I32"));
    st_close(f);
}

// Reads a file, declares the same tensors in file order reversed, writes: the bytes must be equal.
static void rewrite_equals(const char *source) {
    Err err = {0};
    const char *copy = path_in_dir("copy.safetensors"), *key, *value;
    StFile *f = st_open(source, &err);
    assert_ok(f != NULL, err);
    StWriter *w = st_writer_open(copy, &err);
    assert_ok(w != NULL, err);
    for (int i = 0; st_metadata_at(f, i, &key, &value); i++) st_writer_metadata(w, key, value);
    for (int i = st_count(f) - 1; i >= 0; i--) {
        const StTensor *t = st_at(f, i);
        assert_ok(st_writer_declare(w, t->name, t->dtype, t->rank, t->dim, &err), err);
    }
    assert_ok(st_writer_begin(w, &err), err);
    for (int i = 0; i < st_writer_count(w); i++) {
        const StTensor *t = st_find(f, st_writer_order(w, i)->name);
        assert_int_equal(t->offset, st_writer_order(w, i)->offset);
        char *data = malloc((size_t)t->bytes + 1);
        assert_ok(st_read(f, t, data, &err), err);
        const int64_t half = t->bytes / 2;
        assert_ok(st_writer_data(w, data, half, &err), err);
        assert_ok(st_writer_data(w, data + half, t->bytes - half, &err), err);
        free(data);
    }
    assert_ok(st_writer_commit(w, &err), err);
    st_close(f);
    size_t n[2];
    char *a = file_read(source, 1 << 28, &n[0], &err), *b = file_read(copy, 1 << 28, &n[1], &err);
    assert_ok(a != NULL && b != NULL, err);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(a, b, n[0]);
    free(a);
    free(b);
}

static void rewriting_gives_the_same_bytes(void **state) {
    (void)state;
    rewrite_equals("configs/demo/stock-assistant/model.safetensors");
    rewrite_equals("configs/demo/base-target/model.safetensors");
    rewrite_equals("configs/demo/adapter-german-facts/adapter_model.safetensors");
    rewrite_equals("tests/golden/e2b/target.safetensors");
    rewrite_equals("tests/golden/optimizer.safetensors");
}

static void names_are_escaped_and_twice_declared_ones_refused(void **state) {
    (void)state;
    Err err = {0};
    const char *path = path_in_dir("names.safetensors");
    const int64_t dim[2] = {1, 2};
    StWriter *w = st_writer_open(path, &err);
    assert_ok(w != NULL, err);
    st_writer_metadata(w, "quote\"", "tab\tback\\ bell\a \xc3\xa4");
    assert_ok(st_writer_declare(w, "a\"\\ \xc3\xa4", "U8", 2, dim, &err), err);
    assert_ok(st_writer_declare(w, "empty", "I64", 1, (int64_t[]){0}, &err), err);
    assert_ok(st_writer_begin(w, &err), err);
    assert_string_equal(st_writer_order(w, 0)->name, "empty"); // I64 before U8
    assert_ok(st_writer_data(w, "xy", 2, &err), err);
    assert_ok(st_writer_commit(w, &err), err);
    StFile *f = st_open(path, &err);
    assert_ok(f != NULL, err);
    assert_non_null(st_find(f, "a\"\\ \xc3\xa4"));
    assert_string_equal(st_metadata(f, "quote\""), "tab\tback\\ bell\a \xc3\xa4");
    st_close(f);
    w = st_writer_open(path_in_dir("twice"), &err);
    assert_ok(w != NULL, err);
    assert_ok(st_writer_declare(w, "a", "U8", 2, dim, &err), err);
    assert_ok(st_writer_declare(w, "a", "I8", 2, dim, &err), err);
    assert_false(st_writer_begin(w, &err));
    assert_non_null(strstr(err.text, "tensor a is declared twice"));
    st_writer_drop(w);
    assert_false(file_exists(path_in_dir("twice")));
}

static void write_part(const char *name, const char *tensor, float value) {
    Err err = {0};
    StWriter *w = st_writer_open(name, &err);
    assert_ok(w != NULL, err);
    assert_ok(st_writer_declare(w, tensor, "F32", 1, (int64_t[]){1}, &err), err);
    assert_ok(st_writer_begin(w, &err), err);
    assert_ok(st_writer_data(w, &value, 4, &err), err);
    assert_ok(st_writer_commit(w, &err), err);
}

static void write_index(const char *dir, const char *map) {
    char path[PATH_ROOM], text[512];
    Err err = {0};
    snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":8},\"weight_map\":{%s}}", map);
    assert_ok(
        file_write(path_join(path, dir, "model.safetensors.index.json"), text, strlen(text), &err),
        err);
}

static void shards_are_read_as_one_and_a_false_index_is_refused(void **state) {
    (void)state;
    Err err = {0};
    char dir[PATH_ROOM], path[PATH_ROOM];
    path_join(dir, test_dir(), "sharded");
    assert_ok(dir_make(dir, &err), err);
    assert_refused(dir, "neither model.safetensors nor", ERR_INPUT);
    write_part(path_join(path, dir, "model-00001-of-00002.safetensors"), "a", 1.0f);
    write_part(path_join(path, dir, "model-00002-of-00002.safetensors"), "b", 2.0f);
    write_index(
        dir,
        "\"a\":\"model-00001-of-00002.safetensors\",\"b\":\"model-00002-of-00002.safetensors\"");
    StFile *f = st_open(dir, &err);
    assert_ok(f != NULL, err);
    float x = 0;
    assert_int_equal(st_count(f), 2);
    assert_int_equal(st_shards(f), 2);
    assert_ok(st_read(f, st_find(f, "b"), &x, &err), err);
    assert_true(x == 2.0f);
    st_close(f);
    write_index(dir, "\"a\":\"model-00002-of-00002.safetensors\"");
    assert_refused(dir, "tensor a is not in model-00002-of-00002.safetensors", ERR_INPUT);
    write_index(dir, "\"a\":\"../sharded/model-00001-of-00002.safetensors\"");
    assert_refused(dir, "weight_map of a is not a file name", ERR_INPUT);
    write_index(dir, "\"a\":\"model-00003-of-00002.safetensors\"");
    assert_refused(dir, "model-00003-of-00002.safetensors", ERR_FAILED);
    write_index(dir, "");
    assert_refused(dir, "no weight_map", ERR_INPUT);
    write_part(path_join(path, dir, "again.safetensors"), "a", 1.0f);
    write_index(dir, "\"a\":\"model-00001-of-00002.safetensors\",\"b\":\"again.safetensors\"");
    assert_refused(dir, "tensor a is in ", ERR_INPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_broken_file_is_refused_with_its_reason),
        cmocka_unit_test(legal_oddities_are_accepted),
        cmocka_unit_test(a_file_that_shrinks_is_an_error),
        cmocka_unit_test(every_truncation_of_a_real_file_is_refused),
        cmocka_unit_test(floats_of_every_width_become_f32),
        cmocka_unit_test(rewriting_gives_the_same_bytes),
        cmocka_unit_test(names_are_escaped_and_twice_declared_ones_refused),
        cmocka_unit_test(shards_are_read_as_one_and_a_false_index_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
