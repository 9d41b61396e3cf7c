// tests/infer/base/file_test.c
#include "infer/base/file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/testing.h"

static void paths_are_joined_and_split(void **state) {
    (void)state;
    char p[PATH_ROOM];
    assert_string_equal(path_join(p, "a", "b"), "a/b");
    assert_string_equal(path_join(p, "a/", "b"), "a/b");
    assert_string_equal(path_join(p, "", "b"), "b");
    assert_string_equal(path_base("a/b.json"), "b.json");
    assert_string_equal(path_base("b.json"), "b.json");
}

static void folders_are_made_listed_and_removed(void **state) {
    (void)state;
    Err err = {0};
    char deep[PATH_ROOM], root[PATH_ROOM], link[PATH_ROOM], outside[PATH_ROOM];
    path_join(root, test_dir(), "tree");
    path_join(deep, root, "one/two//three/");
    assert_ok(dir_make(deep, &err), err);
    assert_ok(dir_make(deep, &err), err); // again: fine
    assert_true(dir_exists(deep));
    path_join(outside, test_dir(), "outside");
    assert_ok(dir_make(outside, &err), err);
    path_join(link, root, "link");
    assert_int_equal(symlink(outside, link), 0);
    char file[PATH_ROOM];
    path_join(file, root, "b.txt");
    assert_ok(file_write(file, "x", 1, &err), err);
    int n = 0;
    char **names = dir_list(root, &n, &err);
    assert_non_null(names);
    assert_int_equal(n, 3);
    assert_string_equal(names[0], "b.txt");
    assert_string_equal(names[1], "link");
    assert_string_equal(names[2], "one");
    dir_list_free(names, n);
    assert_ok(dir_remove(root, &err), err);
    assert_false(dir_exists(root));
    assert_true(dir_exists(outside)); // a link is removed, never followed
    assert_ok(dir_remove(root, &err), err);
}

static void a_file_in_the_way_of_a_folder_is_named(void **state) {
    (void)state;
    Err err = {0};
    char file[PATH_ROOM], below[PATH_ROOM];
    path_join(file, test_dir(), "plain");
    path_join(below, file, "sub");
    assert_ok(file_write(file, "x", 1, &err), err);
    assert_false(dir_make(below, &err));
    assert_non_null(strstr(err.text, file));
    err = (Err){0};
    assert_false(dir_make(file, &err));
    assert_non_null(strstr(err.text, "not a folder"));
}

static void reading_respects_the_limit(void **state) {
    (void)state;
    Err err = {0};
    char file[PATH_ROOM];
    size_t n = 0;
    path_join(file, test_dir(), "ten");
    assert_ok(file_write(file, "0123456789", 10, &err), err);
    char *text = file_read(file, 10, &n, &err);
    assert_non_null(text);
    assert_int_equal(n, 10);
    assert_string_equal(text, "0123456789");
    free(text);
    assert_null(file_read(file, 9, &n, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "10 bytes, at most 9"));
}

static void what_is_no_file_is_refused(void **state) {
    (void)state;
    Err err = {0};
    size_t n;
    int64_t size;
    assert_null(file_read("/nonexistent/x", 10, &n, &err));
    assert_int_equal(err.code, ERR_FAILED);
    assert_string_equal(err.text, "/nonexistent/x: No such file or directory");
    err = (Err){0};
    assert_null(file_read(test_dir(), 1 << 20, &n, &err));
    assert_int_equal(err.code, ERR_INPUT);
    err = (Err){0};
    assert_false(file_size(test_dir(), &size, &err));
    assert_false(file_exists(test_dir()));
    assert_null(dir_list("/nonexistent", &(int){0}, NULL));
}

static void free_space_is_asked_of_the_nearest_folder(void **state) {
    (void)state;
    char missing[PATH_ROOM];
    path_join(missing, test_dir(), "not/yet/there");
    assert_true(disk_free_bytes(missing) > 0);
    assert_true(disk_free_bytes("also/not/there") > 0);
    assert_true(disk_free_bytes("/nonexistent/x") > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_joined_and_split),
        cmocka_unit_test(folders_are_made_listed_and_removed),
        cmocka_unit_test(a_file_in_the_way_of_a_folder_is_named),
        cmocka_unit_test(reading_respects_the_limit),
        cmocka_unit_test(what_is_no_file_is_refused),
        cmocka_unit_test(free_space_is_asked_of_the_nearest_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
