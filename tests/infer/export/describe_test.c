// tests/infer/export/describe_test.c - artifacts are recognised, damaged and foreign ones refused.
#include "tests/testing.h"

#include <string.h>

#include "infer/base/file.h"
#include "infer/export/describe.h"

static json_t *ok(const char *path) {
    Err err = {0};
    json_t *o = describe(path, &err);
    if (o == NULL) fail_msg("%s", err.text);
    return o;
}

static void expect_kind(const char *path, const char *kind, const char *key, int64_t value) {
    json_t *o = ok(path);
    assert_string_equal(json_string_value(json_object_get(o, "kind")), kind);
    assert_int_equal(json_integer_value(json_object_get(o, key)), value);
    json_decref(o);
}

static void the_demo_pair_is_recognised(void **state) {
    (void)state;
    expect_kind("configs/demo/stock-assistant", "assistant", "tensor_count", 50);
    expect_kind("configs/demo/stock-assistant", "assistant", "num_assistant_tokens", 6);
    expect_kind("configs/demo/base-target", "target", "layers", 8);
    expect_kind("configs/demo/stock-assistant/model.safetensors", "safetensors", "tensor_count",
                50);
    expect_kind("configs/demo/base-target/tokenizer.json", "tokenizer", "vocab", 8192);
    json_t *o = ok("configs/demo/stock-assistant");
    const json_t *first = json_array_get(json_object_get(o, "tensors"), 0);
    assert_string_equal(json_string_value(json_object_get(first, "name")),
                        "masked_embedding.token_ordering");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(first, "shape"), 0)), 8192);
    json_decref(o);
}

static void results_are_passed_through(void **state) {
    (void)state;
    char path[PATH_ROOM];
    Err err = {0};
    const char *text = "{\"draft_tokens\": [1], \"drafters\": {}, \"prompts\": 12}";
    assert_ok(file_write(path_join(path, test_dir(), "acceptance.json"), text, strlen(text), &err),
              err);
    expect_kind(path, "acceptance", "prompts", 12);
}

static void what_is_nothing_of_ours_is_refused_by_name(void **state) {
    (void)state;
    char path[PATH_ROOM];
    Err err = {0};
    assert_null(describe("configs", &err));
    assert_int_equal(err.code, ERR_INPUT);
    err = (Err){0};
    assert_null(describe("no/such/thing", &err));
    assert_non_null(strstr(err.text, "no/such/thing"));
    err = (Err){0};
    assert_ok(file_write(path_join(path, test_dir(), "cut.safetensors"), "\x40\0\0\0\0\0\0\0{}", 10,
                         &err),
              err);
    assert_null(describe(path, &err));
    assert_int_equal(err.code, ERR_INPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_demo_pair_is_recognised),
        cmocka_unit_test(results_are_passed_through),
        cmocka_unit_test(what_is_nothing_of_ours_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
