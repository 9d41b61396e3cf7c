// eval/quant/row_kl.h - KL divergence of logits, row by row, on the device.
#ifndef EVAL_ROW_KL_H
#define EVAL_ROW_KL_H

#include "infer/tensor/ops.h"

// Room for blocks of `rows` rows of V logits.
typedef struct {
    Device *dev;
    int64_t rows;
    Tensor z[2];                 // F32 (rows, V): the caller puts logits into them
    Tensor lse, psum, stat, row; // F32, F64 (rows, 2), F64 (rows, 4), I32 (1, rows)
    double *host;                // (rows, 4)
} RowKl;

// As many rows as fit into `budget` bytes of logits, at least 1, at most `most`.
int64_t row_kl_rows(int64_t vocab, int64_t most, size_t budget);
void row_kl_take(RowKl *k, int64_t rows, int64_t vocab, Arena *arena); // device memory
MUST_CHECK bool row_kl_open(RowKl *k, Device *dev, Err *err);          // once it is taken
void row_kl_close(RowKl *k);

// z[0] of n rows becomes the distribution that others are compared with.
void row_kl_teacher(const RowKl *k, int64_t n);
// kl[i] = KL(teacher || softmax(z[1])) of n rows; the teacher stays.
MUST_CHECK bool row_kl_student(const RowKl *k, int64_t n, double *kl, Err *err);

#endif
