// infer/format/gguf.c - opening files, finding and reading values and tensors.
#include "infer/format/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "infer/format/gguf_types.h"

enum { DECODE_BYTES = 4 << 20 };

bool gguf_read_at(const GgufFile *f, void *out, int64_t size, int64_t offset, Err *err) {
    char *p = out;
    while (size > 0) {
        const ssize_t got = pread(f->fd, p, (size_t)size, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return err_errno(err, "reading at byte %lld", (long long)offset);
        if (got == 0)
            return err_set(err, ERR_INPUT, "ends at byte %lld, had %lld bytes when opened",
                           (long long)offset, (long long)f->size);
        p += got;
        size -= got;
        offset += got;
    }
    return true;
}

bool gguf_recognises(const char *path) {
    char magic[4] = "";
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return false;
    const bool ok = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && pread(fd, magic, 4, 0) == 4 &&
                    memcmp(magic, "GGUF", 4) == 0;
    close(fd);
    return ok;
}

static bool open_file(GgufFile *f, Err *err) {
    struct stat st;
    if ((f->fd = open(f->path, O_RDONLY | O_CLOEXEC)) < 0 || fstat(f->fd, &st) != 0)
        return err_errno(err, "%s", f->path);
    if (!S_ISREG(st.st_mode)) return err_set(err, ERR_INPUT, "%s: not a regular file", f->path);
    f->size = st.st_size;
    return gguf_read_head(f, err) || err_wrap(err, "%s", f->path);
}

GgufFile *gguf_open(const char *path, Err *err) {
    GgufFile *f = calloc(1, sizeof *f);
    if (f == NULL) {
        err_set(err, ERR_FAILED, "out of memory");
        return NULL;
    }
    f->fd = -1;
    if (strlen(path) >= sizeof f->path) {
        err_set(err, ERR_INPUT, "%.64s...: path too long", path);
    } else {
        strcpy(f->path, path);
        if (open_file(f, err)) return f;
    }
    gguf_close(f);
    return NULL;
}

void gguf_close(GgufFile *f) {
    if (f == NULL) return;
    if (f->fd >= 0) close(f->fd);
    for (int i = 0; i < f->nvalue; i++) free((char *)f->value[i].key);
    for (int i = 0; i < f->ntensor; i++) free((char *)f->tensor[i].name);
    free(f->value);
    free(f->tensor);
    free(f->value_by_key);
    free(f->tensor_by_name);
    free(f->head);
    free(f);
}

const char *gguf_path(const GgufFile *f) {
    return f->path;
}
int64_t gguf_data_bytes(const GgufFile *f) {
    return f->data_bytes;
}
int gguf_count(const GgufFile *f) {
    return f->ntensor;
}
int gguf_values(const GgufFile *f) {
    return f->nvalue;
}

const void *gguf_head(const GgufFile *f, size_t *size) {
    *size = (size_t)f->data_start;
    return f->head;
}

const GgufTensor *gguf_at(const GgufFile *f, int i) {
    CHECK(i >= 0 && i < f->ntensor);
    return &f->tensor[i];
}

const GgufValue *gguf_value_at(const GgufFile *f, int i) {
    CHECK(i >= 0 && i < f->nvalue);
    return &f->value[i];
}

static int compare_name(const void *name, const void *t) {
    return strcmp(name, (*(const GgufTensor *const *)t)->name);
}

static int compare_key(const void *key, const void *v) {
    return strcmp(key, (*(const GgufValue *const *)v)->key);
}

const GgufTensor *gguf_find(const GgufFile *f, const char *name) {
    const GgufTensor *const *t = bsearch(name, f->tensor_by_name, (size_t)f->ntensor,
                                         sizeof *f->tensor_by_name, compare_name);
    return t ? *t : NULL;
}

const GgufValue *gguf_value(const GgufFile *f, const char *key) {
    const GgufValue *const *v =
        bsearch(key, f->value_by_key, (size_t)f->nvalue, sizeof *f->value_by_key, compare_key);
    return v ? *v : NULL;
}

bool gguf_read(const GgufFile *f, const GgufTensor *t, void *out, Err *err) {
    return gguf_read_at(f, out, t->bytes, t->offset, err) ||
           err_wrap(err, "%s: tensor %s", f->path, t->name);
}

bool gguf_read_f32(const GgufFile *f, const GgufTensor *t, int64_t first, int64_t n, float *out,
                   Err *err) {
    CHECK(first >= 0 && n >= 0 && first <= t->rows && n <= t->rows - first);
    if (t->type->type == GGML_I32)
        return err_set(err, ERR_INPUT, "%s: tensor %s is I32, a float type is needed", f->path,
                       t->name);
    const int64_t row = t->bytes / t->rows;
    const int64_t piece = row < DECODE_BYTES ? DECODE_BYTES / row : 1;
    void *q = malloc((size_t)(row * (piece < n ? piece : n)) + 1);
    bool ok = q != NULL || err_set(err, ERR_FAILED, "out of memory");
    for (int64_t at = 0; ok && at < n; at += piece) {
        const int64_t rows = n - at < piece ? n - at : piece;
        ok = gguf_read_at(f, q, rows * row, t->offset + (first + at) * row, err) &&
             ggml_decode(t->type->type, out + at * t->dim[0], q, rows, t->dim[0], err);
    }
    free(q);
    return ok || err_wrap(err, "%s: tensor %s", f->path, t->name);
}
