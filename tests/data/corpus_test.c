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
    CorpusStep rc;
    while ((rc = corpus_next(c, &line, err)) > 0) {
        n++;
        assert_true(json_is_object(line.value));
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

typedef struct {
    const char *name;
    int type;
    const char *text;
} Member;

// An archive of these members, up to one without a name.
static char *put_archive(const char *name, bool zip, const Member *m) {
    static char out[1 << 16];
    size_t used = 0;
    struct archive *a = archive_write_new();
    if (zip)
        archive_write_set_format_zip(a);
    else
        archive_write_set_format_pax_restricted(a);
    archive_write_open_memory(a, out, sizeof out, &used);
    for (; m->name; m++) add_member(a, m->name, m->type, m->text);
    archive_write_close(a);
    archive_write_free(a);
    return put(name, out, used);
}

// Every object of a file, "where value media" one a line, then the members skipped; or the refusal.
static char *listed(const char *path) {
    static char text[4096];
    size_t n = 0;
    Err err = {0};
    CorpusLine line = {0};
    CorpusStep step;
    Corpus *c = corpus_open(path, &err);
    assert_ok(c, err);
    while ((step = corpus_next(c, &line, &err)) == CORPUS_LINE) {
        char *value = json_dumps(line.value, JSON_COMPACT);
        n += (size_t)snprintf(text + n, sizeof text - n, "%s %s%s\n", line.where, value,
                              line.media ? " media" : "");
        free(value);
    }
    if (step == CORPUS_END)
        snprintf(text + n, sizeof text - n, "%d skipped", (int)corpus_skipped(c));
    else
        snprintf(text + n, sizeof text - n, "%d: %s", (int)step, err.text);
    corpus_close(c);
    return text;
}

static void members_of_tar_and_zip_are_read_and_what_is_no_corpus_is_skipped(void **state) {
    (void)state;
    const Member all[] = {{"d", AE_IFDIR, ""},
                          {"../../one.jsonl", AE_IFREG, "{\"a\":1}\n{\"a\":2}"},
                          {"/etc/none.jsonl", AE_IFREG, ""},
                          {"README.md", AE_IFREG, "no JSON"},
                          {"a/._one.jsonl", AE_IFREG, "\x01\x02"},
                          {"t\x1bwo", AE_IFREG, "\n{\"a\":3}\n"},
                          {NULL, 0, NULL}};
    const char *want = "x.%s(../../one.jsonl):1 {\"a\":1}\nx.%s(../../one.jsonl):2 {\"a\":2}\n"
                       "x.%s(t?wo):2 {\"a\":3}\n2 skipped";
    for (int zip = 0; zip < 2; zip++) {
        char expected[512];
        const char *kind = zip ? "zip" : "tar";
        snprintf(expected, sizeof expected, want, kind, kind, kind);
        assert_string_equal(listed(put_archive(zip ? "x.zip" : "x.tar", zip, all)), expected);
    }
}

// A zip tells its links at its end only, which is not read: they are the text they hold.
static void links_are_never_followed(void **state) {
    (void)state;
    const Member all[] = {
        {"link.jsonl", AE_IFLNK, ""}, {"b.jsonl", AE_IFREG, "{\"a\":1}\n"}, {NULL, 0, NULL}};
    assert_string_equal(listed(put_archive("l.tar", false, all)),
                        "l.tar(b.jsonl):1 {\"a\":1}\n1 skipped");
    const char *said = listed(put_archive("l.zip", true, all));
    if (!strstr(said, "-1: l.zip(link.jsonl):1: not a JSON object")) fail_msg("%s", said);
}

static void packs_inside_of_packs_are_refused_by_name(void **state) {
    (void)state;
    const char *names[] = {"a.jsonl.gz", "b.TAR", "c.parquet", "d/e.tar.zst"};
    for (int i = 0; i < 4; i++) {
        const Member all[] = {{names[i], AE_IFREG, "x"}, {NULL, 0, NULL}};
        char expected[256];
        snprintf(expected, sizeof expected,
                 "-2: p.tar(%s): packed inside of a pack; unpack it first", names[i]);
        assert_string_equal(listed(put_archive("p.tar", false, all)), expected);
    }
}

// WebDataset: members with the name up to the first dot are one sample.
static void members_of_one_basename_are_one_object(void **state) {
    (void)state;
    const Member all[] = {{"s/001.json", AE_IFREG, "{\n \"a\": 1\n}\n"},
                          {"s/001.txt", AE_IFREG, "beside it"},
                          {"s/002.jpg", AE_IFREG, "\xff\xd8"},
                          {"s/002.json", AE_IFREG, "{\"a\":2}"},
                          {"s/003.json", AE_IFREG, "{\"a\":3}"},
                          {"s/003.cls", AE_IFREG, "7"},
                          {"s/003.wav", AE_IFREG, "RIFF"},
                          {"s/004.json", AE_IFREG, " \n"},
                          {"s/005.txt", AE_IFREG, "without an object"},
                          {"s/006.json", AE_IFREG, "{\"a\":6}"},
                          {NULL, 0, NULL}};
    assert_string_equal(listed(put_archive("w.tar", false, all)),
                        "w.tar(s/001.json) {\"a\":1}\nw.tar(s/002.json) {\"a\":2} media\n"
                        "w.tar(s/003.json) {\"a\":3} media\nw.tar(s/006.json) {\"a\":6}\n"
                        "2 skipped");
    const Member list[] = {{"all.json", AE_IFREG, "[{\"a\":1}]"}, {NULL, 0, NULL}};
    assert_string_equal(listed(put_archive("w.tar", false, list)),
                        "-1: w.tar(all.json): not a JSON object");
}

// A bad line is told, and the ones behind it are read.
static void reading_goes_on_behind_a_bad_line(void **state) {
    (void)state;
    const size_t n = 20u << 20;
    char *text = malloc(n);
    memset(text, ' ', n);
    const char *head = "{\"a\":1}\nno\n{\"a\":\"", *tail = "\"}\n{\"a\":4}";
    memcpy(text, head, strlen(head));
    memcpy(text + n - strlen(tail), tail, strlen(tail));
    Err err = {0};
    CorpusLine line;
    Corpus *c = corpus_open(put("long.jsonl", text, n), &err);
    assert_ok(c, err);
    assert_int_equal(corpus_next(c, &line, &err), CORPUS_LINE);
    assert_int_equal(corpus_next(c, &line, &err), CORPUS_BAD);
    assert_false(line.too_long);
    assert_null(line.value);
    err = (Err){0};
    assert_int_equal(corpus_next(c, &line, &err), CORPUS_BAD);
    assert_true(line.too_long);
    assert_string_equal(err.text, "long.jsonl:3: line longer than 16777216 bytes");
    assert_int_equal(corpus_next(c, &line, &err), CORPUS_LINE);
    assert_int_equal(json_integer_value(json_object_get(line.value, "a")), 4);
    assert_int_equal(line.line, 4);
    assert_int_equal(corpus_next(c, &line, &err), CORPUS_END);
    corpus_close(c);
    free(text);
}

// Empty arrays take 130 bytes of memory for three of text.
static void an_object_of_too_many_values_is_too_long(void **state) {
    (void)state;
    const size_t n = 15u << 20;
    char *text = malloc(n + 8);
    size_t used = (size_t)sprintf(text, "{\"a\":[[]");
    while (used < n) used += (size_t)sprintf(text + used, ",[]");
    used += (size_t)sprintf(text + used, "]}");
    Err err = {0};
    CorpusLine line;
    Corpus *c = corpus_open(put("many.jsonl", text, used), &err);
    assert_ok(c, err);
    assert_int_equal(corpus_next(c, &line, &err), CORPUS_BAD);
    assert_true(line.too_long);
    assert_non_null(strstr(err.text, "many.jsonl:1: its values would take"));
    corpus_close(c);
    free(text);
}

static void a_list_of_objects_is_told_how_to_become_lines(void **state) {
    (void)state;
    const char *text[] = {"[\n{\"a\":1}\n]\n", "[{\"a\":1}]"};
    for (int i = 0; i < 2; i++) {
        const char *said = listed(put_text("list.json", text[i]));
        if (!strstr(said, "jq -c '.[]'")) fail_msg("%s", said);
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
        cmocka_unit_test(members_of_tar_and_zip_are_read_and_what_is_no_corpus_is_skipped),
        cmocka_unit_test(links_are_never_followed),
        cmocka_unit_test(packs_inside_of_packs_are_refused_by_name),
        cmocka_unit_test(members_of_one_basename_are_one_object),
        cmocka_unit_test(reading_goes_on_behind_a_bad_line),
        cmocka_unit_test(an_object_of_too_many_values_is_too_long),
        cmocka_unit_test(a_list_of_objects_is_told_how_to_become_lines),
        cmocka_unit_test(names_are_printable_and_text_wherever_they_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
