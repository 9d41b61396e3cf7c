// infer/tensor/cpu/panel_gemm.c - C (m, n) = A B for products that end before oneDNN has made a
// kernel for their shape: row counts of batches seldom return, and making one takes 0.3 ms.
#include <omp.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/panel_block.h"

// Panels and rows of a block; what a block of B may take.
enum { PANELS = 9, ROWS = 128, PACK_BYTES = 384 << 10 };
// Operations a thread: beyond, making a kernel takes less than a tenth of the product's own time.
enum { WORTH_A_KERNEL = 500000000 };

// Rows from .. to - 1 of a block; total: room for (ROWS, PANELS * PANEL) sums.
static void rows_of_block(const Gemm *g, const PanelBlock *b, float *total, int64_t from,
                          int64_t to) {
    const Tensor c = g->c;
    const int64_t ld = b->panels * PANEL;
    const bool straight = c.dtype == DT_F32 && g->beta == 0.0f && b->cols % PANEL == 0;
    for (int64_t r = from; r < to; r += ROWS) {
        const int64_t rows = gemm_least(ROWS, to - r);
        if (straight) {
            panel_block_multiply(b, f32_at(c, r, b->first), c.ld, r, rows);
            continue;
        }
        panel_block_multiply(b, total, ld, r, rows);
        for (int64_t i = 0; i < rows; i++)
            gemm_put(c, r + i, b->first, total + i * ld, b->cols, g->beta);
    }
}

static void part(Device *dev, const Gemm *g, PanelShare s) {
    PanelBlock b = {.a = g->a, .b = g->b, .tb = g->tb};
    const int64_t each = panel_block_floats(gemm_k(g), g->a.dtype),
                  room = PACK_BYTES / (each * (int64_t)sizeof(float)),
                  most = room < 3 ? 3 : gemm_least(room, PANELS);
    if (s.first >= s.last) return;
    const size_t floats = (size_t)(most * (each + PANEL * ROWS));
    b.pack = cpu_scratch(dev, SCRATCH_THREAD + omp_get_thread_num(), floats * sizeof(float));
    for (int64_t p = s.from; p < s.to; p += b.panels) {
        b.panels = panel_block_next(s.to - p, most);
        b.first = p * PANEL;
        b.cols = gemm_least(b.panels * PANEL, g->c.cols - b.first);
        panel_block_pack(&b);
        rows_of_block(g, &b, b.pack + each * most, s.first, s.last);
    }
}

bool panel_gemm_takes(const Gemm *g) {
    const int64_t k = gemm_k(g);
    return !g->ta && panel_block_takes(g->a, g->b, g->tb, k) &&
           2.0 * (double)g->c.rows * (double)g->c.cols * (double)k <
               (double)WORTH_A_KERNEL * g->threads;
}

void panel_gemm_run(Device *dev, const Gemm *g) {
    const int64_t panels = (g->c.cols + PANEL - 1) / PANEL;
#pragma omp parallel for num_threads(g->threads) schedule(static)
    for (int i = 0; i < g->threads; i++)
        part(dev, g, panel_share(g->c.rows, panels, g->threads, i));
}
