// tests/infer/base/stage_test.c
#include "infer/base/stage.h"

#include <string.h>

#include "infer/base/file.h"
#include "tests/testing.h"

static void a_stage_is_done_for_its_own_identity_only(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    path_join(path, test_dir(), "prepare.json");
    json_t *id =
        json_pack("{s:{s:[s], s:f}, s:i}", "data", "train", "a", "dev_fraction", 1.0 / 3, "v", 1);
    json_t *result = json_pack("{s:i}", "prompts", 12);
    assert_int_equal(stage_state(path, id, false, &err), STAGE_ABSENT);
    assert_ok(stage_publish(path, id, result, &err), err);
    assert_int_equal(stage_state(path, id, false, &err),
                     STAGE_DONE); // 1/3 compares as it is written
    json_t *back = stage_result(path, &err);
    assert_true(json_equal(back, result));
    json_decref(back);

    json_object_set_new(json_object_get(id, "data"), "train", json_pack("[s]", "b"));
    assert_int_equal(stage_state(path, id, false, &err), STAGE_ERROR);
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(
        strstr(err.text, "prepare.json was made with data.train [\"a\"], now it is [\"b\"]"));
    assert_non_null(strstr(err.text, "--overwrite"));
    assert_int_equal(stage_state(path, id, true, &err), STAGE_ABSENT);
    assert_true(file_exists(path));
    assert_ok(stage_clear(path, &err), err);
    assert_false(file_exists(path));
    assert_ok(stage_clear(path, &err), err);
    json_decref(id);
    json_decref(result);
}

static void fields_of_one_side_only_are_named(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    path_join(path, test_dir(), "capture.json");
    json_t *was = json_pack("{s:i, s:{s:i}}", "a", 1, "m", "gone", 2);
    json_t *is = json_pack("{s:i, s:{}}", "a", 1, "m");
    assert_ok(stage_publish(path, was, NULL, &err), err);
    assert_int_equal(stage_state(path, is, false, &err), STAGE_ERROR);
    assert_non_null(strstr(err.text, "m.gone 2, now it is absent"));
    err = (Err){0};
    json_object_set_new(json_object_get(is, "m"), "gone", json_integer(2));
    json_object_set_new(is, "fresh", json_string("x"));
    assert_int_equal(stage_state(path, is, false, &err), STAGE_ERROR);
    assert_non_null(strstr(err.text, "fresh absent, now it is \"x\""));
    json_decref(was);
    json_decref(is);
}

static void write_text(const char *path, const char *text) {
    Err err = {0};
    assert_ok(file_write(path, text, strlen(text), &err), err);
}

static void outputs_that_are_gone_or_changed_are_made_again(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM], a[PATH_ROOM], b[PATH_ROOM], dir[PATH_ROOM];
    path_join(path, test_dir(), "outputs.json");
    assert_ok(dir_make(path_join(dir, test_dir(), "sub"), &err), err);
    write_text(path_join(a, test_dir(), "a.bin"), "one");
    write_text(path_join(b, dir, "b.bin"), "two");
    json_t *id = json_pack("{s:i}", "v", 1), *outputs = json_object();
    assert_ok(stage_note_output(outputs, path, "a.bin", &err), err);
    assert_ok(stage_note_output(outputs, path, "sub/b.bin", &err), err);
    assert_ok(stage_publish_outputs(path, id, NULL, outputs, &err), err);
    assert_int_equal(stage_state(path, id, false, &err), STAGE_DONE);
    write_text(b, "tow"); // of the same size
    assert_int_equal(stage_state(path, id, false, &err), STAGE_ABSENT);
    write_text(b, "two");
    assert_int_equal(stage_state(path, id, false, &err), STAGE_DONE);
    assert_int_equal(remove(a), 0);
    assert_int_equal(stage_state(path, id, false, &err), STAGE_ABSENT);
    assert_int_equal(err.code, 0);
    assert_false(stage_note_output(outputs, path, "a.bin", &err));
    assert_int_equal(err.code, ERR_FAILED);
    json_decref(outputs);
    json_decref(id);
}

static void a_damaged_marker_is_an_error_not_a_fresh_start(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    path_join(path, test_dir(), "eval.json");
    json_t *id = json_object();
    assert_ok(file_write(path, "{\"identity\": 3}", 15, &err), err);
    assert_int_equal(stage_state(path, id, false, &err), STAGE_ERROR);
    assert_int_equal(err.code, ERR_INPUT);
    err = (Err){0};
    assert_ok(file_write(path, "half", 4, &err), err);
    assert_int_equal(stage_state(path, id, false, &err), STAGE_ERROR);
    assert_non_null(strstr(err.text, "eval.json"));
    assert_null(stage_result(path, NULL));
    json_decref(id);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stage_is_done_for_its_own_identity_only),
        cmocka_unit_test(fields_of_one_side_only_are_named),
        cmocka_unit_test(outputs_that_are_gone_or_changed_are_made_again),
        cmocka_unit_test(a_damaged_marker_is_an_error_not_a_fresh_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
