// tests/data/hostile_bombs.h - archives that unpack to more than they should, or somewhere else.
#ifndef TESTS_HOSTILE_BOMBS_H
#define TESTS_HOSTILE_BOMBS_H

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/testing.h"

enum { MIB = 1 << 20 };

static struct archive *begin(const char *path, int format, const int *filter) {
    struct archive *a = archive_write_new();
    for (; *filter; filter++) assert_int_equal(archive_write_add_filter(a, *filter), ARCHIVE_OK);
    assert_int_equal(archive_write_set_format(a, format), ARCHIVE_OK);
    archive_write_set_bytes_in_last_block(a, 1);
    assert_int_equal(archive_write_open_filename(a, path), ARCHIVE_OK);
    return a;
}

static void end(struct archive *a) {
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
}

static void header(struct archive *a, const char *name, int64_t size) {
    struct archive_entry *e = archive_entry_new();
    if (name) archive_entry_set_pathname(e, name);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0644);
    if (size >= 0) archive_entry_set_size(e, size);
    assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
    archive_entry_free(e);
}

// Blank lines: nothing but the limits can stop them.
static void blanks(struct archive *a, int64_t bytes) {
    static char block[MIB];
    memset(block, ' ', sizeof block);
    block[0] = '\n';
    for (; bytes > 0; bytes -= MIB)
        assert_int_equal(archive_write_data(a, block, MIB), (la_ssize_t)MIB);
}

#define FILTERS(...) ((const int[]){__VA_ARGS__, 0})
#define RAW ARCHIVE_FORMAT_RAW
#define TAR ARCHIVE_FORMAT_TAR_PAX_RESTRICTED
#define ZIP ARCHIVE_FORMAT_ZIP
#define ZST ARCHIVE_FILTER_ZSTD
#define GZ ARCHIVE_FILTER_GZIP
#define XZ ARCHIVE_FILTER_XZ

static void one(const char *path, int format, const int *filter, int64_t mib) {
    struct archive *a = begin(path, format, filter);
    header(a, format == RAW ? NULL : "big.jsonl", format == RAW ? -1 : mib * MIB);
    blanks(a, mib * MIB);
    end(a);
}

static void zst_bomb(const char *path, int scale) {
    one(path, RAW, FILTERS(ZST), 256 * scale);
}
static void gz_bomb(const char *path, int scale) {
    one(path, RAW, FILTERS(GZ), 128 * scale);
}
static void xz_bomb(const char *path, int scale) {
    one(path, RAW, FILTERS(XZ), 128 * scale);
}
static void twice_bomb(const char *path, int scale) {
    one(path, RAW, FILTERS(ZST, ZST), 256 * scale);
}
static void tar_bomb(const char *path, int scale) {
    one(path, TAR, FILTERS(ZST), 256 * scale);
}
static void zip_bomb(const char *path, int scale) {
    one(path, ZIP, FILTERS(ARCHIVE_FILTER_NONE), 128 * scale);
}

static void many(const char *path, int format, const int *filter, int n) {
    struct archive *a = begin(path, format, filter);
    for (int i = 0; i < n; i++) header(a, "a.jsonl", 0);
    end(a);
}

static void empty_tar_bomb(const char *path, int scale) {
    many(path, TAR, FILTERS(ZST), 160000 * (scale > 6 ? 6 : scale));
}
static void empty_zip_bomb(const char *path, int scale) {
    many(path, ZIP, FILTERS(ARCHIVE_FILTER_NONE), scale > 1 ? 1000000 : 20000);
}

// A member of a tebibyte that is one hole.
static void sparse_bomb(const char *path, int scale) {
    (void)scale;
    struct archive *a =
        begin(path, ARCHIVE_FORMAT_TAR_PAX_INTERCHANGE, FILTERS(ARCHIVE_FILTER_NONE));
    struct archive_entry *e = archive_entry_new();
    archive_entry_set_pathname(e, "hole.jsonl");
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_size(e, (int64_t)1 << 40);
    archive_entry_sparse_add_entry(e, (int64_t)1 << 39, 1);
    assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
    assert_int_equal(archive_write_data(a, "x", 1), 1);
    archive_entry_free(e);
    end(a);
}

static void write_bytes(const char *path, const char *data, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    fclose(f);
}

// A ustar header by hand: what no writer would write.
static void ustar(char block[512], const char *name, char type, const char *size) {
    memset(block, 0, 512);
    strcpy(block, name);
    strcpy(block + 100, "0000644");
    strcpy(block + 108, "0000000");
    strcpy(block + 116, "0000000");
    memcpy(block + 124, size, 11);
    strcpy(block + 136, "00000000000");
    memset(block + 148, ' ', 8);
    block[156] = type;
    memcpy(block + 257, "ustar\00000", 8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++) sum += (unsigned char)block[i];
    snprintf(block + 148, 8, "%06o", sum);
}

static void promise_bomb(const char *path, int scale) { // 8 GiB in a kilobyte
    (void)scale;
    char data[1024] = "";
    ustar(data, "a.jsonl", '0', "77777777777");
    memset(data + 512, '\n', 512);
    write_bytes(path, data, sizeof data);
}

static void long_name_bomb(const char *path, int scale) { // a name of 64 MiB and more
    const size_t size = (size_t)64 * MIB * (size_t)(scale > 4 ? 4 : scale);
    char *data = malloc(size + 2048), octal[32];
    assert_non_null(data);
    snprintf(octal, sizeof octal, "%011zo", size);
    ustar(data, "././@LongLink", 'L', octal);
    memset(data + 512, 'a', size);
    ustar(data + 512 + size, "a.jsonl", '0', "00000000000");
    memset(data + 1024 + size, 0, 1024);
    write_bytes(path, data, size + 2048);
    free(data);
}

