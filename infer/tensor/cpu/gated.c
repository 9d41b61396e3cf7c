// infer/tensor/cpu/gated.c - m = gelu(a) * b with [a b] = x w^T: both products of some columns, and
// what becomes of them while they are in the cache.
//
// In one piece where own kernels agree with oneDNN's (own_gemm.c), and sums are short enough for
// the columns of both halves to stay in the cache; else by the operators it is made of, to the bit.
#include <string.h>

#include <omp.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/panel_block.h"

// Panels of a half and rows of a block; what both halves may take; fewer rows are decoding's.
enum { PANELS = 6, ROWS = 64, PACK_BYTES = 448 << 10, FEW = 16 };

typedef struct {
    Tensor m, ab, x, w;
    bool keep;
} Gated;

// Thread scratch of a block: packed columns, sums of both halves.
typedef struct {
    PanelBlock half[2];
    float *sum[2];
} Room;

// Of a half, with sums of length k.
static int64_t most_panels(int64_t k, DType t) {
    const int64_t each = panel_block_floats(k, t) * (int64_t)sizeof(float);
    return gemm_least(PACK_BYTES / (2 * each) / 3 * 3, PANELS);
}

static Room room_of(Device *dev, const Gated *g) {
    const int64_t most = most_panels(g->x.cols, g->x.dtype),
                  pack = most * panel_block_floats(g->x.cols, g->x.dtype),
                  sums = ROWS * PANELS * PANEL;
    float *at = cpu_scratch(dev, SCRATCH_THREAD + omp_get_thread_num(),
                            (size_t)(2 * (pack + sums)) * sizeof *at);
    Room r = {.sum = {at + 2 * pack, at + 2 * pack + sums}};
    for (int h = 0; h < 2; h++)
        r.half[h] = (PanelBlock){.a = g->x, .b = g->w, .tb = true, .pack = at + h * pack};
    return r;
}

static void keep(const Gated *g, const float *sum, int64_t row, int64_t first, int64_t n) {
    if (g->ab.dtype == DT_BF16)
        f32_to_bf16(bf16_at(g->ab, row, first), sum, n);
    else
        memcpy(f32_at(g->ab, row, first), sum, (size_t)n * sizeof *sum);
}

// Rows row .. row + rows - 1 of the columns that are packed.
static void block(const Gated *g, const Room *r, int64_t row, int64_t rows) {
    const int64_t ld = r->half[0].panels * PANEL, first = r->half[0].first, n = r->half[0].cols;
    float buf[PANELS * PANEL];
    for (int h = 0; h < 2; h++) panel_block_multiply(&r->half[h], r->sum[h], ld, row, rows);
    for (int64_t i = 0; i < rows; i++) {
        const float *a = r->sum[0] + i * ld, *b = r->sum[1] + i * ld;
        if (g->keep) {
            keep(g, a, row + i, first, n);
            keep(g, b, row + i, r->half[1].first, n);
        }
        float *m = span_begin(g->m, row + i, first, buf);
        (g->ab.dtype == DT_BF16 ? span_geglu_rounded : span_geglu)(m, a, b, n);
        span_end(g->m, row + i, first, n, m);
    }
}

// A share of each half.
static void part(Device *dev, const Gated *g, PanelShare s) {
    Room r = room_of(dev, g);
    const int64_t most = most_panels(g->x.cols, g->x.dtype), width = g->m.cols;
    if (s.first >= s.last) return;
    for (int64_t p = s.from, panels; p < s.to; p += panels) {
        panels = panel_block_next(s.to - p, most);
        for (int h = 0; h < 2; h++) {
            r.half[h].panels = panels;
            r.half[h].first = h * width + p * PANEL;
            r.half[h].cols = gemm_least(panels * PANEL, width - p * PANEL);
            panel_block_pack(&r.half[h]);
        }
        for (int64_t row = s.first; row < s.last; row += ROWS)
            block(g, &r, row, gemm_least(ROWS, s.last - row));
    }
}

static bool in_one_piece(const Device *dev, int64_t rows, int64_t cols, Tensor x, Tensor w) {
    const Cpu *cpu = dev->impl;
    return (x.dtype == DT_F32 ? cpu->own_f32 : cpu->own_bf16 && cpu_prefers_bf16(dev)) &&
           x.dtype == w.dtype && rows > FEW && cols >= 3 * PANEL &&
           panel_block_takes(x, w, true, x.cols) && most_panels(x.cols, x.dtype) >= 3;
}

int64_t cpu_gated_room(Device *dev, int64_t rows, int64_t cols, int64_t k, DType x, DType w) {
    const Tensor xs = tensor_of(NULL, x, rows, k), ws = tensor_of(NULL, w, 2 * cols, k);
    return in_one_piece(dev, rows, cols, xs, ws) ? FEW : rows;
}

void cpu_gated(Device *dev, Tensor m, Tensor ab, Tensor x, Tensor w, bool keep) {
    const Gated g = {m, ab, x, w, keep};
    const bool one_piece = in_one_piece(dev, m.rows, m.cols, x, w);
    CHECK_SHAPE(ab, keep || !one_piece ? m.rows : ab.rows, 2 * m.cols);
    CHECK_SHAPE(x, m.rows, x.cols);
    CHECK_SHAPE(w, 2 * m.cols, x.cols);
    CHECK_FLOAT(m);
    CHECK_FLOAT(ab);
    CHECK_FLOAT(x);
    CHECK_FLOAT(w);
    if (!one_piece) {
        cpu_matmul_nt(dev, ab, x, w, 0.0f);
        cpu_geglu(dev, m, tensor_cols(ab, 0, m.cols), tensor_cols(ab, m.cols, m.cols));
        return;
    }
    const int64_t panels = (m.cols + PANEL - 1) / PANEL;
    const int threads = cpu_threads(dev, tensor_count(m) * x.cols);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int i = 0; i < threads; i++) part(dev, &g, panel_share(m.rows, panels, threads, i));
}
