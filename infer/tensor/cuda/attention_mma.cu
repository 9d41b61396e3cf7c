// infer/tensor/cuda/attention_mma.cu - attention forward in bf16 on the tensor cores.
//
// Per key tile: S = Q K^T, each warp a part of the keys; row maxima meet in shared memory; weights
// go there as bf16; O += P V, each warp a part of the columns. K of the next tile is on its way
// while weights and O are worked on, V while the scores are.
#include "infer/tensor/cuda/attention_mma.cuh"

// Rows' maxima and sums so far; sums are of this thread's columns only until the end. In units of
// log2 e, for exp2.
template <typename S> struct Softmax { float max[S::MI][2], sum[S::MI][2]; };

// Each row's maximum over this warp's keys, for all warps to see.
template <typename S>
DEVICE_FN void put_maxima(float *top, const float (&s)[S::MI][S::NT][4], const MmaThread<S> &t) {
#pragma unroll
    for (int mi = 0; mi < S::MI; mi++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float m = -INFINITY;
#pragma unroll
            for (int nt = 0; nt < S::NT; nt++)
                m = fmaxf(m, fmaxf(s[mi][nt][2 * h], s[mi][nt][2 * h + 1]));
            m = fmaxf(m, __shfl_xor_sync(ALL_LANES, m, 1));
            m = fmaxf(m, __shfl_xor_sync(ALL_LANES, m, 2));
            if (lane_id() % 4 == 0) top[t.wn * S::M + t.row(mi, h)] = m;
        }
}

// Scores become weights in shared memory; what there is of O shrinks where a maximum grew.
template <typename S>
DEVICE_FN void put_weights(uint4 *p, float (&o)[S::MI][S::CT][4], Softmax<S> &r, const float *top,
                           const float (&s)[S::MI][S::NT][4], const MmaThread<S> &t) {
#pragma unroll
    for (int mi = 0; mi < S::MI; mi++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = t.row(mi, h);
            float m = r.max[mi][h];
#pragma unroll
            for (int w = 0; w < S::WN; w++) m = fmaxf(m, top[w * S::M + row] * LOG2_E);
            const float base = m == -INFINITY ? 0.0f : m, shrink = exp2_fast(r.max[mi][h] - base);
            float sum = r.sum[mi][h] * shrink;
#pragma unroll
            for (int nt = 0; nt < S::NT; nt++) {
                const float a = exp2_fast(fmaf(s[mi][nt][2 * h], LOG2_E, -base)),
                            b = exp2_fast(fmaf(s[mi][nt][2 * h + 1], LOG2_E, -base));
                sum += a + b;
                put_pair<S::PCH>(p, row, t.wn * S::NT + nt, lane_id() % 4, a, b);
            }
            r.max[mi][h] = m, r.sum[mi][h] = sum;
#pragma unroll
            for (int ct = 0; ct < S::CT; ct++)
                o[mi][ct][2 * h] *= shrink, o[mi][ct][2 * h + 1] *= shrink;
        }
}

// Sums of all columns of a row.
template <typename S> DEVICE_FN void add_sums(float *top, Softmax<S> &r, const MmaThread<S> &t) {
    __syncthreads();
#pragma unroll
    for (int mi = 0; mi < S::MI; mi++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float sum = r.sum[mi][h];
            sum += __shfl_xor_sync(ALL_LANES, sum, 1);
            sum += __shfl_xor_sync(ALL_LANES, sum, 2);
            if (lane_id() % 4 == 0) top[t.wn * S::M + t.row(mi, h)] = sum;
        }
    __syncthreads();
#pragma unroll
    for (int mi = 0; mi < S::MI; mi++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            r.sum[mi][h] = 0.0f;
#pragma unroll
            for (int w = 0; w < S::WN; w++) r.sum[mi][h] += top[w * S::M + t.row(mi, h)];
        }
}

// O / sum and log-sum-exp, or both as they are where other splits follow.
template <typename S>
DEVICE_FN void put_output(const AttnCall &c, const AttnRows &b, const float (&o)[S::MI][S::CT][4],
                          const Softmax<S> &r, const MmaThread<S> &t) {
#pragma unroll
    for (int mi = 0; mi < S::MI; mi++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = t.row(mi, h), col = t.col();
            if (row >= b.nq * b.nh) continue;
            const AttnPlace at = attn_place(b, row);
            const float max = r.max[mi][h], sum = r.sum[mi][h];
            const bool writes = t.wn == 0 && lane_id() % 4 == 0;
            if (c.splits > 1) {
                const int64_t i = (int64_t)blockIdx.z * c.q.rows * c.heads + attn_index(c, at);
                if (writes) c.part_stat[2 * i] = max, c.part_stat[2 * i + 1] = sum;
                put_part<S>(c.part + i * S::HD + col, o, mi, h);
                continue;
            }
            const float share = sum > 0.0f ? 1.0f / sum : 0.0f;
            if (writes && c.lse.data)
                *f32_at(c.lse, at.r, at.h) = sum > 0.0f ? max / LOG2_E + logf(sum) : -INFINITY;
#pragma unroll
            for (int ct = 0; ct < S::CT; ct++)
                store_pair(c.o, at.r, (int64_t)at.h * S::HD + col + 8 * ct,
                           o[mi][ct][2 * h] * share, o[mi][ct][2 * h + 1] * share);
        }
}

