// infer/format/imatrix_file.h - importance of the columns of weight matrices: what the encoders of
// ggml's block types weigh errors by, in the two files that runtimes read.
//
// iw_j = mean of x_j^2 over the rows x that a matrix was given. The GGUF form (llama.cpp) holds
// sums and a count, the legacy .dat form (ik_llama.cpp) means times a number of calls. Counts are
// written as powers of two, so that every reader gets the same iw, bit for bit, from both.
#ifndef FORMAT_IMATRIX_FILE_H
#define FORMAT_IMATRIX_FILE_H

#include <stdint.h>

#include "infer/base/err.h"

enum { IMATRIX_NAME_MAX = 63 };

typedef struct {
    char name[IMATRIX_NAME_MAX + 1]; // of the GGUF tensor: "blk.0.attn_q.weight"
    int64_t n;                       // columns
    float *iw;                       // (n), each finite and above 0
    double rows;                     // weighted number of rows they are the mean of
} ImatrixEntry;

typedef struct {
    char dataset[256];
    int64_t chunks, chunk_size; // rows / chunk_size rounded up; tokens of a chunk
    int n;
    ImatrixEntry *entry; // by name; owned
} Imatrix;

// iw of the means of squares `mean` (n): finite and above 0, else ERR_FAILED names the column. A
// column that was always 0 gets what is small beside the others.
MUST_CHECK bool imatrix_set(ImatrixEntry *e, const char *name, const double *mean, int64_t n,
                            double rows, Err *err);
void imatrix_sort(Imatrix *m);
void imatrix_free(Imatrix *m); // what is inside; m may be zeroed
const ImatrixEntry *imatrix_find(const Imatrix *m, const char *name); // NULL = absent
// Atomic.
MUST_CHECK bool imatrix_write_dat(const char *path, const Imatrix *m, Err *err);
MUST_CHECK bool imatrix_write_gguf(const char *path, const Imatrix *m, Err *err);
// Either form, told by the first bytes.
MUST_CHECK bool imatrix_read(Imatrix *m, const char *path, Err *err);

#endif
