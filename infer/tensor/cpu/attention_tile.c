// infer/tensor/cpu/attention_tile.c - streaming softmax over tiles of keys, two products a tile.
//
// Tiles begin at multiples of KEYS in absolute rows and their products treat rows independently
// (gemm.h), so a query's bits are the same whether it comes alone (decoding) or among others
// (prefill, training).
#include "infer/tensor/cpu/attention_tile.h"

#include <math.h>

#include <omp.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/gemm.h"
#include "infer/tensor/cpu/simd.h"

enum { KEYS = 128 };

// Thread scratch, row i = query i / nh, head h0 + i % nh. `rows` is rounded up: fewer shapes to
// keep.
typedef struct {
    int64_t rows, used, lo, hi; // lo, hi: absolute keys that any row sees
    float *q, *o, *s, *k, *v;   // (rows, hd) (rows, hd) (rows, KEYS) (KEYS, hd) (KEYS, hd)
    float *g, *dp;              // backward: do (rows, hd), do v^T (rows, KEYS)
    float *max, *sum;           // (rows); backward: log-sum-exp and do.o
} Work;

static float *take(float **p, int64_t n) {
    float *at = *p;
    *p += (n + LANES - 1) / LANES * LANES;
    return at;
}

static Work work_open(Device *dev, const AttnArgs *a, const AttnTile *t, bool back) {
    Work w = {.used = t->nq * t->nh, .lo = INT64_MAX};
    w.rows = (w.used + 3) / 4 * 4;
    const int64_t hd = (a->hd + LANES - 1) / LANES * LANES;
    const int64_t floats = w.rows * (3 * hd + 2 * KEYS + 2 * LANES) + 2 * KEYS * hd;
    float *p = cpu_scratch(dev, SCRATCH_THREAD + omp_get_thread_num(), (size_t)floats * sizeof *p);
    w.q = take(&p, w.rows * a->hd), w.o = take(&p, w.rows * a->hd), w.s = take(&p, w.rows * KEYS);
    w.k = take(&p, KEYS * a->hd), w.v = take(&p, KEYS * a->hd);
    w.max = take(&p, w.rows), w.sum = take(&p, w.rows);
    if (back) w.g = take(&p, w.rows * a->hd), w.dp = take(&p, w.rows * KEYS);
    memset(w.q, 0, (size_t)(w.rows * a->hd) * sizeof *w.q);
    memset(w.o, 0, (size_t)(w.rows * a->hd) * sizeof *w.o);
    if (back) memset(w.g, 0, (size_t)(w.rows * a->hd) * sizeof *w.g);
    for (int64_t r = t->r0; r < t->r0 + t->nq; r++) {
        const int64_t from = attn_begin(a, t->seg, r), to = a->end_host[r];
        CHECK(to <= t->seg->first + t->seg->k.rows, "(row %lld ends at %lld, keys at %lld)",
              (long long)r, (long long)to, (long long)(t->seg->first + t->seg->k.rows));
        if (from >= to) continue;
        if (from < w.lo) w.lo = from;
        if (to > w.hi) w.hi = to;
    }
    return w;
}

// Columns of work row i in a (rows, heads * hd) tensor.
static int64_t query_row(const AttnTile *t, int64_t i) {
    return t->r0 + i / t->nh;
}
static int64_t query_col(const AttnArgs *a, const AttnTile *t, int64_t i) {
    return (t->h0 + i % t->nh) * a->hd;
}

static void load_rows(float *to, Tensor x, const AttnArgs *a, const AttnTile *t) {
    float buf[SPAN];
    for (int64_t i = 0; i < t->nq * t->nh; i++)
        memcpy(to + i * a->hd, span_read(x, query_row(t, i), query_col(a, t, i), a->hd, buf),
               (size_t)a->hd * sizeof *to);
}

