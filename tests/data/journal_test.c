// tests/data/journal_test.c - whole lines count, torn and damaged ones do not.
#include <stdlib.h>
#include <string.h>

#include "data/journal.h"
#include "tests/testing.h"

static char *path(void) {
    static char p[PATH_ROOM];
    return path_join(p, test_dir(), "x.journal");
}

static Journal reopen(const char *identity) {
    Journal j;
    Err err = {0};
    assert_ok(journal_open(&j, path(), identity, &err), err);
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

static void another_identity_starts_anew(void **state) {
    (void)state;
    Journal j = reopen("you");
    assert_int_equal(j.n, 0);
    journal_close(&j);
    check_lines(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_kept_over_openings),
        cmocka_unit_test(a_cut_at_any_byte_leaves_whole_lines_that_can_be_continued),
        cmocka_unit_test(a_damaged_line_ends_what_counts),
        cmocka_unit_test(fewer_lines_can_be_kept),
        cmocka_unit_test(another_identity_starts_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
