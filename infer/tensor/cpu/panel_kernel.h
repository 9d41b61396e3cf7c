// infer/tensor/cpu/panel_kernel.h - small products in cache over panels sixteen columns wide.
//
// A panel holds 16 columns of a matrix, row by row: element (p, 16 j + i) of B lies at
// b[j * panel + 16 p + i]. Every sum runs through k in order in one register: its bits depend
// neither on the other rows and columns nor on how they are blocked.
#ifndef CPU_PANEL_KERNEL_H
#define CPU_PANEL_KERNEL_H

#include "infer/tensor/tensor.h"

enum { PANEL = 16, PANEL_ROWS = 32 }; // columns; its rows are rounded up to so many

// C (m, 16 n) = A (m, k) B (k, 16 n). add: plus C, where the sums begin; then_add: plus C, added to
// whole sums. pairs: an element of A and B is not one f32 but two bf16, the products of both are
// added (k counts pairs). turned: A^T lies in panels, as B does, lda floats from one to the next.
typedef struct {
    float *c;
    const float *a, *b;
    int64_t ldc, lda, panel; // in floats
    int64_t m, n, k;
    bool add, then_add, pairs, turned;
} PanelProduct;

void panel_product(const PanelProduct *p);

// The instruction set in use: the best one of this CPU, but at most `most` (tests). Only the last
// one multiplies pairs.
typedef enum { PANEL_ANY, PANEL_AVX2, PANEL_AVX512, PANEL_AVX512_BF16 } PanelSet;
PanelSet panel_set(void);
void panel_limit(PanelSet most);

// Columns c .. c+cols-1 of some rows of x (any), as f32.
typedef struct {
    Tensor x;
    int64_t c, cols;
    int64_t first, from, to; // row `first` comes first; rows from .. to-1 are read
    int64_t end;             // rows up to this one are read soon
    const int32_t *list;     // NULL: row r of x is meant by r, else row list[r] (turned only)
} PanelSource;

// B = rows transposed, (cols, rows): panel j holds rows first + 16 j .. + 15, for all that from ..
// to-1 touch. Columns of rows that may not be read hold anything. panel >= 16 * cols, rounded up to
// PANEL_ROWS. pairs (of a BF16 x only): (cols / 2, rows), a last odd column paired with zero.
void panels_turned(float *to, int64_t panel, const PanelSource *s, bool pairs);
// B = the rows themselves, (rows, cols) from row `first` on: rows from .. to-1 of all panels,
// columns behind the last one zero.
void panels_plain(float *to, int64_t panel, const PanelSource *s);
// B = pairs of rows of a BF16 x, (rows / 2, cols), from row `from` on; a last odd one is paired
// with zero, and so are columns behind the last one.
void panels_paired(float *to, int64_t panel, const PanelSource *s);

#endif
