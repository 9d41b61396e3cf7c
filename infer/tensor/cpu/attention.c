// infer/tensor/cpu/attention.c - o = softmax(q k^T) v over the rows a query may see; gradient in q.
//
// Backward recomputes P = e^(s - lse) from the kept log-sum-exp: dq = sum_p P_p (do.v_p - do.o)
// k_p.
#include <math.h>
#include <omp.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"

KERNEL static void add_scaled(float *y, const float *x, float a, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

KERNEL static float exp_sum(float *s, float max, int64_t n) { // s becomes e^(s - max)
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

// Rows of seg->k that query row r sees: [first, first + n).
typedef struct {
    int64_t first, n;
} Visible;

static Visible visible(const AttnArgs *a, const AttnSeg *seg, int64_t r) {
    const int64_t end = a->end_host[r];
    int64_t from = a->span == ATTN_ALL || end < a->span ? 0 : end - a->span;
    if (from < seg->first) from = seg->first;
    CHECK(end <= seg->first + seg->k.rows, "(row %lld sees %lld of %lld rows)", (long long)r,
          (long long)end, (long long)(seg->first + seg->k.rows));
    return (Visible){from - seg->first, end > from ? end - from : 0};
}

static void scores(float *s, const float *q, Tensor k, int64_t c, Visible see, int hd) {
    float buf[SPAN];
    for (int64_t i = 0; i < see.n; i++)
        s[i] = span_dot(q, span_read(k, see.first + i, c, hd, buf), hd);
}

static void attend(Device *dev, Tensor o, Tensor lse, Tensor q, const AttnArgs *a,
                   const AttnSeg *seg, int64_t r, int h) {
    const int hd = a->hd;
    const int64_t c = (int64_t)(h / (a->heads / a->kv_heads)) * hd;
    const Visible see = visible(a, seg, r);
    float qb[SPAN], ob[SPAN], vb[SPAN], *os = span_begin(o, r, (int64_t)h * hd, ob);
    float *s =
        cpu_scratch(dev, SCRATCH_THREAD + omp_get_thread_num(), (size_t)(see.n + 1) * sizeof *s);
    memset(os, 0, (size_t)hd * sizeof *os);
    scores(s, span_read(q, r, (int64_t)h * hd, hd, qb), seg->k, c, see, hd);
    const float max = span_max(s, see.n);
    const float sum = exp_sum(s, max, see.n);
    for (int64_t i = 0; i < see.n; i++)
        add_scaled(os, span_read(seg->v, see.first + i, c, hd, vb), s[i] / sum, hd);
    if (lse.data) *f32_at(lse, r, h) = max + logf(sum);
    span_end(o, r, (int64_t)h * hd, hd, os);
}

static void check_attention(Tensor o, Tensor lse, Tensor q, const AttnArgs *a) {
    CHECK(a->hd > 0 && a->hd <= SPAN && a->heads % a->kv_heads == 0);
    CHECK_SHAPE(q, q.rows, (int64_t)a->heads * a->hd);
    CHECK_SHAPE(o, q.rows, q.cols);
    CHECK_FLOAT(q);
    CHECK_FLOAT(o);
    if (lse.data) CHECK_SHAPE(lse, q.rows, a->heads);
    for (int i = 0; i < a->nseg; i++) {
        const AttnSeg *s = &a->seg[i];
        CHECK_SHAPE(s->k, s->k.rows, (int64_t)a->kv_heads * a->hd);
        CHECK_SHAPE(s->v, s->k.rows, s->k.cols);
        CHECK(s->q0 >= 0 && s->nq >= 0 && s->q0 <= q.rows - s->nq);
    }
}

void cpu_attention(Device *dev, Tensor o, Tensor lse, Tensor q, const AttnArgs *a) {
    check_attention(o, lse, q, a);
    for (int i = 0; i < a->nseg; i++) {
        const AttnSeg *seg = &a->seg[i];
#pragma omp parallel for num_threads(cpu_threads(dev, seg->nq *q.cols * 64)) schedule(dynamic, 4)
        for (int64_t j = 0; j < seg->nq * a->heads; j++)
            attend(dev, o, lse, q, a, seg, seg->q0 + j / a->heads, (int)(j % a->heads));
    }
}

static void attend_back(Tensor dq, Tensor do_, Tensor o, Tensor q, Tensor lse, const AttnArgs *a,
                        const AttnSeg *seg, int64_t r, int h) {
    const int hd = a->hd;
    const int64_t c = (int64_t)(h / (a->heads / a->kv_heads)) * hd, at = (int64_t)h * hd;
    const Visible see = visible(a, seg, r);
    float qb[SPAN], ob[SPAN], gb[SPAN], db[SPAN], kb[SPAN], vb[SPAN];
    const float *qs = span_read(q, r, at, hd, qb), *gs = span_read(do_, r, at, hd, gb);
    const float delta = span_dot(gs, span_read(o, r, at, hd, ob), hd);
    float *ds = span_update(dq, r, at, hd, db);
    for (int64_t i = 0; i < see.n; i++) {
        const float *k = span_read(seg->k, see.first + i, c, hd, kb);
        const float p = expf(span_dot(qs, k, hd) - *f32_at(lse, r, h));
        const float dp = span_dot(gs, span_read(seg->v, see.first + i, c, hd, vb), hd);
        add_scaled(ds, k, p * (dp - delta), hd);
    }
    span_end(dq, r, at, hd, ds);
}

void cpu_attention_back(Device *dev, Tensor dq, Tensor do_, Tensor o, Tensor q, Tensor lse,
                        const AttnArgs *a) {
    check_attention(o, lse, q, a);
    CHECK_SHAPE(dq, q.rows, q.cols);
    CHECK_SHAPE(do_, q.rows, q.cols);
    CHECK(lse.data != NULL);
    for (int i = 0; i < a->nseg; i++) {
        const AttnSeg *seg = &a->seg[i];
#pragma omp parallel for num_threads(cpu_threads(dev, seg->nq *q.cols * 64)) schedule(dynamic, 4)
        for (int64_t j = 0; j < seg->nq * a->heads; j++)
            attend_back(dq, do_, o, q, lse, a, seg, seg->q0 + j / a->heads, (int)(j % a->heads));
    }
}