// Keys (or values) at .. at+KEYS-1 as f32; rows outside lo..hi, which nobody sees, are zeros: their
// memory may hold anything.
static Tensor key_tile(Tensor x, const AttnArgs *a, const AttnTile *t, const Work *w, int64_t at,
                       float *buf) {
    const int64_t first = t->seg->first, c = (int64_t)t->kv * a->hd;
    if (x.dtype == DT_F32 && x.ld == a->hd && at >= w->lo && at + KEYS <= w->hi)
        return tensor_rows(x, at - first, KEYS);
    for (int64_t i = 0; i < KEYS; i++) {
        float *row = buf + i * a->hd;
        if (at + i < w->lo || at + i >= w->hi) {
            memset(row, 0, (size_t)a->hd * sizeof *row);
            continue;
        }
        const float *from = span_read(x, at + i - first, c, a->hd, row);
        if (from != row) memcpy(row, from, (size_t)a->hd * sizeof *row);
    }
    return tensor_of(buf, DT_F32, KEYS, a->hd);
}

static Tensor matrix(float *p, int64_t rows, int64_t cols) {
    return tensor_of(p, DT_F32, rows, cols);
}

static void product(Device *dev, Tensor c, Tensor a, Tensor b, bool tb, float beta) {
    const Gemm g = {.c = c, .a = a, .b = b, .tb = tb, .beta = beta, .threads = 1};
    gemm_f32(dev, &g);
}

// Part of the tile at `at` that work row i sees.
typedef struct {
    int64_t from, to;
} Seen;

static Seen seen(const AttnArgs *a, const AttnTile *t, int64_t i, int64_t at) {
    const int64_t r = query_row(t, i), from = attn_begin(a, t->seg, r) - at,
                  to = a->end_host[r] - at;
    const Seen s = {from > 0 ? from : 0, to < KEYS ? to : KEYS};
    return s.to > s.from ? s : (Seen){0, 0};
}

static void clear_unseen(float *row, Seen s) {
    memset(row, 0, (size_t)s.from * sizeof *row);
    memset(row + s.to, 0, (size_t)(KEYS - s.to) * sizeof *row);
}

KERNEL static float exp_span(float *s, float max, int64_t n) { // s becomes e^(s - max); their sum
    f32x16 sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32x16 e = exp16(load16(s + i) - max);
        store16(s + i, e);
        sum += e;
    }
    if (i < n) {
        const f32x16 e = exp16(load_tail(s + i, n - i, -INFINITY) - max);
        store_tail(s + i, n - i, e);
        sum += e;
    }
    return sum_lanes(sum);
}

KERNEL static void scale_row(float *x, float a, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] *= a;
}

// Scores of a tile become weights; the row's sum and output so far shrink when its maximum grows.
static void softmax_row(Work *w, int64_t i, Seen s, int64_t hd) {
    float *row = w->s + i * KEYS;
    const float tile = s.to > s.from ? span_max(row + s.from, s.to - s.from) : -INFINITY;
    clear_unseen(row, s);
    if (s.to == s.from) return;
    if (tile > w->max[i]) {
        const float shrink = expf(w->max[i] - tile);
        w->max[i] = tile;
        w->sum[i] *= shrink;
        scale_row(w->o + i * hd, shrink, hd);
    }
    w->sum[i] += exp_span(row + s.from, w->max[i], s.to - s.from);
}

