// infer/tensor/cuda/attention_mma_back.cu - gradient in q in bf16 on the tensor cores.
//
// Per key tile: S = Q K^T, dP = dO V^T, dS = e^(S - lse) (dP - do.o) as bf16 through shared
// memory, dQ += dS K. K is needed to the end: the next tile's goes to a second buffer.
#include "infer/tensor/cuda/attention_mma.cuh"

// do.o of each work row.
template <typename S>
DEVICE_FN void put_deltas(float *delta, const AttnCall &c, const AttnRows &b) {
    for (int i = (int)threadIdx.x / WARP; i < S::M; i += S::THREADS / WARP) {
        float sum = 0.0f;
        const AttnPlace at = attn_place(b, i < b.nq * b.nh ? i : 0);
#pragma unroll
        for (int k = 0; k < S::HD; k += 8 * WARP) {
            float x[8], y[8];
            load<8>(x, c.do_, at.r, (int64_t)at.h * S::HD + k + 8 * lane_id());
            load<8>(y, c.o, at.r, (int64_t)at.h * S::HD + k + 8 * lane_id());
#pragma unroll
            for (int e = 0; e < 8; e++) sum = fmaf(x[e], y[e], sum);
        }
        sum = warp_sum(sum);
        if (lane_id() == 0) delta[i] = sum;
    }
}

// Per row of a thread: log-sum-exp, and do.o.
template <typename S> struct Forward { float lse[S::MI][2], delta[S::MI][2]; };

template <typename S>
DEVICE_FN Forward<S> forward_of(const AttnCall &c, const AttnRows &b, const float *delta,
                                const MmaThread<S> &t) {
    Forward<S> f;
#pragma unroll
    for (int mi = 0; mi < S::MI; mi++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = t.row(mi, h);
            const AttnPlace at = attn_place(b, row < b.nq * b.nh ? row : 0);
            f.lse[mi][h] = *f32_at(c.lse, at.r, at.h);
            f.delta[mi][h] = delta[row];
        }
    return f;
}

