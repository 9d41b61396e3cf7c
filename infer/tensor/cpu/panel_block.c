// infer/tensor/cpu/panel_block.c - packing of columns of B, and rows of A over them.
#include "infer/tensor/cpu/panel_block.h"

#include "infer/tensor/cpu/cpu.h"

enum { LONGEST = 4096 }; // sum

static int per_float(DType t) { // elements in what panels call one: 2 for pairs of bf16
    return t == DT_BF16 ? 2 : 1;
}

static int64_t length(const PanelBlock *b) {
    return b->tb ? b->b.cols : b->b.rows;
}

static int64_t panel_stride(int64_t depth, int per) {
    return ((depth + per - 1) / per + PANEL_ROWS - 1) / PANEL_ROWS * PANEL_ROWS * PANEL;
}

int64_t panel_block_floats(int64_t k, DType dtype) {
    const int64_t chunk = gemm_chunk(k), whole = (k + chunk - 1) / chunk * chunk;
    return whole / per_float(dtype) * PANEL;
}

static float *packed(const PanelBlock *b, int64_t at) {
    return b->pack + at / per_float(b->a.dtype) * b->panels * PANEL;
}

void panel_block_pack(const PanelBlock *b) {
    const int64_t k = length(b), chunk = gemm_chunk(k), end = b->first + b->cols;
    const int per = per_float(b->a.dtype);
    for (int64_t at = 0; at < k; at += chunk) {
        const int64_t depth = gemm_least(chunk, k - at);
        if (b->tb)
            panels_turned(packed(b, at), panel_stride(depth, per),
                          &(PanelSource){b->b, at, depth, b->first, b->first, end, end, NULL},
                          per == 2);
        else
            panels_plain(
                packed(b, at), panel_stride(depth, per),
                &(PanelSource){b->b, b->first, b->cols, at, at, at + depth, at + depth, NULL});
    }
}

void panel_block_multiply(const PanelBlock *b, float *to, int64_t ld, int64_t row, int64_t rows) {
    const int64_t k = length(b), chunk = gemm_chunk(k);
    const int per = per_float(b->a.dtype);
    for (int64_t at = 0; at < k; at += chunk) {
        const int64_t depth = gemm_least(chunk, k - at);
        panel_product(&(PanelProduct){.c = to,
                                      .a = (const float *)b->a.data + (row * b->a.ld + at) / per,
                                      .b = packed(b, at),
                                      .ldc = ld,
                                      .lda = b->a.ld / per,
                                      .panel = panel_stride(depth, per),
                                      .m = rows,
                                      .n = b->panels,
                                      .k = depth / per,
                                      .then_add = at > 0,
                                      .pairs = per == 2});
    }
}

int64_t panel_block_next(int64_t left, int64_t most) {
    const int64_t threes = most / 3 * 3;
    if (left == threes + 1) return threes > 3 ? threes - 3 : 2;
    return gemm_least(left, threes);
}

PanelShare panel_share(int64_t rows, int64_t panels, int threads, int i) {
    int across = threads;
    while (across > 1 && (threads % across != 0 || across > panels / 3)) across--;
    const int64_t down = threads / across, x = i % across, y = i / across, eights = (rows + 7) / 8;
    return (PanelShare){panels * x / across, panels * (x + 1) / across, eights * y / down * 8,
                        gemm_least(eights * (y + 1) / down * 8, rows)};
}

bool panel_block_takes(Tensor a, Tensor b, bool tb, int64_t k) {
    if (k == 0 || k > LONGEST) return false;
    if (a.dtype != DT_BF16) return true;
    if (panel_set() != PANEL_AVX512_BF16) return false; // AMX is faster, made or not
    return b.dtype == DT_BF16 && tb && k % 2 == 0 && a.ld % 2 == 0;
}
