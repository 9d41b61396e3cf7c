// infer/tensor/cpu/attention_tile.c - streaming softmax of some query rows over tiles of keys.
//
// Key tiles begin at multiples of key_rows(hd) in absolute rows, every sum runs over keys in order,
// and what a row does not see adds exact zeros. So a query's bits are the same whether it comes
// alone (decoding) or among others (prefill, training), on any number of threads.
#include "infer/tensor/cpu/attention_tile.h"

#include <math.h>

#include <omp.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/panel_kernel.h"
#include "infer/tensor/cpu/simd.h"

enum { BLOCK = 8 }; // work rows that pass a key tile together: their scores stay in the L1 cache

// Panels of keys at a time for fewer rows: what they fill stays in the L1 cache.
static int64_t few_panels(int64_t hd) {
    return hd <= 64 ? 3 : hd <= 128 ? 2 : 1;
}

// Keys of a tile: K and V of it, as f32, fill half of a small L2 cache at most.
static int64_t key_rows(int64_t hd) {
    return hd <= 64 ? 512 : hd <= 128 ? 256 : hd <= 256 ? 128 : 64;
}

// Thread scratch. Work row i is query r0 + i / nh, head h0 + i % nh.
typedef struct {
    bool few;              // rows for one block only: K and V are laid out piece by piece
    bool q_pairs, g_pairs; // q and kt, g and vt hold pairs of bf16
    int64_t rows, hd, keys;
    int64_t ld, lds;        // floats between rows of q, o, g, and of s, dp
    int64_t turned, plain;  // floats between panels of kt, vt, and of k, v
    int64_t lo, hi;         // absolute keys that any row sees
    int64_t *from, *to;     // those a row sees; to <= from: none
    float *q, *o, *g;       // (rows, hd); o collects dq in backward, g is do
    float *s, *dp;          // (BLOCK, keys)
    float *kt, *vt, *k, *v; // panels of K^T, V^T (hd, keys) and of K, V (keys, hd)
    float *max, *sum;       // (rows); in backward log-sum-exp and do.o
} Work;

static int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

// Parts of the scratch, one behind the other; base NULL to count.
static float *take(float *base, int64_t *used, int64_t floats) {
    float *at = base ? base + *used : NULL;
    *used += round_up(floats, LANES);
    return at;
}

static int64_t lay_out(Work *w, float *base, bool back) {
    int64_t used = 0;
    const int64_t turned = w->keys / PANEL * w->turned,
                  plain = round_up(w->hd, PANEL) / PANEL * w->plain;
    w->q = take(base, &used, w->rows * w->ld), w->o = take(base, &used, w->rows * w->ld);
    w->s = take(base, &used, BLOCK * w->lds), w->kt = take(base, &used, turned);
    w->max = take(base, &used, w->rows), w->sum = take(base, &used, w->rows);
    w->from = (int64_t *)take(base, &used, 2 * w->rows);
    w->to = (int64_t *)take(base, &used, 2 * w->rows);
    if (back) {
        w->g = take(base, &used, w->rows * w->ld), w->dp = take(base, &used, BLOCK * w->lds);
        w->vt = take(base, &used, turned), w->k = take(base, &used, plain);
    } else {
        w->v = take(base, &used, plain);
    }
    return used;
}

static Work work_open(Device *dev, const AttnArgs *a, const AttnTile *t, bool back) {
    Work w = {.rows = t->nq * t->nh, .hd = a->hd, .keys = key_rows(a->hd), .lo = INT64_MAX};
    w.few = !back && w.rows <= BLOCK;
    w.ld = round_up(a->hd, PANEL) + PANEL; // not a power of two: rows would share cache sets
    w.lds = w.keys + PANEL;
    w.turned = PANEL * round_up(a->hd, PANEL_ROWS);
    w.plain = PANEL * ((w.few ? few_panels(a->hd) * PANEL : w.keys) + 1);
    const size_t bytes = (size_t)lay_out(&w, NULL, back) * sizeof(float);
    lay_out(&w, cpu_scratch(dev, SCRATCH_THREAD + omp_get_thread_num(), bytes), back);
    for (int64_t i = 0; i < w.rows; i++) {
        const int64_t r = t->r0 + i / t->nh, rows_end = t->seg->first + t->seg->k.rows;
        w.from[i] = attn_begin(a, t->seg, r), w.to[i] = a->end_host[r];
        CHECK(w.to[i] <= rows_end, "(row %lld ends at %lld, keys at %lld)", (long long)r,
              (long long)w.to[i], (long long)rows_end);
        if (w.from[i] >= w.to[i]) continue;
        if (w.from[i] < w.lo) w.lo = w.from[i];
        if (w.to[i] > w.hi) w.hi = w.to[i];
    }
    return w;
}

