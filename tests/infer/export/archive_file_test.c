// tests/infer/export/archive_file_test.c - archives hold every file, in every time zone the same
// bytes.
#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "infer/base/hash.h"
#include "infer/export/archive_file.h"
#include "tests/testing.h"

static char *in_dir(char out[PATH_ROOM], const char *name) {
    return path_join(out, test_dir(), name);
}

// Two folders: one file, and one file beside a folder with one file.
static void make_folders(char one[PATH_ROOM], char two[PATH_ROOM]) {
    Err err = {0};
    char path[PATH_ROOM];
    static char large[300000];
    memset(large, 'x', sizeof large);
    assert_ok(dir_make(in_dir(one, "one"), &err), err);
    in_dir(two, "two");
    assert_ok(dir_make(path_join(path, two, "inner"), &err), err);
    assert_ok(file_write(path_join(path, one, "b"), "12345", 5, &err), err);
    assert_ok(file_write(path_join(path, one, "a"), "", 0, &err), err);
    assert_ok(file_write(path_join(path, two, "inner/z"), large, sizeof large, &err), err);
    assert_ok(file_write(path_join(path, two, "c"), "c", 1, &err), err);
}

static void holds(const char *path) {
    static const struct {
        const char *name;
        int64_t size;
    } WANT[] = {{"two/c", 1}, {"two/inner/z", 300000}, {"one/a", 0}, {"one/b", 5}};
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    archive_read_support_format_tar(a);
    archive_read_support_format_zip(a);
    assert_int_equal(archive_read_open_filename(a, path, 1 << 16), ARCHIVE_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(archive_read_next_header(a, &e), ARCHIVE_OK);
        assert_string_equal(archive_entry_pathname(e), WANT[i].name);
        assert_int_equal(archive_entry_size(e), WANT[i].size);
        assert_int_equal(archive_entry_uid(e), 0);
        assert_int_equal(archive_entry_perm(e), 0644);
        assert_int_equal(archive_read_data_skip(a), ARCHIVE_OK);
    }
    assert_int_equal(archive_read_next_header(a, &e), ARCHIVE_EOF);
    archive_read_free(a);
}

static void archives_are_whole_and_the_same_everywhere(void **state) {
    (void)state;
    static const char *const NAMES[] = {"x.tar", "x.zip"};
    static const char *const ZONES[] = {"UTC0", "XXX-9"};
    Err err = {0};
    char one[PATH_ROOM], two[PATH_ROOM], path[PATH_ROOM], file[PATH_ROOM];
    make_folders(one, two);
    const char *const dirs[] = {two, one};
    for (int k = 0; k < 2; k++) {
        Sha256 sha[2];
        for (int i = 0; i < 2; i++) {
            setenv("TZ", ZONES[i], 1);
            tzset();
            assert_ok(archive_folders(in_dir(path, NAMES[k]), dirs, 2, &err), err);
            assert_string_equal(getenv("TZ"), ZONES[i]);
            assert_ok(sha256_file(&sha[i], path, &err), err);
            // written again at another time
            assert_ok(file_write(path_join(file, one, "b"), "12345", 5, &err), err);
        }
        unsetenv("TZ");
        tzset();
        assert_string_equal(sha[0].hex, sha[1].hex);
        holds(path);
    }
}

static void what_cannot_be_packed_leaves_nothing(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM], none[PATH_ROOM], tmp[PATH_ROOM];
    assert_false(
        archive_folders(in_dir(path, "x.rar"), (const char *const[]){test_dir()}, 1, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "must end in .tar or .zip"));
    err = (Err){0};
    in_dir(none, "nowhere");
    assert_false(archive_folders(in_dir(path, "y.tar"), (const char *const[]){none}, 1, &err));
    assert_non_null(strstr(err.text, "nowhere"));
    assert_false(file_exists(path) || file_exists(in_dir(tmp, "y.tar.tmp")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(archives_are_whole_and_the_same_everywhere),
        cmocka_unit_test(what_cannot_be_packed_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
