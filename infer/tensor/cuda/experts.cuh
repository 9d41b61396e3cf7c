// infer/tensor/cuda/experts.cuh - (row, choice) pairs sorted by expert, and the products over them.
#ifndef CUDA_EXPERTS_CUH
#define CUDA_EXPERTS_CUH

#include "infer/tensor/cuda/cuda.cuh"

// Rows of one expert that a block multiplies: positions first .. first + rows - 1 of the sorted
// list.
typedef struct {
    int32_t expert, first, rows;
} GroupTile;

// Pair p = r * k + i is choice i of row r. All of it is device memory.
typedef struct {
    int32_t *count; // (experts) pairs of each
    int32_t *pair;  // pairs by rising expert, in their own order inside one
    GroupTile *tile;
    int32_t *tiles; // (1) how many
    int64_t most;   // tiles at most: what a grid is made for
} Groups;

// out = a w^T for the rows of every tile, w (experts * stride, k): `columns` rows of an expert's
// from its first on. gated: the expert's next `columns` rows hold "up", and out = gelu(gate) * up.
// a's row: of pair p row p / choices, else (choices 0) that of its position; out's row: its
// position where gated, else p.
typedef struct {
    Tensor out, a, w;
    Groups groups;
    int64_t columns, stride;
    int choices;
} GroupProduct;

enum { GROUP_ROWS_FEW = 16, GROUP_ROWS_MANY = 64 }; // rows of a tile

// False unless everything is BF16 (out: BF16 where gated, else F32) and aligned for the tensor
// cores (experts_mma.cu).
bool group_product_mma(Cuda *cu, const GroupProduct *p, bool gated, int64_t tile_rows);
// Any types, f32 arithmetic (experts_any.cu).
void group_product_any(Cuda *cu, const GroupProduct *p, bool gated, int64_t tile_rows);

#endif
