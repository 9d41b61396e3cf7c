// infer/tensor/cuda/attention_any.cu - attention forward and gradient in q for any float types and
// head sizes, in f32 without tensor cores.
//
// A block has 8 RW work rows and 64 keys at a time. Scores: 16 x 16 threads, each row ty + 16 i and
// key tx + 16 j, over slices of the head in shared memory. Results: warp w has rows RW w .. of all
// columns; lane l columns l + 32 j.
#include "infer/tensor/cuda/attention.cuh"

constexpr int THREADS = 256, KEYS = 64;
constexpr int SLICE = 32, FEW = 8; // columns of a slice; keys summed at a time

template <int WIDE, int RW> struct AnyShape {
    static constexpr int ROWS = 8 * RW, RI = ROWS / 16, KI = KEYS / 16, CI = WIDE / WARP;
    static constexpr int SLICES = SLICE * (ROWS + 1 + KEYS + 1), PLAIN = FEW * WIDE;
    static constexpr int ROOM = SLICES > PLAIN ? SLICES : PLAIN; // one after the other
};

template <typename S> struct AnyBlock {
    AttnRows b;
    AttnSeen see;
    float *room, *p; // shared memory: slices or keys; weights (ROWS, KEYS + 1)
};

// s = x k^T for the work rows of x (any) and keys at .. at+63.
template <typename S>
DEVICE_FN void any_scores(float (&s)[S::RI][S::KI], const AttnCall &c, const AnyBlock<S> &a,
                          const Tensor &x, const Tensor &keys, int at) {
    const int tx = (int)threadIdx.x % 16, ty = (int)threadIdx.x / 16;
    float *xs = a.room, *ks = xs + SLICE * (S::ROWS + 1);
#pragma unroll
    for (int i = 0; i < S::RI * S::KI; i++) s[i / S::KI][i % S::KI] = 0.0f;
    for (int k0 = 0; k0 < c.hd; k0 += SLICE) {
        const int k = (int)threadIdx.x % SLICE, col = k0 + k;
        __syncthreads();
        for (int i = (int)threadIdx.x / SLICE; i < S::ROWS; i += THREADS / SLICE) {
            const bool there = col < c.hd && i < a.b.nq * a.b.nh;
            const AttnPlace p = attn_place(a.b, there ? i : 0);
            xs[k * (S::ROWS + 1) + i] = there ? load_one(x, p.r, (int64_t)p.h * c.hd + col) : 0.0f;
        }
        for (int i = (int)threadIdx.x / SLICE; i < KEYS; i += THREADS / SLICE) {
            const bool there = col < c.hd && attn_any_sees(a.see, a.b.nq, at + i);
            ks[k * (KEYS + 1) + i] =
                there ? load_one(keys, at + i - c.seg[a.b.seg].first, (int64_t)a.b.kv * c.hd + col)
                      : 0.0f;
        }
        __syncthreads();
#pragma unroll 4
        for (int n = 0; n < SLICE; n++) {
            float xv[S::RI], kv[S::KI];
#pragma unroll
            for (int i = 0; i < S::RI; i++) xv[i] = xs[n * (S::ROWS + 1) + ty + 16 * i];
#pragma unroll
            for (int j = 0; j < S::KI; j++) kv[j] = ks[n * (KEYS + 1) + tx + 16 * j];
#pragma unroll
            for (int i = 0; i < S::RI; i++)
#pragma unroll
                for (int j = 0; j < S::KI; j++) s[i][j] = fmaf(xv[i], kv[j], s[i][j]);
        }
    }
}

template <typename S> DEVICE_FN bool any_sees(const AnyBlock<S> &a, int row, int key) {
    const int q = row / a.b.nh;
    return q < a.b.nq && key >= a.see.from[q] && key < a.see.to[q];
}

// acc += p times keys at .. at+63 of x (any).
template <typename S, int RW>
DEVICE_FN void any_accumulate(float (&acc)[RW][S::CI], const AttnCall &c, const AnyBlock<S> &a,
                              const Tensor &x, int at) {
    const int lane = (int)threadIdx.x % WARP, row0 = (int)threadIdx.x / WARP * RW;
    constexpr int WIDE = S::CI * WARP;
    for (int n0 = 0; n0 < KEYS; n0 += FEW) {
        __syncthreads();
        for (int i = (int)threadIdx.x; i < FEW * WIDE; i += THREADS) {
            const int key = at + n0 + i / WIDE, col = i % WIDE;
            const bool there = col < c.hd && attn_any_sees(a.see, a.b.nq, key);
            a.room[i] = there
                            ? load_one(x, key - c.seg[a.b.seg].first, (int64_t)a.b.kv * c.hd + col)
                            : 0.0f;
        }
        __syncthreads();
#pragma unroll 1
        for (int n = 0; n < FEW; n++) {
            float p[RW];
#pragma unroll
            for (int i = 0; i < RW; i++) p[i] = a.p[(row0 + i) * (KEYS + 1) + n0 + n];
#pragma unroll
            for (int j = 0; j < S::CI; j++) {
                const float v = a.room[n * WIDE + lane + WARP * j];
#pragma unroll
                for (int i = 0; i < RW; i++) acc[i][j] = fmaf(p[i], v, acc[i][j]);
            }
        }
    }
}

