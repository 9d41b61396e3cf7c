// infer/format/gguf_writer.c - values and tensors in the order given, little-endian, zeros between.
#include <stdlib.h>
#include <string.h>

#include "infer/base/checked.h"
#include "infer/format/gguf_types.h"

typedef struct {
    char *at;
    size_t used, room;
    bool failed; // memory ran out
} Bytes;

struct GgufWriter {
    OutFile out;
    Bytes value, tensor; // both parts of the header as they will stand in the file
    int64_t nvalue, ntensor;
    GgufKind array; // kind of the elements that are awaited
    int64_t awaited;
    int64_t *bytes; // of every tensor
    int64_t room;
    int64_t data_bytes; // padding included
    char **name;        // keys and tensors, to find doubles
    int64_t nname, name_room;
    bool begun;
    int64_t at, at_byte; // tensor being written, bytes of it that are
};

static void put(Bytes *b, const void *data, size_t size) {
    if (b->failed || size == 0) return;
    if (b->used + size > b->room) {
        const size_t room = 2 * (b->used + size);
        char *grown = realloc(b->at, room);
        if (grown == NULL) {
            b->failed = true;
            return;
        }
        b->at = grown;
        b->room = room;
    }
    memcpy(b->at + b->used, data, size);
    b->used += size;
}

static void put_number(Bytes *b, uint64_t x, int bytes) {
    unsigned char raw[8];
    for (int i = 0; i < bytes; i++) raw[i] = (unsigned char)(x >> 8 * i);
    put(b, raw, (size_t)bytes);
}

static void put_counted(Bytes *b, const char *text, size_t size) {
    put_number(b, size, 8);
    put(b, text, size);
}

GgufWriter *gguf_writer_open(const char *path, Err *err) {
    GgufWriter *w = calloc(1, sizeof *w);
    if (w == NULL) {
        err_set(err, ERR_FAILED, "out of memory");
        return NULL;
    }
    w->out.fd = -1;
    if (path == NULL || out_open(&w->out, path, err)) return w;
    gguf_writer_drop(w);
    return NULL;
}

static void keep_name(GgufWriter *w, const char *name) {
    if (w->nname == w->name_room) {
        w->name_room = w->name_room ? 2 * w->name_room : 128;
        w->name = realloc(w->name, (size_t)w->name_room * sizeof *w->name);
        CHECK_MEMORY(w->name);
    }
    CHECK_MEMORY(w->name[w->nname] = strdup(name));
    w->nname++;
}

static void put_key(GgufWriter *w, const char *key, GgufKind kind) {
    CHECK(!w->begun && w->awaited == 0);
    CHECK(gguf_name_problem(key, strlen(key), GGUF_KEY_MAX) == NULL, "key \"%s\"", key);
    keep_name(w, key);
    put_counted(&w->value, key, strlen(key));
    put_number(&w->value, kind, 4);
    w->nvalue++;
}

void gguf_put_u32(GgufWriter *w, const char *key, uint32_t x) {
    put_key(w, key, GGUF_U32);
    put_number(&w->value, x, 4);
}

void gguf_put_i32(GgufWriter *w, const char *key, int32_t x) {
    put_key(w, key, GGUF_I32);
    put_number(&w->value, (uint32_t)x, 4);
}

void gguf_put_f32(GgufWriter *w, const char *key, float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    put_key(w, key, GGUF_F32);
    put_number(&w->value, bits, 4);
}

void gguf_put_bool(GgufWriter *w, const char *key, bool x) {
    put_key(w, key, GGUF_BOOL);
    put_number(&w->value, x, 1);
}

void gguf_put_text(GgufWriter *w, const char *key, const char *text, size_t size) {
    put_key(w, key, GGUF_TEXT);
    put_counted(&w->value, text, size);
}

void gguf_put_string(GgufWriter *w, const char *key, const char *text) {
    gguf_put_text(w, key, text, strlen(text));
}

void gguf_put_array(GgufWriter *w, const char *key, GgufKind kind, int64_t count) {
    CHECK(kind != GGUF_ARRAY && count >= 0);
    put_key(w, key, GGUF_ARRAY);
    put_number(&w->value, kind, 4);
    put_number(&w->value, (uint64_t)count, 8);
    w->array = kind;
    w->awaited = count;
}

void gguf_add_number(GgufWriter *w, const void *x) {
    const int bytes = gguf_kind_bytes(w->array);
    CHECK(w->awaited > 0 && bytes > 0);
    put(&w->value, x, (size_t)bytes);
    w->awaited--;
}

void gguf_add_text(GgufWriter *w, const char *text, size_t size) {
    CHECK(w->awaited > 0 && w->array == GGUF_TEXT);
    put_counted(&w->value, text, size);
    w->awaited--;
}

static bool keep_bytes(GgufWriter *w, int64_t bytes, Err *err) {
    if (w->ntensor == w->room) {
        const int64_t room = w->room ? 2 * w->room : 64;
        int64_t *grown = realloc(w->bytes, (size_t)room * sizeof *grown);
        if (grown == NULL) return err_set(err, ERR_FAILED, "out of memory");
        w->bytes = grown;
        w->room = room;
    }
    w->bytes[w->ntensor++] = bytes;
    return true;
}

