// tests/infer/base/outfile_test.c
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "infer/base/cli.h"
#include "infer/base/file.h"
#include "tests/testing.h"

static char *text_of(const char *path) { // caller frees
    size_t n;
    Err err = {0};
    char *text = file_read(path, 1 << 24, &n, &err);
    if (text == NULL) fail_msg("%s", err.text);
    return text;
}

static void assert_only_in(const char *dir, const char *name) { // name NULL: nothing
    int n = 0;
    Err err = {0};
    char **names = dir_list(dir, &n, &err);
    assert_non_null(names);
    assert_int_equal(n, name != NULL);
    if (name != NULL) assert_string_equal(names[0], name);
    dir_list_free(names, n);
}

static const char *fresh(const char *name) {
    static char dir[PATH_ROOM];
    Err err = {0};
    path_join(dir, test_dir(), name);
    assert_ok(dir_make(dir, &err), err);
    return dir;
}

static void nothing_is_seen_before_commit(void **state) {
    (void)state;
    Err err = {0};
    OutFile f;
    char path[PATH_ROOM];
    const char *dir = fresh("commit");
    path_join(path, dir, "a.txt");
    assert_ok(file_write(path, "old", 3, &err), err);
    assert_ok(out_open(&f, path, &err), err);
    out_printf(&f, "n = %d\n", 7);
    char *text = text_of(path);
    assert_string_equal(text, "old");
    free(text);
    assert_ok(out_commit(&f, &err), err);
    text = text_of(path);
    assert_string_equal(text, "n = 7\n");
    free(text);
    assert_only_in(dir, "a.txt");
    out_drop(&f); // closed: nothing happens
}

static void a_dropped_file_leaves_nothing(void **state) {
    (void)state;
    Err err = {0};
    OutFile f;
    char path[PATH_ROOM];
    const char *dir = fresh("drop");
    path_join(path, dir, "a.txt");
    assert_ok(out_open(&f, path, &err), err);
    out_write(&f, "x", 1);
    out_drop(&f);
    assert_only_in(dir, NULL);
}

static void large_and_small_writes_keep_their_order(void **state) {
    (void)state;
    Err err = {0};
    OutFile f;
    char path[PATH_ROOM];
    static char expected[3000000];
    size_t n = 0;
    path_join(path, test_dir(), "mixed.bin");
    assert_ok(out_open(&f, path, &err), err);
    for (int i = 0; i < 40; i++) {
        const size_t size = i % 7 == 3 ? 150001 : (size_t)(i * 113);
        memset(expected + n, 'a' + i % 26, size);
        if (i % 7 == 5)
            out_printf(&f, "%.*s", (int)size, expected + n); // longer than its buffer
        else
            out_write(&f, expected + n, size);
        n += size;
    }
    assert_int_equal(f.written, n);
    assert_ok(out_commit(&f, &err), err);
    char *text = text_of(path);
    assert_int_equal(strlen(text), n);
    assert_memory_equal(text, expected, n);
    free(text);
}

static void a_second_writer_is_refused(void **state) {
    (void)state;
    Err err = {0};
    OutFile a, b;
    char path[PATH_ROOM];
    path_join(path, test_dir(), "shared.txt");
    assert_ok(out_open(&a, path, &err), err);
    assert_false(out_open(&b, path, &err));
    assert_non_null(strstr(err.text, "another process"));
    out_drop(&b);
    out_drop(&a);
    err = (Err){0};
    assert_ok(out_open(&b, path, &err), err);
    out_drop(&b);
}

static void what_a_killed_writer_left_is_overwritten(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    const char *dir = fresh("killed");
    path_join(path, dir, "a.txt");
    const pid_t child = fork();
    if (child == 0) {
        OutFile f;
        if (!out_open(&f, path, NULL)) _exit(1);
        for (int i = 0; i < 100000; i++) out_printf(&f, "half a file ");
        raise(SIGKILL);
    }
    int status = 0;
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
    assert_false(file_exists(path));
    assert_ok(file_write(path, "whole", 5, &err), err);
    char *text = text_of(path);
    assert_string_equal(text, "whole");
    free(text);
    assert_only_in(dir, "a.txt");
}

// The old file stays, the error says how much and why, nothing else is left.
static void assert_refused(const char *dir, size_t size, const char *why) {
    Err err = {0};
    OutFile f;
    char path[PATH_ROOM];
    path_join(path, dir, "kept.txt");
    char *block = calloc(1, size);
    assert_ok(out_open(&f, path, &err), err);
    out_write(&f, block, size);
    free(block);
    assert_false(out_commit(&f, &err));
    assert_int_equal(err.code, ERR_FAILED);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, why));
    char *text = text_of(path);
    assert_string_equal(text, "old");
    free(text);
    assert_only_in(dir, "kept.txt");
}

static void a_file_size_limit_is_reported(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    const char *dir = fresh("limit");
    path_join(path, dir, "kept.txt");
    assert_ok(file_write(path, "old", 3, &err), err);
    signals_ignore_write(); // SIGXFSZ ignored: the write returns EFBIG
    struct rlimit was, small = {.rlim_cur = 100000};
    getrlimit(RLIMIT_FSIZE, &was);
    small.rlim_max = was.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_refused(dir, 300000, "File too large");
    setrlimit(RLIMIT_FSIZE, &was);
}

static void a_full_disk_is_reported(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    const char *dir = fresh("tiny");
    // In a mount namespace of its own, so that it ends with this program.
    if (unshare(CLONE_NEWNS) != 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", dir, "tmpfs", 0, "size=128k") != 0) {
        print_message("skipped: mounting a 128 KiB tmpfs: %s\n", strerror(errno));
        skip();
    }
    path_join(path, dir, "kept.txt");
    assert_ok(file_write(path, "old", 3, &err), err);
    assert_refused(dir, 300000, "No space left on device");
    umount(dir);
}

static void copies_are_equal_and_atomic(void **state) {
    (void)state;
    Err err = {0};
    char from[PATH_ROOM], to[PATH_ROOM];
    path_join(from, test_dir(), "from");
    path_join(to, fresh("copy"), "to");
    assert_ok(file_write(from, "same", 4, &err), err);
    assert_ok(file_copy(from, to, &err), err);
    char *text = text_of(to);
    assert_string_equal(text, "same");
    free(text);
    assert_false(file_copy("/nonexistent", to, &err));
    assert_true(file_exists(to));
    err = (Err){0};
    assert_false(file_copy(from, "/nonexistent/to", &err));
    assert_int_equal(err.code, ERR_FAILED);
}

static void a_finished_folder_is_renamed_into_place(void **state) {
    (void)state;
    Err err = {0};
    char tmp[PATH_ROOM], final[PATH_ROOM];
    path_join(tmp, test_dir(), "step-1.tmp");
    path_join(final, test_dir(), "step-1");
    assert_ok(dir_make(tmp, &err), err);
    assert_ok(path_publish(tmp, final, &err), err);
    assert_true(dir_exists(final));
    assert_false(path_publish(tmp, final, &err));
    assert_non_null(strstr(err.text, tmp));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_seen_before_commit),
        cmocka_unit_test(a_dropped_file_leaves_nothing),
        cmocka_unit_test(large_and_small_writes_keep_their_order),
        cmocka_unit_test(a_second_writer_is_refused),
        cmocka_unit_test(what_a_killed_writer_left_is_overwritten),
        cmocka_unit_test(a_file_size_limit_is_reported),
        cmocka_unit_test(a_full_disk_is_reported),
        cmocka_unit_test(copies_are_equal_and_atomic),
        cmocka_unit_test(a_finished_folder_is_renamed_into_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