// Scores of a row become weights; what there is of its result shrinks.
template <typename S, int RW>
DEVICE_FN void any_softmax(float (&o)[RW][S::CI], float (&max)[RW], float (&sum)[RW], float *p) {
    const int lane = (int)threadIdx.x % WARP, row0 = (int)threadIdx.x / WARP * RW;
#pragma unroll
    for (int i = 0; i < RW; i++) {
        float *s = p + (row0 + i) * (KEYS + 1);
        const float m = fmaxf(max[i], warp_max(fmaxf(s[lane], s[lane + WARP]))),
                    base = m == -INFINITY ? 0.0f : m, shrink = expf(max[i] - base),
                    a = expf(s[lane] - base), b = expf(s[lane + WARP] - base);
        s[lane] = a, s[lane + WARP] = b;
        sum[i] = sum[i] * shrink + warp_sum(a + b);
        max[i] = m;
#pragma unroll
        for (int j = 0; j < S::CI; j++) o[i][j] *= shrink;
    }
}

template <typename S, int RW>
DEVICE_FN void any_output(const AttnCall &c, const AttnRows &b, const float (&o)[RW][S::CI],
                          const float (&max)[RW], const float (&sum)[RW]) {
    const int lane = (int)threadIdx.x % WARP, row0 = (int)threadIdx.x / WARP * RW;
#pragma unroll
    for (int i = 0; i < RW; i++) {
        if (row0 + i >= b.nq * b.nh) continue;
        const AttnPlace at = attn_place(b, row0 + i);
        const int64_t part = (int64_t)blockIdx.z * c.q.rows * c.heads + attn_index(c, at);
        const float share = sum[i] > 0.0f ? 1.0f / sum[i] : 0.0f;
        if (lane == 0 && c.splits > 1)
            c.part_stat[2 * part] = max[i] * LOG2_E, c.part_stat[2 * part + 1] = sum[i];
        else if (lane == 0 && c.lse.data)
            *f32_at(c.lse, at.r, at.h) = sum[i] > 0.0f ? max[i] + logf(sum[i]) : -INFINITY;
#pragma unroll
        for (int j = 0; j < S::CI; j++) {
            const int col = lane + WARP * j;
            if (col >= c.hd) continue;
            if (c.splits > 1)
                c.part[part * c.hd + col] = o[i][j];
            else
                store_one(c.o, at.r, (int64_t)at.h * c.hd + col, o[i][j] * share);
        }
    }
}

template <typename S> DEVICE_FN AnyBlock<S> any_open(const AttnCall &c, unsigned char *memory) {
    AnyBlock<S> a;
    a.room = (float *)memory, a.p = a.room + S::ROOM;
    a.b = attn_rows(c);
    a.see = attn_seen(c, a.b, (int *)(a.p + S::ROWS * (KEYS + 1)));
    return a;
}

template <typename S> static size_t shared_bytes() {
    return (size_t)(S::ROOM + S::ROWS * (KEYS + 1) + attn_seen_words(S::ROWS)) * sizeof(float);
}

template <int WIDE, int RW> __global__ void __launch_bounds__(THREADS) attn_any_kernel(AttnCall c) {
    typedef AnyShape<WIDE, RW> S;
    SHARED_MEMORY(memory);
    const AnyBlock<S> a = any_open<S>(c, memory);
    const AttnTiles tiles = attn_tiles(c, a.see, KEYS);
    const int tx = (int)threadIdx.x % 16, ty = (int)threadIdx.x / 16;
    float o[RW][S::CI], max[RW], sum[RW], s[S::RI][S::KI];
#pragma unroll
    for (int i = 0; i < RW; i++) {
        max[i] = -INFINITY, sum[i] = 0.0f;
#pragma unroll
        for (int j = 0; j < S::CI; j++) o[i][j] = 0.0f;
    }
    for (int tile = tiles.first; tile < tiles.end; tile++) {
        const int at = tile * KEYS;
        any_scores<S>(s, c, a, c.q, c.seg[a.b.seg].k, at);
#pragma unroll
        for (int i = 0; i < S::RI; i++)
#pragma unroll
            for (int j = 0; j < S::KI; j++) {
                const int row = ty + 16 * i, key = tx + 16 * j;
                a.p[row * (KEYS + 1) + key] = any_sees(a, row, at + key) ? s[i][j] : -INFINITY;
            }
        __syncthreads();
        any_softmax<S>(o, max, sum, a.p);
        any_accumulate<S>(o, c, a, c.seg[a.b.seg].v, at);
    }
    any_output<S>(c, a.b, o, max, sum);
}

