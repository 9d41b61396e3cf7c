// data/corpus.c - lines of JSON out of plain, compressed and packed files; limits instead of trust.
#include "data/corpus.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/utf8.h"
#include "infer/text/chat_json.h"

enum {
    BLOCK_BYTES = 64 << 10,
    LINE_LIMIT = 64 << 20,
    GUARD_AFTER = 64 << 20, // unpacked bytes before the ratio is looked at
    RATIO_LIMIT = 1000,
    NAME_BYTES = 200,
};
#define TOTAL_LIMIT ((int64_t)256 << 30)

struct Corpus {
    struct archive *archive;
    char path[PATH_ROOM];
    char entry[NAME_BYTES]; // printable name of the member, never opened; "" for a bare file
    bool in_entry;
    char block[BLOCK_BYTES];
    size_t at, filled; // block[at..filled) is not consumed yet
    char *line;        // bytes of the present line so far
    size_t size, room;
    int64_t number; // of the present line in its member, 1-based
    int64_t unpacked, skipped;
    json_t *value;
};

static void place(const Corpus *c, char out[512]) {
    char file[NAME_BYTES];
    utf8_fit(file, sizeof file, path_base(c->path));
    if (c->entry[0])
        snprintf(out, 512, "%s(%s):%lld", file, c->entry, (long long)c->number);
    else
        snprintf(out, 512, "%s:%lld", file, (long long)c->number);
}

// Damage has the library's own numbers, or those of bad text and bad use; any other is the
// system's.
static bool archive_failed(Corpus *c, Err *err) {
    const char *why = archive_error_string(c->archive);
    const int number = archive_errno(c->archive);
    if (number > 0 && number != EILSEQ && number != EINVAL)
        return err_set(err, ERR_FAILED, "%s: %s", c->path, strerror(number));
    return err_set(err, ERR_INPUT, "%s: %s", c->path, why ? why : "damaged or not readable");
}

Corpus *corpus_open(const char *path, Err *err) {
    if (dir_exists(path)) {
        err_set(err, ERR_INPUT, "%s: a folder, expected a JSONL file", path);
        return NULL;
    }
    if (!file_exists(path)) {
        err_set(err, ERR_INPUT, "%s: no such file", path);
        return NULL;
    }
    Corpus *c = calloc(1, sizeof *c);
    if (c) c->archive = archive_read_new();
    if (!c || !c->archive) {
        free(c);
        err_set(err, ERR_FAILED, "%s: out of memory", path);
        return NULL;
    }
    snprintf(c->path, sizeof c->path, "%s", path);
    struct archive *a = c->archive;
    archive_read_support_filter_gzip(a);
    archive_read_support_filter_zstd(a);
    archive_read_support_filter_xz(a);
    archive_read_support_format_tar(a);
    archive_read_support_format_zip(a);
    archive_read_support_format_raw(a);
    archive_read_support_format_empty(a);
    if (archive_read_open_filename(a, path, BLOCK_BYTES) != ARCHIVE_OK) {
        archive_failed(c, err);
        corpus_close(c);
        return NULL;
    }
    return c;
}

void corpus_close(Corpus *c) {
    if (!c) return;
    archive_read_free(c->archive);
    json_decref(c->value);
    free(c->line);
    free(c);
}

int64_t corpus_skipped(const Corpus *c) {
    return c->skipped;
}

// 1 = a member is open, 0 = no more, -1 = error.
static int next_entry(Corpus *c, Err *err) {
    struct archive_entry *e;
    for (;;) {
        const int rc = archive_read_next_header(c->archive, &e);
        if (rc == ARCHIVE_EOF) return 0;
        if (rc < ARCHIVE_WARN) return archive_failed(c, err), -1;
        if (archive_entry_filetype(e) == AE_IFREG && !archive_entry_hardlink(e)) break;
        c->skipped += archive_entry_filetype(e) != AE_IFDIR;
    }
    const bool raw = archive_format(c->archive) == ARCHIVE_FORMAT_RAW;
    const char *name = raw ? "" : archive_entry_pathname(e);
    if (!name) name = archive_entry_pathname_utf8(e); // not to be had in the "C" locale
    utf8_fit(c->entry, sizeof c->entry, name ? name : "");
    c->in_entry = true;
    c->number = 0;
    return 1;
}

// Fills block: 1 = bytes there, 0 = end of the member, -1 = error.
static int fill(Corpus *c, Err *err) {
    const la_ssize_t n = archive_read_data(c->archive, c->block, sizeof c->block);
    if (n < 0) return archive_failed(c, err), -1;
    c->at = 0;
    c->filled = (size_t)n;
    c->unpacked += n;
    const int64_t packed = archive_filter_bytes(c->archive, -1);
    if (c->unpacked > GUARD_AFTER && c->unpacked / RATIO_LIMIT > packed) {
        err_set(err, ERR_INPUT, "%s: %lld bytes unpack to more than %lld: over the limit of %d : 1",
                c->path, (long long)packed, (long long)c->unpacked, (int)RATIO_LIMIT);
        return -1;
    }
    if (c->unpacked > TOTAL_LIMIT) {
        err_set(err, ERR_INPUT, "%s: unpacks to more than %lld bytes", c->path,
                (long long)TOTAL_LIMIT);
        return -1;
    }
    return n > 0;
}

static bool line_append(Corpus *c, const char *data, size_t size, Err *err) {
    if (c->size + size > LINE_LIMIT) {
        char where[512];
        place(c, where);
        return err_set(err, ERR_INPUT, "%s: line longer than %d bytes", where, (int)LINE_LIMIT);
    }
    if (c->size + size > c->room) {
        const size_t room = (c->size + size) * 2;
        char *line = realloc(c->line, room);
        if (!line) return err_set(err, ERR_FAILED, "%s: out of memory", c->path);
        c->line = line;
        c->room = room;
    }
    if (size > 0) memcpy(c->line + c->size, data, size);
    c->size += size;
    return true;
}

// The next line of any member into c->line: 1, 0 = the end of everything, -1 = error.
static int next_line(Corpus *c, Err *err) {
    c->size = 0;
    for (;;) {
        if (!c->in_entry) {
            const int rc = next_entry(c, err);
            if (rc <= 0) return rc;
        }
        c->number++;
        for (;;) {
            if (c->at == c->filled) {
                const int rc = fill(c, err);
                if (rc < 0) return -1;
                if (rc == 0) break;
            }
            const char *from = c->block + c->at;
            const char *end = memchr(from, '\n', c->filled - c->at);
            const size_t n = end ? (size_t)(end - from) : c->filled - c->at;
            if (!line_append(c, from, n, err)) return -1;
            c->at += n + (end != NULL);
            if (end) return 1;
        }
        c->in_entry = false;
        if (c->size) return 1; // a last line without its newline
    }
}

static bool is_blank(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r') return false;
    return true;
}

int corpus_next(Corpus *c, CorpusLine *out, Err *err) {
    json_decref(c->value);
    c->value = NULL;
    int rc;
    do {
        rc = next_line(c, err);
        if (rc <= 0) return rc;
    } while (is_blank(c->line, c->size));
    place(c, out->where);
    out->line = c->number;
    Err why = {0};
    c->value = chat_json_read(c->line, c->size, &why);
    if (!json_is_object(c->value)) {
        err_set(err, ERR_INPUT, "%s: not a JSON object%s%.300s", out->where, why.code ? ": " : "",
                why.text);
        return -1;
    }
    out->value = c->value;
    return 1;
}
