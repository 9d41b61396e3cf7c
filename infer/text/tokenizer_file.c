// infer/text/tokenizer_file.c - whole files through libarchive's decompressors.
#include "infer/text/tokenizer_file.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <stdlib.h>

#include "infer/text/tokenizer_table.h"

// The one entry of the stream; NULL with err set.
static char *read_entry(struct archive *a, size_t limit, size_t *size, Err *err) {
    struct archive_entry *entry;
    char *text = NULL;
    size_t room = 0;
    const int rc = archive_read_next_header(a, &entry);
    for (*size = 0; rc == ARCHIVE_OK;) {
        if (*size + 1 >= room) text = memory_for(text, room = room ? 2 * room : 1 << 20, 1);
        const la_ssize_t n = archive_read_data(a, text + *size, room - 1 - *size);
        if (n < 0) break;
        *size += (size_t)n;
        if (n == 0) {
            text[*size] = '\0';
            return text;
        }
        if (*size > limit) {
            err_set(err, ERR_INPUT, "more than %zu bytes", limit);
            break;
        }
    }
    const char *why = rc == ARCHIVE_EOF ? "empty file" : archive_error_string(a);
    err_set(err, ERR_INPUT, "%s", why ? why : "cannot be read");
    free(text);
    return NULL;
}

char *unpacked_read(const char *path, size_t limit, size_t *size, Err *err) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        err_errno(err, "%s", path);
        return NULL;
    }
    struct archive *a = archive_read_new();
    CHECK_MEMORY(a);
    archive_read_support_filter_gzip(a);
    archive_read_support_filter_zstd(a);
    archive_read_support_filter_xz(a);
    archive_read_support_format_raw(a);
    char *text = NULL;
    if (archive_read_open_FILE(a, f) == ARCHIVE_OK)
        text = read_entry(a, limit, size, err);
    else
        err_set(err, ERR_INPUT, "%s", archive_error_string(a));
    archive_read_free(a);
    fclose(f);
    if (text == NULL) err_wrap(err, "%s", path);
    return text;
}
