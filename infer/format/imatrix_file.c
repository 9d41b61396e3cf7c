// infer/format/imatrix_file.c - importance in memory, in the legacy .dat form and in GGUF.
#include "infer/format/imatrix_file.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/format/gguf.h"

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
    if (m->n > 0) qsort(m->entry, (size_t)m->n, sizeof *m->entry, by_name);
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

// The power of two next to the number of rows: sums are iw times it, and the reader's division
// gives iw back, bit for bit. (Sums that would leave the range of f32 take 1.)
static float count_of(const ImatrixEntry *e) {
    float most = 0.0f;
    for (int64_t j = 0; j < e->n; j++) most = fmaxf(most, e->iw[j]);
    const float count = e->rows > 1.0 ? exp2f(roundf(log2f((float)e->rows))) : 1.0f;
    return isfinite(most * count) ? count : 1.0f;
}

static bool declare(GgufWriter *w, const ImatrixEntry *e, const char *suffix, int64_t n, Err *err) {
    char name[IMATRIX_NAME_MAX + 16];
    snprintf(name, sizeof name, "%s%s", e->name, suffix);
    return gguf_writer_declare(w, name, GGML_F32, 2, (const int64_t[]){n, 1}, err);
}

static bool write_entry(GgufWriter *w, const ImatrixEntry *e, Err *err) {
    const float count = count_of(e);
    float *sum = malloc((size_t)e->n * sizeof *sum);
    CHECK_MEMORY(sum);
    for (int64_t j = 0; j < e->n; j++) sum[j] = e->iw[j] * count;
    const bool ok = gguf_writer_data(w, sum, e->n * (int64_t)sizeof *sum, err) &&
                    gguf_writer_data(w, &count, sizeof count, err);
    free(sum);
    return ok;
}

bool imatrix_write_gguf(const char *path, const Imatrix *m, Err *err) {
    GgufWriter *w = gguf_writer_open(path, err);
    if (w == NULL) return false;
    gguf_put_string(w, "general.type", "imatrix");
    gguf_put_array(w, "imatrix.datasets", GGUF_TEXT, 1);
    gguf_add_text(w, m->dataset, strlen(m->dataset));
    gguf_put_u32(w, "imatrix.chunk_count", (uint32_t)m->chunks);
    gguf_put_u32(w, "imatrix.chunk_size", (uint32_t)m->chunk_size);
    bool ok = true;
    for (int i = 0; ok && i < m->n; i++)
        ok = declare(w, &m->entry[i], ".in_sum2", m->entry[i].n, err) &&
             declare(w, &m->entry[i], ".counts", 1, err);
    ok = ok && gguf_writer_begin(w, err);
    for (int i = 0; ok && i < m->n; i++) ok = write_entry(w, &m->entry[i], err);
    if (ok) return gguf_writer_commit(w, err);
    gguf_writer_drop(w);
    return false;
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

// Length of the name before ".in_sum2", -1: another tensor.
static int stem(const char *name) {
    const size_t n = strlen(name), m = strlen(".in_sum2");
    return n > m && strcmp(name + n - m, ".in_sum2") == 0 ? (int)(n - m) : -1;
}

static bool read_sums(const GgufFile *f, const GgufTensor *t, ImatrixEntry *e, Err *err) {
    char counts[IMATRIX_NAME_MAX + 16];
    float count = 0.0f;
    snprintf(e->name, sizeof e->name, "%.*s", stem(t->name), t->name);
    snprintf(counts, sizeof counts, "%s.counts", e->name);
    const GgufTensor *c = gguf_find(f, counts);
    if (t->rows != 1 || t->dim[0] > COLUMNS_MAX || t->type->type != GGML_F32)
        return err_set(err, ERR_INPUT, "%s: %lld rows of %s, expected one of F32", t->name,
                       (long long)t->rows, t->type->name);
    if (c == NULL || c->count != 1 || c->type->type != GGML_F32)
        return err_set(err, ERR_INPUT, "%s: no tensor %s of one F32", t->name, counts);
    e->n = t->dim[0];
    e->iw = malloc((size_t)e->n * sizeof *e->iw);
    CHECK_MEMORY(e->iw);
    if (!gguf_read(f, c, &count, err) || !gguf_read(f, t, e->iw, err)) return false;
    if (!(count >= 0.0f) || !isfinite(count))
        return err_set(err, ERR_INPUT, "%s is %g", counts, (double)count);
    e->rows = (double)count;
    for (int64_t j = 0; j < e->n; j++) {
        e->iw[j] = count > 0.0f ? e->iw[j] / count : 1.0f; // no rows: all columns alike
        if (!isfinite(e->iw[j]) || e->iw[j] < 0.0f)
            return err_set(err, ERR_INPUT, "%s, column %lld: %g", t->name, (long long)j,
                           (double)e->iw[j]);
    }
    return true;
}

static void read_dataset(const GgufFile *f, Imatrix *m) {
    GgufText text;
    GgufCursor cursor = {0};
    const GgufValue *v = gguf_value(f, "imatrix.datasets");
    if (v != NULL && gguf_text_next(f, v, &cursor, &text))
        snprintf(m->dataset, sizeof m->dataset, "%.*s", text.size < 200 ? (int)text.size : 200,
                 text.at);
}

static bool read_gguf(Imatrix *m, const GgufFile *f, Err *err) {
    GgufText type;
    if (!gguf_text(f, "general.type", &type, err)) return false;
    if (type.size != 7 || memcmp(type.at, "imatrix", 7) != 0)
        return err_set(err, ERR_INPUT, "general.type is \"%.*s\", expected \"imatrix\"",
                       type.size < 64 ? (int)type.size : 64, type.at);
    if (!gguf_int(f, "imatrix.chunk_count", 0, INT32_MAX, &m->chunks, err) ||
        !gguf_int(f, "imatrix.chunk_size", 0, INT32_MAX, &m->chunk_size, err))
        return false;
    read_dataset(f, m);
    m->entry = calloc((size_t)gguf_count(f) + 1, sizeof *m->entry);
    CHECK_MEMORY(m->entry);
    for (int i = 0; i < gguf_count(f); i++) {
        const GgufTensor *t = gguf_at(f, i);
        if (stem(t->name) > 0 && !read_sums(f, t, &m->entry[m->n++], err)) return false;
    }
    return m->n > 0 || err_set(err, ERR_INPUT, "no entries");
}

static bool read_either(Imatrix *m, const char *path, Err *err) {
    if (gguf_recognises(path)) {
        GgufFile *f = gguf_open(path, err);
        const bool ok = f != NULL && read_gguf(m, f, err);
        gguf_close(f);
        return ok;
    }
    size_t size;
    char *data = file_read(path, DAT_LIMIT, &size, err);
    const bool ok = data != NULL && read_dat(m, (Bytes){data, size}, err);
    free(data);
    return ok;
}

static bool no_repeats(const Imatrix *m, Err *err) {
    for (int i = 1; i < m->n; i++)
        if (strcmp(m->entry[i - 1].name, m->entry[i].name) == 0)
            return err_set(err, ERR_INPUT, "two entries for %s", m->entry[i].name);
    return true;
}

bool imatrix_read(Imatrix *m, const char *path, Err *err) {
    *m = (Imatrix){0};
    const bool ok = read_either(m, path, err);
    imatrix_sort(m);
    if (ok && no_repeats(m, err)) return true;
    imatrix_free(m);
    return err_wrap(err, "%s", path);
}
