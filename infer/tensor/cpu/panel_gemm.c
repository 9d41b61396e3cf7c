// infer/tensor/cpu/panel_gemm.c - C (m, n) = A B for products that end before oneDNN has made a
// kernel for their shape: row counts of batches seldom return, and making one takes 0.3 ms.
//
// B goes into panels once, in the cache of the thread that has these columns; all rows of A run
// over them. A sum runs through k in order, in chunks which then are added up, as in small_gemm.c:
// the bits are oneDNN's (own_gemm.c).
#include "infer/tensor/cpu/gemm.h"

#include <omp.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/panel_kernel.h"

// Panels and rows of a block; the longest sum; what a block of B may take.
enum { PANELS = 9, ROWS = 128, LONGEST = 4096, PACK_BYTES = 384 << 10 };
// Operations a thread: beyond, making a kernel takes less than a tenth of the product's own time.
enum { WORTH_A_KERNEL = 500000000 };

// Columns first .. first + cols - 1 of a product, as one thread sees them.
typedef struct {
    const Gemm *g;
    int64_t first, cols, panels, k, chunk;
    int per;             // elements in what panels call one: 2 for pairs of bf16
    float *pack, *total; // (k, panels) by chunk; (ROWS, PANELS * PANEL)
} Block;

static float *packed(const Block *b, int64_t at) {
    return b->pack + at / b->per * b->panels * PANEL;
}

static int64_t panel_stride(const Block *b, int64_t depth) {
    const int64_t rows = (depth + b->per - 1) / b->per;
    return (rows + PANEL_ROWS - 1) / PANEL_ROWS * PANEL_ROWS * PANEL;
}

static void pack(const Block *b) {
    const Tensor x = b->g->b;
    const int64_t end = b->first + b->cols;
    for (int64_t at = 0; at < b->k; at += b->chunk) {
        const int64_t depth = gemm_least(b->chunk, b->k - at);
        if (b->g->tb)
            panels_turned(packed(b, at), panel_stride(b, depth),
                          &(PanelSource){x, at, depth, b->first, b->first, end, end}, b->per == 2);
        else
            panels_plain(packed(b, at), panel_stride(b, depth),
                         &(PanelSource){x, b->first, b->cols, at, at, at + depth, at + depth});
    }
}

// to (rows, panels) = the sums of all k, by chunks.
static void multiply(const Block *b, float *to, int64_t ld, int64_t row, int64_t rows) {
    const Tensor a = b->g->a;
    for (int64_t at = 0; at < b->k; at += b->chunk) {
        const int64_t depth = gemm_least(b->chunk, b->k - at);
        panel_product(&(PanelProduct){.c = to,
                                      .a = (const float *)a.data + (row * a.ld + at) / b->per,
                                      .b = packed(b, at),
                                      .ldc = ld,
                                      .lda = a.ld / b->per,
                                      .panel = panel_stride(b, depth),
                                      .m = rows,
                                      .n = b->panels,
                                      .k = depth / b->per,
                                      .then_add = at > 0,
                                      .pairs = b->per == 2});
    }
}

static void rows_of_block(const Block *b, int64_t from, int64_t to) {
    const Tensor c = b->g->c;
    const int64_t ld = b->panels * PANEL;
    const bool straight = c.dtype == DT_F32 && b->g->beta == 0.0f && b->cols % PANEL == 0;
    for (int64_t r = from; r < to; r += ROWS) {
        const int64_t rows = gemm_least(ROWS, to - r);
        if (straight) {
            multiply(b, f32_at(c, r, b->first), c.ld, r, rows);
            continue;
        }
        multiply(b, b->total, ld, r, rows);
        for (int64_t i = 0; i < rows; i++)
            gemm_put(c, r + i, b->first, b->total + i * ld, b->cols, b->g->beta);
    }
}

// The next panels of `left`, in threes as the kernels like them; none is left for itself.
static int64_t next_panels(int64_t left, int64_t most) {
    const int64_t threes = most / 3 * 3;
    if (left == threes + 1) return threes > 3 ? threes - 3 : 2;
    return gemm_least(left, threes);
}

// Panels from .. to - 1 and rows first .. last - 1 of C, by this thread.
static void part(Device *dev, const Gemm *g, int64_t from, int64_t to, int64_t first,
                 int64_t last) {
    Block b = {.g = g, .k = gemm_k(g), .per = g->a.dtype == DT_BF16 ? 2 : 1};
    b.chunk = gemm_chunk(b.k);
    const int64_t depth = (b.k + b.chunk - 1) / b.chunk * b.chunk / b.per, // of a panel, whole
        room = PACK_BYTES / (depth * PANEL * (int64_t)sizeof(float));
    const int64_t most = room < 3 ? 3 : gemm_least(room, PANELS);
    if (first >= last) return;
    const size_t floats = (size_t)(most * PANEL * (depth + ROWS));
    b.pack = cpu_scratch(dev, SCRATCH_THREAD + omp_get_thread_num(), floats * sizeof(float));
    b.total = b.pack + depth * most * PANEL;
    for (int64_t p = from; p < to; p += b.panels) {
        b.panels = next_panels(to - p, most);
        b.first = p * PANEL;
        b.cols = gemm_least(b.panels * PANEL, g->c.cols - b.first);
        pack(&b);
        rows_of_block(&b, first, last);
    }
}

bool panel_gemm_takes(const Gemm *g) {
    const int64_t k = gemm_k(g);
    const bool pairs = g->a.dtype == DT_BF16;
    if (g->ta || k == 0 || k > LONGEST) return false;
    if (pairs && panel_set() != PANEL_AVX512_BF16) return false; // AMX is faster, made or not
    if (pairs && (g->b.dtype != DT_BF16 || !g->tb || k % 2 != 0 || g->a.ld % 2 != 0)) return false;
    return 2.0 * (double)g->c.rows * (double)g->c.cols * (double)k <
           (double)WORTH_A_KERNEL * g->threads;
}

void panel_gemm_run(Device *dev, const Gemm *g) {
    const int64_t panels = (g->c.cols + PANEL - 1) / PANEL, rows = (g->c.rows + 7) / 8;
    int across = g->threads; // parts side by side; the others lie below
    while (across > 1 && (g->threads % across != 0 || across > panels / 3)) across--;
    const int down = g->threads / across;
#pragma omp parallel for num_threads(g->threads) schedule(static)
    for (int i = 0; i < across * down; i++) {
        const int64_t x = i % across, y = i / across;
        part(dev, g, panels * x / across, panels * (x + 1) / across, rows * y / down * 8,
             gemm_least(rows * (y + 1) / down * 8, g->c.rows));
    }
}
