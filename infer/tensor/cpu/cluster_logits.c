// infer/tensor/cpu/cluster_logits.c - the centroid head's logits: of the tokens of chosen clusters.
//
// Rows that chose a cluster meet all of its tokens in one product, whose sums have one order: a
// row's bits are the same whether it comes alone (decoding) or among others.
#include <string.h>

#include <omp.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/gemm.h"
#include "infer/tensor/cpu/panel_kernel.h"

enum { ROWS = 32, PANELS = 3, TOKENS = PANELS * PANEL }; // of a product

// A row of y, and which of its clusters.
typedef struct {
    int32_t row, slot;
} Pair;

typedef struct {
    Tensor z, token, y, table, ordering;
    bool pairs;         // y and the table enter products as pairs of bf16
    int64_t ld, stride; // floats between rows of y that are gathered, and between panels
} Clusters;

// Thread scratch: gathered rows of y, panels of the table, sums.
typedef struct {
    float *y, *table, *sum;
} Room;

static Room room_of(Device *dev, const Clusters *c) {
    const int64_t y = ROWS * c->ld, table = PANELS * c->stride;
    float *at = cpu_scratch(dev, SCRATCH_THREAD + omp_get_thread_num(),
                            (size_t)(y + table + ROWS * TOKENS) * sizeof *at);
    return (Room){at, at + y, at + y + table};
}

static void gather_rows(const Clusters *c, float *to, const Pair *pair, int64_t rows) {
    const int64_t H = c->y.cols;
    for (int64_t i = 0; i < rows; i++, to += c->ld) {
        if (c->pairs) {
            memcpy(to, bf16_at(c->y, pair[i].row, 0), (size_t)H * sizeof(bf16));
            continue;
        }
        const float *from = span_read(c->y, pair[i].row, 0, H, to);
        if (from != to) memcpy(to, from, (size_t)H * sizeof *to);
    }
}

// Tokens j .. j + n - 1 of a cluster, in panels, for the rows that chose it.
static void token_logits(const Clusters *c, const Room *r, int64_t j, int64_t n, const Pair *pair,
                         int64_t pairs) {
    const int64_t per = c->ordering.cols;
    for (int64_t at = 0, rows; at < pairs; at += rows) {
        rows = gemm_least(ROWS, pairs - at);
        gather_rows(c, r->y, pair + at, rows);
        panel_product(&(PanelProduct){.c = r->sum,
                                      .a = r->y,
                                      .b = r->table,
                                      .ldc = TOKENS,
                                      .lda = c->ld,
                                      .panel = c->stride,
                                      .m = rows,
                                      .n = (n + PANEL - 1) / PANEL,
                                      .k = c->pairs ? c->y.cols / 2 : c->y.cols,
                                      .pairs = c->pairs});
        for (int64_t i = 0; i < rows; i++)
            memcpy(f32_at(c->z, pair[at + i].row, pair[at + i].slot * per + j), r->sum + i * TOKENS,
                   (size_t)n * sizeof *r->sum);
    }
}

// All tokens of a cluster: their rows of the table are read once.
static void cluster_rows(Device *dev, const Clusters *c, int64_t cluster, const Pair *pair,
                         int64_t pairs) {
    const Room r = room_of(dev, c);
    const int64_t per = c->ordering.cols;
    const int32_t *token = i32_at(c->ordering, cluster, 0);
    for (int64_t j = 0; j < per; j++)
        CHECK(token[j] >= 0 && token[j] < c->table.rows, "(token %d of %lld)", token[j],
              (long long)c->table.rows);
    for (int64_t i = 0; i < pairs; i++)
        memcpy(i32_at(c->token, pair[i].row, pair[i].slot * per), token,
               (size_t)per * sizeof *token);
    for (int64_t j = 0; j < per; j += TOKENS) {
        const int64_t n = gemm_least(TOKENS, per - j);
        const PanelSource s = {c->table, 0, c->table.cols, 0, 0, n, n, token + j};
        panels_turned(r.table, c->stride, &s, c->pairs);
        token_logits(c, &r, j, n, pair, pairs);
    }
}

// Rows and slots by cluster: those of cluster c are pair[start[c]] .. pair[start[c + 1] - 1].
static Pair *pairs_by_cluster(Device *dev, const Clusters *c, Tensor idx, int32_t **start) {
    const int64_t pairs = tensor_count(idx), clusters = c->ordering.rows, k = idx.cols;
    Pair *pair = cpu_scratch(
        dev, SCRATCH_PAIRS, (size_t)pairs * sizeof *pair + (size_t)(clusters + 2) * sizeof **start);
    int32_t *at = *start = (int32_t *)(pair + pairs);
    memset(at, 0, (size_t)(clusters + 2) * sizeof *at);
    for (int64_t i = 0; i < pairs; i++) at[*i32_at(idx, i / k, i % k) + 2]++;
    for (int64_t i = 0; i < clusters; i++) at[i + 2] += at[i + 1];
    for (int64_t i = 0; i < pairs; i++)
        pair[at[*i32_at(idx, i / k, i % k) + 1]++] = (Pair){(int32_t)(i / k), (int32_t)(i % k)};
    return pair;
}

void cpu_cluster_logits(Device *dev, Tensor z, Tensor token, Tensor y, Tensor table,
                        Tensor ordering, Tensor idx) {
    const int64_t per = ordering.cols, k = idx.cols, H = y.cols;
    CHECK_SHAPE(z, y.rows, k * per);
    CHECK_SHAPE(token, y.rows, k * per);
    CHECK_SHAPE(idx, y.rows, k);
    CHECK_SHAPE(table, table.rows, H);
    CHECK_TYPE(z, DT_F32);
    CHECK_TYPE(token, DT_I32);
    CHECK_TYPE(idx, DT_I32);
    CHECK_TYPE(ordering, DT_I32);
    CHECK_FLOAT(y);
    CHECK_FLOAT(table);
    for (int64_t i = 0; i < y.rows * k; i++)
        CHECK(*i32_at(idx, i / k, i % k) >= 0 && *i32_at(idx, i / k, i % k) < ordering.rows,
              "(cluster %d of %lld)", *i32_at(idx, i / k, i % k), (long long)ordering.rows);
    Clusters c = {z, token, y, table, ordering, .ld = H + PANEL};
    c.pairs = y.dtype == DT_BF16 && table.dtype == DT_BF16 && H % 2 == 0 &&
              panel_set() == PANEL_AVX512_BF16;
    c.stride = (H + PANEL_ROWS - 1) / PANEL_ROWS * PANEL_ROWS * PANEL;
    int32_t *start;
    const Pair *pair = pairs_by_cluster(dev, &c, idx, &start);
#pragma omp parallel for schedule(dynamic, 1) num_threads(cpu_threads(dev, tensor_count(z) * H))
    for (int64_t i = 0; i < ordering.rows; i++)
        if (start[i + 1] > start[i])
            cluster_rows(dev, &c, i, pair + start[i], start[i + 1] - start[i]);
}
