// data/journal.c - finished work, line by line, that survives a kill: a torn line does not count.
#include "data/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/hash.h"

enum { HEAD = 17 }; // the checksum and its space
#define JOURNAL_BYTES ((int64_t)1 << 40)

// Size of the text of a whole line at `at`, or -1.
static int64_t whole_line(const char *at, const char *end) {
    const char *stop = memchr(at, '\n', (size_t)(end - at));
    if (!stop || stop - at < HEAD || at[HEAD - 1] != ' ') return -1;
    char hex[HEAD];
    const int64_t size = stop - at - HEAD;
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)xxh3_64(at + HEAD, (size_t)size));
    return memcmp(hex, at, HEAD - 1) == 0 ? size : -1;
}

// Start of the text of every whole line behind the first; stops at the first that is not.
static bool index_lines(Journal *j, size_t total, const char *identity, Err *err) {
    const char *at = j->data, *end = j->data + total;
    int64_t room = 0;
    for (int64_t line = -1;; line++) {
        const int64_t size = whole_line(at, end);
        if (line >= room - 2) {
            room = room ? 2 * room : 1024;
            int64_t *more = realloc(j->start, (size_t)room * sizeof *more);
            if (!more) return err_set(err, ERR_FAILED, "%s: out of memory", j->path);
            j->start = more;
        }
        const bool mine = line >= 0 || (size == (int64_t)strlen(identity) &&
                                        !memcmp(at + HEAD, identity, (size_t)size));
        if (line >= 0) j->start[line] = at - j->data + HEAD;
        if (size < 0 || !mine) {
            j->n = line < 0 ? 0 : line;
            if (line < 0) j->start[0] = 0;
            return true;
        }
        at += HEAD + size + 1;
    }
}

bool journal_open(Journal *j, const char *path, const char *identity, Err *err) {
    *j = (Journal){.fd = -1};
    size_t total = 0;
    path_join(j->path, "", path);
    if (file_exists(path) && !(j->data = file_read(path, JOURNAL_BYTES, &total, err))) return false;
    if (!j->data && !(j->data = calloc(1, 1)))
        return err_set(err, ERR_FAILED, "%s: out of memory", path);
    if (!index_lines(j, total, identity, err)) goto fail;
    j->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (j->fd < 0) {
        err_errno(err, "cannot open %s", path);
        goto fail;
    }
    if (j->start[0] > 0) return true;
    if (ftruncate(j->fd, 0) != 0) {
        err_errno(err, "cannot write %s", path);
        goto fail;
    }
    if (!journal_add(j, identity, err)) goto fail;
    j->start[0] = (int64_t)strlen(identity) + 1 + 2 * HEAD;
    return true;
fail:
    journal_close(j);
    return false;
}

const char *journal_line(const Journal *j, int64_t i, size_t *size) {
    CHECK(i >= 0 && i < j->n && j->data);
    *size = (size_t)(j->start[i + 1] - j->start[i] - HEAD - 1);
    return j->data + j->start[i];
}

bool journal_keep(Journal *j, int64_t n, Err *err) {
    CHECK(n >= 0 && n <= j->n);
    const off_t end = (off_t)(j->start[n] - HEAD);
    free(j->data);
    j->data = NULL;
    if (ftruncate(j->fd, end) != 0 || lseek(j->fd, end, SEEK_SET) != end)
        return err_errno(err, "cannot write %s", j->path);
    return true;
}

bool journal_add(Journal *j, const char *text, Err *err) {
    char *line = NULL;
    const int size =
        asprintf(&line, "%016llx %s\n", (unsigned long long)xxh3_64(text, strlen(text)), text);
    if (size < 0) return err_set(err, ERR_FAILED, "%s: out of memory", j->path);
    int done = 0;
    while (done < size) {
        const ssize_t n = write(j->fd, line + done, (size_t)(size - done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break;
        done += (int)n;
    }
    const bool ok = done == size || err_errno(err, "cannot write %s", j->path);
    free(line);
    return ok;
}

bool journal_sync(Journal *j, Err *err) {
    return fsync(j->fd) == 0 || err_errno(err, "cannot write %s", j->path);
}

void journal_close(Journal *j) {
    if (j->fd >= 0 && j->path[0]) close(j->fd);
    free(j->data);
    free(j->start);
    *j = (Journal){.fd = -1};
}
