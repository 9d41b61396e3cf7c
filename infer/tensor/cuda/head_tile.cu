// infer/tensor/cuda/head_tile.cu - logits of a vocabulary tile and what is wanted of them. bf16
// stays in registers; other types go through a piece of scratch and the plain bodies.
#include "infer/tensor/cuda/head_logits.cuh"
#include "infer/tensor/cuda/vocab_loss.cuh"

constexpr size_t PIECE_BYTES = (size_t)64 << 20;

bool head_resident(const Cuda *cu, int64_t width) {
    return width <= HEAD_RESIDENT && cu->shared_max > ((size_t)200 << 10);
}

static bool suits_mma(const HeadOut *o, Tensor y, Tensor table, const LossArgs *a) {
    const bool loss = a->parts & (LOSS_STATS | LOSS_GRAD), grad = a->parts & LOSS_GRAD;
    return y.dtype == DT_BF16 && table.dtype == DT_BF16 && vector_fits(y, 8) &&
           vector_fits(table, 8) && (!loss || vector_fits(a->p, 8)) &&
           (!grad || (o->g.dtype == DT_BF16 && vector_fits(o->g, 8)));
}

// Columns in pieces: every sum runs on from piece to piece as it does from tile to tile.
static void plain_pieces(Device *dev, const HeadOut *o, Tensor y, Tensor table, const LossArgs *a,
                         int64_t v0, unsigned parts) {
    Cuda *cu = cuda_of(dev);
    const int64_t fit = (int64_t)(PIECE_BYTES / sizeof(float)) / y.rows / 64 * 64,
                  most = least64(fit < 64 ? 64 : fit, table.rows);
    LossArgs piece = *a;
    piece.parts = parts & (LOSS_STATS | LOSS_GRAD);
    float *room = cuda_scratch_of<float>(cu, SCRATCH_LOGITS, (size_t)(y.rows * most));
    for (int64_t c = 0; room && c < table.rows; c += most) {
        const int64_t n = least64(most, table.rows - c);
        const Tensor z = tensor_of(room, DT_F32, y.rows, n);
        cuda_matmul_nt(dev, z, y, tensor_rows(table, c, n), 0.0f);
        if (parts & LOSS_LSE) cuda_lse_tile(dev, o->lse, o->best, o->id, z, 0.0f, a->temp, v0 + c);
        if (piece.parts == 0) continue;
        piece.p = tensor_cols(a->p, c, n);
        cuda_loss_tile(dev, o->stat, piece.parts & LOSS_GRAD ? tensor_cols(o->g, c, n) : NO_TENSOR,
                       z, o->lse, &piece, v0 + c);
        piece.psum = NO_TENSOR;
    }
}

// What has to be finished before the next begins: log-sum-exp, signed sums, gradients of them.
static void plain(Device *dev, const HeadOut *o, Tensor y, Tensor table, const LossArgs *a,
                  int64_t v0) {
    const bool signs = a->kind == LOSS_TV || a->kind == LOSS_HYBRID;
    unsigned rest = a->parts & (LOSS_STATS | LOSS_GRAD);
    if (a->parts & LOSS_LSE) plain_pieces(dev, o, y, table, a, v0, LOSS_LSE);
    if (signs && rest == (LOSS_STATS | LOSS_GRAD)) {
        plain_pieces(dev, o, y, table, a, v0, LOSS_STATS);
        rest = LOSS_GRAD;
    }
    if (rest) plain_pieces(dev, o, y, table, a, v0, rest);
}

static void check_head(const HeadOut *o, Tensor y, Tensor table, const LossArgs *a, int64_t v0) {
    CHECK_FLOAT(y);
    CHECK_FLOAT(table);
    CHECK(y.cols == table.cols && y.ld >= y.cols && table.ld >= table.cols);
    CHECK_SHAPE(o->lse, y.rows, 2);
    CHECK_TYPE(o->lse, DT_F32);
    CHECK(a->temp > 0.0f && v0 >= 0 && v0 + table.rows <= INT32_MAX);
    if (o->best.data && (a->parts & LOSS_LSE)) {
        CHECK_SHAPE(o->best, y.rows, 2);
        CHECK_SHAPE(o->id, y.rows, 2);
        CHECK_TYPE(o->best, DT_F32);
        CHECK_TYPE(o->id, DT_I32);
    }
    if (a->parts & (LOSS_STATS | LOSS_GRAD)) loss_check(a, o->stat, o->lse, y.rows, table.rows);
    if (a->parts & LOSS_GRAD) {
        CHECK_SHAPE(o->g, y.rows, table.rows);
        CHECK_FLOAT(o->g);
    }
}

void cuda_head_tile(Device *dev, const HeadOut *o, Tensor y, Tensor table, const LossArgs *a,
                    int64_t v0) {
    Cuda *cu = cuda_begin(dev, "head_tile");
    check_head(o, y, table, a, v0);
    if (y.rows == 0 || table.rows == 0) return;
    if (!suits_mma(o, y, table, a)) {
        plain(dev, o, y, table, a, v0);
        return;
    }
    const HeadLogits in = {y, table, head_splits(cu, y.rows, table.rows)};
    if (a->parts & LOSS_LSE) head_lse(cu, &in, o->lse, o->best, o->id, a->temp, v0);
    if (a->parts & (LOSS_STATS | LOSS_GRAD)) head_loss(cu, &in, o->stat, o->g, o->lse, a, v0);
}
