// tests/infer/format/gguf_test.c - files come back as they were written, the same bytes every time;
// one broken file per rule.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "infer/base/hash.h"
#include "infer/format/gguf.h"
#include "tests/testing.h"

static const char *path_in_dir(const char *name) {
    static char path[8][PATH_ROOM];
    static int turn;
    return path_join(path[turn++ % 8], test_dir(), name);
}

// A small file written by hand, and where its parts lie.
enum {
    AT_MAGIC,
    AT_VERSION,
    AT_TENSORS,
    AT_KEYS,
    AT_KEY_SIZE,
    AT_KEY,
    AT_KIND,
    AT_NUMBER,
    AT_SECOND_KEY,
    AT_ELEMENT_KIND,
    AT_COUNT,
    AT_ALIGN_KEY,
    AT_ALIGN_KIND,
    AT_ALIGN,
    AT_BOOL,
    AT_TEXT_SIZE,
    AT_NAME_SIZE,
    AT_NAME,
    AT_RANK,
    AT_DIM,
    AT_TYPE,
    AT_OFFSET,
    AT_SECOND_NAME,
    AT_SECOND_TYPE,
    AT_SECOND_OFFSET,
    AT_PADDING,
    MARKS
};
typedef struct {
    unsigned char at[1024];
    size_t n, mark[MARKS];
} Raw;

static void put(Raw *r, int mark, uint64_t x, int bytes) {
    if (mark >= 0) r->mark[mark] = r->n;
    for (int i = 0; i < bytes; i++) r->at[r->n++] = (unsigned char)(x >> 8 * i);
}

static void put_text(Raw *r, int size_mark, int mark, const char *text) {
    put(r, size_mark, strlen(text), 8);
    if (mark >= 0) r->mark[mark] = r->n;
    for (; *text != '\0'; text++) put(r, -1, (unsigned char)*text, 1);
}

// Keys: a u32, a list of two i32, the alignment, a bool, a text. Tensors: t (4 x 2), u (31), F32.
static Raw small_file(void) {
    Raw r = {.n = 0};
    r.mark[AT_MAGIC] = 0;
    memcpy(r.at, "GGUF", 4);
    r.n = 4;
    put(&r, AT_VERSION, 3, 4);
    put(&r, AT_TENSORS, 2, 8);
    put(&r, AT_KEYS, 5, 8);
    put_text(&r, AT_KEY_SIZE, AT_KEY, "key");
    put(&r, AT_KIND, GGUF_U32, 4);
    put(&r, AT_NUMBER, 7, 4);
    put_text(&r, -1, AT_SECOND_KEY, "two");
    put(&r, -1, GGUF_ARRAY, 4);
    put(&r, AT_ELEMENT_KIND, GGUF_I32, 4);
    put(&r, AT_COUNT, 2, 8);
    put(&r, -1, (uint32_t)-1, 4);
    put(&r, -1, 2, 4);
    put_text(&r, -1, AT_ALIGN_KEY, "general.alignment");
    put(&r, AT_ALIGN_KIND, GGUF_U32, 4);
    put(&r, AT_ALIGN, 64, 4);
    put_text(&r, -1, -1, "yes");
    put(&r, -1, GGUF_BOOL, 4);
    put(&r, AT_BOOL, 1, 1);
    put_text(&r, -1, -1, "text");
    put(&r, -1, GGUF_TEXT, 4);
    put_text(&r, AT_TEXT_SIZE, -1, "words");
    put_text(&r, AT_NAME_SIZE, AT_NAME, "t");
    put(&r, AT_RANK, 2, 4);
    put(&r, AT_DIM, 4, 8);
    put(&r, -1, 2, 8);
    put(&r, AT_TYPE, GGML_F32, 4);
    put(&r, AT_OFFSET, 0, 8);
    put_text(&r, -1, AT_SECOND_NAME, "u");
    put(&r, -1, 1, 4);
    put(&r, -1, 31, 8);
    put(&r, AT_SECOND_TYPE, GGML_F32, 4);
    put(&r, AT_SECOND_OFFSET, 64, 8);
    r.mark[AT_PADDING] = r.n;
    while (r.n % 64 != 0) put(&r, -1, 0, 1);
    for (int i = 0; i < 64 + 128; i++) put(&r, -1, (uint64_t)(i & 63), 1);
    return r;
}

