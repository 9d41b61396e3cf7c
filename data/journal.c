// data/journal.c - finished work, line by line, that survives a kill: a torn line does not count.
#include "data/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/hash.h"
#include "infer/base/log.h"

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

static bool note_start(Journal *j, int64_t line, int64_t *room, int64_t at, Err *err) {
    if (line >= *room) {
        *room = *room ? 2 * *room : 1024;
        int64_t *more = realloc(j->start, (size_t)*room * sizeof *more);
        if (!more) return err_set(err, ERR_FAILED, "%s: out of memory", j->path);
        j->start = more;
    }
    j->start[line] = at;
    return true;
}

// A line torn by a kill costs nothing that was finished; a line break behind it tells of more.
static void tell_loss(const Journal *j, const char *at, const char *end) {
    if (at < end && memchr(at, '\n', (size_t)(end - at)) != NULL)
        log_warn("%s: damaged behind line %lld: %lld bytes of finished work are dropped", j->path,
                 (long long)j->n, (long long)(end - at));
}

// Start of the text of every whole line behind the first; stops at the first that is not.
static bool index_lines(Journal *j, const char *at, const char *end, Err *err) {
    int64_t room = 0;
    for (;; j->n++) {
        if (!note_start(j, j->n, &room, at - j->data + HEAD, err)) return false;
        const int64_t size = whole_line(at, end);
        if (size < 0) break;
        at += HEAD + size + 1;
    }
    tell_loss(j, at, end);
    return true;
}

static int64_t count_lines(const char *at, const char *end) {
    int64_t n = 0;
    for (int64_t size; (size = whole_line(at, end)) >= 0; n++) at += HEAD + size + 1;
    return n;
}

// *mine: the first line is this identity, and the lines are indexed.
static bool read_lines(Journal *j, size_t total, const char *identity, bool anew, bool *mine,
                       Err *err) {
    const char *at = j->data, *end = j->data + total;
    const int64_t size = whole_line(at, end);
    *mine = size == (int64_t)strlen(identity) && !memcmp(at + HEAD, identity, (size_t)size);
    if (*mine) return index_lines(j, at + HEAD + size + 1, end, err);
    if (size < 0) {
        tell_loss(j, at, end);
        return true;
    }
    const int64_t others = count_lines(at + HEAD + size + 1, end);
    if (others == 0 || anew) return true;
    return err_set(err, ERR_USAGE,
                   "%s: %lld finished answers of other settings or prompts (--overwrite, or "
                   "removing the file, drops them)",
                   j->path, (long long)others);
}

// The file begins with the identity and nothing else.
static bool begin(Journal *j, const char *identity, Err *err) {
    int64_t room = 0;
    const int64_t first = (int64_t)strlen(identity) + 1 + 2 * HEAD;
    if (ftruncate(j->fd, 0) != 0) return err_errno(err, "cannot write %s", j->path);
    return journal_add(j, identity, err) && note_start(j, 0, &room, first, err);
}

bool journal_open(Journal *j, const char *path, const char *identity, bool anew, Err *err) {
    *j = (Journal){.fd = -1};
    size_t total = 0;
    bool mine;
    path_join(j->path, "", path);
    if (file_exists(path) && !(j->data = file_read(path, JOURNAL_BYTES, &total, err))) return false;
    if (!j->data && !(j->data = calloc(1, 1)))
        return err_set(err, ERR_FAILED, "%s: out of memory", path);
    if (!read_lines(j, total, identity, anew, &mine, err)) goto fail;
    j->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (j->fd < 0) {
        err_errno(err, "cannot open %s", path);
        goto fail;
    }
    if (mine || begin(j, identity, err)) return true;
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
