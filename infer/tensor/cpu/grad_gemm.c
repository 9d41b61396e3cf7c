// infer/tensor/cpu/grad_gemm.c - C (m, n) = A^T B + beta C, A (k, m), B (k, n): gradients of
// weights, which are sums over the rows of a batch.
//
// Both operands go into panels as they lie, so nothing is turned, and no kernel has to be made for
// a number of rows that never returns. A sum runs through k in order, from C on.
#include <omp.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/gemm.h"
#include "infer/tensor/cpu/panel_kernel.h"

// Panels and rows of C at once; rows of a panel that pass them together, and those of B that are
// packed together: (PACKED, PANELS * PANEL) fill half of an L2 cache of 1 MiB.
enum { PANELS = 16, ROWS = 128, DEPTH = 256, PACKED = 2 * DEPTH };

// Rows row .. row + rows - 1 and panels panel .. panel + panels - 1 of C, as one thread sees them.
typedef struct {
    const Gemm *g;
    int64_t row, rows, panel, panels;
    int per;      // rows of A and B that lie in one of a panel: 2 for pairs of bf16
    float *a, *b; // (DEPTH, ROWS), (PACKED, PANELS * PANEL)
} Part;

// Columns c .. c + cols - 1 of rows from .. end - 1.
static void pack(float *to, int64_t panel, Tensor x, int64_t c, int64_t cols, int64_t from,
                 int64_t end, int per) {
    const PanelSource s = {x, c, cols, from, from, end, end, NULL};
    if (per == 2)
        panels_paired(to, panel, &s);
    else
        panels_plain(to, panel, &s);
}

// Adds the products of rows from .. end - 1 of A and B, which is packed, to `rows` rows of C.
static void add_rows(const Part *p, int64_t row, int64_t rows, int64_t from, int64_t end) {
    const Gemm *g = p->g;
    for (int64_t at = from; at < end; at += DEPTH * p->per) {
        const int64_t to = gemm_least(at + DEPTH * p->per, end);
        pack(p->a, DEPTH * PANEL, g->a, row, rows, at, to, p->per);
        panel_product(&(PanelProduct){.c = f32_at(g->c, row, p->panel * PANEL),
                                      .a = p->a,
                                      .b = p->b + (at - from) / p->per * PANEL,
                                      .ldc = g->c.ld,
                                      .lda = DEPTH * PANEL,
                                      .panel = PACKED * PANEL,
                                      .m = rows,
                                      .n = p->panels,
                                      .k = (to - at + p->per - 1) / p->per,
                                      .add = g->beta != 0.0f || at > 0,
                                      .pairs = p->per == 2,
                                      .turned = true});
    }
}

static void part(Device *dev, const Gemm *g, const Part *whole) {
    const int64_t k = gemm_k(g), end = whole->panel + whole->panels;
    const size_t floats = DEPTH * ROWS + PACKED * PANELS * PANEL;
    Part p = *whole;
    p.b = cpu_scratch(dev, SCRATCH_THREAD + omp_get_thread_num(), floats * sizeof(float));
    p.a = p.b + PACKED * PANELS * PANEL;
    for (; p.panel < end; p.panel += p.panels) {
        p.panels = gemm_least(PANELS, end - p.panel);
        for (int64_t from = 0, to; from < k; from = to) {
            to = gemm_least(from + PACKED * p.per, k);
            pack(p.b, PACKED * PANEL, g->b, p.panel * PANEL, p.panels * PANEL, from, to, p.per);
            for (int64_t r = 0; r < p.rows; r += ROWS)
                add_rows(&p, p.row + r, gemm_least(ROWS, p.rows - r), from, to);
        }
    }
}

bool grad_gemm_takes(const Gemm *g) {
    const bool pairs = g->a.dtype == DT_BF16;
    return g->ta && !g->tb && g->c.dtype == DT_F32 && g->c.cols % PANEL == 0 &&
           g->a.dtype == g->b.dtype && panel_set() >= (pairs ? PANEL_AVX512_BF16 : PANEL_AVX512);
}

// Threads side by side: so many that a thread packs as few rows and columns as can be.
static int side_by_side(const Gemm *g, int64_t panels) {
    int best = 1;
    double least_cost = 1e30;
    for (int x = 1; x <= g->threads && x <= panels; x++) {
        if (g->threads % x != 0) continue;
        const double cost = (double)g->c.cols / x + (double)(g->c.rows * x) / g->threads;
        if (cost < least_cost) least_cost = cost, best = x;
    }
    return best;
}

void grad_gemm_run(Device *dev, const Gemm *g) {
    const int64_t panels = g->c.cols / PANEL, eights = (g->c.rows + 7) / 8;
    const int across = side_by_side(g, panels), down = g->threads / across;
#pragma omp parallel for num_threads(g->threads) schedule(static)
    for (int i = 0; i < across * down; i++) {
        const int64_t x = i % across, y = i / across;
        Part p = {.g = g, .row = eights * y / down * 8, .panel = panels * x / across};
        p.rows = gemm_least(eights * (y + 1) / down * 8, g->c.rows) - p.row;
        p.panels = panels * (x + 1) / across - p.panel;
        p.per = g->a.dtype == DT_BF16 ? 2 : 1;
        if (p.rows > 0) part(dev, g, &p);
    }
}