// Scores become dS.
template <typename S>
DEVICE_FN void score_gradients(float (&s)[S::MI][S::NT][4], const float (&dp)[S::MI][S::NT][4],
                               const Forward<S> &f) {
#pragma unroll
    for (int mi = 0; mi < S::MI; mi++)
#pragma unroll
        for (int nt = 0; nt < S::NT; nt++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                s[mi][nt][e] = exp2_fast((s[mi][nt][e] - f.lse[mi][e / 2]) * LOG2_E) *
                               (dp[mi][nt][e] - f.delta[mi][e / 2]);
}

template <typename S>
DEVICE_FN void put_scores(uint4 *tile, const float (&s)[S::MI][S::NT][4], const MmaThread<S> &t) {
#pragma unroll
    for (int mi = 0; mi < S::MI; mi++)
#pragma unroll
        for (int nt = 0; nt < S::NT; nt++)
#pragma unroll
            for (int h = 0; h < 2; h++)
                put_pair<S::PCH>(tile, t.row(mi, h), t.wn * S::NT + nt, lane_id() % 4,
                                 s[mi][nt][2 * h], s[mi][nt][2 * h + 1]);
}

template <typename S>
DEVICE_FN void add_output(const AttnCall &c, const AttnRows &b, const float (&dq)[S::MI][S::CT][4],
                          const MmaThread<S> &t) {
#pragma unroll
    for (int mi = 0; mi < S::MI; mi++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = t.row(mi, h);
            if (row >= b.nq * b.nh) continue;
            const AttnPlace at = attn_place(b, row);
            if (c.splits > 1) {
                const int64_t i = (int64_t)blockIdx.z * c.q.rows * c.heads + attn_index(c, at);
                put_part<S>(c.part + i * S::HD + t.col(), dq, mi, h);
                continue;
            }
#pragma unroll
            for (int ct = 0; ct < S::CT; ct++)
                add_pair(c.dq, at.r, (int64_t)at.h * S::HD + t.col() + 8 * ct, dq[mi][ct][2 * h],
                         dq[mi][ct][2 * h + 1]);
        }
}

template <typename S> static size_t shared_bytes() {
    return (size_t)(2 * S::M * S::CH + 3 * S::N * S::CH + S::M * S::PCH) * sizeof(uint4) +
           (size_t)(S::M + attn_seen_words(S::M)) * sizeof(float);
}

template <typename S>
__global__ void __launch_bounds__(S::THREADS, 1) attn_mma_back_kernel(AttnCall c) {
    SHARED_MEMORY(memory);
    uint4 *q = (uint4 *)memory, *g = q + S::M * S::CH, *k = g + S::M * S::CH,
          *v = k + 2 * S::N * S::CH, *ds = v + S::N * S::CH;
    float *delta = (float *)(ds + S::M * S::PCH);
    const AttnRows b = attn_rows(c);
    const AttnSeen see = attn_seen(c, b, (int *)(delta + S::M));
    const AttnTiles tiles = attn_tiles(c, see, S::N);
    const AttnSegment &seg = c.seg[b.seg];
    const MmaThread<S> t = MmaThread<S>::here();
    float dq[S::MI][S::CT][4], s[S::MI][S::NT][4], dp[S::MI][S::NT][4];
    clear_tile(dq);
    load_work_rows<S>(q, c.q, b);
    load_work_rows<S>(g, c.do_, b);
    if (tiles.first < tiles.end) {
        load_key_tile<S>(k, seg.k, seg.first, b, see, tiles.first * S::N);
        load_key_tile<S>(v, seg.v, seg.first, b, see, tiles.first * S::N);
    }
    copy_async_commit();
    put_deltas<S>(delta, c, b);
    __syncthreads();
    const Forward<S> f = forward_of<S>(c, b, delta, t);
    for (int tile = tiles.first; tile < tiles.end; tile++) {
        const int at = tile * S::N, turn = (tile - tiles.first) & 1;
        const uint4 *now = k + turn * S::N * S::CH;
        const bool more = tile + 1 < tiles.end;
        copy_async_wait<0>();
        __syncthreads(); // K and V are there; dS and the other K are done with
        if (more)
            load_key_tile<S>(k + (turn ^ 1) * S::N * S::CH, seg.k, seg.first, b, see, at + S::N);
        copy_async_commit();
        tile_scores<S::CH>(s, q, t.row0, now, t.key0());
        tile_scores<S::CH>(dp, g, t.row0, v, t.key0());
        score_gradients<S>(s, dp, f);
        if (hides_some(see, at, S::N)) hide_unseen<S>(s, 0.0f, b, see, t, at);
        put_scores<S>(ds, s, t);
        __syncthreads(); // dS is there; V is done with
        if (more) load_key_tile<S>(v, seg.v, seg.first, b, see, at + S::N);
        copy_async_commit();
        tile_accumulate<S::CH, S::PCH>(dq, ds, t.row0, now, t.wn * S::CT);
    }
    copy_async_wait<0>();
    add_output<S>(c, b, dq, t);
}

typedef MmaShape<256, 64, 64, 2, 8> Back256;  // 169 KiB
typedef MmaShape<256, 64, 32, 2, 8> Small256; // 117 KiB
typedef MmaShape<256, 32, 32, 1, 8> Tiny256;  // 83 KiB: for the 99 that sm_86 has
typedef MmaShape<512, 32, 32, 1, 8> Back512;  // 162.4 KiB: all that sm_80 has

template <typename S> static bool fits(const Cuda *cu) {
    return cu->shared_max >= shared_bytes<S>();
}

bool attn_mma_back_fits(const Cuda *cu, int hd) {
    return hd == 512 ? fits<Back512>(cu) : fits<Tiny256>(cu);
}

AttnShape attn_mma_back_shape(const Cuda *cu, int hd) {
    if (hd == 512) return AttnShape{32, 32};
    return fits<Back256>(cu)    ? AttnShape{64, 64}
           : fits<Small256>(cu) ? AttnShape{64, 32}
                                : AttnShape{32, 32};
}

template <typename S> static void start(Cuda *cu, const AttnCall *c) {
    const dim3 grid((unsigned)c->tiles, (unsigned)(c->heads / c->group * c->parts),
                    (unsigned)c->splits);
    launch(cu, attn_mma_back_kernel<S>, grid, dim3(S::THREADS), shared_bytes<S>(), *c);
}

void attn_mma_back(Cuda *cu, const AttnCall *c) {
    if (c->hd == 512)
        start<Back512>(cu, c);
    else if (fits<Back256>(cu))
        start<Back256>(cu, c);
    else if (fits<Small256>(cu))
        start<Small256>(cu, c);
    else
        start<Tiny256>(cu, c);
}
