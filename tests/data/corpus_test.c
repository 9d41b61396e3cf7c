// tests/data/corpus_test.c - shapes, containers and limits of the corpus reader.
#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/corpus.h"
#include "infer/base/file.h"
#include "infer/base/utf8.h"
#include "tests/testing.h"

static char *put(const char *name, const void *data, size_t size) {
    static char path[8][PATH_ROOM];
    static int turn;
    Err err = {0};
    char *p = path_join(path[turn++ % 8], test_dir(), name);
    assert_ok(file_write(p, data, size, &err), err);
    return p;
}

static char *put_text(const char *name, const char *text) {
    return put(name, text, strlen(text));
}

// Packs `size` bytes with one libarchive filter over the raw format; 0 = plain.
static char *put_packed(const char *name, int filter, const char *data, size_t size, size_t keep) {
    char *out = malloc(size + (1 << 20));
    size_t used = 0;
    struct archive *a = archive_write_new();
    assert_int_equal(archive_write_add_filter(a, filter), ARCHIVE_OK);
    archive_write_set_format_raw(a);
    assert_int_equal(archive_write_open_memory(a, out, size + (1 << 20), &used), ARCHIVE_OK);
    struct archive_entry *e = archive_entry_new();
    archive_entry_set_filetype(e, AE_IFREG);
    archive_write_header(a, e);
    assert_int_equal(archive_write_data(a, data, size), (la_ssize_t)size);
    archive_entry_free(e);
    archive_write_close(a);
    archive_write_free(a);
    char *path = put(name, out, keep && keep < used ? keep : used);
    free(out);
    return path;
}

// Lines read, or -1 with err set; the last place seen in where.
static int64_t count(const char *path, char where[512], Err *err) {
    Corpus *c = corpus_open(path, err);
    if (!c) return -1;
    CorpusLine line = {0};
    int64_t n = 0;
    int rc;
    while ((rc = corpus_next(c, &line, err)) > 0) {
        n++;
        assert_true(json_is_object(line.value));
        assert_true(line.line > 0);
        if (where) strcpy(where, line.where);
    }
    corpus_close(c);
    return rc < 0 ? -1 : n;
}

static void lines_are_read_in_order_and_blank_ones_are_skipped(void **state) {
    (void)state;
    Err err = {0};
    char where[512];
    const char *p = put_text("a.jsonl", "{\"a\":1}\n\n  \t\r\n{\"a\":2}\r\n{\"a\":3}");
    assert_int_equal(count(p, where, &err), 3);
    assert_string_equal(where, "a.jsonl:5");
}

static void an_empty_file_has_no_lines(void **state) {
    (void)state;
    Err err = {0};
    assert_int_equal(count(put_text("empty.jsonl", ""), NULL, &err), 0);
    assert_int_equal(count(put_text("blank.jsonl", "\n\n"), NULL, &err), 0);
    assert_int_equal(err.code, 0);
}

static void every_filter_gives_the_same_lines(void **state) {
    (void)state;
    const char *text = "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n";
    const int filter[] = {ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_ZSTD, ARCHIVE_FILTER_XZ};
    for (int i = 0; i < 3; i++) {
        Err err = {0};
        const char *p = put_packed("packed", filter[i], text, strlen(text), 0);
        assert_int_equal(count(p, NULL, &err), 3);
    }
}

static void a_truncated_stream_is_an_error_and_not_an_end(void **state) {
    (void)state;
    // Lines that do not compress to nothing, so that a cut falls between whole lines somewhere.
    char *text = malloc(4 << 20);
    size_t n = 0;
    for (int i = 0; i < 8000; i++)
        n += (size_t)sprintf(text + n, "{\"n\":%d,\"x\":\"%08x%08x\"}\n", i, i * 2654435761u,
                             ~i * 40503u);
    const int filter[] = {ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_ZSTD, ARCHIVE_FILTER_XZ};
    for (int i = 0; i < 3; i++) {
        Err err = {0};
        assert_int_equal(count(put_packed("whole", filter[i], text, n, 0), NULL, &err), 8000);
        for (size_t keep = 64; keep < 40000; keep = keep * 4 + 1) {
            err = (Err){0};
            assert_int_equal(count(put_packed("cut", filter[i], text, n, keep), NULL, &err), -1);
            assert_int_equal(err.code, ERR_INPUT);
        }
    }
    free(text);
}

static void what_is_not_an_object_is_refused_with_its_line(void **state) {
    (void)state;
    const char *bad[] = {"{\"a\":1}\nnot json\n", "{}\n[1]\n",   "{}\n{\"a\":1,\"a\":2}\n",
                         "{}\n{\"a\":1} x\n",     "{}\n\"s\"\n", "{}\n{\"a\":\"\xff\"}\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Err err = {0};
        assert_int_equal(count(put_text("bad.jsonl", bad[i]), NULL, &err), -1);
        assert_int_equal(err.code, ERR_INPUT);
        assert_true(strncmp(err.text, "bad.jsonl:2: ", 13) == 0);
    }
}

static void absent_files_and_folders_are_named(void **state) {
    (void)state;
    Err err = {0};
    assert_null(corpus_open("/nonexistent/x.jsonl", &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "/nonexistent/x.jsonl"));
    err = (Err){0};
    assert_null(corpus_open(test_dir(), &err));
    assert_int_equal(err.code, ERR_INPUT);
}

// The disk's fault is no bad input: this file cannot be read at its beginning by anybody.
static void what_cannot_be_read_is_a_failure_with_the_systems_reason(void **state) {
    (void)state;
    Err err = {0};
    assert_int_equal(count("/proc/self/mem", NULL, &err), -1);
    assert_int_equal(err.code, ERR_FAILED);
    assert_string_equal(err.text, "/proc/self/mem: Input/output error");
}

