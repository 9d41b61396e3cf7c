// infer/tensor/cpu/panel_kernel.c - register blocks for each instruction set, and the packing.
#include "infer/tensor/cpu/panel_kernel.h"

#include <string.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"
#include "infer/tensor/cpu/turned.h"

typedef float f32x4_at __attribute__((vector_size(16), aligned(4), may_alias));

typedef void BlockFn(const PanelProduct *p, int64_t row, int64_t panel);
typedef enum { TURN_F32, TURN_BF16, TURN_PAIRS } Turn;
typedef void TurnFn(float *to, const char *const row[PANEL], int64_t at, Turn kind);

// What one instruction set offers: blocks of 1 << r rows and w + 1 panels, as many as fit into its
// registers.
typedef struct {
    int rows, panels;
    BlockFn *block[4][3], *pairs[4][3];
    TurnFn *turn;
} Kernels;

#define EACH(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); i++)

// Where row i of A begins.
LANE_FN const float *a_at(const PanelProduct *p, int64_t i) {
    return p->a + (p->turned ? i / PANEL * p->lda + i % PANEL : i * p->lda);
}

// ROWS rows of C times PANELS panels stay in registers while k runs. `fma` rounds once where the
// instruction set can.
// clang-format off
#define BLOCK(set, target, vec, spread, fma, ROWS, PANELS)                                         \
    target static void set##_##ROWS##x##PANELS(const PanelProduct *p, int64_t i0, int64_t j0) {    \
        enum { LANE = sizeof(vec) / sizeof(float), PER = PANEL / LANE, N = PANELS * PER };         \
        typedef vec vec_at __attribute__((aligned(4), may_alias));                                 \
        const float *a = a_at(p, i0), *b = p->b + j0 * p->panel;                                   \
        float *c = p->c + i0 * p->ldc + j0 * PANEL;                                                \
        const int64_t k = p->k, ldc = p->ldc, panel = p->panel;                                    \
        const int64_t lda = p->turned ? 1 : p->lda, step = p->turned ? PANEL : 1;                  \
        vec acc[ROWS][N], row[N];                                                                  \
        EACH(i, ROWS)                                                                              \
            EACH(j, N) acc[i][j] = p->add ? *(vec_at *)(c + i * ldc + j * LANE) : (vec_at){0};     \
        for (int64_t q = 0; q < k; q++, a += step, b += PANEL) {                                   \
            EACH(j, N) row[j] = *(const vec_at *)(b + j / PER * panel + j % PER * LANE);           \
            EACH(i, ROWS) {                                                                        \
                const vec x = spread(a[i * lda]);                                                  \
                EACH(j, N) acc[i][j] = fma(x, row[j], acc[i][j]);                                  \
            }                                                                                      \
        }                                                                                          \
        if (p->then_add)                                                                           \
            EACH(i, ROWS) EACH(j, N) acc[i][j] = *(vec_at *)(c + i * ldc + j * LANE) + acc[i][j];  \
        EACH(i, ROWS) EACH(j, N) *(vec_at *)(c + i * ldc + j * LANE) = acc[i][j];                  \
    }
// clang-format on

// The bytes at `at` of 16 rows, one row of `to` for each element.
static void turn_f32(float *to, const float *from, int64_t ld, int64_t cols) {
    for (int64_t p = 0; p < cols; p += 4)
        for (int i = 0; i < PANEL; i += 4) {
            f32x4 r[4];
            for (int s = 0; s < 4; s++) r[s] = *(const f32x4_at *)(from + (i + s) * ld + p);
            const f32x4 a = __builtin_shuffle(r[0], r[1], (i32x4){0, 4, 1, 5}),
                        b = __builtin_shuffle(r[0], r[1], (i32x4){2, 6, 3, 7}),
                        c = __builtin_shuffle(r[2], r[3], (i32x4){0, 4, 1, 5}),
                        d = __builtin_shuffle(r[2], r[3], (i32x4){2, 6, 3, 7});
            float *at = to + p * PANEL + i;
            *(f32x4_at *)at = __builtin_shuffle(a, c, (i32x4){0, 1, 4, 5});
            *(f32x4_at *)(at + PANEL) = __builtin_shuffle(a, c, (i32x4){2, 3, 6, 7});
            *(f32x4_at *)(at + 2 * PANEL) = __builtin_shuffle(b, d, (i32x4){0, 1, 4, 5});
            *(f32x4_at *)(at + 3 * PANEL) = __builtin_shuffle(b, d, (i32x4){2, 3, 6, 7});
        }
}

enum { STEP = 64 }; // bytes of a row that are turned at once

