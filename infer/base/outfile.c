// infer/base/outfile.c - files that appear whole or not at all: temporary sibling, fsync, rename.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "infer/base/watchdog.h"

enum { BUFFER_BYTES = 1 << 16, COPY_BYTES = 1 << 20 };

// A fixed temporary name leaves nothing to collect after a kill; the lock on it keeps a second
// writer off. The file may have been renamed away between open and lock: then it is not ours.
static int open_temporary(const char *tmp) {
    const int fd = open(tmp, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) return -1;
    struct stat mine, there;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        const bool ours = fstat(fd, &mine) == 0 && stat(tmp, &there) == 0 &&
                          mine.st_ino == there.st_ino && mine.st_dev == there.st_dev;
        if (ours && ftruncate(fd, 0) == 0) return fd;
        if (!ours) errno = EWOULDBLOCK;
    }
    const int saved = errno;
    if (saved != EWOULDBLOCK) unlink(tmp); // nobody else writes it
    close(fd);
    errno = saved;
    return -1;
}

bool out_open(OutFile *f, const char *path, Err *err) {
    *f = (OutFile){.fd = -1};
    path_join(f->path, "", path);
    const int used = snprintf(f->tmp, sizeof f->tmp, "%s.tmp", path);
    CHECK(used > 0 && used < PATH_ROOM);
    if ((f->buffer = malloc(BUFFER_BYTES)) == NULL) return err_errno(err, "cannot write %s", path);
    if ((f->fd = open_temporary(f->tmp)) >= 0) return true;
    if (errno == EWOULDBLOCK)
        err_set(err, ERR_FAILED, "%s: another process is writing it", path);
    else
        err_errno(err, "cannot write %s", path);
    free(f->buffer);
    f->buffer = NULL;
    return false;
}

static void write_through(OutFile *f, const char *data, size_t size) {
    while (size > 0 && f->error == 0) {
        const ssize_t n = write(f->fd, data, size);
        if (n < 0 && errno != EINTR) f->error = errno;
        watchdog_beat();
        if (n > 0) data += n, size -= (size_t)n;
    }
}

static void flush(OutFile *f) {
    write_through(f, f->buffer, f->buffered);
    f->buffered = 0;
}

void out_write(OutFile *f, const void *data, size_t size) {
    CHECK(f->fd >= 0, "(%s is closed)", f->path);
    f->written += (int64_t)size;
    if (size > BUFFER_BYTES - f->buffered) flush(f);
    if (size > BUFFER_BYTES) {
        write_through(f, data, size);
    } else if (size > 0) {
        memcpy(f->buffer + f->buffered, data, size);
        f->buffered += size;
    }
}

void out_printf(OutFile *f, const char *fmt, ...) {
    char small[512], *text = small;
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    const int n = vsnprintf(small, sizeof small, fmt, ap);
    if (n >= (int)sizeof small) {
        text = malloc((size_t)n + 1);
        if (text != NULL) vsnprintf(text, (size_t)n + 1, fmt, again);
    }
    va_end(again);
    va_end(ap);
    if (n < 0 || text == NULL)
        f->error = f->error ? f->error : ENOMEM;
    else
        out_write(f, text, (size_t)n);
    if (text != small) free(text);
}

bool out_commit(OutFile *f, Err *err) {
    CHECK(f->fd >= 0, "(%s is closed)", f->path);
    flush(f);
    if (f->error == 0 && fsync(f->fd) != 0) f->error = errno;
    // Renamed before it is closed: closing lets the lock go.
    if (f->error == 0 && rename(f->tmp, f->path) != 0) f->error = errno;
    if (f->error != 0) {
        err_set(err, ERR_FAILED, "cannot write %s (%" PRId64 " bytes): %s", f->path, f->written,
                strerror(f->error));
        out_drop(f);
        return false;
    }
    close(f->fd);
    free(f->buffer);
    f->fd = -1;
    f->buffer = NULL;
    char folder[PATH_ROOM];
    return dir_sync(path_folder(folder, f->path), err);
}

void out_drop(OutFile *f) {
    if (f->fd < 0 || f->buffer == NULL) return; // closed, or never opened
    unlink(f->tmp);
    close(f->fd);
    free(f->buffer);
    f->fd = -1;
    f->buffer = NULL;
}

bool file_write(const char *path, const void *data, size_t size, Err *err) {
    OutFile f;
    if (!out_open(&f, path, err)) return false;
    out_write(&f, data, size);
    return out_commit(&f, err);
}

bool file_copy(const char *from, const char *to, Err *err) {
    OutFile f = {.fd = -1};
    char *block = malloc(COPY_BYTES);
    const int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0 || block == NULL) {
        err_errno(err, "%s", from);
        goto fail;
    }
    if (!out_open(&f, to, err)) goto fail;
    for (;;) {
        const ssize_t n = read(in, block, COPY_BYTES);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            err_errno(err, "%s", from);
            goto fail;
        }
        if (n == 0) break;
        out_write(&f, block, (size_t)n);
    }
    close(in);
    free(block);
    return out_commit(&f, err);
fail:
    out_drop(&f);
    if (in >= 0) close(in);
    free(block);
    return false;
}

bool dir_sync(const char *path, Err *err) {
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return err_errno(err, "folder %s", path);
    // EINVAL: file systems that cannot sync a folder have nothing to sync
    const bool ok = fsync(fd) == 0 || errno == EINVAL || err_errno(err, "folder %s", path);
    close(fd);
    return ok;
}

bool path_publish(const char *tmp, const char *final, Err *err) {
    if (rename(tmp, final) != 0) return err_errno(err, "cannot rename %s to %s", tmp, final);
    char folder[PATH_ROOM];
    return dir_sync(path_folder(folder, final), err);
}
