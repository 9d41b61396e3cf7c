// data/corpus_pack.c - libarchive with the few formats that corpora need, and limits.
#include "data/corpus_pack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/utf8.h"

enum {
    BLOCK_BYTES = 64 << 10,
    GUARD_AFTER = 64 << 20, // unpacked bytes before the ratio is looked at
    RATIO_LIMIT = 1000,
};
#define TOTAL_LIMIT ((int64_t)256 << 30)

struct Pack {
    struct archive *archive;
    char path[PATH_ROOM];
    char block[BLOCK_BYTES];
    int64_t read, skipped;
};

// Damage has the library's own numbers, or those of bad text and bad use; any other is the
// system's.
static bool archive_failed(Pack *p, Err *err) {
    const char *why = archive_error_string(p->archive);
    const int number = archive_errno(p->archive);
    if (number > 0 && number != EILSEQ && number != EINVAL)
        return err_set(err, ERR_FAILED, "%s: %s", p->path, strerror(number));
    char line[256], text[256]; // some of the library's messages end in a line break
    if (why == NULL) why = "damaged or not readable";
    snprintf(line, sizeof line, "%.*s", (int)strcspn(why, "\n"), why);
    utf8_fit(text, sizeof text, line);
    return err_set(err, ERR_INPUT, "%s: %s", p->path, text);
}

Pack *pack_open(const char *path, Err *err) {
    Pack *p = calloc(1, sizeof *p);
    if (p) p->archive = archive_read_new();
    if (!p || !p->archive) {
        free(p);
        err_set(err, ERR_FAILED, "%s: out of memory", path);
        return NULL;
    }
    snprintf(p->path, sizeof p->path, "%s", path);
    struct archive *a = p->archive;
    archive_read_support_filter_gzip(a);
    archive_read_support_filter_zstd(a);
    archive_read_support_filter_xz(a);
    archive_read_support_format_tar(a);
    // Not by the directory at its end: that is held in memory, and may say what the members do not.
    archive_read_support_format_zip_streamable(a);
    archive_read_support_format_raw(a);
    archive_read_support_format_empty(a);
    if (archive_read_open_filename(a, path, BLOCK_BYTES) == ARCHIVE_OK) return p;
    archive_failed(p, err);
    pack_close(p);
    return NULL;
}

void pack_close(Pack *p) {
    if (!p) return;
    archive_read_free(p->archive);
    free(p);
}

int64_t pack_skipped(const Pack *p) {
    return p->skipped;
}

// Headers count as well as data: an archive of nothing but empty members is a bomb, too.
static bool within_limits(Pack *p, Err *err) {
    const int64_t packed = archive_filter_bytes(p->archive, -1),
                  streamed = archive_filter_bytes(p->archive, 0),
                  unpacked = streamed > p->read ? streamed : p->read;
    if (unpacked > GUARD_AFTER && unpacked / RATIO_LIMIT > packed)
        return err_set(err, ERR_INPUT,
                       "%s: %lld bytes unpack to more than %lld: over the limit of %d : 1", p->path,
                       (long long)packed, (long long)unpacked, (int)RATIO_LIMIT);
    if (unpacked > TOTAL_LIMIT)
        return err_set(err, ERR_INPUT, "%s: unpacks to more than %lld bytes", p->path,
                       (long long)TOTAL_LIMIT);
    return true;
}

int pack_next(Pack *p, char name[MEMBER_NAME], Err *err) {
    struct archive_entry *e;
    for (;;) {
        const int rc = archive_read_next_header(p->archive, &e);
        if (rc == ARCHIVE_EOF) return 0;
        if (rc < ARCHIVE_WARN) return archive_failed(p, err), -1;
        if (!within_limits(p, err)) return -1;
        if (archive_entry_filetype(e) == AE_IFREG && !archive_entry_hardlink(e)) break;
        p->skipped += archive_entry_filetype(e) != AE_IFDIR;
    }
    const bool raw = archive_format(p->archive) == ARCHIVE_FORMAT_RAW;
    const char *said = raw ? "" : archive_entry_pathname(e);
    if (!said) said = archive_entry_pathname_utf8(e); // not to be had in the "C" locale
    utf8_fit(name, MEMBER_NAME, said ? said : "");
    return 1;
}

int pack_read(Pack *p, const char **data, size_t *size, Err *err) {
    const la_ssize_t n = archive_read_data(p->archive, p->block, sizeof p->block);
    if (n < 0) return archive_failed(p, err), -1;
    p->read += n;
    if (!within_limits(p, err)) return -1;
    *data = p->block;
    *size = (size_t)n;
    return n > 0;
}