static const char *write_raw(const char *name, const Raw *r, size_t size) {
    Err err = {0};
    const char *path = path_in_dir(name);
    assert_ok(file_write(path, r->at, size, &err), err);
    return path;
}

static void a_file_made_by_hand_is_read(void **state) {
    (void)state;
    Err err = {0};
    const Raw r = small_file();
    GgufFile *f = gguf_open(write_raw("hand", &r, r.n), &err);
    if (f == NULL) fail_msg("%s", err.text);
    int64_t x;
    GgufText text;
    assert_ok(gguf_int(f, "key", 0, 9, &x, &err), err);
    assert_int_equal(x, 7);
    const GgufValue *list = gguf_value(f, "two");
    assert_true(list->array && list->count == 2 && list->kind == GGUF_I32);
    assert_true(gguf_int_at(f, list, 0, &x) && x == -1);
    assert_true(gguf_int_at(f, gguf_value(f, "yes"), 0, &x) && x == 1);
    assert_ok(gguf_text(f, "text", &text, &err), err);
    assert_true(text.size == 5 && memcmp(text.at, "words", 5) == 0);
    assert_int_equal(gguf_data_bytes(f), 64 + 128);
    const GgufTensor *t = gguf_find(f, "t"), *u = gguf_find(f, "u");
    assert_true(t->rank == 2 && t->dim[0] == 4 && t->rows == 2 && t->bytes == 32);
    assert_int_equal(u->offset - t->offset, 64);
    unsigned char raw[124];
    assert_ok(gguf_read(f, u, raw, &err), err);
    assert_int_equal(raw[63], 63);
    assert_null(gguf_find(f, "v"));
    gguf_close(f);
    // a writer that does not pad the last tensor is understood
    f = gguf_open(write_raw("hand", &r, r.n - 4), &err);
    if (f == NULL) fail_msg("%s", err.text);
    gguf_close(f);
}

