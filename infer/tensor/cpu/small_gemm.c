// infer/tensor/cpu/small_gemm.c - C (m, n) = A (m, k) B (n, k)^T for few rows: decoding, experts.
//
// oneDNN repacks B on every call, three times the work when there are few rows. Here 16 rows of B
// are turned in registers, and each sum runs through k in order by the very instructions oneDNN
// uses, so that a row keeps its bits when it meets others in a larger product (own_gemm.c). Each 16
// rows are 16 streams, too short for the CPU to foresee: the next ones are asked for while these
// are read.
#include "infer/tensor/cpu/gemm.h"

#include <string.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/turned.h"

#ifdef __x86_64__

// Rows of A at once, and at most; rows of B; bytes of a row.
enum { ROWS = 8, ROWS_MOST = 16, TILE = TURNED_ROWS, STEP = TURNED_BYTES };
#define ALWAYS_INLINE inline __attribute__((always_inline))

// acc[i] += 64 bytes of A row i times the same bytes of 16 rows of B, four columns at a time: 16 of
// them and the sums are more than there are registers.
AVX512 static ALWAYS_INLINE void step_f32(__m512 acc[ROWS], const char *const a[ROWS],
                                          const char *const row[TILE], int64_t at, int m) {
    for (const int64_t end = at + STEP; at < end; at += 16) {
        __m512i r[4];
        load_four_turned(r, row, at);
        for (int k = 0; k < 4; k++)
            for (int i = 0; i < m; i++) {
                float x;
                memcpy(&x, a[i] + at + 4 * k, sizeof x);
                acc[i] = _mm512_fmadd_ps(_mm512_set1_ps(x), _mm512_castsi512_ps(r[k]), acc[i]);
            }
    }
}

AVX512_BF16 static ALWAYS_INLINE void step_bf16(__m512 acc[ROWS], const char *const a[ROWS],
                                                const char *const row[TILE], int64_t at, int m) {
    for (const int64_t end = at + STEP; at < end; at += 16) {
        __m512i r[4];
        load_four_turned(r, row, at);
        for (int k = 0; k < 4; k++)
            for (int i = 0; i < m; i++) {
                int32_t x;
                memcpy(&x, a[i] + at + 4 * k, sizeof x);
                acc[i] = _mm512_dpbf16_ps(acc[i], (__m512bh)_mm512_set1_epi32(x), (__m512bh)r[k]);
            }
    }
}

// A is F32, B BF16, widened here: the factors and sums of step_f32 over a widened B.
AVX512 static ALWAYS_INLINE void step_wide(__m512 acc[ROWS], const char *const a[ROWS],
                                           const char *const row[TILE], int64_t at, int m) {
    const __m512i high = _mm512_set1_epi32((int32_t)0xffff0000u);
    for (const int64_t end = at + STEP; at < end; at += 16) {
        __m512i r[4];
        load_four_turned(r, row, at);
        for (int k = 0; k < 4; k++) {
            const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(r[k], 16));
            const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(r[k], high));
            for (int i = 0; i < m; i++) {
                float x[2];
                memcpy(x, a[i] + 2 * at + 8 * k, sizeof x);
                acc[i] = _mm512_fmadd_ps(_mm512_set1_ps(x[0]), even, acc[i]);
                acc[i] = _mm512_fmadd_ps(_mm512_set1_ps(x[1]), odd, acc[i]);
            }
        }
    }
}

// The last bytes of a stretch, followed by zeros up to a whole step.
typedef struct {
    char a[ROWS][2 * STEP], b[TILE][STEP];
    const char *pa[ROWS], *pb[TILE];
} Tail;

// widen: an element of A is so many times as wide as one of B.
static void tail_fill(Tail *t, const char *const a[ROWS], const char *const row[TILE], int64_t at,
                      int64_t bytes, int m, int widen) {
    memset(t, 0, sizeof *t);
    for (int i = 0; i < m; i++) memcpy(t->a[i], a[i] + at * widen, (size_t)(bytes * widen));
    for (int i = 0; i < TILE; i++) memcpy(t->b[i], row[i] + at, (size_t)bytes);
    for (int i = 0; i < ROWS; i++) t->pa[i] = t->a[i];
    for (int i = 0; i < TILE; i++) t->pb[i] = t->b[i];
}

AVX512 static ALWAYS_INLINE void ask_for(const char *const row[TILE], int64_t at) {
    for (int i = 0; i < TILE; i++) _mm_prefetch(row[i] + at, _MM_HINT_T1);
}

// sum[i] = A row i times 16 rows of B, each of `bytes`; the next 16 lie `ahead` bytes further.
// oneDNN's order: sums over chunks of k, which then are added up. m is a constant wherever this is
// inlined. (32 rows at once would hide more latency, but at the usual strides of a power of two
// they evict each other from the L1 cache.)
#define DOTS_CASE(name, rows)                                                                      \
    case rows:                                                                                     \
        name##_rows(sum, a, row, bytes, chunk, ahead, rows);                                       \
        break;
