// infer/tensor/cuda/experts_any.cu - products of grouped rows in f32, of any types and sizes.
//
// 256 threads multiply 64 x 64 with slices of 16 along K; each has 4 x 4 sums, 16 apart, so that a
// gate (columns 0 .. 31 of the tile) and its up (32 columns on) meet in one thread.
#include "infer/tensor/cuda/experts.cuh"
#include "infer/tensor/cuda/gelu.cuh"

enum { SIDE = 64, DEPTH = 16, EDGE = 16 };

template <bool GATED> __global__ void any_kernel(GroupProduct p) {
    constexpr int OUT = GATED ? SIDE / 2 : SIDE;
    __shared__ float a[DEPTH][SIDE + 1], b[DEPTH][SIDE + 1];
    __shared__ int32_t source[SIDE], target[SIDE];
    if ((int)blockIdx.x >= *p.groups.tiles) return;
    const GroupTile tile = p.groups.tile[blockIdx.x];
    const int tx = (int)threadIdx.x % EDGE, ty = (int)threadIdx.x / EDGE;
    for (int i = (int)threadIdx.x; i < SIDE; i += EDGE * EDGE) {
        const int at = tile.first + i, pair = i < tile.rows ? p.groups.pair[at] : -1;
        source[i] = pair < 0 ? -1 : p.choices > 0 ? pair / p.choices : at;
        target[i] = pair < 0 ? -1 : GATED ? at : pair;
    }
    __syncthreads();
    const int64_t k = p.a.cols, n0 = (int64_t)blockIdx.y * OUT,
                  w0 = (int64_t)tile.expert * p.stride;
    float d[4][4] = {};
    for (int64_t k0 = 0; k0 < k; k0 += DEPTH) {
        for (int i = ty; i < SIDE; i += EDGE) { // a row each, K across the threads
            const int64_t c = n0 + (GATED ? i % 32 : i), up = GATED && i >= 32 ? p.columns : 0;
            const bool inside = k0 + tx < k;
            a[tx][i] = inside && source[i] >= 0 ? load_one(p.a, source[i], k0 + tx) : 0.0f;
            b[tx][i] = inside && c < p.columns ? load_one(p.w, w0 + c + up, k0 + tx) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int kk = 0; kk < DEPTH; kk++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    d[i][j] = fmaf(a[kk][ty + i * EDGE], b[kk][tx + j * EDGE], d[i][j]);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int r = target[ty + i * EDGE];
        if (r < 0) continue;
#pragma unroll
        for (int j = 0; j < (GATED ? 2 : 4); j++) {
            const int64_t c = n0 + tx + j * EDGE;
            if (c < p.columns)
                store_one(p.out, r, c, GATED ? gelu(d[i][j]) * d[i][(j + 2) % 4] : d[i][j]);
        }
    }
}

void group_product_any(Cuda *cu, const GroupProduct *p, bool gated, int64_t tile_rows) {
    CHECK(tile_rows <= SIDE);
    const dim3 grid((unsigned)p->groups.most,
                    (unsigned)ceil_div(p->columns, gated ? SIDE / 2 : SIDE));
    if (gated)
        launch(cu, any_kernel<true>, grid, EDGE * EDGE, 0, *p);
    else
        launch(cu, any_kernel<false>, grid, EDGE * EDGE, 0, *p);
}
