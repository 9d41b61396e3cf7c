// infer/tensor/cuda/few_rows.cu - C = A B^T + beta C in bf16 for so few rows of A that reading B is
// all there is to do: decoding.
//
// Tensor cores with the operands changed: 16 rows of B by 8 (or twice 8) rows of A. A lane takes
// 16 bytes of a row at a time, eight neighbours along K, which mma calls its columns 2t, 2t+1,
// 2t+8, 2t+9 of two products: sums over K may run in any order as long as A and B agree on it.
// Warps of a block share out K where it is long, and their sums meet in order. What a row's bits
// depend on is K alone: a token decodes to the same bits whether one row or sixteen are in the
// call.
#include "infer/tensor/cuda/cuda_parts.cuh"

constexpr int THREADS = 256, WARPS = THREADS / WARP;
constexpr int OUTS = 16, ROWS = 8, MOST_ROWS = 16; // rows of B, of A by a product; of A in all
constexpr int STEP = 32, AHEAD = 4; // elements of a row that a warp takes at once; how often
constexpr int CHUNK = STEP * AHEAD; // before it multiplies

typedef struct {
    Tensor c, a, b;
    int across; // warps along K, a power of two
    bool add;   // beta is 1
} FewCall;

// Rows that a lane reads; those beyond the last one are the last one again.
template <int NT> struct FewRows { const uint16_t *b[2], *a[NT]; };

template <int NT> DEVICE_FN FewRows<NT> few_rows_of(const FewCall &f, int64_t n0) {
    const int g = (int)threadIdx.x % WARP / 4;
    FewRows<NT> r;
#pragma unroll
    for (int i = 0; i < 2; i++) r.b[i] = bf16_at(f.b, min(n0 + g + 8 * i, f.b.rows - 1), 0);
#pragma unroll
    for (int i = 0; i < NT; i++)
        r.a[i] = bf16_at(f.a, min((int64_t)(ROWS * i + g), f.a.rows - 1), 0);
    return r;
}

DEVICE_FN void clear_unless(bool there, uint4 &x) {
    if (!there) x = make_uint4(0, 0, 0, 0);
}

// d += products of columns k0 .. k0 + CHUNK - 1, WHOLE: all of which are there. Nothing stands
// between the loads, so that all of them are under way at once.
template <int NT, bool WHOLE>
DEVICE_FN void few_steps(float (&d)[NT][4], const FewRows<NT> &r, int64_t k0, int64_t k) {
    const int own = (int)threadIdx.x % 4 * 8;
    uint4 w[AHEAD][2], x[AHEAD][NT];
#pragma unroll
    for (int s = 0; s < AHEAD; s++) {
        const int64_t at = k0 + s * STEP + own, from = WHOLE || at < k ? at : 0;
#pragma unroll
        for (int i = 0; i < 2; i++) w[s][i] = load_once(r.b[i] + from);
#pragma unroll
        for (int i = 0; i < NT; i++) x[s][i] = *(const uint4 *)(r.a[i] + from);
    }
#pragma unroll
    for (int s = 0; s < AHEAD; s++) {
        const bool there = WHOLE || k0 + s * STEP + own < k;
#pragma unroll
        for (int i = 0; i < 2; i++) clear_unless(there, w[s][i]);
        const uint32_t first[4] = {w[s][0].x, w[s][1].x, w[s][0].y, w[s][1].y},
                       second[4] = {w[s][0].z, w[s][1].z, w[s][0].w, w[s][1].w};
#pragma unroll
        for (int i = 0; i < NT; i++) {
            clear_unless(there, x[s][i]);
            const uint32_t low[2] = {x[s][i].x, x[s][i].y}, high[2] = {x[s][i].z, x[s][i].w};
            mma_bf16(d[i], first, low);
            mma_bf16(d[i], second, high);
        }
    }
}

template <int NT> __global__ void __launch_bounds__(THREADS) few_rows_kernel(FewCall f) {
    __shared__ float part[WARPS][NT * ROWS][OUTS + 1];
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP,
              width = WARPS / f.across * OUTS; // columns of C that the block has
    const int64_t first = (int64_t)blockIdx.x * width, k = f.a.cols;
    const FewRows<NT> r = few_rows_of<NT>(f, first + warp / f.across * OUTS);
    float d[NT][4] = {};
    for (int64_t k0 = warp % f.across * CHUNK; k0 < k; k0 += f.across * CHUNK)
        if (k0 + CHUNK <= k)
            few_steps<NT, true>(d, r, k0, k);
        else
            few_steps<NT, false>(d, r, k0, k);
#pragma unroll
    for (int i = 0; i < NT; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            part[warp][ROWS * i + lane % 4 * 2 + e % 2][lane / 4 + e / 2 * 8] = d[i][e];
    __syncthreads();
    for (int i = (int)threadIdx.x; i < width * (int)f.a.rows; i += THREADS) {
        const int row = i / width, col = i % width, warp0 = col / OUTS * f.across;
        if (first + col >= f.c.cols) continue;
        float sum = part[warp0][row][col % OUTS];
        for (int s = 1; s < f.across; s++) sum += part[warp0 + s][row][col % OUTS];
        if (f.add) sum += load_one(f.c, row, first + col);
        store_one(f.c, row, first + col, sum);
    }
}

bool few_rows_run(Cuda *cu, const CudaGemm *g) {
    const int64_t k = g->a.cols;
    if (g->ta || !g->tb || g->a.rows > MOST_ROWS || g->a.dtype != DT_BF16 ||
        g->b.dtype != DT_BF16 || !vector_fits(g->a, 8) || !vector_fits(g->b, 8))
        return false;
    const FewCall f = {.c = g->c,
                       .a = g->a,
                       .b = g->b,
                       .across = k >= 2048   ? 8
                                 : k >= 1024 ? 4
                                 : k >= 512  ? 2
                                             : 1,
                       .add = g->beta != 0.0f};
    const dim3 grid((unsigned)ceil_div(g->c.cols, WARPS / f.across * OUTS));
    launch(cu, g->a.rows <= ROWS ? few_rows_kernel<1> : few_rows_kernel<2>, grid, dim3(THREADS), 0,
           f);
    return true;
}
