// tests/infer/base/json_test.c
#include "infer/base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/rng.h"
#include "tests/testing.h"

static void malformed_texts_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "{",
                                      "{\"a\":1,}",
                                      "{\"a\":1}x",
                                      "{'a':1}",
                                      "{\"a\":NaN}",
                                      "{\"a\":1e999}",
                                      "{\"a\":1,\"a\":2}",
                                      "[\"\\ud800\"]",
                                      "{\"a\":\"\\u0000\"}",
                                      "\xef\xbb\xbf{}",
                                      "[\"\xff\"]",
                                      "{\"a\":99999999999999999999}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        Err err = {0};
        json_t *v = json_read_text(bad[i], strlen(bad[i]), &err);
        if (v != NULL) fail_msg("accepted: %s", bad[i]);
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, "not valid JSON"));
    }
    char deep[10000]; // nesting far beyond any file of ours
    memset(deep, '[', sizeof deep);
    assert_null(json_read_text(deep, sizeof deep, NULL));
}

static void a_refusal_names_file_line_and_column(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    path_join(path, test_dir(), "bad.json");
    assert_ok(file_write(path, "{\n \"a\": 1,\n \"a\": 2\n}\n", 22, &err), err);
    assert_null(json_read_file(path, 100, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "bad.json:3:"));
    assert_non_null(strstr(err.text, "duplicate"));
    err = (Err){0};
    assert_null(json_read_file(path, 10, &err));
    assert_non_null(strstr(err.text, "22 bytes, at most 10"));
}

static void members_are_typed_and_optional(void **state) {
    (void)state;
    Err err = {0};
    const char *text = "{\"i\": 3, \"f\": 0.5, \"b\": true, \"s\": \"x\", \"n\": null}";
    json_t *o = json_read_text(text, strlen(text), &err);
    assert_non_null(o);
    int64_t i = -1;
    double f = -1;
    bool b = false;
    const char *s = "kept";
    assert_ok(json_get_i64(o, "i", &i, &err) && i == 3, err);
    assert_ok(json_get_f64(o, "f", &f, &err) && f == 0.5, err);
    assert_ok(json_get_f64(o, "i", &f, &err) && f == 3, err);
    assert_ok(json_get_bool(o, "b", &b, &err) && b, err);
    assert_ok(json_get_str(o, "n", &s, &err) && !strcmp(s, "kept"), err);
    assert_ok(json_get_str(o, "absent", &s, &err) && !strcmp(s, "kept"), err);
    assert_ok(json_get_str(o, "s", &s, &err) && !strcmp(s, "x"), err);
    assert_false(json_get_i64(o, "f", &i, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_string_equal(err.text, "\"f\" is a number with a fraction, expected an integer");
    assert_false(json_get_bool(o, "i", &b, NULL));
    assert_false(json_get_str(o, "b", &s, NULL));
    assert_false(json_get_f64(o, "s", &f, NULL));
    assert_int_equal(i, 3);
    json_decref(o);
}

static void what_is_written_reads_back_equal(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    path_join(path, test_dir(), "out.json");
    json_t *o = json_pack("{s:f, s:f, s:I, s:n, s:s, s:[b]}", "z", 0.1, "a", 1e-6, "big",
                          (json_int_t)INT64_MAX, "null", "text", "\xc3\xa4\"\n", "list", 1);
    assert_non_null(o);
    assert_ok(json_write_file(path, o, &err), err);
    json_t *back = json_read_file(path, 1000, &err);
    assert_non_null(back);
    assert_true(json_equal(o, back));
    json_decref(back);
    json_decref(o);
    size_t n;
    char *text = file_read(path, 1000, &n, &err);
    assert_non_null(text);
    const char *start = "{\n  \"z\": 0.1,\n  \"a\": 1e-6,\n"; // order kept, short reals
    assert_memory_equal(text, start, strlen(start));
    assert_int_equal(text[n - 1], '\n');
    free(text);
}

static void reals_are_short_and_exact(void **state) {
    (void)state;
    static const double cases[] = {0.1,
                                   1.0 / 3,
                                   1e-6,
                                   1e22,
                                   1e16,
                                   -2.5e-300,
                                   123456789012345680.0,
                                   5e-324,
                                   1.7976931348623157e308,
                                   0.0,
                                   -0.0,
                                   3.0,
                                   1234567890123456.0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0] + 200000; i++) {
        double x = i < sizeof cases / sizeof cases[0] ? cases[i] : 0;
        const uint64_t bits = rng_u64(1, RNG_TEST, 0, i);
        if (i >= sizeof cases / sizeof cases[0]) memcpy(&x, &bits, sizeof x);
        if (!isfinite(x)) continue;
        json_t *a = json_pack("[f,s,i,f]", x, "1.5 \\\" 0.10000000000000001", 7, x);
        char *text = json_text(a, JSON_COMPACT);
        json_t *b = json_read_text(text, strlen(text), NULL);
        if (b == NULL || !json_equal(a, b)) fail_msg("%.17g became %s", x, text);
        json_decref(a);
        json_decref(b);
        free(text);
    }
    json_t *o = json_pack("[f,f,f,f,f]", 0.1, 1e-6, 1e22, 2.0, 0.3);
    char *text = json_text(o, JSON_COMPACT);
    assert_string_equal(text, "[0.1,1e-6,1e22,2.0,0.3]");
    free(text);
    json_decref(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_texts_are_refused),
        cmocka_unit_test(a_refusal_names_file_line_and_column),
        cmocka_unit_test(members_are_typed_and_optional),
        cmocka_unit_test(what_is_written_reads_back_equal),
        cmocka_unit_test(reals_are_short_and_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