// Rows x times turned keys y: where both are bf16, so are the factors of their products.
static bool in_pairs(Tensor x, Tensor y) {
    return x.dtype == DT_BF16 && y.dtype == DT_BF16 && panel_set() == PANEL_AVX512_BF16;
}

// Columns of work row i in a (rows, heads * hd) tensor.
static int64_t query_row(const AttnTile *t, int64_t i) {
    return t->r0 + i / t->nh;
}
static int64_t query_col(const AttnArgs *a, const AttnTile *t, int64_t i) {
    return (t->h0 + i % t->nh) * a->hd;
}

// As f32, or as they are in pairs: then the last one of an odd hd is followed by zero.
static void load_rows(const Work *w, float *to, Tensor x, const AttnArgs *a, const AttnTile *t,
                      bool pairs) {
    for (int64_t i = 0; i < w->rows; i++) {
        float *row = to + i * w->ld;
        if (pairs) {
            row[a->hd / 2] = 0.0f;
            memcpy(row, bf16_at(x, query_row(t, i), query_col(a, t, i)),
                   (size_t)a->hd * sizeof(bf16));
            continue;
        }
        const float *from = span_read(x, query_row(t, i), query_col(a, t, i), a->hd, row);
        if (from != row) memcpy(row, from, (size_t)a->hd * sizeof *row);
    }
}

// Keys from .. to-1 of the tile at `at`, those which any row sees.
static PanelSource source(const Work *w, const AttnTile *t, Tensor x, int64_t at, int64_t count) {
    const int64_t first = t->seg->first, from = w->lo > at ? w->lo : at,
                  to = w->hi < at + count ? w->hi : at + count;
    return (PanelSource){x,          t->kv * w->hd, w->hd, at - first, from - first,
                         to - first, w->hi - first, NULL};
}
// Keys at .. at+count-1, as far as any row sees them, turned or plain.
static void turn_keys(const Work *w, float *to, const AttnTile *t, Tensor x, int64_t at,
                      int64_t count, bool pairs) {
    const PanelSource s = source(w, t, x, at, count);
    panels_turned(to, w->turned, &s, pairs);
}
static void copy_keys(const Work *w, float *to, const AttnTile *t, Tensor x, int64_t at,
                      int64_t count) {
    const PanelSource s = source(w, t, x, at, count);
    panels_plain(to, w->plain, &s);
}

// Work rows row .. row+rows-1 at the key tile that begins at `at`. They see keys from .. to-1 of
// it, in panels p0 .. p1-1; panel `base` of the tile is the first one laid out.
typedef struct {
    int64_t row, rows, at, from, to, p0, p1, base;
    bool started; // o holds something
} Block;

static bool block_open(Block *b, const Work *w, int64_t row, int64_t at) {
    int64_t from = INT64_MAX, to = 0;
    *b = (Block){.row = row, .rows = w->rows - row < BLOCK ? w->rows - row : BLOCK, .at = at};
    for (int64_t i = row; i < row + b->rows; i++) {
        if (w->from[i] >= w->to[i]) continue;
        if (w->from[i] < from) from = w->from[i];
        if (w->to[i] > to) to = w->to[i];
    }
    b->started = from < at;
    b->from = from > at ? from - at : 0, b->to = to - at < w->keys ? to - at : w->keys;
    b->p0 = b->from / PANEL, b->p1 = (b->to + PANEL - 1) / PANEL;
    return b->from < b->to;
}

// s (rows, panels p0 .. p1-1) = x (rows, hd) times turned keys
static void block_scores(const Work *w, const Block *b, float *s, const float *x,
                         const float *turned, bool pairs) {
    const PanelProduct p = {.c = s + b->p0 * PANEL,
                            .a = x + b->row * w->ld,
                            .b = turned + (b->p0 - b->base) * w->turned,
                            .ldc = w->lds,
                            .lda = w->ld,
                            .panel = w->turned,
                            .m = b->rows,
                            .n = b->p1 - b->p0,
                            .k = pairs ? (w->hd + 1) / 2 : w->hd,
                            .pairs = pairs};
    panel_product(&p);
}

// o (rows, hd) += s (rows, keys) times plain keys; the first one begins o.
static void block_output(const Work *w, const Block *b, const float *plain) {
    const PanelProduct p = {.c = w->o + b->row * w->ld,
                            .a = w->s + b->from,
                            .b = plain + (b->from - b->base * PANEL) * PANEL,
                            .ldc = w->ld,
                            .lda = w->lds,
                            .panel = w->plain,
                            .m = b->rows,
                            .n = (w->hd + PANEL - 1) / PANEL,
                            .k = b->to - b->from,
                            .add = b->started};
    panel_product(&p);
}

