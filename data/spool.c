// data/spool.c - an unnamed temporary file, written through a buffer, read anywhere.
#include "data/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/file.h"

enum { BUFFER_BYTES = 1 << 18 };

struct Spool {
    int fd;
    char dir[PATH_ROOM];
    int64_t written; // in the file; the buffer comes behind
    size_t buffered;
    char buffer[BUFFER_BYTES];
};

// Where the file system has no unnamed files, one with a name that is taken away at once.
static int open_unnamed(const char *dir) {
    const int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return fd;
    char name[PATH_ROOM];
    const int named = mkostemp(path_join(name, dir, "spool.XXXXXX"), O_CLOEXEC);
    if (named >= 0) unlink(name);
    return named;
}

Spool *spool_open(const char *dir, Err *err) {
    const char *temporary = getenv("TMPDIR");
    if (!dir) dir = temporary && *temporary ? temporary : "/tmp";
    Spool *s = malloc(sizeof *s);
    if (!s) {
        err_set(err, ERR_FAILED, "%s: out of memory", dir);
        return NULL;
    }
    s->written = 0;
    s->buffered = 0;
    path_join(s->dir, "", dir);
    if ((s->fd = open_unnamed(dir)) >= 0) return s;
    err_errno(err, "%s: no temporary file", dir);
    free(s);
    return NULL;
}

void spool_close(Spool *s) {
    if (!s) return;
    close(s->fd);
    free(s);
}

static bool write_all(Spool *s, const char *data, size_t size, Err *err) {
    while (size > 0) {
        const ssize_t n = pwrite(s->fd, data, size, s->written);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return err_errno(err, "%s: cannot put samples aside (%lld bytes)", s->dir,
                             (long long)s->written);
        data += n;
        size -= (size_t)n;
        s->written += n;
    }
    return true;
}

static bool flush(Spool *s, Err *err) {
    const size_t n = s->buffered;
    s->buffered = 0;
    return write_all(s, s->buffer, n, err);
}

int64_t spool_add(Spool *s, const char *data, size_t size, Err *err) {
    if (s->buffered + size > BUFFER_BYTES && !flush(s, err)) return -1;
    const int64_t at = s->written + (int64_t)s->buffered;
    if (size > BUFFER_BYTES) return write_all(s, data, size, err) ? at : -1;
    memcpy(s->buffer + s->buffered, data, size);
    s->buffered += size;
    return at;
}

bool spool_read(Spool *s, int64_t at, char *out, size_t size, Err *err) {
    if (!flush(s, err)) return false;
    while (size > 0) {
        const ssize_t n = pread(s->fd, out, size, at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return n < 0
                       ? err_errno(err, "%s: cannot read what was put aside", s->dir)
                       : err_set(err, ERR_FAILED, "%s: less was put aside than is wanted", s->dir);
        out += n;
        size -= (size_t)n;
        at += n;
    }
    return true;
}
