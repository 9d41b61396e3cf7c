// infer/tensor/cuda/tile.cuh - elements of a matrix by threads: blocks across columns, then down
// rows.
#ifndef CUDA_TILE_CUH
#define CUDA_TILE_CUH

#include "infer/tensor/cuda/cuda.cuh"

typedef struct {
    dim3 grid, block;
} Tile;

enum { TILE_THREADS = 256 };

// For kernels over FOR_TILE. `vectors` of a row, as many as its columns / V.
static inline Tile tile_of(int64_t rows, int64_t vectors) {
    unsigned across = WARP;
    while (across < vectors && across < TILE_THREADS) across *= 2;
    const unsigned down = TILE_THREADS / across;
    const int64_t x = ceil_div(vectors, across), y = ceil_div(rows, down);
    return {dim3((unsigned)least64(x, INT32_MAX), (unsigned)least64(y, 65535)), dim3(across, down)};
}

// The body runs once per vector: row r, columns c .. c + V - 1.
#define FOR_TILE(r, c, V, rows, cols)                                                              \
    for (int64_t r = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; r < (rows);                   \
         r += (int64_t)gridDim.y * blockDim.y)                                                     \
        for (int64_t c = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * (V); c < (cols);       \
             c += (int64_t)gridDim.x * blockDim.x * (V))

// Matrices of one shape without gaps become one row each.
template <typename... T> static inline void flatten(T *...t) {
    if (!(tensor_is_contiguous(*t) && ...) || !((tensor_count(*t) > 0) && ...)) return;
    ((*t = tensor_view(*t, 1, tensor_count(*t))), ...);
}

#endif