static const struct {
    const char *name;
    int mark, bytes;
    uint64_t value;
    const char *message;
} BROKEN[] = {
    {"magic", AT_MAGIC, 1, 'X', "does not begin with GGUF"},
    {"version-0", AT_VERSION, 4, 0, "GGUF version 0, this program reads 3"},
    {"version-1", AT_VERSION, 4, 1, "GGUF version 1, this program reads 3"},
    {"version-2", AT_VERSION, 4, 2, "GGUF version 2, this program reads 3"},
    {"version-big-endian", AT_VERSION, 4, 3 << 24, "GGUF version 50331648, this program reads 3"},
    {"tensors-huge", AT_TENSORS, 8, UINT64_MAX,
     "number of tensors is 18446744073709551615, at most 65536"},
    {"tensors-many", AT_TENSORS, 8, 60000, "60000 tensors and 5 keys need"},
    {"keys-huge", AT_KEYS, 8, (uint64_t)1 << 63, "number of keys is 9223372036854775808"},
    {"keys-many", AT_KEYS, 8, 60000, "2 tensors and 60000 keys need"},
    {"keys-few", AT_KEYS, 8, 4, "tensor text: rank 8, 1 to 4 are allowed"},
    {"key-empty", AT_KEY_SIZE, 8, 0, "key 0 is empty"},
    {"key-long", AT_KEY_SIZE, 8, 257, "the length of key 0 is 257, at most 256"},
    {"key-endless", AT_KEY_SIZE, 8, UINT64_MAX, "the length of key 0 is 18446744073709551615"},
    {"key-control", AT_KEY, 1, 7, "key 0 holds a character that is no visible ASCII"},
    {"key-blank", AT_KEY, 1, ' ', "key 0 holds a character that is no visible ASCII"},
    {"key-nul", AT_KEY, 1, 0, "key 0 holds a character that is no visible ASCII"},
    {"kind-13", AT_KIND, 4, 13, "key: unknown type 13"},
    {"kind-huge", AT_KIND, 4, UINT32_MAX, "key: unknown type 4294967295"},
    {"key-twice", AT_SECOND_KEY, 3, 'k' | 'e' << 8 | 'y' << 16, "key key occurs twice"},
    {"array-of-arrays", AT_ELEMENT_KIND, 4, GGUF_ARRAY, "two: an array of arrays"},
    {"element-kind", AT_ELEMENT_KIND, 4, 99, "two: unknown type 99"},
    {"count-huge", AT_COUNT, 8, UINT64_MAX,
     "two: the number of elements is 18446744073709551615, at most 4194304"},
    {"count-past-end", AT_COUNT, 8, 4194304, "two: the value needs 16777216 bytes at byte"},
    {"align-kind", AT_ALIGN_KIND, 4, GGUF_I32, "general.alignment is i32, expected u32"},
    {"align-0", AT_ALIGN, 4, 0, "general.alignment is 0, a power of two"},
    {"align-odd", AT_ALIGN, 4, 48, "general.alignment is 48, a power of two"},
    {"align-huge", AT_ALIGN, 4, 1u << 31, "general.alignment is 2147483648, a power of two up to"},
    {"align-other", AT_ALIGN, 4, 32, "tensor u: offset 64, the one before ends at 32"},
    {"bool-2", AT_BOOL, 1, 2, "yes: a bool is 2"},
    {"text-long", AT_TEXT_SIZE, 8, (16 << 20) + 1, "a text is 16777217, at most 16777216"},
    {"text-past-end", AT_TEXT_SIZE, 8, 9999, "a text needs 9999 bytes at byte"},
    {"name-long", AT_NAME_SIZE, 8, 64, "the name of tensor 0 is 64, at most 63 are allowed"},
    {"name-empty", AT_NAME_SIZE, 8, 0, "the name of tensor 0 is empty"},
    {"name-control", AT_NAME, 1, 1, "the name of tensor 0 holds a character"},
    {"rank-0", AT_RANK, 4, 0, "tensor t: rank 0, 1 to 4"},
    {"rank-5", AT_RANK, 4, 5, "tensor t: rank 5, 1 to 4"},
    {"dim-0", AT_DIM, 8, 0, "tensor t: dimension 0 is 0"},
    {"dim-negative", AT_DIM, 8, UINT64_MAX, "tensor t: dimension 0 is 18446744073709551615"},
    {"dim-huge", AT_DIM, 8, INT64_MAX, "tensor t: its shape overflows"},
    {"dim-large", AT_DIM, 8, (uint64_t)1 << 60, "tensor t: its shape overflows"},
    {"dim-wraps", AT_DIM, 8, ((uint64_t)1 << 61) + 4, "tensor t: its shape overflows"},
    {"dim-more", AT_DIM, 8, 64, "tensor u: offset 64, the one before ends at 512"},
    {"type-none", AT_TYPE, 4, 4, "tensor t: type 4 is not supported"},
    {"type-huge", AT_TYPE, 4, UINT32_MAX, "tensor t: type 4294967295 is not supported"},
    {"type-blocks", AT_TYPE, 4, GGML_Q8_0, "tensor t: rows of 4 values, Q8_0 has blocks of 32"},
    {"offset-1", AT_OFFSET, 8, 64, "tensor t: offset 64, the one before ends at 0"},
    {"offset-huge", AT_SECOND_OFFSET, 8, UINT64_MAX - 31, "tensor u: offset 18446744073709551584"},
    {"offset-overlap", AT_SECOND_OFFSET, 8, 0, "tensor u: offset 0, the one before ends at 64"},
    {"name-twice", AT_SECOND_NAME, 1, 't', "tensor t occurs twice"},
    {"data-more", AT_SECOND_TYPE, 4, GGML_F16,
     "the tensors take 128 bytes of data, the file holds 192"},
    {"padding", AT_PADDING, 1, 1, "the padding before the data is not zero at byte"},
};

static void refused(const char *path, const char *what) {
    Err err = {0};
    GgufFile *f = gguf_open(path, &err);
    if (f != NULL) fail_msg("%s was accepted, expected: %s", path, what);
    if (strstr(err.text, what) == NULL)
        fail_msg("%s: \"%s\" does not say \"%s\"", path, err.text, what);
    if (strstr(err.text, path) == NULL) fail_msg("\"%s\" does not name %s", err.text, path);
    if (strchr(err.text, '\n') != NULL) fail_msg("%s: more than one line", err.text);
    assert_int_equal(err.code, ERR_INPUT);
}

