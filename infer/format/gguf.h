// infer/format/gguf.h - GGUF version 3: a reader that checks before it believes
// (spec/reliability.md 2), a writer whose bytes depend on nothing but what it is given.
#ifndef FORMAT_GGUF_H
#define FORMAT_GGUF_H

#include <stddef.h>

#include "infer/format/ggml_blocks.h"

enum { GGUF_RANK_MAX = 4, GGUF_NAME_MAX = 63, GGUF_ALIGN = 32 };

// Types of values; the numbers that files hold.
typedef enum {
    GGUF_U8 = 0,
    GGUF_I8 = 1,
    GGUF_U16 = 2,
    GGUF_I16 = 3,
    GGUF_U32 = 4,
    GGUF_I32 = 5,
    GGUF_F32 = 6,
    GGUF_BOOL = 7,
    GGUF_TEXT = 8,
    GGUF_ARRAY = 9,
    GGUF_U64 = 10,
    GGUF_I64 = 11,
    GGUF_F64 = 12,
} GgufKind;
const char *gguf_kind_name(GgufKind kind); // "u32"

// Bytes of a text, not 0-terminated, any bytes; borrowed from the file.
typedef struct {
    const char *at;
    size_t size;
} GgufText;

typedef struct {
    const char *key;
    GgufKind kind; // of the elements when it is an array
    bool array;
    int64_t count; // 1 when it is none
    int64_t at;    // the reader's own
} GgufValue;

typedef struct {
    const char *name;
    const GgmlTypeInfo *type;
    int rank;
    int64_t dim[GGUF_RANK_MAX]; // fastest first, as in the file; 1 beyond rank
    int64_t rows, count, bytes; // rows of dim[0] elements
    int64_t offset;             // absolute
} GgufTensor;

// Data are read by pread when asked for, never mapped. Metadata stay in memory: 64 MiB at most.
typedef struct GgufFile GgufFile;

// Whether the file begins like one; quiet.
bool gguf_recognises(const char *path);
MUST_CHECK GgufFile *gguf_open(const char *path, Err *err);
void gguf_close(GgufFile *f);
const char *gguf_path(const GgufFile *f);
int64_t gguf_data_bytes(const GgufFile *f);             // the data section, padding included
const void *gguf_head(const GgufFile *f, size_t *size); // all bytes before the data

int gguf_count(const GgufFile *f);
const GgufTensor *gguf_at(const GgufFile *f, int i);              // in file order
const GgufTensor *gguf_find(const GgufFile *f, const char *name); // NULL = absent
MUST_CHECK bool gguf_read(const GgufFile *f, const GgufTensor *t, void *out, Err *err); // raw bytes
// Rows [first, first + n) decoded; out: [n, dim[0]]. Integer tensors are refused.
MUST_CHECK bool gguf_read_f32(const GgufFile *f, const GgufTensor *t, int64_t first, int64_t n,
                              float *out, Err *err);

int gguf_values(const GgufFile *f);
const GgufValue *gguf_value_at(const GgufFile *f, int i);        // in file order
const GgufValue *gguf_value(const GgufFile *f, const char *key); // NULL = absent
// The value of a key that must be there, with a type of that sort and inside the bounds, else
// ERR_INPUT names it and what is there.
MUST_CHECK bool gguf_int(const GgufFile *f, const char *key, int64_t min, int64_t max, int64_t *out,
                         Err *err);
MUST_CHECK bool gguf_real(const GgufFile *f, const char *key, double *out, Err *err);
MUST_CHECK bool gguf_text(const GgufFile *f, const char *key, GgufText *out, Err *err);
// Element i of a value (0 of a scalar). False: not of that sort, or beyond INT64_MAX.
bool gguf_int_at(const GgufFile *f, const GgufValue *v, int64_t i, int64_t *out); // bool: 0, 1
bool gguf_real_at(const GgufFile *f, const GgufValue *v, int64_t i, double *out);
// The texts of a value one after the other, from a zeroed cursor; false behind the last one.
typedef struct {
    int64_t done, at;
} GgufCursor;
bool gguf_text_next(const GgufFile *f, const GgufValue *v, GgufCursor *c, GgufText *out);

// Writing: values in the order wanted, tensors declared in the order of the data, begin, the data,
// commit. Atomic; nothing stays on failure. Memory and write errors show in begin, data, commit.
typedef struct GgufWriter GgufWriter;
// path NULL: a file that is only measured, never begun.
MUST_CHECK GgufWriter *gguf_writer_open(const char *path, Err *err);
void gguf_put_u32(GgufWriter *w, const char *key, uint32_t x);
void gguf_put_f32(GgufWriter *w, const char *key, float x);
void gguf_put_i32(GgufWriter *w, const char *key, int32_t x);
void gguf_put_bool(GgufWriter *w, const char *key, bool x);
void gguf_put_text(GgufWriter *w, const char *key, const char *text, size_t size);
void gguf_put_string(GgufWriter *w, const char *key, const char *text); // 0-terminated
// Arrays: the head, then exactly `count` elements by the calls below.
void gguf_put_array(GgufWriter *w, const char *key, GgufKind kind, int64_t count);
void gguf_add_number(GgufWriter *w,
                     const void *x); // one element of the array's kind, little-endian
void gguf_add_text(GgufWriter *w, const char *text, size_t size);
// dim: fastest first.
MUST_CHECK bool gguf_writer_declare(GgufWriter *w, const char *name, GgmlType type, int rank,
                                    const int64_t *dim, Err *err);
int64_t gguf_writer_data_bytes(const GgufWriter *w); // of what is declared, padding included
int64_t gguf_writer_file_bytes(const GgufWriter *w); // of the whole file, before it is begun
MUST_CHECK bool gguf_writer_begin(GgufWriter *w, Err *err);
// In order; may be parts. Padding is the writer's business.
MUST_CHECK bool gguf_writer_data(GgufWriter *w, const void *data, int64_t bytes, Err *err);
MUST_CHECK bool gguf_writer_commit(GgufWriter *w, Err *err); // frees w, whatever it returns
void gguf_writer_drop(GgufWriter *w);                        // instead of commit; NULL is fine

// Bytes of one tensor's data without and with the padding behind it; -1: no whole blocks, or too
// large.
int64_t gguf_tensor_bytes(GgmlType type, int rank, const int64_t *dim);
int64_t gguf_padded(int64_t bytes, int64_t align); // -1: too large

#endif
