// infer/tensor/cuda/smem_tile.cuh - tiles of bf16 in shared memory, and products of them by mma.
//
// A row of a tile is CH chunks of 16 bytes (8 bf16). Chunk c of a row is stored where the row's
// number puts it, so that the eight rows that ldmatrix reads at once lie in different banks.
// Fragments of mma.m16n8k16: lane l holds rows l / 4 and l / 4 + 8, columns 2 (l % 4) and the next.
#ifndef CUDA_SMEM_TILE_H
#define CUDA_SMEM_TILE_H

#include "infer/tensor/cuda/cuda.cuh"

DEVICE_FN int lane_id() {
    return (int)(threadIdx.x % WARP);
}

#define LOG2_E 1.44269504f

// 2^x within 2 units in the last place, 0 where that is less than normal.
DEVICE_FN float exp2_fast(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

template <int CH> DEVICE_FN int chunk_at(int r, int c) {
    static_assert(CH == 4 || CH % 8 == 0, "chunks of a row");
    return r * CH + (CH == 4 ? c ^ (r >> 1 & 3) : c ^ (r & 7));
}

// A: rows r0 .. r0+15, chunks c and c + 1 (k16).
template <int CH> DEVICE_FN void frag_rows(uint32_t (&a)[4], const uint4 *tile, int r0, int c) {
    const int l = lane_id();
    ldmatrix(a, tile + chunk_at<CH>(r0 + (l & 15), c + (l >> 4)));
}

// B for two products: of sixteen columns of the result (k16), or of eight (k32).
typedef struct {
    uint32_t b[2][2];
} FragPair;

DEVICE_FN FragPair frag_pair(const uint4 *row, bool turned) {
    uint32_t r[4];
    ldmatrix(r, row, turned);
    return FragPair{{{r[0], r[1]}, {r[2], r[3]}}};
}

// Rows that are columns of the result: rows n0 .. n0+15, chunks c and c + 1.
template <int CH> DEVICE_FN FragPair frag_turned(const uint4 *tile, int n0, int c) {
    const int l = lane_id();
    return frag_pair(tile + chunk_at<CH>(n0 + (l & 7) + (l >> 4 << 3), c + (l >> 3 & 1)), false);
}

// The same of rows n0 .. n0+7, chunks c .. c+3.
template <int CH> DEVICE_FN FragPair frag_turned8(const uint4 *tile, int n0, int c) {
    const int l = lane_id();
    return frag_pair(tile + chunk_at<CH>(n0 + (l & 7), c + (l >> 3)), false);
}

// Rows that are summed over: rows k0 .. k0+15, chunks c and c + 1.
template <int CH> DEVICE_FN FragPair frag_plain(const uint4 *tile, int k0, int c) {
    const int l = lane_id();
    return frag_pair(tile + chunk_at<CH>(k0 + (l & 15), c + (l >> 4)), true);
}

// s = rows row0 .. of x times rows key0 .. of keys, 16 MI by 8 NT of them.
template <int CH, int MI, int NT>
DEVICE_FN void tile_scores(float (&s)[MI][NT][4], const uint4 *x, int row0, const uint4 *keys,
                           int key0) {
#pragma unroll
    for (int mi = 0; mi < MI; mi++)
#pragma unroll
        for (int nt = 0; nt < NT; nt++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[mi][nt][e] = 0.0f;
    if constexpr (NT == 1) {
#pragma unroll 4
        for (int c = 0; c < CH; c += 4) {
            const FragPair f = frag_turned8<CH>(keys, key0, c);
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int mi = 0; mi < MI; mi++) {
                    uint32_t a[4];
                    frag_rows<CH>(a, x, row0 + 16 * mi, c + 2 * half);
                    mma_bf16(s[mi][0], a, f.b[half]);
                }
        }
    } else {
#pragma unroll 2
        for (int c = 0; c < CH; c += 2) {
            uint32_t a[MI][4];
#pragma unroll
            for (int mi = 0; mi < MI; mi++) frag_rows<CH>(a[mi], x, row0 + 16 * mi, c);
#pragma unroll
            for (int nt = 0; nt < NT; nt += 2) {
                const FragPair f = frag_turned<CH>(keys, key0 + 8 * nt, c);
#pragma unroll
                for (int mi = 0; mi < MI; mi++) {
                    mma_bf16(s[mi][nt], a[mi], f.b[0]);
                    mma_bf16(s[mi][nt + 1], a[mi], f.b[1]);
                }
            }
        }
    }
}

// acc += rows row0 .. of p (8 PCH columns) times the rows of x, its chunks chunk0 .. chunk0+CT-1.
template <int CH, int PCH, int MI, int CT>
DEVICE_FN void tile_accumulate(float (&acc)[MI][CT][4], const uint4 *p, int row0, const uint4 *x,
                               int chunk0) {
#pragma unroll 2
    for (int k = 0; k < PCH; k += 2) {
        uint32_t a[MI][4];
#pragma unroll
        for (int mi = 0; mi < MI; mi++) frag_rows<PCH>(a[mi], p, row0 + 16 * mi, k);
#pragma unroll
        for (int ct = 0; ct < CT; ct += 2) {
            const FragPair f = frag_plain<CH>(x, 8 * k, chunk0 + ct);
#pragma unroll
            for (int mi = 0; mi < MI; mi++) {
                mma_bf16(acc[mi][ct], a[mi], f.b[0]);
                mma_bf16(acc[mi][ct + 1], a[mi], f.b[1]);
            }
        }
    }
}

// Two neighbouring columns as a word of a tile's row: word w of chunk c.
template <int CH> DEVICE_FN void put_pair(uint4 *tile, int r, int c, int w, float x, float y) {
    reinterpret_cast<uint32_t *>(tile + chunk_at<CH>(r, c))[w] = bf16_pack(x, y);
}

#endif