// do.o of work row i, by one warp.
DEVICE_FN float any_delta(const AttnCall &c, const AttnRows &b, int i) {
    const AttnPlace at = attn_place(b, i);
    float sum = 0.0f;
    for (int col = (int)threadIdx.x % WARP; col < c.hd; col += WARP)
        sum = fmaf(load_one(c.do_, at.r, (int64_t)at.h * c.hd + col),
                   load_one(c.o, at.r, (int64_t)at.h * c.hd + col), sum);
    return warp_sum(sum);
}

template <int WIDE, int RW>
__global__ void __launch_bounds__(THREADS) attn_any_back_kernel(AttnCall c) {
    typedef AnyShape<WIDE, RW> S;
    SHARED_MEMORY(memory);
    __shared__ float delta[S::ROWS], lse[S::ROWS];
    const AnyBlock<S> a = any_open<S>(c, memory);
    const AttnTiles tiles = attn_tiles(c, a.see, KEYS);
    const int tx = (int)threadIdx.x % 16, ty = (int)threadIdx.x / 16,
              lane = (int)threadIdx.x % WARP, row0 = (int)threadIdx.x / WARP * RW,
              rows = a.b.nq * a.b.nh;
    float dq[RW][S::CI], s[S::RI][S::KI], dp[S::RI][S::KI];
#pragma unroll
    for (int i = 0; i < RW; i++) {
        const int row = row0 + i < rows ? row0 + i : 0;
        const float d = any_delta(c, a.b, row);
        const AttnPlace at = attn_place(a.b, row);
        if (lane == 0) delta[row0 + i] = d, lse[row0 + i] = *f32_at(c.lse, at.r, at.h);
#pragma unroll
        for (int j = 0; j < S::CI; j++) dq[i][j] = 0.0f;
    }
    for (int tile = tiles.first; tile < tiles.end; tile++) {
        const int at = tile * KEYS;
        any_scores<S>(s, c, a, c.q, c.seg[a.b.seg].k, at);
        any_scores<S>(dp, c, a, c.do_, c.seg[a.b.seg].v, at);
#pragma unroll
        for (int i = 0; i < S::RI; i++)
#pragma unroll
            for (int j = 0; j < S::KI; j++) {
                const int row = ty + 16 * i, key = tx + 16 * j;
                a.p[row * (KEYS + 1) + key] =
                    any_sees(a, row, at + key) ? expf(s[i][j] - lse[row]) * (dp[i][j] - delta[row])
                                               : 0.0f;
            }
        any_accumulate<S>(dq, c, a, c.seg[a.b.seg].k, at);
    }
#pragma unroll
    for (int i = 0; i < RW; i++) {
        if (row0 + i >= rows) continue;
        const AttnPlace at = attn_place(a.b, row0 + i);
        const int64_t part = (int64_t)blockIdx.z * c.q.rows * c.heads + attn_index(c, at);
#pragma unroll
        for (int j = 0; j < S::CI; j++) {
            const int64_t col = lane + WARP * j, to = (int64_t)at.h * c.hd + col;
            if (col >= c.hd) continue;
            if (c.splits > 1)
                c.part[part * c.hd + col] = dq[i][j];
            else
                store_one(c.dq, at.r, to, load_one(c.dq, at.r, to) + dq[i][j]);
        }
    }
}

// The narrowest shape that holds a head.
AttnShape attn_any_shape(int hd) {
    return AttnShape{hd <= 512 ? 64 : 32, KEYS};
}

template <typename S> static void start(Cuda *cu, void (*kernel)(AttnCall), const AttnCall *c) {
    const dim3 grid((unsigned)c->tiles, (unsigned)(c->heads / c->group * c->parts),
                    (unsigned)c->splits);
    launch(cu, kernel, grid, dim3(THREADS), shared_bytes<S>(), *c);
}

void attn_any(Cuda *cu, const AttnCall *c) {
    if (c->hd <= 64)
        start<AnyShape<64, 8>>(cu, attn_any_kernel<64, 8>, c);
    else if (c->hd <= 128)
        start<AnyShape<128, 8>>(cu, attn_any_kernel<128, 8>, c);
    else if (c->hd <= 256)
        start<AnyShape<256, 8>>(cu, attn_any_kernel<256, 8>, c);
    else if (c->hd <= 512)
        start<AnyShape<512, 8>>(cu, attn_any_kernel<512, 8>, c);
    else
        start<AnyShape<1024, 4>>(cu, attn_any_kernel<1024, 4>, c);
}

void attn_any_back(Cuda *cu, const AttnCall *c) {
    if (c->hd <= 64)
        start<AnyShape<64, 8>>(cu, attn_any_back_kernel<64, 8>, c);
    else if (c->hd <= 128)
        start<AnyShape<128, 8>>(cu, attn_any_back_kernel<128, 8>, c);
    else if (c->hd <= 256)
        start<AnyShape<256, 8>>(cu, attn_any_back_kernel<256, 8>, c);
    else if (c->hd <= 512)
        start<AnyShape<512, 8>>(cu, attn_any_back_kernel<512, 8>, c);
    else
        start<AnyShape<1024, 4>>(cu, attn_any_back_kernel<1024, 4>, c);
}
