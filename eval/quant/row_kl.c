// eval/quant/row_kl.c - one tile holds the whole distribution of a row.
#include "eval/quant/row_kl.h"

#include <stdlib.h>

int64_t row_kl_rows(int64_t vocab, int64_t most, size_t budget) {
    const int64_t fit = (int64_t)budget / 8 / vocab;
    return fit < 1 ? 1 : fit < most ? fit : most;
}

void row_kl_take(RowKl *k, int64_t rows, int64_t vocab, Arena *arena) {
    *k = (RowKl){.rows = rows};
    for (int i = 0; i < 2; i++) k->z[i] = tensor_take(arena, DT_F32, rows, vocab);
    k->lse = tensor_take(arena, DT_F32, rows, 2);
    k->psum = tensor_take(arena, DT_F64, rows, 2);
    k->stat = tensor_take(arena, DT_F64, rows, 4);
    k->row = tensor_take(arena, DT_I32, 1, rows);
}

bool row_kl_open(RowKl *k, Device *dev, Err *err) {
    int32_t *row = malloc((size_t)k->rows * sizeof *row);
    k->dev = dev;
    k->host = malloc((size_t)k->rows * 4 * sizeof *k->host);
    CHECK_MEMORY(row);
    CHECK_MEMORY(k->host);
    for (int64_t i = 0; i < k->rows; i++) row[i] = (int32_t)i;
    dev_upload(dev, k->row, row);
    const bool ok = dev_sync(dev, err);
    free(row);
    return ok;
}

void row_kl_close(RowKl *k) {
    free(k->host);
    k->host = NULL;
}

void row_kl_teacher(const RowKl *k, int64_t n) {
    const Tensor z = tensor_rows(k->z[0], 0, n), lse = tensor_rows(k->lse, 0, n);
    op_lse_tile(k->dev, lse, NO_TENSOR, NO_TENSOR, z, 0.0f, 1.0f, 0);
    op_prob_tile(k->dev, z, tensor_rows(k->psum, 0, n), z, lse, 0.0f, 1.0f);
}

bool row_kl_student(const RowKl *k, int64_t n, double *kl, Err *err) {
    const Tensor z = tensor_rows(k->z[1], 0, n), lse = tensor_rows(k->lse, 0, n),
                 stat = tensor_rows(k->stat, 0, n);
    const LossArgs args = {.p = tensor_rows(k->z[0], 0, n),
                           .psum = tensor_rows(k->psum, 0, n),
                           .trow = tensor_cols(k->row, 0, n),
                           .kind = LOSS_FKL,
                           .temp = 1.0f,
                           .parts = LOSS_STATS};
    op_lse_tile(k->dev, lse, NO_TENSOR, NO_TENSOR, z, 0.0f, 1.0f, 0);
    op_loss_tile(k->dev, stat, NO_TENSOR, z, lse, &args, 0);
    dev_download(k->dev, k->host, stat);
    if (!dev_sync(k->dev, err)) return false;
    for (int64_t i = 0; i < n; i++) kl[i] = k->host[4 * i];
    return true;
}