static void every_broken_file_is_refused_with_its_reason(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BROKEN / sizeof *BROKEN; i++) {
        Raw r = small_file();
        for (int k = 0; k < BROKEN[i].bytes; k++)
            r.at[r.mark[BROKEN[i].mark] + (size_t)k] = (unsigned char)(BROKEN[i].value >> 8 * k);
        refused(write_raw(BROKEN[i].name, &r, r.n), BROKEN[i].message);
    }
}

// Every shorter file is refused; none is read beyond its end (the sanitizers look).
static void no_shortened_file_is_accepted(void **state) {
    (void)state;
    const Raw r = small_file();
    for (size_t n = 0; n < r.n - 4; n++) {
        Err err = {0};
        GgufFile *f = gguf_open(write_raw("short", &r, n), &err);
        if (f != NULL) fail_msg("%zu of %zu bytes were accepted", n, r.n);
        assert_int_equal(err.code, ERR_INPUT);
    }
    Raw longer = small_file();
    put(&longer, -1, 0, 1);
    refused(write_raw("longer", &longer, longer.n), "the file holds 193");
}

static void values_of_another_sort_are_named(void **state) {
    (void)state;
    Err err = {0};
    const Raw r = small_file();
    GgufFile *f = gguf_open(write_raw("sorts", &r, r.n), &err);
    assert_non_null(f);
    int64_t x;
    double y;
    GgufText text;
#define SAYS(call, what)                                                                           \
    do {                                                                                           \
        err = (Err){0};                                                                            \
        assert_false(call);                                                                        \
        if (strstr(err.text, what) == NULL)                                                        \
            fail_msg("\"%s\" does not say \"%s\"", err.text, what);                                \
    } while (0)
    SAYS(gguf_int(f, "none", 0, 1, &x, &err), "no key none");
    SAYS(gguf_int(f, "key", 0, 6, &x, &err), "key is 7, allowed 0 to 6");
    SAYS(gguf_int(f, "text", 0, 6, &x, &err), "text is text, a whole number is needed");
    SAYS(gguf_int(f, "two", 0, 6, &x, &err), "two is an array of 2 i32, one value is needed");
    SAYS(gguf_real(f, "key", &y, &err), "key is u32, f32 is needed");
    SAYS(gguf_text(f, "key", &text, &err), "key is u32, text is needed");
    gguf_close(f);
}

// A file with a value of every kind the writer knows and one tensor of each rank.
static const char *written(const char *name, Err *err) {
    const char *path = path_in_dir(name);
    const float pi = 3.25f;
    const int64_t dim[] = {8, 3, 2, 2};
    float x[96];
    for (int i = 0; i < 96; i++) x[i] = (float)i / 4;
    GgufWriter *w = gguf_writer_open(path, err);
    if (w == NULL) fail_msg("%s", err->text);
    gguf_put_string(w, "general.architecture", "made");
    gguf_put_u32(w, "n.u32", 4000000000u);
    gguf_put_i32(w, "n.i32", -5);
    gguf_put_f32(w, "n.f32", pi);
    gguf_put_bool(w, "n.no", false);
    gguf_put_text(w, "n.text", "a\0b", 3);
    gguf_put_array(w, "l.texts", GGUF_TEXT, 3);
    gguf_add_text(w, "", 0);
    gguf_add_text(w, "\xe2\x96\x81x", 4);
    gguf_add_text(w, "yz", 2);
    gguf_put_array(w, "l.reals", GGUF_F32, 2);
    gguf_add_number(w, &pi);
    gguf_add_number(w, &pi);
    gguf_put_array(w, "l.empty", GGUF_I32, 0);
    for (int rank = 1; rank <= 4; rank++) {
        char tensor[24];
        snprintf(tensor, sizeof tensor, "rank.%d", rank);
        assert_ok(gguf_writer_declare(w, tensor, GGML_F32, rank, dim, err), *err);
    }
    assert_int_equal(gguf_writer_data_bytes(w), 32 + 96 + 192 + 384);
    assert_ok(gguf_writer_begin(w, err), *err);
    const int64_t bytes[] = {32, 96, 192, 384};
    for (int i = 0; i < 4; i++) { // in two parts
        assert_ok(gguf_writer_data(w, x, bytes[i] / 2, err), *err);
        assert_ok(gguf_writer_data(w, (char *)x + bytes[i] / 2, bytes[i] / 2, err), *err);
    }
    assert_ok(gguf_writer_commit(w, err), *err);
    return path;
}

