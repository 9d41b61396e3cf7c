// infer/format/gguf_head.c - everything before the data: counts, lengths and offsets are checked
// against what is left of the file before any of them is used.
#include <stdlib.h>
#include <string.h>

#include "infer/base/checked.h"
#include "infer/format/gguf_types.h"

enum { FIRST_READ = 1 << 16, VALUE_LEAST = 8 + 1 + 4 + 1, TENSOR_LEAST = 8 + 1 + 4 + 8 + 4 + 8 };

typedef struct {
    GgufFile *f;
    int64_t room; // of f->head
    int64_t at;
    int64_t nvalue, ntensor; // as declared
} Reader;

// The next n bytes are there, in memory. what: for messages.
static bool need(Reader *r, int64_t n, const char *what, Err *err) {
    GgufFile *f = r->f;
    if (n > f->size - r->at)
        return err_set(err, ERR_INPUT, "%s needs %lld bytes at byte %lld, the file ends at %lld",
                       what, (long long)n, (long long)r->at, (long long)f->size);
    if (n > GGUF_HEAD_MAX - r->at)
        return err_set(err, ERR_INPUT, "%s ends at byte %lld, metadata may have %d", what,
                       (long long)(r->at + n), GGUF_HEAD_MAX);
    const int64_t end = r->at + n;
    if (end <= f->loaded) return true;
    int64_t room = r->room > 0 ? r->room : FIRST_READ;
    while (room < end) room *= 2;
    if (room > r->room) {
        char *grown = realloc(f->head, (size_t)room);
        if (grown == NULL) return err_set(err, ERR_FAILED, "out of memory");
        f->head = grown;
        r->room = room;
    }
    const int64_t upto = room < f->size ? room : f->size;
    if (!gguf_read_at(f, f->head + f->loaded, upto - f->loaded, f->loaded, err)) return false;
    f->loaded = upto;
    return true;
}

// An unsigned little-endian number of `bytes` bytes (1 to 8).
static bool number(Reader *r, int bytes, const char *what, uint64_t *out, Err *err) {
    if (!need(r, bytes, what, err)) return false;
    const unsigned char *p = (const unsigned char *)r->f->head + r->at;
    *out = 0;
    for (int i = bytes; i-- > 0;) *out = *out << 8 | p[i];
    r->at += bytes;
    return true;
}

// A length or a count: at most `most`.
static bool natural(Reader *r, const char *what, int64_t most, int64_t *out, Err *err) {
    uint64_t n;
    if (!number(r, 8, what, &n, err)) return false;
    if (n > (uint64_t)most)
        return err_set(err, ERR_INPUT, "%s is %llu, at most %lld are allowed", what,
                       (unsigned long long)n, (long long)most);
    *out = (int64_t)n;
    return true;
}

// A name of at most `most` bytes as an owned 0-terminated string. what: "key 3".
static char *name_of(Reader *r, const char *what, int most, Err *err) {
    int64_t size = 0;
    char length[64];
    snprintf(length, sizeof length, "the length of %s", what);
    if (!natural(r, length, most, &size, err) || !need(r, size, what, err)) return NULL;
    const char *text = r->f->head + r->at;
    const char *problem = gguf_name_problem(text, (size_t)size, (size_t)most);
    if (problem != NULL) {
        err_set(err, ERR_INPUT, "%s %s", what, problem);
        return NULL;
    }
    char *name = strndup(text, (size_t)size);
    if (name == NULL) err_set(err, ERR_FAILED, "out of memory");
    r->at += size;
    return name;
}

static bool skip_text(Reader *r, const char *what, Err *err) {
    int64_t size = 0;
    if (!natural(r, what, GGUF_TEXT_MAX, &size, err) || !need(r, size, what, err)) return false;
    r->at += size;
    return true;
}

static bool skip_bools(Reader *r, int64_t n, Err *err) {
    for (int64_t i = 0; i < n; i++)
        if ((unsigned char)r->f->head[r->at + i] > 1)
            return err_set(err, ERR_INPUT, "a bool is %u", (unsigned char)r->f->head[r->at + i]);
    return true;
}

// Steps over v->count elements at r->at.
static bool skip_elements(Reader *r, const GgufValue *v, Err *err) {
    const int bytes = gguf_kind_bytes(v->kind);
    if (v->kind == GGUF_TEXT) {
        for (int64_t i = 0; i < v->count; i++)
            if (!skip_text(r, "a text", err)) return false;
        return true;
    }
    if (!need(r, v->count * bytes, "the value", err)) return false;
    if (v->kind == GGUF_BOOL && !skip_bools(r, v->count, err)) return false;
    r->at += v->count * bytes;
    return true;
}

