// infer/export/gguf_export.c - all files of a job at once: every tensor is read once, encoded once
// per type and written wherever that type is wanted.
#include "infer/export/gguf_export.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/export/gguf_keys.h"

enum { CHUNK_VALUES = 8 << 20 };

typedef struct {
    const GgufJob *job;
    const GgufMix *mix;
    int files;
    AssistantConfig written;
    GgufEntry from[GGUF_ENTRIES_MAX], to[GGUF_ENTRIES_MAX]; // as read, as written
    int n;
    GgmlType type[GGUF_MIXES_MAX][GGUF_ENTRIES_MAX];
    GgufWriter *w[GGUF_MIXES_MAX];
    float *x; // a chunk of rows
    void *q;  // the same encoded
    float *m; // importance of a row that is wider than it was read
} Work;

char *gguf_file_name(char out[256], const char *name, const char *mix) {
    char clean[160];
    snprintf(clean, sizeof clean, "%.150s", name);
    for (char *p = clean; *p != '\0'; p++)
        if (*p <= ' ' || *p == '/' || *p == 0x7f) *p = '-';
    snprintf(out, 256, "mtp-%s-%s.gguf", clean, mix);
    return out;
}

enum { WIDENING = 4 }; // its root must be a power of two

AssistantConfig gguf_written_config(GgufDialect d, const AssistantConfig *c, bool *wide) {
    AssistantConfig out = *c;
    *wide = d == GGUF_UNIVERSAL && c->text.hidden == c->backbone;
    if (*wide) {
        out.text.hidden *= WIDENING;
        out.text.eps /= WIDENING;
    }
    return out;
}

// Everything of one file but the data; dir NULL: it is only measured.
static bool open_file(Work *k, int i, const GgufTexts *t, const char *dir, Err *err) {
    char path[PATH_ROOM], name[256];
    const GgufMix *m = &k->mix[i];
    path_join(path, dir != NULL ? dir : "", gguf_file_name(name, k->job->name, m->name));
    if ((k->w[i] = gguf_writer_open(dir != NULL ? path : NULL, err)) == NULL) return false;
    if (!gguf_put_model(k->w[i], k->job, t, &k->written, m, err)) return err_wrap(err, "%s", path);
    gguf_put_vocabulary(k->w[i], t);
    const int64_t planned = gguf_plan(m, k->to, k->n, k->written.text.layers, k->type[i]);
    for (int e = 0; e < k->n; e++)
        if (!gguf_writer_declare(k->w[i], k->to[e].name, k->type[i][e], k->to[e].rank, k->to[e].dim,
                                 err))
            return false;
    CHECK(gguf_writer_data_bytes(k->w[i]) == planned);
    return dir == NULL || gguf_writer_begin(k->w[i], err);
}

// Rows [first, first + n) of the tensor as it is written, zeros where it is wider than it was read.
static bool fill(Work *k, int e, int64_t first, int64_t n, Err *err) {
    const GgufEntry *from = &k->from[e], *to = &k->to[e];
    const int64_t cols = from->dim[0], wide = to->dim[0];
    if (from->key[0] == '\0') {
        gguf_rope_factors(&k->written, k->x);
        return true;
    }
    const int64_t left = from->dim[1] - first, have = left < 0 ? 0 : left < n ? left : n;
    const GgufWeights *w = &k->job->weights;
    if (have > 0 && !w->rows(w->ctx, from->key, first, have, cols, k->x, err)) return false;
    for (int64_t r = have; wide > cols && r-- > 0;) { // in place, from the last row
        memmove(k->x + r * wide, k->x + r * cols, (size_t)cols * sizeof *k->x);
        memset(k->x + r * wide + cols, 0, (size_t)(wide - cols) * sizeof *k->x);
    }
    memset(k->x + have * wide, 0, (size_t)((n - have) * wide) * sizeof *k->x);
    if (to->role == GGUF_VECTOR && wide > cols) // the root mean square is half of what it was
        for (int64_t i = 0; i < cols; i++) k->x[i] *= 0.5f;
    return true;
}

// The chunk goes to every file, encoded once for each type.
static bool spread(Work *k, int e, int64_t first, int64_t n, const float *importance, Err *err) {
    const int64_t cols = k->to[e].dim[0];
    for (int i = 0; i < k->files; i++) {
        const GgmlType type = k->type[i][e];
        int seen = 0;
        while (k->type[seen][e] != type) seen++;
        if (seen < i) continue;
        if (!ggml_encode(type, k->q, k->x, n, cols, importance, err))
            return err_wrap(err, "%s as %s, rows from %" PRId64, k->to[e].name,
                            ggml_type(type)->name, first);
        for (int j = i; j < k->files; j++)
            if (k->type[j][e] == type &&
                !gguf_writer_data(k->w[j], k->q, n * ggml_row_bytes(type, cols), err))
                return false;
    }
    return true;
}

