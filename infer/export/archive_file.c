// infer/export/archive_file.c - tar and zip through libarchive.
#include "infer/export/archive_file.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "infer/export/tree.h"

enum { BLOCK = 1 << 20, NEW_YEAR_2000 = 946684800 }; // zip knows no time before 1980

static bool ends_in(const char *path, const char *tail) {
    const size_t n = strlen(path), m = strlen(tail);
    return n > m && strcmp(path + n - m, tail) == 0;
}

bool archive_name_check(const char *path, Err *err) {
    return ends_in(path, ".tar") || ends_in(path, ".zip") ||
           err_set(err, ERR_USAGE, "export.archive is %s, its name must end in .tar or .zip", path);
}

static la_ssize_t write_out(struct archive *a, void *out, const void *data, size_t size) {
    (void)a;
    out_write(out, data, size); // errors are sticky, commit tells them
    return (la_ssize_t)size;
}

static bool archive_failed(struct archive *a, const char *what, Err *err) {
    const char *why = archive_error_string(a);
    return err_set(err, ERR_FAILED, "%s: %s", what, why ? why : "libarchive refuses it");
}

static bool copy_data(struct archive *a, int fd, const char *path, int64_t size, char *block,
                      Err *err) {
    for (int64_t left = size; left > 0;) {
        const ssize_t got = read(fd, block, left < BLOCK ? (size_t)left : BLOCK);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return err_errno(err, "%s", path);
        if (got == 0)
            return err_set(err, ERR_INPUT, "%s: became %lld bytes shorter", path, (long long)left);
        if (archive_write_data(a, block, (size_t)got) != got) return archive_failed(a, path, err);
        left -= got;
    }
    return true;
}

static bool add_file(struct archive *a, const char *path, const char *name, char *block, Err *err) {
    int64_t size;
    struct archive_entry *e = archive_entry_new();
    CHECK_MEMORY(e);
    int fd = -1;
    bool ok = file_size(path, &size, err);
    if (ok && (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) ok = err_errno(err, "%s", path);
    if (ok) {
        archive_entry_set_pathname(e, name);
        archive_entry_set_size(e, size);
        archive_entry_set_filetype(e, AE_IFREG);
        archive_entry_set_perm(e, 0644);
        archive_entry_set_mtime(e, NEW_YEAR_2000, 0);
        ok = archive_write_header(a, e) == ARCHIVE_OK || archive_failed(a, path, err);
    }
    ok = ok && copy_data(a, fd, path, size, block, err);
    if (fd >= 0) close(fd);
    archive_entry_free(e);
    return ok;
}

static bool add_folder(struct archive *a, const char *dir, char *block, Err *err) {
    char path[PATH_ROOM], name[PATH_ROOM];
    int n = 0;
    char **names = tree_list(dir, &n, err);
    bool ok = names != NULL;
    for (int i = 0; ok && i < n; i++)
        ok = add_file(a, path_join(path, dir, names[i]), path_join(name, path_base(dir), names[i]),
                      block, err);
    if (names != NULL) dir_list_free(names, n);
    return ok;
}

static struct archive *open_archive(OutFile *out, bool zip, Err *err) {
    struct archive *a = archive_write_new();
    CHECK_MEMORY(a);
    const int rc = zip ? archive_write_set_format_zip(a)
                       : archive_write_set_format_pax_restricted(a); // plain ustar where it fits
    if (rc == ARCHIVE_OK && (!zip || archive_write_zip_set_compression_store(a) == ARCHIVE_OK) &&
        archive_write_set_bytes_in_last_block(a, 1) == ARCHIVE_OK &&
        archive_write_open(a, out, NULL, write_out, NULL) == ARCHIVE_OK)
        return a;
    (void)archive_failed(a, out->path, err);
    archive_write_free(a);
    return NULL;
}

static bool fill(OutFile *out, const char *const *dir, int n, Err *err) {
    struct archive *a = open_archive(out, ends_in(out->path, ".zip"), err);
    if (a == NULL) return false;
    char *block = malloc(BLOCK);
    CHECK_MEMORY(block);
    bool ok = true;
    for (int i = 0; ok && i < n; i++) ok = add_folder(a, dir[i], block, err);
    if (ok && archive_write_close(a) != ARCHIVE_OK) ok = archive_failed(a, out->path, err);
    free(block);
    archive_write_free(a);
    return ok;
}

// A zip's times are local ones: the same everywhere only if the zone is. No other thread of ours
// runs here.
static char *enter_utc(void) {
    const char *zone = getenv("TZ");
    char *kept = zone != NULL ? strdup(zone) : NULL;
    setenv("TZ", "UTC0", 1);
    tzset();
    return kept;
}

static void leave_utc(char *kept) {
    if (kept != NULL)
        setenv("TZ", kept, 1);
    else
        unsetenv("TZ");
    tzset();
    free(kept);
}

bool archive_folders(const char *path, const char *const *dir, int n, Err *err) {
    OutFile out;
    if (!archive_name_check(path, err) || !out_open(&out, path, err)) return false;
    char *zone = enter_utc();
    const bool ok = fill(&out, dir, n, err);
    leave_utc(zone);
    if (ok) return out_commit(&out, err);
    out_drop(&out);
    return err_wrap(err, "%s", path);
}
