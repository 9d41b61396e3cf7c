// tests/infer/export/json_edit_test.c - one number changes, every other byte stays.
#include "tests/testing.h"

#include <stdlib.h>
#include <string.h>

#include "infer/export/json_edit.h"

static void expect(const char *text, const char *key, int64_t value, const char *want) {
    Err err = {0};
    char *out = json_text_set("x.json", text, strlen(text), key, value, &err);
    if (out == NULL) fail_msg("%s", err.text);
    assert_string_equal(out, want);
    free(out);
}

static void a_present_value_is_replaced_in_place(void **state) {
    (void)state;
    expect("{\n  \"a\" : null,\n  \"k\":6 ,\n  \"r\": 1e-06\n}\n", "k", 12,
           "{\n  \"a\" : null,\n  \"k\":12 ,\n  \"r\": 1e-06\n}\n");
    expect("{\"k\": [1, {\"k\": 2}], \"z\": \"}\"}", "k", 3, "{\"k\": 3, \"z\": \"}\"}");
    expect("{\"k\": \"a,}\\\"b\"}", "k", 3, "{\"k\": 3}");
    expect("{\"k\": null}", "k", 0, "{\"k\": 0}");
}

static void keys_inside_other_values_are_left_alone(void **state) {
    (void)state;
    expect("{\"a\": {\"k\": 1}, \"b\": \"\\\"k\\\": 2\", \"k\": 3}", "k", 4,
           "{\"a\": {\"k\": 1}, \"b\": \"\\\"k\\\": 2\", \"k\": 4}");
}

static void an_absent_key_is_added_in_the_style_of_the_last_member(void **state) {
    (void)state;
    expect("{\n  \"a\": 1,\n  \"b\": [\n    2\n  ]\n}\n", "k", 4,
           "{\n  \"a\": 1,\n  \"b\": [\n    2\n  ],\n  \"k\": 4\n}\n");
    expect("{\"a\":1}", "k", 4, "{\"a\":1,\"k\": 4}");
    expect("{ }", "k", 4, "{ \"k\": 4}");
}

static void a_value_that_is_already_there_changes_nothing(void **state) {
    (void)state;
    expect("{ \"k\":  7 }", "k", 7, "{ \"k\":  7 }");
}

static void what_is_no_object_is_refused_with_its_name(void **state) {
    (void)state;
    const char *bad[] = {"[1]", "{\"k\": 1", "", "{\"k\": 1, \"k\": 2}", "{\"\\u006b\": 1}"};
    for (int i = 0; i < 5; i++) {
        Err err = {0};
        assert_null(json_text_set("x.json", bad[i], strlen(bad[i]), "k", 5, &err));
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, "x.json"));
    }
}

static void an_object_is_put_in_the_style_of_the_text(void **state) {
    (void)state;
    Err err = {0};
    json_t *v = json_pack("{s:i, s:{s:b}}", "bits", 4, "m", "k", 0);
    static const char *const CASE[][2] = {
        {"{\n    \"a\": null\n}\n",
         "{\n    \"a\": null,\n    \"q\": {\n        \"bits\": 4,\n        \"m\": {\n"
         "            \"k\": false\n        }\n    }\n}\n"},
        {"{\"a\":1}", "{\"a\":1,\"q\": {\"bits\":4,\"m\":{\"k\":false}}}"},
        {"{\n  \"q\": 3,\n  \"a\": 1\n}",
         "{\n  \"q\": {\n    \"bits\": 4,\n    \"m\": {\n      \"k\": false\n    }\n  },\n"
         "  \"a\": 1\n}"}};
    for (size_t i = 0; i < sizeof CASE / sizeof *CASE; i++) {
        char *out = json_text_put("x.json", CASE[i][0], strlen(CASE[i][0]), "q", v, &err);
        if (out == NULL) fail_msg("%s", err.text);
        assert_string_equal(out, CASE[i][1]);
        free(out);
    }
    json_decref(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_present_value_is_replaced_in_place),
        cmocka_unit_test(keys_inside_other_values_are_left_alone),
        cmocka_unit_test(an_absent_key_is_added_in_the_style_of_the_last_member),
        cmocka_unit_test(a_value_that_is_already_there_changes_nothing),
        cmocka_unit_test(what_is_no_object_is_refused_with_its_name),
        cmocka_unit_test(an_object_is_put_in_the_style_of_the_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
