// infer/export/gguf_source.c - parameters row by row out of safetensors files.
#include <stdlib.h>
#include <string.h>

#include "infer/export/gguf_export.h"

struct GgufSource {
    StFile *stock;
    HfSource src;
    const StTensor *at; // the tensor that `raw` holds, in the stock's dtype
    void *raw;
};

GgufSource *gguf_source_open(const char *stock_dir, const HfSource *src, Err *err) {
    GgufSource *s = calloc(1, sizeof *s);
    CHECK_MEMORY(s);
    s->src = *src;
    if ((s->stock = st_open(stock_dir, err)) != NULL) return s;
    free(s);
    return NULL;
}

void gguf_source_close(GgufSource *s) {
    if (s == NULL) return;
    st_close(s->stock);
    free(s->raw);
    free(s);
}

static bool take(GgufSource *s, const char *key, Err *err) {
    bool have = false;
    if (s->at != NULL && strcmp(s->at->name, key) == 0) return true;
    free(s->raw);
    s->raw = NULL;
    if ((s->at = st_find(s->stock, key)) == NULL)
        return err_set(err, ERR_INPUT, "%s: no tensor %s", st_path(s->stock), key);
    const StTensor *t = s->at;
    s->at = NULL; // until it is there
    if ((s->raw = malloc((size_t)t->bytes + 1)) == NULL)
        return err_set(err, ERR_FAILED, "%s: out of memory", key);
    if (!s->src.fetch(s->src.ctx, t, s->raw, &have, err)) return false;
    if (!have && !st_read(s->stock, t, s->raw, err)) return false;
    s->at = t;
    return true;
}

static bool rows(void *ctx, const char *key, int64_t first, int64_t n, int64_t cols, float *out,
                 Err *err) {
    GgufSource *s = ctx;
    if (!take(s, key, err)) return false;
    const StTensor *t = s->at;
    const GgmlTypeInfo *type = ggml_type_named(t->dtype);
    if (type == NULL || type->block != 1)
        return err_set(err, ERR_INPUT, "%s: dtype %s, a float type is needed", key, t->dtype);
    if (cols < 1 || first < 0 || n < 0 || first > t->count / cols || n > t->count / cols - first ||
        t->count % cols != 0)
        return err_set(err, ERR_INPUT,
                       "%s has %lld values, rows of %lld are expected up to row %lld", key,
                       (long long)t->count, (long long)cols, (long long)(first + n));
    const char *from = (const char *)s->raw + first * cols * type->bytes;
    return ggml_decode(type->type, out, from, n, cols, err) || err_wrap(err, "%s", key);
}

GgufWeights gguf_source_weights(GgufSource *s) {
    return (GgufWeights){s, rows};
}