#define DOTS(name, target, step, widen)                                                            \
    target static ALWAYS_INLINE void name##_rows(float(*sum)[TILE], const char *const a[ROWS],     \
                                                 const char *const row[TILE], int64_t bytes,       \
                                                 int64_t chunk, int64_t ahead, int m) {            \
        __m512 total[ROWS], acc[ROWS];                                                             \
        for (int i = 0; i < ROWS; i++) total[i] = _mm512_setzero_ps();                             \
        for (int64_t from = 0; from < bytes; from += chunk) {                                      \
            const int64_t to = bytes - from < chunk ? bytes : from + chunk;                        \
            int64_t at = from;                                                                     \
            for (int i = 0; i < ROWS; i++) acc[i] = _mm512_setzero_ps();                           \
            for (; at + STEP <= to; at += STEP) {                                                  \
                ask_for(row, at + ahead);                                                          \
                step(acc, a, row, at, m);                                                          \
            }                                                                                      \
            if (at < to) {                                                                         \
                Tail t;                                                                            \
                tail_fill(&t, a, row, at, to - at, m, widen);                                      \
                step(acc, t.pa, t.pb, 0, m);                                                       \
            }                                                                                      \
            for (int i = 0; i < m; i++) total[i] = _mm512_add_ps(total[i], acc[i]);                \
        }                                                                                          \
        for (int i = 0; i < m; i++) _mm512_storeu_ps(sum[i], total[i]);                            \
    }                                                                                              \
    target static void name(float(*sum)[TILE], const char *const a[ROWS],                          \
                            const char *const row[TILE], int64_t bytes, int64_t chunk,             \
                            int64_t ahead, int m) {                                                \
        switch (m) {                                                                               \
            DOTS_CASE(name, 1)                                                                     \
            DOTS_CASE(name, 2)                                                                     \
            DOTS_CASE(name, 3)                                                                     \
            DOTS_CASE(name, 4)                                                                     \
            DOTS_CASE(name, 5)                                                                     \
            DOTS_CASE(name, 6)                                                                     \
            DOTS_CASE(name, 7)                                                                     \
            DOTS_CASE(name, 8)                                                                     \
        }                                                                                          \
    }
DOTS(dots_f32, AVX512, step_f32, 1)
DOTS(dots_bf16, AVX512_BF16, step_bf16, 1)
DOTS(dots_wide, AVX512, step_wide, 2)

typedef void DotsFn(float (*sum)[TILE], const char *const a[ROWS], const char *const row[TILE],
                    int64_t bytes, int64_t chunk, int64_t ahead, int m);
static DotsFn *dots_of(const Gemm *g) {
    if (g->b.dtype == DT_F32) return dots_f32;
    return g->a.dtype == DT_F32 ? dots_wide : dots_bf16;
}

// Columns n .. n + TILE - 1 of C, for rows of A in equal shares of at most ROWS.
static void columns(const Gemm *g, int64_t n) {
    const size_t size = dtype_size(g->b.dtype), wide = dtype_size(g->a.dtype);
    DotsFn *const dots = dots_of(g);
    const int64_t k = g->a.cols, count = g->c.cols - n < TILE ? g->c.cols - n : TILE;
    const int64_t chunk = gemm_chunk(k), shares = (g->c.rows + ROWS - 1) / ROWS;
    const int64_t next = n + 2 * TILE <= g->c.cols ? TILE * g->b.ld * (int64_t)size : 0;
    const char *row[TILE];
    float sum[ROWS][TILE];
    for (int i = 0; i < TILE; i++) { // behind the last row: that row again, its sums unused
        const int64_t r = n + (i < count ? i : count - 1);
        row[i] = (char *)g->b.data + (size_t)(r * g->b.ld) * size;
    }
    for (int64_t s = 0; s < shares; s++) {
        const int64_t first = g->c.rows * s / shares;
        const int m = (int)(g->c.rows * (s + 1) / shares - first);
        const char *a[ROWS] = {0};
        for (int i = 0; i < m; i++)
            a[i] = (char *)g->a.data + (size_t)((first + i) * g->a.ld) * wide;
        dots(sum, a, row, k * (int64_t)size, chunk * (int64_t)size, s == 0 ? next : 0, m);
        for (int i = 0; i < m; i++) gemm_put(g->c, first + i, n, sum[i], count, g->beta);
    }
}

bool small_gemm_takes(const Gemm *g) {
    return !g->ta && g->tb && g->c.rows <= ROWS_MOST && g->a.cols > 0;
}

void small_gemm_run(const Gemm *g) {
#pragma omp parallel for num_threads(g->threads)
    for (int64_t n = 0; n < g->c.cols; n += TILE) columns(g, n);
}

#else

bool small_gemm_takes(const Gemm *g) {
    (void)g;
    return false;
}
void small_gemm_run(const Gemm *g) {
    (void)g;
}

#endif