static bool read_value(Reader *r, GgufValue *v, Err *err) {
    uint64_t kind;
    if (!number(r, 4, "the type", &kind, err)) return false;
    v->count = 1;
    if (kind == GGUF_ARRAY) {
        v->array = true;
        if (!number(r, 4, "the type of elements", &kind, err)) return false;
    }
    if (gguf_kind_bytes((int64_t)kind) < 0)
        return err_set(err, ERR_INPUT, "unknown type %llu", (unsigned long long)kind);
    if (kind == GGUF_ARRAY) return err_set(err, ERR_INPUT, "an array of arrays is not supported");
    v->kind = (GgufKind)kind;
    if (v->array && !natural(r, "the number of elements", GGUF_ARRAY_MAX, &v->count, err))
        return false;
    v->at = r->at;
    return skip_elements(r, v, err);
}

static int by_key(const void *a, const void *b) {
    return strcmp((*(const GgufValue *const *)a)->key, (*(const GgufValue *const *)b)->key);
}

static bool read_values(Reader *r, Err *err) {
    GgufFile *f = r->f;
    f->value = calloc((size_t)r->nvalue + 1, sizeof *f->value);
    f->value_by_key = calloc((size_t)r->nvalue + 1, sizeof *f->value_by_key);
    if (f->value == NULL || f->value_by_key == NULL)
        return err_set(err, ERR_FAILED, "out of memory");
    for (int64_t i = 0; i < r->nvalue; i++) {
        char what[32];
        GgufValue *v = &f->value[i];
        snprintf(what, sizeof what, "key %lld", (long long)i);
        if ((v->key = name_of(r, what, GGUF_KEY_MAX, err)) == NULL) return false;
        f->value_by_key[f->nvalue++] = v;
        if (!read_value(r, v, err)) return err_wrap(err, "%s", v->key);
    }
    qsort(f->value_by_key, (size_t)f->nvalue, sizeof *f->value_by_key, by_key);
    for (int i = 1; i < f->nvalue; i++)
        if (by_key(&f->value_by_key[i - 1], &f->value_by_key[i]) == 0)
            return err_set(err, ERR_INPUT, "key %s occurs twice", f->value_by_key[i]->key);
    return true;
}

static bool read_alignment(GgufFile *f, Err *err) {
    const GgufValue *v = gguf_value(f, "general.alignment");
    f->align = GGUF_ALIGN;
    if (v == NULL) return true;
    if (v->kind != GGUF_U32 || v->array)
        return err_set(err, ERR_INPUT, "general.alignment is %s%s, expected u32",
                       v->array ? "an array of " : "", gguf_kind_name(v->kind));
    (void)gguf_int_at(f, v, 0, &f->align);
    if (f->align < 1 || f->align > GGUF_ALIGN_MAX || (f->align & (f->align - 1)) != 0)
        return err_set(err, ERR_INPUT,
                       "general.alignment is %lld, a power of two up to %d is needed",
                       (long long)f->align, GGUF_ALIGN_MAX);
    return true;
}

static bool read_shape(Reader *r, GgufTensor *t, Err *err) {
    uint64_t n;
    if (!number(r, 4, "the rank", &n, err)) return false;
    if (n < 1 || n > GGUF_RANK_MAX)
        return err_set(err, ERR_INPUT, "tensor %s: rank %llu, 1 to %d are allowed", t->name,
                       (unsigned long long)n, GGUF_RANK_MAX);
    t->rank = (int)n;
    for (int i = 0; i < GGUF_RANK_MAX; i++) t->dim[i] = 1;
    for (int i = 0; i < t->rank; i++) {
        if (!number(r, 8, "a dimension", &n, err)) return false;
        if (n < 1 || n > INT64_MAX)
            return err_set(err, ERR_INPUT, "tensor %s: dimension %d is %llu", t->name, i,
                           (unsigned long long)n);
        t->dim[i] = (int64_t)n;
    }
    return true;
}