static void what_is_written_comes_back(void **state) {
    (void)state;
    Err err = {0};
    GgufFile *f = gguf_open(written("whole", &err), &err);
    if (f == NULL) fail_msg("%s", err.text);
    int64_t x;
    double y;
    GgufText text;
    GgufCursor c = {0};
    assert_ok(gguf_int(f, "n.u32", 0, INT64_MAX, &x, &err), err);
    assert_int_equal(x, 4000000000);
    assert_ok(gguf_int(f, "n.i32", -9, 0, &x, &err), err);
    assert_int_equal(x, -5);
    assert_ok(gguf_real(f, "n.f32", &y, &err), err);
    assert_true(y == 3.25);
    assert_ok(gguf_text(f, "n.text", &text, &err), err);
    assert_true(text.size == 3 && memcmp(text.at, "a\0b", 3) == 0);
    const GgufValue *list = gguf_value(f, "l.texts");
    const char *const want[] = {"", "\xe2\x96\x81x", "yz"};
    for (int i = 0; i < 3; i++) {
        assert_true(gguf_text_next(f, list, &c, &text));
        assert_true(text.size == strlen(want[i]) && memcmp(text.at, want[i], text.size) == 0);
    }
    assert_false(gguf_text_next(f, list, &c, &text));
    assert_true(gguf_real_at(f, gguf_value(f, "l.reals"), 1, &y) && y == 3.25);
    assert_int_equal(gguf_value(f, "l.empty")->count, 0);
    const GgufTensor *t = gguf_find(f, "rank.4");
    assert_true(t->rank == 4 && t->rows == 12 && t->count == 96);
    float out[24];
    assert_ok(gguf_read_f32(f, t, 9, 3, out, &err), err);
    for (int i = 0; i < 24; i++) assert_true(out[i] == (float)(72 + i) / 4);
    gguf_close(f);
}

static void the_same_calls_give_the_same_bytes(void **state) {
    (void)state;
    Err err = {0};
    Sha256 a, b;
    assert_ok(sha256_file(&a, written("once", &err), &err), err);
    assert_ok(sha256_file(&b, written("again", &err), &err), err);
    assert_string_equal(a.hex, b.hex);
}

static void a_dropped_or_refused_file_leaves_nothing(void **state) {
    (void)state;
    Err err = {0};
    char tmp[PATH_ROOM + 8];
    const char *path = path_in_dir("dropped");
    GgufWriter *w = gguf_writer_open(path, &err);
    gguf_put_u32(w, "twice", 1);
    gguf_put_u32(w, "twice", 2);
    assert_false(gguf_writer_begin(w, &err));
    assert_non_null(strstr(err.text, "twice is written twice"));
    gguf_writer_drop(w);
    w = gguf_writer_open(path, &err);
    const int64_t dim[] = {33};
    assert_false(gguf_writer_declare(w, "t", GGML_Q8_0, 1, dim, &err));
    char name[80];
    memset(name, 'n', 64);
    name[64] = '\0';
    err = (Err){0};
    assert_false(gguf_writer_declare(w, name, GGML_F32, 1, dim, &err));
    assert_non_null(strstr(err.text, "is too long"));
    gguf_writer_drop(w);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    assert_false(file_exists(path) || file_exists(tmp));
}

static void a_file_cut_after_opening_is_an_error(void **state) {
    (void)state;
    Err err = {0};
    const char *path = written("cut", &err);
    float out[96];
    GgufFile *f = gguf_open(path, &err);
    assert_int_equal(truncate(path, 400), 0);
    assert_false(gguf_read_f32(f, gguf_find(f, "rank.4"), 0, 12, out, &err));
    assert_non_null(strstr(err.text, "tensor rank.4: ends at byte"));
    gguf_close(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_made_by_hand_is_read),
        cmocka_unit_test(every_broken_file_is_refused_with_its_reason),
        cmocka_unit_test(no_shortened_file_is_accepted),
        cmocka_unit_test(values_of_another_sort_are_named),
        cmocka_unit_test(what_is_written_comes_back),
        cmocka_unit_test(the_same_calls_give_the_same_bytes),
        cmocka_unit_test(a_dropped_or_refused_file_leaves_nothing),
        cmocka_unit_test(a_file_cut_after_opening_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