void attention_tile(Device *dev, Tensor o, Tensor lse, Tensor q, const AttnArgs *a,
                    const AttnTile *t) {
    Work w = work_open(dev, a, t, false);
    load_rows(w.q, q, a, t);
    for (int64_t i = 0; i < w.rows; i++) w.max[i] = -INFINITY, w.sum[i] = 0.0f;
    for (int64_t at = w.lo / KEYS * KEYS; at < w.hi; at += KEYS) {
        const Tensor k = key_tile(t->seg->k, a, t, &w, at, w.k),
                     v = key_tile(t->seg->v, a, t, &w, at, w.v);
        product(dev, matrix(w.s, w.rows, KEYS), matrix(w.q, w.rows, a->hd), k, true, 0.0f);
        for (int64_t i = 0; i < w.used; i++) softmax_row(&w, i, seen(a, t, i, at), a->hd);
        product(dev, matrix(w.o, w.rows, a->hd), matrix(w.s, w.rows, KEYS), v, false, 1.0f);
    }
    for (int64_t i = 0; i < w.used; i++) {
        const int64_t r = query_row(t, i), c = query_col(a, t, i);
        float *row = w.o + i * a->hd, buf[SPAN], *to = span_begin(o, r, c, buf);
        if (w.sum[i] > 0.0f) scale_row(row, 1.0f / w.sum[i], a->hd);
        memcpy(to, row, (size_t)a->hd * sizeof *row);
        span_end(o, r, c, a->hd, to);
        if (lse.data) *f32_at(lse, r, t->h0 + i % t->nh) = w.max[i] + logf(w.sum[i]);
    }
}

// Scores become dS = P (dP - do.o), P = e^(s - lse).
KERNEL static void score_gradient(float *s, const float *dp, float lse, float delta, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        store16(s + i, exp16(load16(s + i) - lse) * (load16(dp + i) - delta));
    if (i < n) {
        const f32x16 p = exp16(load_tail(s + i, n - i, -INFINITY) - lse);
        store_tail(s + i, n - i, p * (load_tail(dp + i, n - i, 0.0f) - delta));
    }
}

KERNEL static void add_row(float *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

// Row statistics of the forward pass; w.o then collects dq.
static void load_back(Work *w, Tensor do_, Tensor o, Tensor lse, const AttnArgs *a,
                      const AttnTile *t) {
    load_rows(w->g, do_, a, t);
    load_rows(w->o, o, a, t);
    for (int64_t i = 0; i < w->used; i++) {
        w->max[i] = *f32_at(lse, query_row(t, i), t->h0 + i % t->nh);
        w->sum[i] = span_dot(w->g + i * a->hd, w->o + i * a->hd, a->hd);
    }
    memset(w->o, 0, (size_t)(w->rows * a->hd) * sizeof *w->o);
}

void attention_tile_back(Device *dev, Tensor dq, Tensor do_, Tensor o, Tensor q, Tensor lse,
                         const AttnArgs *a, const AttnTile *t) {
    Work w = work_open(dev, a, t, true);
    load_rows(w.q, q, a, t);
    load_back(&w, do_, o, lse, a, t);
    for (int64_t at = w.lo / KEYS * KEYS; at < w.hi; at += KEYS) {
        const Tensor k = key_tile(t->seg->k, a, t, &w, at, w.k),
                     v = key_tile(t->seg->v, a, t, &w, at, w.v);
        product(dev, matrix(w.s, w.rows, KEYS), matrix(w.q, w.rows, a->hd), k, true, 0.0f);
        product(dev, matrix(w.dp, w.rows, KEYS), matrix(w.g, w.rows, a->hd), v, true, 0.0f);
        for (int64_t i = 0; i < w.used; i++) {
            const Seen s = seen(a, t, i, at);
            float *row = w.s + i * KEYS;
            clear_unseen(row, s);
            if (s.to > s.from)
                score_gradient(row + s.from, w.dp + i * KEYS + s.from, w.max[i], w.sum[i],
                               s.to - s.from);
        }
        product(dev, matrix(w.o, w.rows, a->hd), matrix(w.s, w.rows, KEYS), k, false, 1.0f);
    }
    for (int64_t i = 0; i < w.used; i++) {
        const int64_t r = query_row(t, i), c = query_col(a, t, i);
        float buf[SPAN], *to = span_update(dq, r, c, a->hd, buf);
        add_row(to, w.o + i * a->hd, a->hd);
        span_end(dq, r, c, a->hd, to);
    }
}