template <typename S> static size_t shared_bytes() {
    return (size_t)(S::M * S::CH + 2 * S::N * S::CH + S::M * S::PCH) * sizeof(uint4) +
           (size_t)(S::WN * S::M + attn_seen_words(S::M)) * sizeof(float);
}

template <typename S, int BLOCKS>
__global__ void __launch_bounds__(S::THREADS, BLOCKS) attn_mma_kernel(AttnCall c) {
    SHARED_MEMORY(memory);
    uint4 *q = (uint4 *)memory, *k = q + S::M * S::CH, *v = k + S::N * S::CH, *p = v + S::N * S::CH;
    float *top = (float *)(p + S::M * S::PCH); // (WN, M)
    const AttnRows b = attn_rows(c);
    const AttnSeen see = attn_seen(c, b, (int *)(top + S::WN * S::M));
    const AttnTiles tiles = attn_tiles(c, see, S::N);
    const AttnSegment &seg = c.seg[b.seg];
    const MmaThread<S> t = MmaThread<S>::here();
    float o[S::MI][S::CT][4], s[S::MI][S::NT][4];
    Softmax<S> r;
    clear_tile(o);
#pragma unroll
    for (int i = 0; i < 2 * S::MI; i++) r.max[i / 2][i % 2] = -INFINITY, r.sum[i / 2][i % 2] = 0.0f;
    load_work_rows<S>(q, c.q, b);
    if (tiles.first < tiles.end) load_key_tile<S>(k, seg.k, seg.first, b, see, tiles.first * S::N);
    copy_async_commit();
    for (int tile = tiles.first; tile < tiles.end; tile++) {
        const int at = tile * S::N;
        copy_async_wait<0>();
        __syncthreads(); // K is there; V and P of the last tile are done with
        load_key_tile<S>(v, seg.v, seg.first, b, see, at);
        copy_async_commit();
        tile_scores<S::CH>(s, q, t.row0, k, t.key0());
        if (hides_some(see, at, S::N)) hide_unseen<S>(s, -INFINITY, b, see, t, at);
        put_maxima<S>(top, s, t);
        __syncthreads(); // K is done with
        if (tile + 1 < tiles.end) load_key_tile<S>(k, seg.k, seg.first, b, see, at + S::N);
        copy_async_commit();
        put_weights<S>(p, o, r, top, s, t);
        copy_async_wait<1>();
        __syncthreads(); // V and P are there
        tile_accumulate<S::CH, S::PCH>(o, p, t.row0, v, t.wn * S::CT);
    }
    copy_async_wait<0>();
    add_sums<S>(top, r, t);
    put_output<S>(c, b, o, r, t);
}

typedef MmaShape<256, 128, 64, 2, 8> Many256; // 146 KiB
typedef MmaShape<256, 32, 64, 2, 8> Few256;   // 86 KiB
typedef MmaShape<512, 64, 64, 2, 8> Many512;  // 202 KiB
typedef MmaShape<512, 64, 32, 2, 8> Small512; // 134 KiB
typedef MmaShape<512, 32, 32, 2, 4> Few512;   // 98.8 KiB: all that sm_86 has

static bool is_roomy(const Cuda *cu) {
    return cu->shared_max >= shared_bytes<Many512>();
}

bool attn_mma_many_fits(const Cuda *cu, int hd) {
    return cu->shared_max >= (hd == 256 ? shared_bytes<Many256>() : shared_bytes<Small512>());
}

AttnShape attn_mma_shape(const Cuda *cu, int hd, bool few) {
    if (hd == 256) return few ? AttnShape{32, 64} : AttnShape{128, 64};
    if (few) return AttnShape{32, 32};
    return is_roomy(cu) ? AttnShape{64, 64} : AttnShape{64, 32};
}

template <typename S, int BLOCKS> static void start(Cuda *cu, const AttnCall *c) {
    const dim3 grid((unsigned)c->tiles, (unsigned)(c->heads / c->group * c->parts),
                    (unsigned)c->splits);
    launch(cu, attn_mma_kernel<S, BLOCKS>, grid, dim3(S::THREADS), shared_bytes<S>(), *c);
}

void attn_mma(Cuda *cu, const AttnCall *c, bool few) {
    if (c->hd == 256 && few)
        start<Few256, 2>(cu, c);
    else if (c->hd == 256)
        start<Many256, 1>(cu, c);
    else if (few)
        start<Few512, 2>(cu, c);
    else if (is_roomy(cu))
        start<Many512, 1>(cu, c);
    else
        start<Small512, 1>(cu, c);
}
