// infer/model/assistant_head.c - the two best tokens of each row, by the dense or the centroid
// head.
#include "infer/model/assistant.h"

// Logits live in a tile of at most this many bytes, whatever V and the number of rows.
enum { HEAD_TILE_BYTES = 64 << 20, HEAD_COLS_MIN = 256 };

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t dense_cols(const Assistant *a, int64_t rows) {
    const int64_t fit = HEAD_TILE_BYTES / 4 / rows / 64 * 64;
    return least(fit < HEAD_COLS_MIN ? HEAD_COLS_MIN : fit, a->cfg.text.vocab);
}

static int64_t dense_rows(int64_t rows) {
    return least(rows, HEAD_TILE_BYTES / 4 / HEAD_COLS_MIN);
}

// Floats and ids of the chosen clusters' tokens, and the centroid logits.
static int64_t centroid_rows(const Assistant *a, int64_t rows) {
    const int64_t chosen = a->cfg.cluster_topk * (a->cfg.text.vocab / a->cfg.clusters);
    const int64_t fit = HEAD_TILE_BYTES / 4 / (2 * chosen + a->cfg.clusters);
    return least(rows, fit < 1 ? 1 : fit);
}

static void keep_sum(const Assistant *a, Tensor lse, Tensor z, int64_t v0) {
    if (lse.data != NULL) op_lse_tile(a->dev, lse, NO_TENSOR, NO_TENSOR, z, 0.0f, 1.0f, v0);
}

// Where the device needs no room for logits.
static void top2_at_once(const Assistant *a, Tensor best, Tensor id, Tensor lse, Tensor y,
                         Arena *scratch) {
    const LossArgs args = {.temp = 1.0f, .parts = LOSS_LSE};
    const HeadOut out = {
        .lse = lse.data != NULL ? lse : tensor_take(scratch, DT_F32, y.rows, 2),
        .best = best,
        .id = id,
    };
    if (out.lse.data != NULL) op_head_tile(a->dev, &out, y, a->w.table, &args, 0);
}

static void top2_dense(const Assistant *a, Tensor best, Tensor id, Tensor lse, Tensor y,
                       Arena *scratch) {
    if (!a->dev->ops->head_room) {
        top2_at_once(a, best, id, lse, y, scratch);
        return;
    }
    const int64_t cols = dense_cols(a, y.rows);
    const Tensor room = tensor_take(scratch, DT_F32, 1, y.rows * cols);
    for (int64_t v0 = 0; room.data != NULL && v0 < a->w.table.rows; v0 += cols) {
        const int64_t n = least(cols, a->w.table.rows - v0);
        const Tensor z = tensor_of(room.data, DT_F32, y.rows, n);
        op_matmul_nt(a->dev, z, y, tensor_rows(a->w.table, v0, n), 0.0f);
        op_top2(a->dev, best, id, z, NO_TENSOR, v0);
        keep_sum(a, lse, z, v0);
    }
}

static void choose_clusters(const Assistant *a, Tensor idx, Tensor y, Arena *scratch) {
    const Tensor c = tensor_take(scratch, DT_F32, y.rows, a->cfg.clusters);
    if (c.data == NULL) return;
    op_matmul_nt(a->dev, c, y, a->w.centroids, 0.0f);
    op_topk(a->dev, idx, c, (int)a->cfg.cluster_topk);
}

static void centroid_logits(const Assistant *a, Tensor z, Tensor token, Tensor y, Arena *scratch) {
    const Tensor idx = tensor_take(scratch, DT_I32, y.rows, a->cfg.cluster_topk);
    choose_clusters(a, idx, y, scratch);
    if (idx.data == NULL) return;
    op_cluster_logits(a->dev, z, token, y, a->w.table, a->ordering, idx);
}

static void top2_centroid(const Assistant *a, Tensor best, Tensor id, Tensor lse, Tensor y,
                          Arena *scratch) {
    const int64_t cols = assistant_logit_cols(a, HEAD_CENTROID);
    const Tensor z = tensor_take(scratch, DT_F32, y.rows, cols);
    const Tensor token = tensor_take(scratch, DT_I32, y.rows, cols);
    centroid_logits(a, z, token, y, scratch);
    if (z.data == NULL) return;
    op_top2(a->dev, best, id, z, token, 0);
    keep_sum(a, lse, z, 0);
}

size_t assistant_head_bytes(const Assistant *a, int64_t rows) {
    Arena count;
    arena_open(&count, NULL, 0);
    const Tensor y = {.rows = dense_rows(rows)};
    top2_dense(a, NO_TENSOR, NO_TENSOR, NO_TENSOR, y, &count);
    arena_reset(&count, 0);
    const Tensor yc = {.rows = a->cfg.ordered ? centroid_rows(a, rows) : 0};
    if (a->cfg.ordered) top2_centroid(a, NO_TENSOR, NO_TENSOR, NO_TENSOR, yc, &count);
    arena_reset(&count, 0);
    const Tensor all = {.rows = rows};
    if (a->cfg.ordered) centroid_logits(a, NO_TENSOR, NO_TENSOR, all, &count);
    return count.peak;
}

void assistant_top2(const Assistant *a, Head head, Tensor best, Tensor id, Tensor lse, Tensor y,
                    Arena *scratch) {
    CHECK(head == HEAD_DENSE || a->cfg.ordered, "(the assistant has no centroid head)");
    const int64_t block = head == HEAD_DENSE ? dense_rows(y.rows) : centroid_rows(a, y.rows);
    for (int64_t r = 0; r < y.rows; r += block) {
        const int64_t n = least(block, y.rows - r);
        const Tensor sum = lse.data != NULL ? tensor_rows(lse, r, n) : NO_TENSOR;
        const size_t mark = arena_mark(scratch);
        (head == HEAD_DENSE ? top2_dense : top2_centroid)(
            a, tensor_rows(best, r, n), tensor_rows(id, r, n), sum, tensor_rows(y, r, n), scratch);
        arena_reset(scratch, mark);
    }
}

int64_t assistant_logit_cols(const Assistant *a, Head head) {
    return head == HEAD_DENSE ? a->cfg.text.vocab
                              : a->cfg.cluster_topk * (a->cfg.text.vocab / a->cfg.clusters);
}

void assistant_logits(const Assistant *a, Head head, Tensor z, Tensor token, Tensor y,
                      Arena *scratch) {
    CHECK(head == HEAD_DENSE || a->cfg.ordered, "(the assistant has no centroid head)");
    const size_t mark = arena_mark(scratch);
    if (head == HEAD_DENSE)
        op_matmul_nt(a->dev, z, y, a->w.table, 0.0f);
    else
        centroid_logits(a, z, token, y, scratch);
    arena_reset(scratch, mark);
}

void assistant_best(const Assistant *a, Tensor best, Tensor id, Tensor lse, Tensor z,
                    Tensor token) {
    op_top2(a->dev, best, id, z, token, 0);
    keep_sum(a, lse, z, 0);
}

void assistant_clusters(const Assistant *a, Tensor idx, Tensor y, Arena *scratch) {
    CHECK(a->cfg.ordered, "(the assistant has no centroid head)");
    const size_t mark = arena_mark(scratch);
    choose_clusters(a, idx, y, scratch);
    arena_reset(scratch, mark);
}

Head assistant_deployed_head(const AssistantConfig *c) {
    return c->ordered ? HEAD_CENTROID : HEAD_DENSE;
}
