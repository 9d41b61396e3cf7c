// infer/format/ggml_blocks.h - weights in the block types of ggml, encoded and decoded.
//
// A row of n floats becomes n / block blocks of `bytes` bytes each; rows depend on nothing but
// themselves and the importance. The bytes are those of ggml's own quantisers in plain IEEE
// arithmetic (no contraction), on every instruction set and for every number of threads.
#ifndef FORMAT_GGML_BLOCKS_H
#define FORMAT_GGML_BLOCKS_H

#include <stdint.h>

#include "infer/base/err.h"

// The numbers that files hold.
typedef enum {
    GGML_F32 = 0,
    GGML_F16 = 1,
    GGML_Q4_0 = 2,
    GGML_Q4_1 = 3,
    GGML_Q5_0 = 6,
    GGML_Q5_1 = 7,
    GGML_Q8_0 = 8,
    GGML_Q3_K = 11,
    GGML_Q4_K = 12,
    GGML_Q5_K = 13,
    GGML_Q6_K = 14,
    GGML_IQ4_NL = 20,
    GGML_IQ4_XS = 23,
    GGML_I32 = 26, // a row's size only: no weight is of this type
    GGML_BF16 = 30,
    GGML_MXFP4 = 39,
} GgmlType;

typedef struct {
    GgmlType type;
    const char *name; // "Q6_K"
    int block;        // elements of a block
    int bytes;        // of a block
    bool importance;  // its encoder weighs errors by column when told to
} GgmlTypeInfo;

const GgmlTypeInfo *ggml_type(int id);                 // NULL = none of the above
const GgmlTypeInfo *ggml_type_named(const char *name); // as spelled above, NULL = none
// -1: n is negative, no multiple of the block, or too large.
int64_t ggml_row_bytes(GgmlType t, int64_t n);

// x: [rows, n], out: [rows, ggml_row_bytes]. importance: [n], each >= 0, or NULL; types that take
// none ignore it; a column of importance 0 may become anything. All cores. ERR_INPUT names row and
// column of a NaN, an infinity or a value beyond the type, and row and columns of a block whose
// scale is beyond half precision.
MUST_CHECK bool ggml_encode(GgmlType t, void *out, const float *x, int64_t rows, int64_t n,
                            const float *importance, Err *err);
// q: [rows, ggml_row_bytes], any bytes (a scale may decode to NaN or infinity); out: [rows, n].
MUST_CHECK bool ggml_decode(GgmlType t, float *out, const void *q, int64_t rows, int64_t n,
                            Err *err);

#endif
