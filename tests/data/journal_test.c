// tests/data/journal_test.c - whole lines count, torn and damaged ones do not.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/journal.h"
#include "tests/testing.h"

static char *path(void) {
    static char p[PATH_ROOM];
    return path_join(p, test_dir(), "x.journal");
}

static Journal reopen(const char *identity) {
    Journal j;
    Err err = {0};
    assert_ok(journal_open(&j, path(), identity, false, &err), err);
    return j;
}

static void write_lines(int from, int to) {
    Err err = {0};
    Journal j = reopen("me");
    assert_int_equal(j.n, from);
    assert_ok(journal_keep(&j, j.n, &err), err);
    for (int i = from; i < to; i++) {
        char text[64];
        snprintf(text, sizeof text, "{\"line\":%d}", i);
        assert_ok(journal_add(&j, text, &err), err);
    }
    assert_ok(journal_sync(&j, &err), err);
    journal_close(&j);
}

static void check_lines(int n) {
    Journal j = reopen("me");
    assert_int_equal(j.n, n);
    for (int i = 0; i < n; i++) {
        char want[64];
        size_t size;
        snprintf(want, sizeof want, "{\"line\":%d}", i);
        const char *text = journal_line(&j, i, &size);
        assert_int_equal(size, strlen(want));
        assert_memory_equal(text, want, size);
    }
    journal_close(&j);
}

static void lines_are_kept_over_openings(void **state) {
    (void)state;
    write_lines(0, 3);
    check_lines(3);
    write_lines(3, 20);
    check_lines(20);
    write_lines(20, 20);
    check_lines(20);
}

static void a_cut_at_any_byte_leaves_whole_lines_that_can_be_continued(void **state) {
    (void)state;
    Err err = {0};
    size_t size;
    char *all = file_read(path(), 1 << 20, &size, &err);
    for (size_t keep = 0; keep <= size; keep += 7) {
        int whole = -1; // the identity is a line, too
        for (size_t i = 0; i < keep; i++) whole += all[i] == '\n';
        assert_ok(file_write(path(), all, keep, &err), err);
        if (whole < 0) whole = 0;
        check_lines(whole);
        write_lines(whole, 20);
        size_t again;
        char *end = file_read(path(), 1 << 20, &again, &err);
        assert_int_equal(again, size);
        assert_memory_equal(end, all, size);
        free(end);
    }
    free(all);
}

static void a_damaged_line_ends_what_counts(void **state) {
    (void)state;
    Err err = {0};
    size_t size;
    char *all = file_read(path(), 1 << 20, &size, &err);
    for (size_t at = 0; at < size; at += 3) {
        int line = -1;
        for (size_t i = 0; i < at; i++) line += all[i] == '\n';
        all[at] ^= 1;
        assert_ok(file_write(path(), all, size, &err), err);
        check_lines(line < 0 ? 0 : line);
        all[at] ^= 1;
    }
    assert_ok(file_write(path(), all, size, &err), err);
    free(all);
}

static void fewer_lines_can_be_kept(void **state) {
    (void)state;
    Err err = {0};
    Journal j = reopen("me");
    assert_ok(journal_keep(&j, 7, &err), err);
    journal_close(&j);
    check_lines(7);
}

static void work_of_another_identity_is_dropped_only_when_told(void **state) {
    (void)state;
    Err err = {0};
    Journal j;
    assert_false(journal_open(&j, path(), "you", false, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "x.journal: 7 finished answers of other settings"));
    check_lines(7); // untouched
    err = (Err){0};
    assert_ok(journal_open(&j, path(), "you", true, &err), err);
    assert_int_equal(j.n, 0);
    journal_close(&j);
    check_lines(0); // nothing was finished for "you": no reason to refuse
}

// The lines a test wrote to stderr.
static char *said(void (*action)(void)) {
    static char text[4096];
    char file[PATH_ROOM];
    fflush(stderr);
    const int kept = dup(2),
              fd = open(path_join(file, test_dir(), "stderr"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    dup2(fd, 2);
    action();
    fflush(stderr);
    dup2(kept, 2);
    const ssize_t n = pread(fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    close(fd);
    close(kept);
    return text;
}

static void look(void) {
    Journal j = reopen("me");
    journal_close(&j);
}

static void lost_lines_are_told_a_torn_one_is_not(void **state) {
    (void)state;
    Err err = {0};
    size_t size;
    write_lines(0, 9);
    char *all = file_read(path(), 1 << 20, &size, &err);
    assert_string_equal(said(look), "");
    assert_ok(file_write(path(), all, size - 5, &err), err);
    assert_string_equal(said(look), "");
    char *third = all;
    for (int i = 0; i < 3; i++) third = strchr(third, '\n') + 1;
    third[20] ^= 1;
    assert_ok(file_write(path(), all, size, &err), err);
    if (!strstr(said(look), "x.journal: damaged behind line 2")) fail_msg("%s", said(look));
    all[3] ^= 1;
    assert_ok(file_write(path(), all, size, &err), err);
    if (!strstr(said(look), "x.journal: damaged behind line 0")) fail_msg("%s", said(look));
    free(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_kept_over_openings),
        cmocka_unit_test(a_cut_at_any_byte_leaves_whole_lines_that_can_be_continued),
        cmocka_unit_test(a_damaged_line_ends_what_counts),
        cmocka_unit_test(fewer_lines_can_be_kept),
        cmocka_unit_test(work_of_another_identity_is_dropped_only_when_told),
        cmocka_unit_test(lost_lines_are_told_a_torn_one_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