static void a_line_over_the_limit_is_refused(void **state) {
    (void)state;
    const size_t n = (64u << 20) + 10;
    char *text = malloc(n);
    memset(text, 'x', n);
    text[0] = '{';
    Err err = {0};
    assert_int_equal(count(put("long.jsonl", text, n), NULL, &err), -1);
    assert_non_null(strstr(err.text, "long.jsonl:1: line longer"));
    free(text);
}

static void a_bomb_is_refused_by_its_ratio(void **state) {
    (void)state;
    const size_t n = 96u << 20;
    char *text = malloc(n); // blank lines: only the ratio can stop it
    memset(text, ' ', n);
    for (size_t i = 0; i < n; i += 4096) text[i] = '\n';
    Err err = {0};
    assert_int_equal(count(put_packed("bomb.zst", ARCHIVE_FILTER_ZSTD, text, n, 0), NULL, &err),
                     -1);
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "over the limit of 1000 : 1"));
    err = (Err){0};
    assert_int_equal(count(put("plain.jsonl", text, n), NULL, &err), 0);
    free(text);
}

static void add_member(struct archive *a, const char *name, int type, const char *text) {
    struct archive_entry *e = archive_entry_new();
    archive_entry_set_pathname(e, name);
    archive_entry_set_filetype(e, (unsigned)type);
    archive_entry_set_perm(e, 0644);
    if (type == AE_IFLNK) archive_entry_set_symlink(e, "/etc/passwd");
    archive_entry_set_size(e, type == AE_IFREG ? (la_int64_t)strlen(text) : 0);
    assert_true(archive_write_header(a, e) >= ARCHIVE_WARN);
    if (type == AE_IFREG) archive_write_data(a, text, strlen(text));
    archive_entry_free(e);
}

static void members_of_tar_and_zip_are_read_and_links_are_skipped(void **state) {
    (void)state;
    for (int zip = 0; zip < 2; zip++) {
        char out[65536], where[512];
        size_t used = 0;
        struct archive *a = archive_write_new();
        if (zip)
            archive_write_set_format_zip(a);
        else
            archive_write_set_format_pax_restricted(a);
        archive_write_open_memory(a, out, sizeof out, &used);
        add_member(a, "d", AE_IFDIR, "");
        add_member(a, "../../one.jsonl", AE_IFREG, "{\"a\":1}\n{\"a\":2}");
        add_member(a, "link", AE_IFLNK, "");
        add_member(a, "none.jsonl", AE_IFREG, "");
        add_member(a, "t\x1bwo.jsonl", AE_IFREG, "\n{\"a\":3}\n");
        archive_write_close(a);
        archive_write_free(a);
        Err err = {0};
        const char *p = put(zip ? "x.zip" : "x.tar", out, used);
        assert_int_equal(count(p, where, &err), 3);
        assert_string_equal(where, zip ? "x.zip(t?wo.jsonl):2" : "x.tar(t?wo.jsonl):2");
        Corpus *c = corpus_open(p, &err);
        CorpusLine line;
        while (corpus_next(c, &line, &err) > 0) {
        }
        assert_int_equal(corpus_skipped(c), 1); // the link
        corpus_close(c);
    }
}

static void names_are_printable_and_text_wherever_they_are_cut(void **state) {
    (void)state;
    const char *names[] = {"gr\u00fcn.jsonl", "gr\xfcn.jsonl", "a\nb\xe2\x82.jsonl"};
    const char *said[] = {"n.tar(gr\u00fcn.jsonl):1", "n.tar(gr?n.jsonl):1", "n.tar(a?b?.jsonl):1"};
    for (int i = 0; i < 3; i++) {
        char out[65536], where[512];
        size_t used = 0;
        Err err = {0};
        struct archive *a = archive_write_new();
        archive_write_set_format_ustar(a);
        archive_write_open_memory(a, out, sizeof out, &used);
        add_member(a, names[i], AE_IFREG, "{\"a\":1}\n");
        archive_write_close(a);
        archive_write_free(a);
        assert_int_equal(count(put("n.tar", out, used), where, &err), 1);
        assert_string_equal(where, said[i]);
    }
    char name[256] = "", where[512];
    for (int i = 0; i < 100; i++) strcat(name, "\u00e9"); // 200 bytes: one more than is shown
    strcat(name, ".jsonl");
    Err err = {0};
    assert_int_equal(count(put_text(name, "{}\n"), where, &err), 1);
    assert_int_equal(strlen(where), 198 + 2);
    assert_true(utf8_valid(where, strlen(where)));
    assert_int_equal(count(put_text("bad.jsonl", "{\"a\":\"\x01\xff\n"), NULL, &err), -1);
    assert_true(utf8_valid(err.text, strlen(err.text)) && strpbrk(err.text, "\x01\n") == NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_read_in_order_and_blank_ones_are_skipped),
        cmocka_unit_test(an_empty_file_has_no_lines),
        cmocka_unit_test(every_filter_gives_the_same_lines),
        cmocka_unit_test(a_truncated_stream_is_an_error_and_not_an_end),
        cmocka_unit_test(what_is_not_an_object_is_refused_with_its_line),
        cmocka_unit_test(absent_files_and_folders_are_named),
        cmocka_unit_test(what_cannot_be_read_is_a_failure_with_the_systems_reason),
        cmocka_unit_test(a_line_over_the_limit_is_refused),
        cmocka_unit_test(a_bomb_is_refused_by_its_ratio),
        cmocka_unit_test(members_of_tar_and_zip_are_read_and_links_are_skipped),
        cmocka_unit_test(names_are_printable_and_text_wherever_they_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
