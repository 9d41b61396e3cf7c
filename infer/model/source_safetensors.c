// infer/model/source_safetensors.c - weights under their own names in plain floats: Hugging Face
// folders, MLX folders that are not quantised, checkpoints, single files.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/weight_source.h"

static bool recognises(const char *path) {
    (void)path;
    return true;
}

static bool config(const char *path, AssistantConfig *c, Err *err) {
    return assistant_config_load(c, path, err);
}

// A tied head may be repeated as lm_head.weight; a different one is another model.
static bool check_head(const StFile *f, Err *err) {
    const StTensor *head = st_find(f, "lm_head.weight"),
                   *table = st_find(f, "model.embed_tokens.weight");
    if (head == NULL || table == NULL) return true;
    if (strcmp(head->dtype, table->dtype) != 0 || head->bytes != table->bytes)
        return err_set(err, ERR_INPUT,
                       "lm_head.weight (%s, %lld bytes) is not model.embed_tokens.weight (%s, "
                       "%lld bytes)",
                       head->dtype, (long long)head->bytes, table->dtype, (long long)table->bytes);
    enum { PIECE = 1 << 20 };
    char *x = malloc(2 * (size_t)PIECE);
    CHECK_MEMORY(x);
    bool ok = true;
    for (int64_t at = 0; ok && at < head->bytes; at += PIECE) {
        const int64_t n = head->bytes - at < PIECE ? head->bytes - at : PIECE;
        ok = st_read_part(f, head, at, n, x, err) && st_read_part(f, table, at, n, x + PIECE, err);
        if (ok && memcmp(x, x + PIECE, (size_t)n) != 0)
            ok = err_set(err, ERR_INPUT,
                         "lm_head.weight differs from model.embed_tokens.weight: an assistant's "
                         "head is its table");
    }
    free(x);
    return ok;
}

static void close_file(void *ctx) {
    st_close(ctx);
}

static void *open_file(const char *path, Err *err) {
    StFile *f = st_open(path, err);
    if (f == NULL || check_head(f, err)) return f;
    st_close(f);
    return NULL;
}

static bool find(void *ctx, const char *key, SourceTensor *out) {
    const StTensor *t = st_find(ctx, key);
    if (t == NULL) return false;
    snprintf(out->type, sizeof out->type, "%s", t->dtype);
    out->rank = t->rank;
    memcpy(out->dim, t->dim, sizeof out->dim);
    out->count = t->count;
    out->bytes = t->bytes;
    out->at = t;
    return true;
}

static bool read_floats(void *ctx, const SourceTensor *t, DType dtype, void *out, Err *err) {
    if (strcmp(t->type, dtype_name(dtype)) == 0) return st_read(ctx, t->at, out, err);
    if (!st_read_f32(ctx, t->at, out, err)) return false;
    for (int64_t i = 0; dtype == DT_BF16 && i < t->count; i++) { // in place, behind the reader
        const bf16 x = bf16_from_f32(((const float *)out)[i]);
        memcpy((char *)out + (size_t)i * sizeof x, &x, sizeof x);
    }
    return true;
}

static bool read_ints(void *ctx, const SourceTensor *t, int64_t *out, Err *err) {
    const bool wide = strcmp(t->type, "I64") == 0;
    if (!wide && strcmp(t->type, "I32") != 0)
        return err_set(err, ERR_INPUT, "%s is %s, expected I64 or I32", t->key, t->type);
    if (!st_read(ctx, t->at, out, err)) return false;
    for (int64_t i = t->count; !wide && i-- > 0;) { // in place, from the end
        int32_t x;
        memcpy(&x, (const char *)out + (size_t)i * sizeof x, sizeof x);
        out[i] = x;
    }
    return true;
}

static void info(void *ctx, ArtifactInfo *out) {
    const char *format = st_metadata(ctx, "format");
    const StTensor *table = st_find(ctx, "model.embed_tokens.weight");
    snprintf(out->format, sizeof out->format, "%s",
             format != NULL && strcmp(format, "mlx") == 0 ? "MLX" : "HF");
    snprintf(out->label, sizeof out->label, "%s", table != NULL ? table->dtype : "?");
    for (int i = 0; i < st_count(ctx); i++) out->bytes += st_at(ctx, i)->bytes;
}

const SourceKind source_safetensors = {
    .recognises = recognises,
    .config = config,
    .open = open_file,
    .close = close_file,
    .find = find,
    .read = read_floats,
    .read_ints = read_ints,
    .info = info,
};
