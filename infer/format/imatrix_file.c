// infer/format/imatrix_file.c - importance in memory and in the legacy .dat form.
#include "infer/format/imatrix_file.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"

enum { DAT_LIMIT = 1 << 30, ENTRIES_MAX = 1 << 16, COLUMNS_MAX = 1 << 24 };

bool imatrix_set(ImatrixEntry *e, const char *name, const double *mean, int64_t n, double rows,
                 Err *err) {
    double sum = 0.0;
    *e = (ImatrixEntry){.n = n, .rows = rows};
    CHECK(snprintf(e->name, sizeof e->name, "%s", name) < (int)sizeof e->name);
    for (int64_t j = 0; j < n; j++) {
        if (!isfinite(mean[j]) || mean[j] < 0.0)
            return err_set(err, ERR_FAILED, "importance of %s, column %lld: %g", name, (long long)j,
                           mean[j]);
        sum += mean[j];
    }
    if (sum == 0.0) return err_set(err, ERR_FAILED, "importance of %s: all inputs were 0", name);
    e->iw = malloc((size_t)n * sizeof *e->iw);
    CHECK_MEMORY(e->iw);
    const double least = fmax(1e-8 * sum / (double)n, FLT_MIN);
    for (int64_t j = 0; j < n; j++) e->iw[j] = (float)fmin(fmax(mean[j], least), FLT_MAX);
    return true;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const ImatrixEntry *)a)->name, ((const ImatrixEntry *)b)->name);
}

void imatrix_sort(Imatrix *m) {
    qsort(m->entry, (size_t)m->n, sizeof *m->entry, by_name);
}

void imatrix_free(Imatrix *m) {
    for (int i = 0; i < m->n; i++) free(m->entry[i].iw);
    free(m->entry);
    *m = (Imatrix){0};
}

const ImatrixEntry *imatrix_find(const Imatrix *m, const char *name) {
    for (int i = 0; i < m->n; i++)
        if (strcmp(m->entry[i].name, name) == 0) return &m->entry[i];
    return NULL;
}

static void put_i32(OutFile *f, int64_t x) {
    const int32_t v = (int32_t)x;
    out_write(f, &v, sizeof v);
}

static void put_text(OutFile *f, const char *text) {
    put_i32(f, (int64_t)strlen(text));
    out_write(f, text, strlen(text));
}

// values are (S / n) * ncall; the reader divides by ncall: 1 keeps them as they are.
bool imatrix_write_dat(const char *path, const Imatrix *m, Err *err) {
    OutFile f;
    if (!out_open(&f, path, err)) return false;
    put_i32(&f, m->n);
    for (int i = 0; i < m->n; i++) {
        const ImatrixEntry *e = &m->entry[i];
        put_text(&f, e->name);
        put_i32(&f, 1);
        put_i32(&f, e->n);
        out_write(&f, e->iw, (size_t)e->n * sizeof *e->iw);
    }
    put_i32(&f, m->chunks);
    put_text(&f, m->dataset);
    return out_commit(&f, err);
}

// What is left of a file in memory.
typedef struct {
    const char *at;
    size_t left;
} Bytes;

static bool take(Bytes *b, void *out, size_t size) {
    if (b->left < size) return false;
    memcpy(out, b->at, size);
    b->at += size;
    b->left -= size;
    return true;
}

static bool take_i32(Bytes *b, int64_t min, int64_t max, int64_t *out) {
    int32_t x;
    if (!take(b, &x, sizeof x)) return false;
    *out = x;
    return *out >= min && *out <= max;
}

static bool take_entry(Bytes *b, ImatrixEntry *e, Err *err) {
    int64_t len, calls;
    if (!take_i32(b, 1, IMATRIX_NAME_MAX, &len) || !take(b, e->name, (size_t)len) ||
        memchr(e->name, 0, (size_t)len) != NULL)
        return err_set(err, ERR_INPUT, "a name is damaged");
    if (!take_i32(b, 1, INT32_MAX, &calls) || !take_i32(b, 1, COLUMNS_MAX, &e->n) ||
        b->left / sizeof *e->iw < (size_t)e->n)
        return err_set(err, ERR_INPUT, "entry %s is damaged or cut off", e->name);
    e->rows = (double)calls;
    e->iw = malloc((size_t)e->n * sizeof *e->iw);
    CHECK_MEMORY(e->iw);
    if (!take(b, e->iw, (size_t)e->n * sizeof *e->iw)) return false;
    for (int64_t j = 0; j < e->n; j++) {
        e->iw[j] /= (float)calls;
        if (!isfinite(e->iw[j]) || e->iw[j] < 0.0f)
            return err_set(err, ERR_INPUT, "entry %s, column %lld: %g", e->name, (long long)j,
                           (double)e->iw[j]);
    }
    return true;
}

static bool read_dat(Imatrix *m, Bytes b, Err *err) {
    int64_t entries, len;
    if (!take_i32(&b, 1, ENTRIES_MAX, &entries))
        return err_set(err, ERR_INPUT, "neither a GGUF file nor an imatrix.dat");
    m->entry = calloc((size_t)entries, sizeof *m->entry);
    CHECK_MEMORY(m->entry);
    while (m->n < entries)
        if (!take_entry(&b, &m->entry[m->n++], err)) return false;
    if (b.left == 0) return true; // old files end here
    if (!take_i32(&b, 0, INT32_MAX, &m->chunks) ||
        !take_i32(&b, 0, (int64_t)sizeof m->dataset - 1, &len) ||
        !take(&b, m->dataset, (size_t)len) || b.left > 0)
        return err_set(err, ERR_INPUT, "what stands behind the entries is damaged");
    return true;
}

static bool no_repeats(const Imatrix *m, Err *err) {
    for (int i = 1; i < m->n; i++)
        if (strcmp(m->entry[i - 1].name, m->entry[i].name) == 0)
            return err_set(err, ERR_INPUT, "two entries for %s", m->entry[i].name);
    return true;
}

bool imatrix_read(Imatrix *m, const char *path, Err *err) {
    size_t size;
    *m = (Imatrix){0};
    char *data = file_read(path, DAT_LIMIT, &size, err);
    if (data == NULL) return false;
    bool ok = read_dat(m, (Bytes){data, size}, err);
    free(data);
    imatrix_sort(m);
    if (ok && no_repeats(m, err)) return true;
    imatrix_free(m);
    return err_wrap(err, "%s", path);
}