static void nested_bomb(const char *path, int scale) {
    (void)scale;
    struct archive *a = begin(path, TAR, FILTERS(ARCHIVE_FILTER_NONE));
    header(a, "inner.tar.zst", 4);
    archive_write_data(a, "\x28\xb5\x2f\xfd", 4);
    end(a);
}

static void special(struct archive *a, const char *name, int type, const char *target) {
    struct archive_entry *e = archive_entry_new();
    archive_entry_set_pathname(e, name);
    archive_entry_set_filetype(e, (unsigned)type);
    archive_entry_set_perm(e, 0777);
    archive_entry_set_size(e, 0);
    if (type == AE_IFLNK) archive_entry_set_symlink(e, target);
    if (type == AE_IFREG) archive_entry_set_hardlink(e, target);
    assert_true(archive_write_header(a, e) >= ARCHIVE_WARN);
    archive_entry_free(e);
}

// Every way out of a folder; the names are printed and never opened.
static void path_bomb(const char *path, int scale) {
    (void)scale;
    static const char row[] = "{\"prompt\":\"Hi\"}\n";
    struct archive *a = begin(path, TAR, FILTERS(ARCHIVE_FILTER_NONE));
    special(a, "out", AE_IFLNK, "/tmp");
    special(a, "passwd.jsonl", AE_IFLNK, "/etc/passwd");
    special(a, "hard.jsonl", AE_IFREG, "/etc/passwd");
    special(a, "pipe.jsonl", AE_IFIFO, "");
    special(a, "disk.jsonl", AE_IFBLK, "");
    special(a, "tty.jsonl", AE_IFCHR, "");
    const char *names[] = {"../../escaped.jsonl", "/tmp/escaped.jsonl", "out/escaped.jsonl"};
    for (int i = 0; i < 3; i++) {
        header(a, names[i], (int64_t)strlen(row));
        archive_write_data(a, row, strlen(row));
    }
    end(a);
}

static char *repeat(char *at, const char *text, int n, const char *end) {
    for (; n > 0; n--) at += sprintf(at, "%s", text);
    at[-1] = ' '; // the last comma
    return at + sprintf(at, "%s\n", end);
}

// Deep, wide, long: what small text makes large in memory.
static void wide_bomb(const char *path, int scale) {
    (void)scale;
    char *text = malloc(96u << 20), *at = text;
    assert_non_null(text);
    at = repeat(at + sprintf(at, "{\"prompt\":"), "[", 1000000, "");
    at = repeat(at + sprintf(at, "{\"prompt\":["), "[],", 4000000, "]}");
    at = repeat(at + sprintf(at, "{\"messages\":["), "{\"role\":\"user\",\"content\":\"a\"},",
                110000, "]}");
    at = repeat(at + sprintf(at, "{\"input_ids\":["), "8000,", 1500000, "]}");
    at = repeat(at + sprintf(at, "{\"prompt\":\""), "abcdefgh", 1900000, "\"}");
    at = repeat(at + sprintf(at, "{\"text\":\"<|turn>model\\n"), "        ", 1900000, "\"}");
    at = repeat(at + sprintf(at, "{\"prompt\":\"a\",\"tools\":["), "{\"name\":\"f\"},", 110000,
                "]}");
    write_bytes(path, text, (size_t)(at - text));
    free(text);
}

static void line_bomb(const char *path, int scale) { // one line without an end
    struct archive *a = begin(path, RAW, FILTERS(ZST));
    static char block[MIB];
    uint32_t r = 1;
    header(a, NULL, -1);
    archive_write_data(a, "{\"prompt\":\"", 11);
    for (int i = 0; i < 96 * scale; i++) {
        for (int k = 0; k < MIB; k += 64) {
            r = r * 1664525u + 1013904223u; // compresses, but not by a thousand
            memset(block + k, 'a' + (int)(r >> 28), 64);
        }
        archive_write_data(a, block, MIB);
    }
    end(a);
}

typedef struct {
    const char *name;
    int code;         // 0 or 3
    const char *says; // part of the refusal; NULL: none
} Bomb;

static const Bomb bombs[] = {
    {"blank lines in zst", 3, "over the limit of 1000 : 1"},
    {"blank lines in gz", 3, "over the limit of 1000 : 1"},
    {"blank lines in xz", 3, "over the limit of 1000 : 1"},
    {"zst in zst", 3, "over the limit of 1000 : 1"},
    {"a member in tar.zst", 3, "over the limit of 1000 : 1"},
    {"a member in zip", 3, "over the limit of 1000 : 1"},
    {"empty members in tar.zst", 3, "over the limit of 1000 : 1"},
    {"empty members in zip", 3, "no prompts in it"},
    {"a hole of a tebibyte", 3, "over the limit of 1000 : 1"},
    {"a member larger than its file", 3, "Truncated"},
    {"a name of megabytes", 3, ""},
    {"a pack in a pack", 3, "packed inside of a pack"},
    {"paths out of the folder", 0, NULL},
    {"deep, wide and long rows", 3, "none of the 7 prompts"},
    {"a line without an end", 3, "none of the 1 prompts"},
};
enum { BOMBS = sizeof bombs / sizeof *bombs };

// scale: 1, or more for large.
static inline void bomb_write(int i, const char *path, int scale) {
    static void (*const write[])(const char *, int) = {
        zst_bomb,       gz_bomb,        xz_bomb,        twice_bomb,  tar_bomb,
        zip_bomb,       empty_tar_bomb, empty_zip_bomb, sparse_bomb, promise_bomb,
        long_name_bomb, nested_bomb,    path_bomb,      wide_bomb,   line_bomb};
    _Static_assert(sizeof write / sizeof *write == sizeof bombs / sizeof *bombs, "one each");
    write[i](path, scale);
}

#endif
