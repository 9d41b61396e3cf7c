// infer/tensor/cuda/rows.cuh - kernels that reduce rows: a warp or a block for each, and sums over
// all rows for the gradient of a weight.
#ifndef CUDA_ROWS_CUH
#define CUDA_ROWS_CUH

#include "infer/tensor/cuda/cuda.cuh"

// Threads of a row lie along x. Rows of few columns get a warp each, eight to a block along y;
// others a block. The choice follows from the columns, so a row's bits don't depend on the others.
static inline dim3 row_block(int64_t cols) {
    if (cols <= 1024) return dim3(WARP, 8);
    return dim3(cols <= 4096 ? 256 : 512, 1);
}

// Sum over the threads of this thread's row; every thread of the row calls it.
DEVICE_FN float row_sum(float v) {
    return blockDim.x == WARP ? warp_sum(v) : block_sum(v);
}

// Rows cut by position into at most 256 parts of whole turns of a block; each part has a block.
typedef struct {
    int64_t size; // rows of a part
    int64_t count;
} RowParts;
static inline RowParts row_parts(int64_t rows, dim3 block) {
    const int64_t turns = ceil_div(rows, 256 * (int64_t)block.y), most = turns > 4 ? turns : 4;
    const int64_t size = most * block.y;
    return {size, ceil_div(rows, size)};
}

// What a part adds to a gradient (1, cols) is collected in shared memory, a row of `cols` floats
// for each y, so that nobody waits: thread (x, y) alone touches its columns of its row. Columns of
// a vector lie apart, so that neighbouring threads touch neighbouring words.
template <int V> DEVICE_FN int64_t part_place(int64_t c, int64_t cols) {
    return c / V + c % V * (cols / V);
}
// The sums of the block, added up in order of y, go to its row of part (count, cols).
template <int V> DEVICE_FN void part_store(float *part, const float *sums, int64_t cols) {
    __syncthreads();
    const unsigned threads = blockDim.x * blockDim.y;
    for (int64_t c = threadIdx.y * blockDim.x + threadIdx.x; c < cols; c += threads) {
        const int64_t at = part_place<V>(c, cols);
        float sum = sums[at];
        for (unsigned y = 1; y < blockDim.y; y++) sum += sums[y * cols + at];
        part[blockIdx.x * cols + c] = sum;
    }
}
static inline size_t part_shared(dim3 block, int64_t cols) {
    return (size_t)(block.y * cols) * sizeof(float);
}

// dst (1, cols) F32 += the rows of part (count, cols), in order (norm.cu).
void add_parts(Cuda *cu, Tensor dst, const float *part, int64_t count);

#endif
