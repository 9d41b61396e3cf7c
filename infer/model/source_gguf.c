// infer/model/source_gguf.c - an assistant's weights and configuration out of a GGUF file.
#include "infer/model/source_gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/fp.h"
#include "infer/base/log.h"
#include "infer/model/weight_source.h"

typedef struct {
    GgufFile *file;
    GgufDialect dialect;
    AssistantConfig config;
    GgufEntry entry[GGUF_ENTRIES_MAX];
    int n;
} Source;

static void shape_text(char out[64], int rank, const int64_t *dim) {
    int at = 0;
    for (int i = 0; i < rank && at < 48; i++)
        at += snprintf(out + at, 64 - (size_t)at, "%s%lld", i ? ", " : "", (long long)dim[i]);
}

// What a converter may add to an ordered head; no runtime reads it.
static bool is_ignored(const char *name) {
    static const char *const NAMES[] = {"masked_embd_centroids.weight", "masked_embd_ordering",
                                        "mtp_centroids.weight", "mtp_token_ordering.weight"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (strcmp(name, NAMES[i]) == 0) return true;
    return false;
}

static bool check_shape(const Source *s, const GgufEntry *e, Err *err) {
    char is[64], want[64];
    const GgufTensor *t = gguf_find(s->file, e->name);
    if (t == NULL) return err_set(err, ERR_INPUT, "%s: no tensor %s", gguf_path(s->file), e->name);
    bool ok = t->rank == e->rank;
    for (int i = 0; ok && i < t->rank; i++) ok = t->dim[i] == e->dim[i];
    if (ok) return true;
    shape_text(is, t->rank, t->dim);
    shape_text(want, e->rank, e->dim);
    return err_set(err, ERR_INPUT, "%s: tensor %s has shape [%s], its keys say [%s]",
                   gguf_path(s->file), e->name, is, want);
}

// Every tensor of the table and nothing else: a runtime that meets an unknown one does not load.
static bool check_tensors(const Source *s, Err *err) {
    for (int i = 0; i < s->n; i++)
        if (!check_shape(s, &s->entry[i], err)) return false;
    for (int i = 0; i < gguf_count(s->file); i++) {
        const char *name = gguf_at(s->file, i)->name;
        int k = 0;
        while (k < s->n && strcmp(s->entry[k].name, name) != 0) k++;
        if (k == s->n && !is_ignored(name))
            return err_set(err, ERR_INPUT, "%s: tensor %s is no part of a %s", gguf_path(s->file),
                           name, gguf_architecture(s->dialect));
    }
    return true;
}

static void source_close(void *ctx) {
    Source *s = ctx;
    if (s == NULL) return;
    gguf_close(s->file);
    free(s);
}

static Source *source_new(const char *path, Err *err) {
    Source *s = calloc(1, sizeof *s);
    CHECK_MEMORY(s);
    if ((s->file = gguf_open(path, err)) == NULL ||
        !gguf_assistant_config(&s->config, &s->dialect, s->file, err)) {
        source_close(s);
        return NULL;
    }
    s->n = gguf_assistant_tensors(s->dialect, &s->config, s->entry);
    if (check_tensors(s, err)) return s;
    source_close(s);
    return NULL;
}

static void *source_open(const char *path, Err *err) {
    Source *s = source_new(path, err);
    if (s != NULL) log_info("%s: a GGUF file has no centroids: the dense head is deployed", path);
    return s;
}

static bool source_config(const char *path, AssistantConfig *c, Err *err) {
    Source *s = source_new(path, err);
    if (s != NULL) *c = s->config;
    source_close(s);
    return s != NULL;
}

static bool find(void *ctx, const char *key, SourceTensor *out) {
    Source *s = ctx;
    for (int i = 0; i < s->n; i++) {
        if (strcmp(s->entry[i].key, key) != 0) continue;
        const GgufTensor *t = gguf_find(s->file, s->entry[i].name);
        snprintf(out->type, sizeof out->type, "%s", t->type->name);
        out->rank = t->rank;
        for (int k = 0; k < t->rank; k++) out->dim[k] = t->dim[t->rank - 1 - k];
        out->count = t->count;
        out->bytes = t->bytes;
        out->at = t;
        return true;
    }
    return false;
}

static bool read_floats(void *ctx, const SourceTensor *st, DType dtype, void *out, Err *err) {
    const Source *s = ctx;
    const GgufTensor *t = st->at;
    if (t->type->type == GGML_BF16 && dtype == DT_BF16) return gguf_read(s->file, t, out, err);
    if (!gguf_read_f32(s->file, t, 0, t->rows, out, err)) return false;
    const float *x = out;
    for (int64_t i = 0; i < t->count; i++)
        if (!isfinite(x[i]))
            return err_set(err, ERR_INPUT, "%s: tensor %s decodes to %g at value %lld",
                           gguf_path(s->file), t->name, (double)x[i], (long long)i);
    for (int64_t i = 0; dtype == DT_BF16 && i < t->count; i++) { // in place, behind the reader
        const bf16 y = bf16_from_f32(x[i]);
        memcpy((char *)out + (size_t)i * sizeof y, &y, sizeof y);
    }
    return true;
}

static bool read_ints(void *ctx, const SourceTensor *t, int64_t *out, Err *err) {
    (void)out;
    return err_set(err, ERR_INPUT, "%s: %s is %s, no integers are read from a GGUF file",
                   gguf_path(((const Source *)ctx)->file), t->key, t->type);
}

static void info(void *ctx, ArtifactInfo *out) {
    const Source *s = ctx;
    GgufText mix;
    int64_t type;
    char name[40];
    if (gguf_text(s->file, GGUF_MIX_KEY, &mix, NULL)) // a mix of ours that no file type names
        snprintf(name, sizeof name, "%.*s", mix.size > 32 ? 32 : (int)mix.size, mix.at);
    else if (gguf_int(s->file, "general.file_type", 0, INT32_MAX, &type, NULL))
        snprintf(name, sizeof name, "%s", gguf_file_type_name(type));
    else
        snprintf(name, sizeof name, "?");
    snprintf(out->format, sizeof out->format, "GGUF");
    snprintf(out->label, sizeof out->label, "%s, %s", name, gguf_architecture(s->dialect));
    for (int i = 0; i < gguf_count(s->file); i++) out->bytes += gguf_at(s->file, i)->bytes;
}

const SourceKind source_gguf = {
    .own_config = true,
    .recognises = gguf_recognises,
    .config = source_config,
    .open = source_open,
    .close = source_close,
    .find = find,
    .read = read_floats,
    .read_ints = read_ints,
    .info = info,
};