// *end: of the tensors so far, padding included, relative to the data.
static bool read_tensor(Reader *r, GgufTensor *t, int64_t *end, Err *err) {
    uint64_t type, offset;
    if (!read_shape(r, t, err) || !number(r, 4, "the type", &type, err) ||
        !number(r, 8, "the offset", &offset, err))
        return false;
    if ((t->type = ggml_type((int)(type > INT32_MAX ? INT32_MAX : type))) == NULL)
        return err_set(err, ERR_INPUT, "tensor %s: type %llu is not supported", t->name,
                       (unsigned long long)type);
    if (!gguf_size(t, err)) return false;
    if (offset != (uint64_t)*end)
        return err_set(err, ERR_INPUT, "tensor %s: offset %llu, the one before ends at %lld",
                       t->name, (unsigned long long)offset, (long long)*end);
    t->offset = *end;
    if (!add_fits(*end, gguf_padded(t->bytes, r->f->align), end))
        return err_set(err, ERR_INPUT, "tensor %s: its end overflows", t->name);
    return true;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const GgufTensor *const *)a)->name, (*(const GgufTensor *const *)b)->name);
}

static bool read_tensors(Reader *r, Err *err) {
    GgufFile *f = r->f;
    f->tensor = calloc((size_t)r->ntensor + 1, sizeof *f->tensor);
    f->tensor_by_name = calloc((size_t)r->ntensor + 1, sizeof *f->tensor_by_name);
    if (f->tensor == NULL || f->tensor_by_name == NULL)
        return err_set(err, ERR_FAILED, "out of memory");
    for (int64_t i = 0; i < r->ntensor; i++) {
        char what[48];
        GgufTensor *t = &f->tensor[i];
        snprintf(what, sizeof what, "the name of tensor %lld", (long long)i);
        if ((t->name = name_of(r, what, GGUF_NAME_MAX, err)) == NULL) return false;
        f->tensor_by_name[f->ntensor++] = t;
        if (!read_tensor(r, t, &f->data_bytes, err)) return false;
    }
    qsort(f->tensor_by_name, (size_t)f->ntensor, sizeof *f->tensor_by_name, by_name);
    for (int i = 1; i < f->ntensor; i++)
        if (by_name(&f->tensor_by_name[i - 1], &f->tensor_by_name[i]) == 0)
            return err_set(err, ERR_INPUT, "tensor %s occurs twice", f->tensor_by_name[i]->name);
    return true;
}

// The data begin behind zeros and end with the file; padding behind the last tensor may be missing.
static bool check_data(Reader *r, Err *err) {
    GgufFile *f = r->f;
    f->data_start = gguf_padded(r->at, f->align);
    if (f->ntensor == 0 && f->data_start > f->size) f->data_start = f->size;
    if (!need(r, f->data_start - r->at, "the padding before the data", err)) return false;
    for (int64_t i = r->at; i < f->data_start; i++)
        if (f->head[i] != 0)
            return err_set(err, ERR_INPUT, "the padding before the data is not zero at byte %lld",
                           (long long)i);
    const GgufTensor *last = f->ntensor > 0 ? &f->tensor[f->ntensor - 1] : NULL;
    const int64_t have = f->size - f->data_start, least = last ? last->offset + last->bytes : 0;
    if (have < least || have > f->data_bytes)
        return err_set(err, ERR_INPUT, "the tensors take %lld bytes of data, the file holds %lld",
                       (long long)f->data_bytes, (long long)have);
    for (int i = 0; i < f->ntensor; i++) f->tensor[i].offset += f->data_start;
    return true;
}

static bool read_prefix(Reader *r, Err *err) {
    uint64_t version;
    if (!need(r, 4, "a header", err)) return false;
    if (memcmp(r->f->head, "GGUF", 4) != 0)
        return err_set(err, ERR_INPUT, "does not begin with GGUF");
    r->at = 4;
    if (!number(r, 4, "the version", &version, err)) return false;
    if (version != GGUF_VERSION)
        return err_set(err, ERR_INPUT, "GGUF version %llu, this program reads %d",
                       (unsigned long long)version, GGUF_VERSION);
    if (!natural(r, "the number of tensors", GGUF_COUNT_MAX, &r->ntensor, err) ||
        !natural(r, "the number of keys", GGUF_COUNT_MAX, &r->nvalue, err))
        return false;
    const int64_t least = r->ntensor * TENSOR_LEAST + r->nvalue * VALUE_LEAST;
    if (least > r->f->size - r->at)
        return err_set(err, ERR_INPUT,
                       "%lld tensors and %lld keys need %lld bytes, the file holds %lld",
                       (long long)r->ntensor, (long long)r->nvalue, (long long)least,
                       (long long)(r->f->size - r->at));
    return true;
}

bool gguf_read_head(GgufFile *f, Err *err) {
    Reader r = {.f = f};
    return read_prefix(&r, err) && read_values(&r, err) && read_alignment(f, err) &&
           read_tensors(&r, err) && check_data(&r, err);
}