static void turn_any(float *to, const char *const row[PANEL], int64_t at, Turn kind) {
    enum { MOST = STEP / sizeof(bf16) };
    float buf[PANEL][MOST];
    const int64_t cols = kind == TURN_F32 ? MOST / 2 : MOST;
    for (int i = 0; i < PANEL; i++)
        if (kind == TURN_F32)
            memcpy(buf[i], row[i] + at, STEP);
        else
            f32_from_bf16(buf[i], (const bf16 *)(const void *)(row[i] + at), cols);
    turn_f32(to, buf[0], MOST, cols);
}
#define SPREAD(x) ((x) - (f32x4){0})
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
BLOCK(any, , f32x4, SPREAD, MULTIPLY_ADD, 1, 1)
BLOCK(any, , f32x4, SPREAD, MULTIPLY_ADD, 2, 1)
static const Kernels any = {2, 1, {{any_1x1}, {any_2x1}}, {{NULL}}, turn_any};

#ifdef __x86_64__
#define AVX2 __attribute__((target("avx2,fma")))
BLOCK(avx2, AVX2, __m256, _mm256_set1_ps, _mm256_fmadd_ps, 1, 1)
BLOCK(avx2, AVX2, __m256, _mm256_set1_ps, _mm256_fmadd_ps, 2, 1)
BLOCK(avx2, AVX2, __m256, _mm256_set1_ps, _mm256_fmadd_ps, 4, 1)
static const Kernels avx2 = {4, 1, {{avx2_1x1}, {avx2_2x1}, {avx2_4x1}}, {{NULL}}, turn_any};

#define PAIR_FMA(a, b, c) _mm512_dpbf16_ps(c, (__m512bh)(a), (__m512bh)(b))
#define BLOCK512(ROWS, PANELS)                                                                     \
    BLOCK(avx512, AVX512, __m512, _mm512_set1_ps, _mm512_fmadd_ps, ROWS, PANELS)                   \
    BLOCK(pairs, AVX512_BF16, __m512, _mm512_set1_ps, PAIR_FMA, ROWS, PANELS)
