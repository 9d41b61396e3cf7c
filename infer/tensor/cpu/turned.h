// infer/tensor/cpu/turned.h - sixteen rows loaded as columns, for the AVX-512 kernels.
#ifndef CPU_TURNED_H
#define CPU_TURNED_H

#include <stdint.h>

#ifdef __x86_64__
#include <immintrin.h>

enum { TURNED_ROWS = 16, TURNED_BYTES = 64 }; // rows; bytes of each
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))

// Columns of 16 rows at byte `at`, elements of 32 bits (one f32 or a pair of bf16): r[j] lane i is
// element j of row i. Quarters are loaded where they belong, then 4 x 4 blocks are turned inside
// them.
AVX512 static inline __attribute__((always_inline)) void
load_four_turned(__m512i r[4], const char *const row[TURNED_ROWS], int64_t at) {
    __m512i t[4], u[4];
    for (int s = 0; s < 4; s++) {
        t[s] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(row[s] + at)));
        for (int q = 1; q < 4; q++) {
            const __m128i x = _mm_loadu_si128((const __m128i *)(row[4 * q + s] + at));
            t[s] = _mm512_mask_broadcast_i32x4(t[s], (__mmask16)(0xf << 4 * q), x);
        }
    }
    for (int s = 0; s < 4; s += 2) {
        u[s] = _mm512_unpacklo_epi32(t[s], t[s + 1]);
        u[s + 1] = _mm512_unpackhi_epi32(t[s], t[s + 1]);
    }
    r[0] = _mm512_unpacklo_epi64(u[0], u[2]);
    r[1] = _mm512_unpackhi_epi64(u[0], u[2]);
    r[2] = _mm512_unpacklo_epi64(u[1], u[3]);
    r[3] = _mm512_unpackhi_epi64(u[1], u[3]);
}

AVX512 static inline __attribute__((always_inline)) void
load_turned(__m512i r[TURNED_ROWS], const char *const row[TURNED_ROWS], int64_t at) {
    for (int j = 0; j < 4; j++) load_four_turned(r + 4 * j, row, at + 16 * j);
}
#endif

#endif
