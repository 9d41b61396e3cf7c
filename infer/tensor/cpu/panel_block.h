// infer/tensor/cpu/panel_block.h - some columns of C (m, n) = A B, whose B lies in panels.
//
// B goes into panels once, in the cache of the thread that has these columns; all rows of A run
// over them. A sum runs through k in order, in chunks which then are added up, as in small_gemm.c:
// the bits are oneDNN's (own_gemm.c).
#ifndef CPU_PANEL_BLOCK_H
#define CPU_PANEL_BLOCK_H

#include "infer/tensor/cpu/gemm.h"
#include "infer/tensor/cpu/panel_kernel.h"

// A and B both F32 or both BF16, or B BF16 and widened on the way; tb: B is stored transposed.
typedef struct {
    Tensor a, b;
    bool tb;
    int64_t first, cols, panels; // columns first .. first + cols - 1, in so many panels
    float *pack;                 // panel_block_floats(k) for each of them
} PanelBlock;

// Floats that a panel of length k takes, where A has this type.
int64_t panel_block_floats(int64_t k, DType dtype);
void panel_block_pack(const PanelBlock *b);
// to (rows, 16 panels), ld floats between rows: rows row .. row + rows - 1 of C.
void panel_block_multiply(const PanelBlock *b, float *to, int64_t ld, int64_t row, int64_t rows);

// The next panels of `left`, in threes as the kernels like them; none is left for itself.
int64_t panel_block_next(int64_t left, int64_t most);
// Share i of a product (rows, 16 panels) among threads: panels from .. to - 1 of rows first .. last
// - 1. Side by side as long as a share has three panels, else below each other.
typedef struct {
    int64_t from, to, first, last;
} PanelShare;
PanelShare panel_share(int64_t rows, int64_t panels, int threads, int i);
// What the kernels take, and are fast at: types, length of the sums.
bool panel_block_takes(Tensor a, Tensor b, bool tb, int64_t k);

#endif
