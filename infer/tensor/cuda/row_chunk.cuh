// infer/tensor/cuda/row_chunk.cuh - rows of many columns in chunks, one block each; the two best of
// a row.
//
// A thread holds its part of a chunk in registers, so memory is read once. What chunks find goes to
// scratch, and one warp a row puts it together. Chunks follow from columns alone: bits do not
// depend on the number of rows.
#ifndef CUDA_ROW_CHUNK_CUH
#define CUDA_ROW_CHUNK_CUH

#include "infer/tensor/cuda/cuda.cuh"

constexpr int CHUNK_THREADS = 256, CHUNK_HELD = 32; // elements of a thread
constexpr int CHUNK_COLS = CHUNK_THREADS * CHUNK_HELD;

static inline int chunks_of(int64_t cols) {
    return (int)ceil_div(cols, CHUNK_COLS);
}
static inline dim3 chunk_grid(Tensor z) {
    CHECK(z.rows * chunks_of(z.cols) <= INT32_MAX);
    return dim3((unsigned)(z.rows * chunks_of(z.cols)));
}
// One warp a row.
constexpr int FINISH_THREADS = 128;
static inline dim3 finish_grid(int64_t rows) {
    return dim3((unsigned)ceil_div(rows, FINISH_THREADS / WARP));
}
DEVICE_FN int64_t finish_row() {
    return (int64_t)blockIdx.x * (FINISH_THREADS / WARP) + threadIdx.x / WARP;
}

typedef struct {
    int64_t row, c0; // c0: first column of this thread
    int chunk, left; // left: columns from c0 on
} Chunk;

template <int V> DEVICE_FN Chunk chunk_here(int64_t cols) {
    const int chunks = (int)((cols + CHUNK_COLS - 1) / CHUNK_COLS), i = (int)blockIdx.x % chunks;
    const int64_t c0 = (int64_t)i * CHUNK_COLS + threadIdx.x * V;
    return Chunk{blockIdx.x / (unsigned)chunks, c0, i, (int)(cols - c0)};
}
// Vector j of a thread begins at column c0 + chunk_step<V>(j); it is there when that is < left.
template <int V> DEVICE_FN int chunk_step(int j) {
    return j * CHUNK_THREADS * V;
}

// A thread's elements of a row; `fill` where the row has ended.
template <int V>
DEVICE_FN void chunk_load(float (&x)[CHUNK_HELD / V][V], Tensor t, int64_t row, const Chunk &k,
                          float fill) {
#pragma unroll
    for (int j = 0; j < CHUNK_HELD / V; j++) {
        if (chunk_step<V>(j) < k.left) {
            load<V>(x[j], t, row, k.c0 + chunk_step<V>(j));
            continue;
        }
#pragma unroll
        for (int i = 0; i < V; i++) x[j][i] = fill;
    }
}
template <int V>
DEVICE_FN void chunk_store(Tensor t, int64_t row, const Chunk &k,
                           const float (&x)[CHUNK_HELD / V][V]) {
#pragma unroll
    for (int j = 0; j < CHUNK_HELD / V; j++)
        if (chunk_step<V>(j) < k.left) store<V>(t, row, k.c0 + chunk_step<V>(j), x[j]);
}

// --- the two best of a row so far: greater values first, the lower id on ties, never NaN

typedef struct {
    float value[2];
    int id[2]; // -1: nothing yet
} Best2;

DEVICE_FN Best2 best2_none() {
    return Best2{{-INFINITY, -INFINITY}, {-1, -1}};
}
DEVICE_FN bool best2_beats(float v, int id, float value, int of) {
    return of < 0 ? v == v : v > value || (v == value && id < of);
}
DEVICE_FN void best2_add(Best2 &b, float v, int id) {
    if (!best2_beats(v, id, b.value[1], b.id[1])) return;
    const bool first = best2_beats(v, id, b.value[0], b.id[0]);
    b.value[1] = first ? b.value[0] : v;
    b.id[1] = first ? b.id[0] : id;
    if (first) b.value[0] = v, b.id[0] = id;
}
DEVICE_FN void best2_merge(Best2 &b, const Best2 &other) {
    if (other.id[0] >= 0) best2_add(b, other.value[0], other.id[0]);
    if (other.id[1] >= 0) best2_add(b, other.value[1], other.id[1]);
}
DEVICE_FN Best2 best2_warp(Best2 b) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) {
        Best2 o;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            o.value[i] = __shfl_xor_sync(ALL_LANES, b.value[i], step);
            o.id[i] = __shfl_xor_sync(ALL_LANES, b.id[i], step);
        }
        best2_merge(b, o);
    }
    return b;
}
// Of a block; the result is warp 0's.
DEVICE_FN Best2 best2_block(Best2 b) {
    __shared__ Best2 part[CHUNK_THREADS / WARP];
    b = best2_warp(b);
    __syncthreads();
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = b;
    __syncthreads();
    if (threadIdx.x >= WARP) return b;
    return best2_warp(threadIdx.x < CHUNK_THREADS / WARP ? part[threadIdx.x] : best2_none());
}
// A row of best F32 (rows, 2) and id I32 (rows, 2).
DEVICE_FN Best2 best2_read(Tensor best, Tensor id, int64_t r) {
    const float *v = f32_at(best, r, 0);
    const int32_t *i = i32_at(id, r, 0);
    return Best2{{v[0], v[1]}, {i[0], i[1]}};
}
DEVICE_FN void best2_write(Tensor best, Tensor id, int64_t r, const Best2 &b) {
#pragma unroll
    for (int i = 0; i < 2; i++) *f32_at(best, r, i) = b.value[i], *i32_at(id, r, i) = b.id[i];
}
template <int V>
DEVICE_FN void best2_chunk(Best2 &b, const float (&x)[CHUNK_HELD / V][V], const Chunk &k, int v0) {
#pragma unroll
    for (int j = 0; j < CHUNK_HELD / V; j++)
#pragma unroll
        for (int i = 0; i < V; i++)
            if (chunk_step<V>(j) < k.left)
                best2_add(b, x[j][i], v0 + (int)k.c0 + chunk_step<V>(j) + i);
}

#endif