bool gguf_writer_declare(GgufWriter *w, const char *name, GgmlType type, int rank,
                         const int64_t *dim, Err *err) {
    CHECK(!w->begun && rank >= 1 && rank <= GGUF_RANK_MAX && ggml_type(type) != NULL);
    const char *problem = gguf_name_problem(name, strlen(name), GGUF_NAME_MAX);
    if (problem != NULL) return err_set(err, ERR_INPUT, "tensor name \"%.80s\" %s", name, problem);
    GgufTensor t = {.name = name, .type = ggml_type(type), .rank = rank};
    for (int i = 0; i < rank; i++) t.dim[i] = dim[i];
    if (!gguf_size(&t, err)) return false;
    const int64_t offset = w->data_bytes;
    if (!add_fits(offset, gguf_padded(t.bytes, GGUF_ALIGN), &w->data_bytes))
        return err_set(err, ERR_INPUT, "tensor %s: its end overflows", name);
    keep_name(w, name);
    put_counted(&w->tensor, name, strlen(name));
    put_number(&w->tensor, (uint64_t)rank, 4);
    for (int i = 0; i < rank; i++) put_number(&w->tensor, (uint64_t)dim[i], 8);
    put_number(&w->tensor, type, 4);
    put_number(&w->tensor, (uint64_t)offset, 8);
    return keep_bytes(w, t.bytes, err);
}

int64_t gguf_writer_data_bytes(const GgufWriter *w) {
    return w->data_bytes;
}

enum { FIRST_BYTES = 4 + 4 + 8 + 8 }; // magic, version, both counts

int64_t gguf_writer_file_bytes(const GgufWriter *w) {
    CHECK(!w->begun && w->awaited == 0);
    const size_t head = FIRST_BYTES + w->value.used + w->tensor.used;
    return gguf_padded((int64_t)head, GGUF_ALIGN) + w->data_bytes;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void pad(GgufWriter *w) {
    static const char ZEROS[GGUF_ALIGN];
    const int64_t rest = w->out.written % GGUF_ALIGN;
    if (rest != 0) out_write(&w->out, ZEROS, (size_t)(GGUF_ALIGN - rest));
}

static bool write_error(const GgufWriter *w, Err *err) {
    if (w->out.error == 0) return true;
    return err_set(err, ERR_FAILED, "%s: %s", w->out.path, strerror(w->out.error));
}

bool gguf_writer_begin(GgufWriter *w, Err *err) {
    CHECK(!w->begun && w->awaited == 0 && w->out.fd >= 0);
    if (w->value.failed || w->tensor.failed)
        return err_set(err, ERR_FAILED, "%s: out of memory", w->out.path);
    if (w->nname > 0) qsort(w->name, (size_t)w->nname, sizeof *w->name, compare_names);
    for (int64_t i = 1; i < w->nname; i++)
        if (strcmp(w->name[i - 1], w->name[i]) == 0)
            return err_set(err, ERR_INPUT, "%s: %s is written twice", w->out.path, w->name[i]);
    Bytes head = {0};
    put(&head, "GGUF", 4);
    put_number(&head, GGUF_VERSION, 4);
    put_number(&head, (uint64_t)w->ntensor, 8);
    put_number(&head, (uint64_t)w->nvalue, 8);
    if (head.failed) return err_set(err, ERR_FAILED, "%s: out of memory", w->out.path);
    out_write(&w->out, head.at, head.used);
    out_write(&w->out, w->value.at, w->value.used);
    out_write(&w->out, w->tensor.at, w->tensor.used);
    free(head.at);
    pad(w);
    free(w->value.at); // a vocabulary is large, and many files may be open at once
    free(w->tensor.at);
    w->value = w->tensor = (Bytes){0};
    w->begun = true;
    return write_error(w, err);
}

bool gguf_writer_data(GgufWriter *w, const void *data, int64_t bytes, Err *err) {
    CHECK(w->begun && bytes >= 0 && w->at < w->ntensor, "more data than was declared");
    CHECK(bytes <= w->bytes[w->at] - w->at_byte, "more data than the tensor's shape");
    out_write(&w->out, data, (size_t)bytes);
    w->at_byte += bytes;
    if (w->at_byte == w->bytes[w->at]) {
        pad(w);
        w->at++;
        w->at_byte = 0;
    }
    return write_error(w, err);
}

bool gguf_writer_commit(GgufWriter *w, Err *err) {
    CHECK(w->begun && w->at == w->ntensor, "data of a tensor are missing");
    const bool ok = out_commit(&w->out, err);
    gguf_writer_drop(w);
    return ok;
}

void gguf_writer_drop(GgufWriter *w) {
    if (w == NULL) return;
    out_drop(&w->out);
    for (int64_t i = 0; i < w->nname; i++) free(w->name[i]);
    free(w->name);
    free(w->value.at);
    free(w->tensor.at);
    free(w->bytes);
    free(w);
}
