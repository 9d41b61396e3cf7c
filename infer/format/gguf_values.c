// infer/format/gguf_values.c - values of keys as numbers and texts.
#include <string.h>

#include "infer/format/gguf_types.h"

static uint64_t bits_at(const GgufFile *f, const GgufValue *v, int64_t i) {
    const int bytes = gguf_kind_bytes(v->kind);
    const unsigned char *p = (const unsigned char *)f->head + v->at + i * bytes;
    uint64_t x = 0;
    for (int k = bytes; k-- > 0;) x = x << 8 | p[k];
    return x;
}

bool gguf_int_at(const GgufFile *f, const GgufValue *v, int64_t i, int64_t *out) {
    CHECK(i >= 0 && i < v->count);
    if (v->kind == GGUF_TEXT || v->kind == GGUF_F32 || v->kind == GGUF_F64) return false;
    const uint64_t x = bits_at(f, v, i);
    switch (v->kind) {
    case GGUF_I8:
        *out = (int8_t)x;
        break;
    case GGUF_I16:
        *out = (int16_t)x;
        break;
    case GGUF_I32:
        *out = (int32_t)x;
        break;
    default:
        if (v->kind == GGUF_U64 && x > INT64_MAX) return false;
        *out = (int64_t)x;
    }
    return true;
}

bool gguf_real_at(const GgufFile *f, const GgufValue *v, int64_t i, double *out) {
    CHECK(i >= 0 && i < v->count);
    const uint64_t x = bits_at(f, v, i);
    if (v->kind == GGUF_F32) {
        const uint32_t half = (uint32_t)x;
        float y;
        memcpy(&y, &half, sizeof y);
        *out = (double)y;
    } else if (v->kind == GGUF_F64) {
        memcpy(out, &x, sizeof x);
    } else {
        return false;
    }
    return true;
}

bool gguf_text_next(const GgufFile *f, const GgufValue *v, GgufCursor *c, GgufText *out) {
    if (v->kind != GGUF_TEXT || c->done == v->count) return false;
    const unsigned char *p = (const unsigned char *)f->head + v->at + c->at;
    uint64_t size = 0;
    for (int k = 8; k-- > 0;) size = size << 8 | p[k];
    *out = (GgufText){(const char *)p + 8, (size_t)size};
    c->at += 8 + (int64_t)size;
    c->done++;
    return true;
}

static const GgufValue *scalar(const GgufFile *f, const char *key, Err *err) {
    const GgufValue *v = gguf_value(f, key);
    if (v == NULL)
        err_set(err, ERR_INPUT, "%s: no key %s", f->path, key);
    else if (v->array)
        err_set(err, ERR_INPUT, "%s: %s is an array of %lld %s, one value is needed", f->path, key,
                (long long)v->count, gguf_kind_name(v->kind));
    return v != NULL && !v->array ? v : NULL;
}

static bool wrong_kind(const GgufFile *f, const GgufValue *v, const char *needed, Err *err) {
    return err_set(err, ERR_INPUT, "%s: %s is %s, %s is needed", f->path, v->key,
                   gguf_kind_name(v->kind), needed);
}

bool gguf_int(const GgufFile *f, const char *key, int64_t min, int64_t max, int64_t *out,
              Err *err) {
    const GgufValue *v = scalar(f, key, err);
    if (v == NULL) return false;
    if (!gguf_int_at(f, v, 0, out)) return wrong_kind(f, v, "a whole number", err);
    if (*out >= min && *out <= max) return true;
    return err_set(err, ERR_INPUT, "%s: %s is %lld, allowed %lld to %lld", f->path, key,
                   (long long)*out, (long long)min, (long long)max);
}

bool gguf_real(const GgufFile *f, const char *key, double *out, Err *err) {
    const GgufValue *v = scalar(f, key, err);
    return v != NULL && (gguf_real_at(f, v, 0, out) || wrong_kind(f, v, "f32", err));
}

bool gguf_text(const GgufFile *f, const char *key, GgufText *out, Err *err) {
    const GgufValue *v = scalar(f, key, err);
    GgufCursor c = {0};
    return v != NULL && (gguf_text_next(f, v, &c, out) || wrong_kind(f, v, "text", err));
}