// Keys that a work row sees, relative to the tile and cut to it, and the panels that hold them.
typedef struct {
    int64_t from, to, p0, p1;
} Seen;

LANE_FN Seen seen_keys(const Work *w, const Block *b, int64_t i) {
    const int64_t from = w->from[i] > b->at ? w->from[i] - b->at : 0,
                  to = w->to[i] - b->at < w->keys ? w->to[i] - b->at : w->keys;
    if (from >= to) return (Seen){b->from, b->from, b->p1, b->p1};
    return (Seen){from, to, from / PANEL, (to + PANEL - 1) / PANEL};
}

// Lanes of the outermost panels that a row does not see.
LANE_FN void fill_unseen(float *s, Seen k, float x) {
    const i32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    float *first = s + k.p0 * PANEL, *last = s + (k.p1 - 1) * PANEL;
    if (k.from == k.to) return;
    // signs instead of comparisons, which gcc takes apart
    store16(first,
            select16((lane - (int32_t)(k.from - k.p0 * PANEL)) >> 31, lanes(x), load16(first)));
    store16(last, select16(((int32_t)(k.to - 1 - (k.p1 - 1) * PANEL) - lane) >> 31, lanes(x),
                           load16(last)));
}

// Panels that other rows of the block see.
LANE_FN void clear_unseen(float *s, Seen k, const Block *b) {
    for (int64_t p = b->p0; p < k.p0; p++) store16(s + p * PANEL, lanes(0.0f));
    for (int64_t p = k.p1; p < b->p1; p++) store16(s + p * PANEL, lanes(0.0f));
}

LANE_FN void scale_row(float *to, const float *x, float a, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store16(to + i, load16(x + i) * a);
    if (i < n) store_tail(to + i, n - i, load_tail(x + i, n - i, 0.0f) * a);
}

// Scores become weights, zero where a row does not see; its sum and output so far shrink when its
// maximum grows.
KERNEL static void block_softmax(const Work *w, const Block *b) {
    for (int64_t i = b->row; i < b->row + b->rows; i++) {
        const Seen k = seen_keys(w, b, i);
        float *s = w->s + (i - b->row) * w->lds;
        clear_unseen(s, k, b);
        fill_unseen(s, k, -INFINITY);
        f32x16 tops = lanes(-INFINITY), sum = {0};
        for (int64_t p = k.p0; p < k.p1; p++) tops = max16(load16(s + p * PANEL), tops);
        float top = max_lanes(tops);
        if (top > w->max[i]) {
            const float shrink = expf(w->max[i] - top);
            w->sum[i] *= shrink;
            w->max[i] = top;
            if (b->started) scale_row(w->o + i * w->ld, w->o + i * w->ld, shrink, w->hd);
        }
        top = w->max[i];
        for (int64_t p = k.p0; p < k.p1; p++) {
            const f32x16 e = exp16_low(load16(s + p * PANEL) - top);
            store16(s + p * PANEL, e);
            sum += e;
        }
        w->sum[i] += sum_lanes(sum);
    }
}

// A tile of keys for all rows: it is laid out once.
static void many_rows(Work *w, const AttnTile *t, int64_t at) {
    Block b;
    turn_keys(w, w->kt, t, t->seg->k, at, w->keys, w->q_pairs);
    copy_keys(w, w->v, t, t->seg->v, at, w->keys);
    for (int64_t i = 0; i < w->rows; i += BLOCK) {
        if (!block_open(&b, w, i, at)) continue;
        block_scores(w, &b, w->s, w->q, w->kt, w->q_pairs);
        block_softmax(w, &b);
        block_output(w, &b, w->v);
    }
}

// For a single block: few keys at a time, which are used before they leave the L1 cache.
static void few_rows(Work *w, const AttnTile *t, int64_t at) {
    const int64_t few = few_panels(w->hd);
    Block b;
    if (!block_open(&b, w, 0, at)) return;
    Block part = b;
    for (int64_t p = b.p0; p < b.p1; p += few) {
        part.base = part.p0 = p, part.p1 = p + few < b.p1 ? p + few : b.p1;
        turn_keys(w, w->kt, t, t->seg->k, at + p * PANEL, few * PANEL, w->q_pairs);
        block_scores(w, &part, w->s, w->q, w->kt, w->q_pairs);
    }
    block_softmax(w, &b);
    for (int64_t p = b.p0; p < b.p1; p += few) {
        part.base = p, part.from = p * PANEL > b.from ? p * PANEL : b.from;
        part.to = (p + few) * PANEL < b.to ? (p + few) * PANEL : b.to;
        part.started = b.started || p > b.p0;
        copy_keys(w, w->v, t, t->seg->v, at + p * PANEL, few * PANEL);
        block_output(w, &part, w->v);
    }
}

