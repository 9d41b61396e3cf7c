// infer/tensor/cuda/attention_mma.cuh - tiles of queries and keys for the tensor cores: how they
// get into shared memory, and which scores a thread holds.
#ifndef CUDA_ATTENTION_MMA_CUH
#define CUDA_ATTENTION_MMA_CUH

#include "infer/tensor/cuda/attention.cuh"

// M work rows by N keys. Warps stand WM by WN: each has 16 MI rows, and of the scores N / WN
// columns, of the result HD / WN.
template <int HD_, int M_, int N_, int MI_, int WARPS_> struct MmaShape {
    static constexpr int HD = HD_, M = M_, N = N_, MI = MI_, THREADS = 32 * WARPS_;
    static constexpr int CH = HD / 8, PCH = N / 8; // chunks of a row of Q, K, V; of the weights
    static constexpr int WM = M / (16 * MI), WN = WARPS_ / WM;
    static constexpr int NT = N / WN / 8, CT = HD / WN / 8;
    static_assert(WM * WN == WARPS_ && NT >= 1 && (NT == 1 || NT % 2 == 0) && CT % 2 == 0, "shape");
};

// What a thread holds: of the scores rows row(mi, h) and keys key(nt, e) for element e = 2 h + (0
// or 1) of product (mi, nt); of the result the same rows, columns col() + 8 ct and the next.
template <typename S> struct MmaThread {
    int row0, wn; // first row of the warp; its place along the columns

    static __device__ __forceinline__ MmaThread here() {
        const int warp = (int)threadIdx.x / WARP;
        return MmaThread{warp / S::WN * 16 * S::MI, warp % S::WN};
    }
    __device__ __forceinline__ int row(int mi, int h) const {
        return row0 + 16 * mi + lane_id() / 4 + 8 * h;
    }
    __device__ __forceinline__ int key0() const { return wn * (S::N / S::WN); }
    __device__ __forceinline__ int key(int nt, int e) const {
        return key0() + 8 * nt + lane_id() % 4 * 2 + (e & 1);
    }
    __device__ __forceinline__ int col() const { return wn * (S::HD / S::WN) + lane_id() % 4 * 2; }
};

// Scores of keys that a row does not see become x; the tile begins at key `at`.
template <typename S>
DEVICE_FN void hide_unseen(float (&s)[S::MI][S::NT][4], float x, const AttnRows &b,
                           const AttnSeen &see, const MmaThread<S> &t, int at) {
#pragma unroll
    for (int mi = 0; mi < S::MI; mi++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int q = t.row(mi, h) / b.nh, from = q < b.nq ? see.from[q] - at : 0,
                      to = q < b.nq ? see.to[q] - at : 0;
#pragma unroll
            for (int nt = 0; nt < S::NT; nt++)
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; e++)
                    if (t.key(nt, e) < from || t.key(nt, e) >= to) s[mi][nt][e] = x;
        }
}
DEVICE_FN bool hides_some(const AttnSeen &see, int at, int keys) {
    return at < see.all_from || at + keys > see.all_to;
}

template <typename S>
DEVICE_FN void load_work_rows(uint4 *tile, const Tensor &x, const AttnRows &b) {
    const int c = (int)threadIdx.x % S::CH;
    for (int row = (int)threadIdx.x / S::CH; row < S::M; row += S::THREADS / S::CH) {
        const bool there = row < b.nq * b.nh;
        const AttnPlace at = attn_place(b, there ? row : 0);
        copy_async(tile + chunk_at<S::CH>(row, c), bf16_at(x, at.r, at.h * S::HD + 8 * c), there);
    }
}

// Keys at .. at+N-1; those that no query of the block sees become zeros.
template <typename S>
DEVICE_FN void load_key_tile(uint4 *tile, const Tensor &x, int first, const AttnRows &b,
                             const AttnSeen &see, int at) {
    const int c = (int)threadIdx.x % S::CH;
#pragma unroll 2
    for (int row = (int)threadIdx.x / S::CH; row < S::N; row += S::THREADS / S::CH) {
        const bool there = attn_any_sees(see, b.nq, at + row);
        copy_async(tile + chunk_at<S::CH>(row, c),
                   bf16_at(x, there ? at + row - first : 0, b.kv * S::HD + 8 * c), there);
    }
}

template <int MI, int CT> DEVICE_FN void clear_tile(float (&t)[MI][CT][4]) {
#pragma unroll
    for (int mi = 0; mi < MI; mi++)
#pragma unroll
        for (int ct = 0; ct < CT; ct++)
#pragma unroll
            for (int e = 0; e < 4; e++) t[mi][ct][e] = 0.0f;
}

// Row (mi, h) of a result as it is, from the thread's first column on.
template <typename S>
DEVICE_FN void put_part(float *to, const float (&o)[S::MI][S::CT][4], int mi, int h) {
#pragma unroll
    for (int ct = 0; ct < S::CT; ct++)
        *(float2 *)(to + 8 * ct) = make_float2(o[mi][ct][2 * h], o[mi][ct][2 * h + 1]);
}

// Two neighbouring elements of an (any) tensor.
DEVICE_FN void store_pair(const Tensor &t, int64_t r, int64_t c, float x, float y) {
    if (t.dtype == DT_F32)
        *(float2 *)f32_at(t, r, c) = make_float2(x, y);
    else
        *(uint32_t *)bf16_at(t, r, c) = bf16_pack(x, y);
}
DEVICE_FN void add_pair(const Tensor &t, int64_t r, int64_t c, float x, float y) {
    if (t.dtype == DT_F32) {
        float2 *p = (float2 *)f32_at(t, r, c);
        *p = make_float2(p->x + x, p->y + y);
        return;
    }
    uint32_t *p = (uint32_t *)bf16_at(t, r, c);
    *p = bf16_pack(bf16_low(*p) + x, bf16_high(*p) + y);
}

#endif