static const float *importance_of(Work *k, int e) {
    const GgufImportance *m = k->job->importance;
    const int64_t cols = k->from[e].dim[0], wide = k->to[e].dim[0];
    const float *x = m && k->to[e].role != GGUF_VECTOR ? m->find(m->ctx, &k->from[e]) : NULL;
    if (x == NULL || wide == cols) return x;
    memcpy(k->m, x, (size_t)cols * sizeof *x);
    for (int64_t i = cols; i < wide; i++) k->m[i] = 1.0f; // of zeros
    return k->m;
}

static bool copy_tensor(Work *k, int e, Err *err) {
    const GgufEntry *to = &k->to[e];
    const float *importance = importance_of(k, e);
    const int64_t piece = to->dim[0] < CHUNK_VALUES ? CHUNK_VALUES / to->dim[0] : 1;
    for (int64_t at = 0; at < to->dim[1]; at += piece) {
        const int64_t n = to->dim[1] - at < piece ? to->dim[1] - at : piece;
        if (!fill(k, e, at, n, err) || !spread(k, e, at, n, importance, err)) return false;
    }
    return true;
}

static bool take_memory(Work *k, Err *err) {
    int64_t most = CHUNK_VALUES, row = 0;
    for (int e = 0; e < k->n; e++)
        if (k->to[e].dim[0] > row) row = k->to[e].dim[0];
    if (row > most) most = row;
    k->x = malloc((size_t)most * sizeof *k->x);
    k->q = malloc((size_t)most * sizeof *k->x); // no type takes more than F32
    k->m = malloc((size_t)row * sizeof *k->m);
    return (k->x != NULL && k->q != NULL && k->m != NULL) ||
           err_set(err, ERR_FAILED, "no memory for rows of %" PRId64 " values", most);
}

static bool write_files(Work *k, const char *dir, Err *err) {
    GgufTexts t;
    bool ok = gguf_texts_open(&t, k->job, err);
    for (int i = 0; ok && i < k->files; i++) ok = open_file(k, i, &t, dir, err);
    gguf_texts_close(&t);
    ok = ok && take_memory(k, err);
    for (int e = 0; ok && e < k->n; e++) ok = copy_tensor(k, e, err);
    for (int i = 0; i < k->files; i++) {
        if (ok)
            ok = gguf_writer_commit(k->w[i], err);
        else
            gguf_writer_drop(k->w[i]);
    }
    return ok;
}

static void tell_widening(const GgufJob *job, const AssistantConfig *written) {
    log_info("hidden_size %" PRId64
             " is the target's: llama.cpp refuses that; written with %" PRId64
             " channels, the new ones zero (the same function)",
             job->config->text.hidden, written->text.hidden);
}

static Work *work_of(const GgufJob *job, const GgufMix *mix, int n, bool *wide) {
    CHECK(n > 0 && n <= GGUF_MIXES_MAX);
    Work *k = calloc(1, sizeof *k);
    CHECK_MEMORY(k);
    k->job = job;
    k->mix = mix;
    k->files = n;
    k->written = gguf_written_config(job->dialect, job->config, wide);
    k->n = gguf_assistant_tensors(job->dialect, job->config, k->from);
    gguf_assistant_tensors(job->dialect, &k->written, k->to);
    return k;
}

bool gguf_export(const GgufJob *job, const GgufMix *mix, int n, const char *dir, Err *err) {
    bool wide;
    Work *k = work_of(job, mix, n, &wide);
    if (wide) tell_widening(job, &k->written);
    const bool ok = write_files(k, dir, err);
    free(k->x);
    free(k->q);
    free(k->m);
    free(k);
    return ok;
}

bool gguf_export_bytes(const GgufJob *job, const GgufMix *mix, int n, int64_t *bytes, Err *err) {
    bool wide;
    GgufTexts t;
    Work *k = work_of(job, mix, n, &wide);
    bool ok = gguf_texts_open(&t, job, err);
    for (int i = 0; ok && i < n; i++) {
        ok = open_file(k, i, &t, NULL, err);
        if (ok) bytes[i] = gguf_writer_file_bytes(k->w[i]);
        gguf_writer_drop(k->w[i]);
    }
    gguf_texts_close(&t);
    free(k);
    return ok;
}