// o = row / sum; the row is spent.
KERNEL static void put_row(Tensor o, int64_t r, int64_t c, float *row, float sum, int64_t hd) {
    float *to = span_begin(o, r, c, row);
    scale_row(to, row, 1.0f / sum, hd);
    span_end(o, r, c, hd, to);
}

void attention_tile(Device *dev, Tensor o, Tensor lse, Tensor q, const AttnArgs *a,
                    const AttnTile *t) {
    Work w = work_open(dev, a, t, false);
    w.q_pairs = in_pairs(q, t->seg->k);
    load_rows(&w, w.q, q, a, t, w.q_pairs);
    for (int64_t i = 0; i < w.rows; i++) w.max[i] = -INFINITY, w.sum[i] = 0.0f;
    for (int64_t at = w.lo / w.keys * w.keys; at < w.hi; at += w.keys) {
        if (w.few)
            few_rows(&w, t, at);
        else
            many_rows(&w, t, at);
    }
    for (int64_t i = 0; i < w.rows; i++) {
        const int64_t r = query_row(t, i), c = query_col(a, t, i);
        float *row = w.o + i * w.ld;
        const bool blind = w.from[i] >= w.to[i];
        if (blind) memset(row, 0, (size_t)a->hd * sizeof *row);
        put_row(o, r, c, row, blind ? 1.0f : w.sum[i], a->hd);
        if (lse.data) *f32_at(lse, r, t->h0 + i % t->nh) = w.max[i] + logf(w.sum[i]);
    }
}

// Scores become dS = P (dP - do.o), P = e^(s - lse), zero where a row does not see.
KERNEL static void block_gradient(const Work *w, const Block *b) {
    for (int64_t i = b->row; i < b->row + b->rows; i++) {
        const Seen k = seen_keys(w, b, i);
        const float lse = w->max[i], delta = w->sum[i];
        float *s = w->s + (i - b->row) * w->lds, *dp = w->dp + (i - b->row) * w->lds;
        clear_unseen(s, k, b);
        for (int64_t c = k.p0 * PANEL; c < k.p1 * PANEL; c += PANEL)
            store16(s + c, exp16_low(load16(s + c) - lse) * (load16(dp + c) - delta));
        fill_unseen(s, k, 0.0f);
    }
}

KERNEL static void add_row(float *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

// Row statistics of the forward pass.
static void load_back(Work *w, Tensor do_, Tensor o, Tensor lse, const AttnArgs *a,
                      const AttnTile *t) {
    float buf[SPAN], g[SPAN];
    load_rows(w, w->g, do_, a, t, w->g_pairs);
    for (int64_t i = 0; i < w->rows; i++) {
        const int64_t r = query_row(t, i), c = query_col(a, t, i);
        w->max[i] = *f32_at(lse, r, t->h0 + i % t->nh);
        w->sum[i] = span_dot(span_read(do_, r, c, a->hd, g), span_read(o, r, c, a->hd, buf), a->hd);
    }
}

void attention_tile_back(Device *dev, Tensor dq, Tensor do_, Tensor o, Tensor q, Tensor lse,
                         const AttnArgs *a, const AttnTile *t) {
    Work w = work_open(dev, a, t, true);
    Block b;
    w.q_pairs = in_pairs(q, t->seg->k), w.g_pairs = in_pairs(do_, t->seg->v);
    load_rows(&w, w.q, q, a, t, w.q_pairs);
    load_back(&w, do_, o, lse, a, t);
    for (int64_t at = w.lo / w.keys * w.keys; at < w.hi; at += w.keys) {
        turn_keys(&w, w.kt, t, t->seg->k, at, w.keys, w.q_pairs);
        turn_keys(&w, w.vt, t, t->seg->v, at, w.keys, w.g_pairs);
        copy_keys(&w, w.k, t, t->seg->k, at, w.keys);
        for (int64_t i = 0; i < w.rows; i += BLOCK) {
            if (!block_open(&b, &w, i, at)) continue;
            block_scores(&w, &b, w.s, w.q, w.kt, w.q_pairs);
            block_scores(&w, &b, w.dp, w.g, w.vt, w.g_pairs);
            block_gradient(&w, &b);
            block_output(&w, &b, w.k);
        }
    }
    for (int64_t i = 0; i < w.rows; i++) {
        const int64_t r = query_row(t, i), c = query_col(a, t, i);
        if (w.from[i] >= w.to[i]) continue;
        float buf[SPAN], *to = span_update(dq, r, c, a->hd, buf);
        add_row(to, w.o + i * w.ld, a->hd);
        span_end(dq, r, c, a->hd, to);
    }
}