#define BLOCKS(ROWS) BLOCK512(ROWS, 1) BLOCK512(ROWS, 2) BLOCK512(ROWS, 3)
BLOCKS(1)
BLOCKS(2)
BLOCKS(4)
BLOCKS(8)
#define WIDTHS(name)                                                                               \
    { name##x1, name##x2, name##x3 }
#define HEIGHTS(set)                                                                               \
    { WIDTHS(set##_1), WIDTHS(set##_2), WIDTHS(set##_4), WIDTHS(set##_8) }

AVX512 static void turn_avx512(float *to, const char *const row[PANEL], int64_t at, Turn kind) {
    __m512i r[TURNED_ROWS];
    load_turned(r, row, at);
    if (kind != TURN_BF16) {
        for (int j = 0; j < TURNED_ROWS; j++) _mm512_storeu_si512(to + j * PANEL, r[j]);
        return;
    }
    const __m512i high = _mm512_set1_epi32((int)0xffff0000u);
    for (int j = 0; j < TURNED_ROWS; j++) { // the first of a pair lies in the low half
        _mm512_storeu_si512(to + 2 * j * PANEL, _mm512_slli_epi32(r[j], 16));
        _mm512_storeu_si512(to + (2 * j + 1) * PANEL, _mm512_and_si512(r[j], high));
    }
}
static const Kernels avx512 = {8, 3, HEIGHTS(avx512), HEIGHTS(pairs), turn_avx512};
#endif

static PanelSet limit = PANEL_AVX512_BF16;

void panel_limit(PanelSet most) {
    limit = most;
}

static PanelSet best(void) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("x86-64-v4"))
        return cpu_fast_pairs() ? PANEL_AVX512_BF16 : PANEL_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return PANEL_AVX2;
#endif
    return PANEL_ANY;
}

PanelSet panel_set(void) {
    return best() < limit ? best() : limit;
}

static const Kernels *kernels(void) {
#ifdef __x86_64__
    const Kernels *const of[] = {&any, &avx2, &avx512, &avx512};
    return of[panel_set()];
#else
    return &any;
#endif
}

void panel_product(const PanelProduct *p) {
    const Kernels *k = kernels();
    for (int64_t j = 0, panels; j < p->n; j += panels) {
        panels = p->n - j < k->panels ? p->n - j : k->panels;
        if (panels == 3 && p->n - j == 4) panels = 2; // 3 + 1 would leave one for itself
        for (int64_t i = 0, rows; i < p->m; i += rows) {
            int r = 0;
            while (2 << r <= k->rows && 2 << r <= p->m - i) r++;
            rows = 1 << r;
            (p->pairs ? k->pairs : k->block)[r][panels - 1](p, i, j);
        }
    }
}

static const char *row_at(const PanelSource *s, int64_t r) {
    const int64_t row = s->list != NULL ? s->list[r] : r;
    return (const char *)s->x.data + (size_t)(row * s->x.ld + s->c) * dtype_size(s->x.dtype);
}

static int64_t clip(int64_t x, int64_t low, int64_t high) {
    return x < low ? low : x > high ? high : x;
}

// Rows lie a stride apart in pieces too short for the hardware to see them coming: while 16 rows
// are worked on, the 16 behind them are fetched, a line at a time.
LANE_FN void fetch(const void *line) {
    __builtin_prefetch(line, 0, 2);
}

// 16 rows of one panel; their last bytes, fewer than a step, are followed by zeros. The next panel
// begins `ahead` bytes behind this one.
static void turn_panel(float *to, const char *const row[PANEL], int64_t bytes, Turn kind,
                       int64_t ahead, TurnFn *turn) {
    const int64_t step = kind == TURN_BF16 ? STEP / 2 : STEP / 4; // rows of `to`
    int64_t at = 0;
    for (; at + STEP <= bytes; at += STEP, to += step * PANEL) {
        for (int i = 0; i < PANEL; i++) fetch(row[i] + at + ahead);
        turn(to, row, at, kind);
    }
    if (at == bytes) return;
    char tail[PANEL][STEP] = {0};
    const char *of[PANEL];
    for (int i = 0; i < PANEL; i++) {
        memcpy(tail[i], row[i] + at, (size_t)(bytes - at));
        of[i] = tail[i];
    }
    turn(to, of, 0, kind);
}

void panels_turned(float *to, int64_t panel, const PanelSource *s, bool pairs) {
    TurnFn *turn = kernels()->turn;
    const Turn kind = s->x.dtype == DT_F32 ? TURN_F32 : pairs ? TURN_PAIRS : TURN_BF16;
    const int64_t size = (int64_t)dtype_size(s->x.dtype),
                  ahead = s->list != NULL ? 0 : PANEL * s->x.ld * size;
    for (int64_t j = (s->from - s->first) / PANEL; s->first + j * PANEL < s->to; j++) {
        const int64_t first = s->first + j * PANEL;
        const char *row[PANEL];
        for (int i = 0; i < PANEL; i++) row[i] = row_at(s, clip(first + i, s->from, s->to - 1));
        turn_panel(to + j * panel, row, s->cols * size, kind, first + PANEL < s->end ? ahead : 0,
                   turn);
    }
}

KERNEL static void copy_f32(float *to, int64_t panel, const float *from, int64_t ld, int64_t rows,
                            int64_t cols, int64_t ahead) {
    for (int64_t r = 0; r < rows; r++, from += ld) {
        float *at = to + r * PANEL;
        int64_t c = 0;
        for (; c + PANEL <= cols; c += PANEL, at += panel) {
            fetch(from + c + ahead);
            store16(at, load16(from + c));
        }
        if (c < cols) store16(at, load_tail(from + c, cols - c, 0.0f));
    }
}

KERNEL static void copy_bf16(float *to, int64_t panel, const bf16 *from, int64_t ld, int64_t rows,
                             int64_t cols, int64_t ahead) {
    for (int64_t r = 0; r < rows; r++, from += ld) {
        float *at = to + r * PANEL;
        int64_t c = 0;
        for (; c + 2 * PANEL <= cols; c += 2 * PANEL, at += 2 * panel) {
            fetch(from + c + ahead);
            store16(at, load16_bf16(from + c));
            store16(at + panel, load16_bf16(from + c + PANEL));
        }
        for (; c < cols; c += PANEL, at += panel) {
            bf16 tail[PANEL] = {0};
            memcpy(tail, from + c, (size_t)(cols - c < PANEL ? cols - c : PANEL) * sizeof *tail);
            store16(at, load16_bf16(tail));
        }
    }
}

void panels_plain(float *to, int64_t panel, const PanelSource *s) {
    const Tensor x = s->x;
    for (int64_t r = s->from, rows; r < s->to; r += rows) {
        rows = s->to - r < PANEL ? s->to - r : PANEL;
        const int64_t ahead = r + PANEL < s->end ? PANEL * x.ld : 0;
        float *at = to + (r - s->first) * PANEL;
        if (x.dtype == DT_F32)
            copy_f32(at, panel, f32_at(x, r, s->c), x.ld, rows, s->cols, ahead);
        else
            copy_bf16(at, panel, bf16_at(x, r, s->c), x.ld, rows, s->cols, ahead);
    }
}

// Two rows as pairs: the first one's elements lie in the low halves.
KERNEL static void pair_rows(float *to, int64_t panel, const bf16 *low, const bf16 *high,
                             int64_t cols) {
    int64_t c = 0;
    for (; c + PANEL <= cols; c += PANEL, to += panel)
        store16(to, (f32x16)((u32x16)load16_bf16(low + c) >> 16 | (u32x16)load16_bf16(high + c)));
    if (c == cols) return;
    bf16 tail[2][PANEL] = {{{0}}};
    memcpy(tail[0], low + c, (size_t)(cols - c) * sizeof *low);
    memcpy(tail[1], high + c, (size_t)(cols - c) * sizeof *high);
    store16(to, (f32x16)((u32x16)load16_bf16(tail[0]) >> 16 | (u32x16)load16_bf16(tail[1])));
}

void panels_paired(float *to, int64_t panel, const PanelSource *s) {
    static const bf16 zero[SPAN];
    CHECK(s->cols <= SPAN);
    for (int64_t r = s->from; r < s->to; r += 2, to += PANEL)
        pair_rows(to, panel, bf16_at(s->x, r, s->c),
                  r + 1 < s->to ? bf16_at(s->x, r + 1, s->c) : zero, s->cols);
}
