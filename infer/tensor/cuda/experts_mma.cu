// infer/tensor/cuda/experts_mma.cu - products of grouped rows on tensor cores, bf16 with f32 sums.
//
// A block multiplies a tile of one expert's rows with 64 columns per warp across. K runs in slices
// of 32 through a ring of shared memory that copy_async fills ahead; rows there are 80 bytes apart,
// so that eight of them lie in different banks. The order of sums over K does not depend on the
// tile's height.
#include "infer/tensor/cuda/experts.cuh"
#include "infer/tensor/cuda/gelu.cuh"

enum { SLICE = 32, STRIDE = 40, STAGES = 4, CHUNKS = SLICE / 8 }; // elements, elements, -, 16 bytes

// Rows `rows` of a slice: row i from `from(i)`, NULL: zeros; columns from k0 on, zeros beyond k.
template <int ROWS, int THREADS, typename From>
DEVICE_FN void fetch(uint16_t *to, From from, const uint16_t *valid, int64_t k0, int64_t k) {
#pragma unroll
    for (int i = (int)threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
        const int row = i / CHUNKS, c = i % CHUNKS * 8;
        const uint16_t *p = from(row);
        const bool there = p != NULL && k0 + c < k;
        copy_async(to + row * STRIDE + c, there ? p + k0 + c : valid, there);
    }
}

// MI * 16 rows and 64 columns per warp, DOWN x ACROSS warps.
template <bool GATED, int MI, int DOWN, int ACROSS>
__global__ void __launch_bounds__(DOWN *ACROSS *WARP) mma_kernel(GroupProduct p) {
    constexpr int THREADS = DOWN * ACROSS * WARP, ROWS = DOWN * MI * 16, COLS = ACROSS * 64;
    constexpr int OUT = GATED ? COLS / 2 : COLS; // columns of out
    SHARED_MEMORY(shared);
    __shared__ int32_t source[ROWS], target[ROWS];
    if ((int)blockIdx.x >= *p.groups.tiles) return;
    const GroupTile tile = p.groups.tile[blockIdx.x];
    for (int i = (int)threadIdx.x; i < ROWS; i += THREADS) {
        const int at = tile.first + i, pair = i < tile.rows ? p.groups.pair[at] : -1;
        source[i] = pair < 0 ? -1 : p.choices > 0 ? pair / p.choices : at;
        target[i] = pair < 0 ? -1 : GATED ? at : pair;
    }
    __syncthreads();
    const int64_t k = p.a.cols, n0 = (int64_t)blockIdx.y * OUT,
                  w0 = (int64_t)tile.expert * p.stride;
    const uint16_t *valid = bf16_at(p.a, 0, 0);
    // where gated, 32 columns of gate and the same 32 of up lie side by side for every warp
    const auto a_row = [&](int i) -> const uint16_t * {
        return source[i] < 0 ? NULL : bf16_at(p.a, source[i], 0);
    };
    const auto b_row = [&](int i) -> const uint16_t * {
        const int64_t c = n0 + (GATED ? i / 64 * 32 + i % 32 : i);
        return c < p.columns ? bf16_at(p.w, w0 + c + (GATED && i % 64 >= 32 ? p.columns : 0), 0)
                             : NULL;
    };
    const auto stage_a = [&](int s) { return (uint16_t *)shared + s * (ROWS + COLS) * STRIDE; };
    const auto fill = [&](int64_t slice) {
        uint16_t *to = stage_a((int)(slice % STAGES));
        fetch<ROWS, THREADS>(to, a_row, valid, slice * SLICE, k);
        fetch<COLS, THREADS>(to + ROWS * STRIDE, b_row, valid, slice * SLICE, k);
    };
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int m0 = warp / ACROSS * MI * 16, c0 = warp % ACROSS * 64;
    const int64_t slices = (k + SLICE - 1) / SLICE;
    float d[MI][8][4] = {};
    for (int64_t s = 0; s < STAGES - 1; s++) {
        if (s < slices) fill(s);
        copy_async_commit();
    }
    for (int64_t s = 0; s < slices; s++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads(); // slice s is there, and nobody reads slice s - 1 any more
        if (s + STAGES - 1 < slices) fill(s + STAGES - 1);
        copy_async_commit();
        const uint16_t *a = stage_a((int)(s % STAGES)) + m0 * STRIDE,
                       *b = stage_a((int)(s % STAGES)) + (ROWS + c0) * STRIDE;
#pragma unroll
        for (int kk = 0; kk < SLICE; kk += 16) {
            uint32_t fa[MI][4], fb[4][4];
#pragma unroll
            for (int i = 0; i < MI; i++)
                ldmatrix(fa[i], a + (i * 16 + lane % 16) * STRIDE + kk + lane / 16 * 8);
#pragma unroll
            for (int j = 0; j < 4; j++)
                ldmatrix(fb[j],
                         b + (j * 16 + lane / 16 * 8 + lane % 8) * STRIDE + kk + lane / 8 % 2 * 8);
#pragma unroll
            for (int i = 0; i < MI; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    const uint32_t pair[2] = {fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]};
                    mma_bf16(d[i][j], fa[i], pair);
                }
        }
    }
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < MI; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int r = target[m0 + i * 16 + half * 8 + g];
            if (r < 0) continue;
#pragma unroll
            for (int j = 0; j < (GATED ? 4 : 8); j++) {
                const int64_t c = n0 + (GATED ? c0 / 2 : c0) + j * 8 + 2 * t;
                const float x = d[i][j][2 * half], y = d[i][j][2 * half + 1];
                if (c >= p.columns) continue;
                if constexpr (GATED)
                    *(uint32_t *)bf16_at(p.out, r, c) = bf16_pack(
                        gelu(x) * d[i][j + 4][2 * half], gelu(y) * d[i][j + 4][2 * half + 1]);
                else
                    *(float2 *)f32_at(p.out, r, c) = make_float2(x, y);
            }
        }
}

template <bool GATED, int MI, int DOWN, int ACROSS>
static void launch_mma(Cuda *cu, const GroupProduct *p) {
    constexpr int ROWS = DOWN * MI * 16, COLS = ACROSS * 64, OUT = GATED ? COLS / 2 : COLS;
    const size_t shared = (size_t)STAGES * (ROWS + COLS) * STRIDE * sizeof(uint16_t);
    const dim3 grid((unsigned)p->groups.most, (unsigned)ceil_div(p->columns, OUT));
    launch(cu, mma_kernel<GATED, MI, DOWN, ACROSS>, grid, DOWN * ACROSS * WARP, shared, *p);
}

bool group_product_mma(Cuda *cu, const GroupProduct *p, bool gated, int64_t tile_rows) {
    if (p->a.dtype != DT_BF16 || p->w.dtype != DT_BF16 ||
        p->out.dtype != (gated ? DT_BF16 : DT_F32) || p->columns % 8 != 0 ||
        vector_width(8, p->a, p->w, p->out) != 8)
        return false;
    if (tile_rows == GROUP_ROWS_FEW && gated)
        launch_mma<true, 1, 1, 4>(cu, p);
    else if (tile_rows == GROUP_ROWS_FEW)
        launch_mma<false, 1, 1, 4>(cu, p);
    else if (gated)
        launch_mma<true, 2, 2, 2>(cu, p);
    else
        launch_mma<false, 2, 2, 2>(cu, p);
    return true;
}
