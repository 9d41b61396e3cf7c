// infer/tensor/cpu/vocab_loss.c - losses over vocabulary tiles: no (rows, V) matrix of probabilities
// exists.
//
// With x = z / temp, a row's statistics are (max x, sum e^(x - max)); ln softmax = (x - max) - ln
// sum.
#include <math.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"

KERNEL static float exp_sum_span(const float *z, float inverse, float max, int64_t n) {
    f32x16 sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) sum += exp16(load16(z + i) * inverse - max);
    if (i < n) sum += exp16(load_tail(z + i, n - i, -INFINITY) * inverse - max);
    return sum_lanes(sum);
}

void cpu_lse_tile(Device *dev, Tensor lse, Tensor z, float temp, int64_t v0) {
    CHECK_SHAPE(lse, z.rows, 2);
    CHECK_TYPE(lse, DT_F32);
    CHECK_FLOAT(z);
    CHECK(temp > 0.0f);
    const float inverse = 1.0f / temp;
#pragma omp parallel for num_threads(cpu_threads(dev, 4 * tensor_count(z)))
    for (int64_t r = 0; r < z.rows; r++) {
        float *stat = f32_at(lse, r, 0), max = v0 > 0 ? stat[0] : -INFINITY;
        double sum = v0 > 0 ? (double)stat[1] : 0.0;
        for (int64_t c = 0; c < z.cols; c += SPAN) {
            const int64_t n = span_size(z.cols, c);
            float buf[SPAN];
            const float *zs = span_read(z, r, c, n, buf);
            const float m = span_max(zs, n) * inverse;
            if (m > max) sum *= exp((double)max - m), max = m;
            if (max > -INFINITY) sum += exp_sum_span(zs, inverse, max, n);
        }
        stat[0] = max;
        stat[1] = (float)sum;
    }
}

// One row of student and teacher: what turns logits into log probabilities.
typedef struct {
    float inverse;              // 1 / temp
    float smax, sln, tmax, tln; // maxima and logarithms of the sums
} RowLogs;

static RowLogs row_logs(Tensor sstat, Tensor tstat, int64_t r, int64_t t, float temp) {
    RowLogs l = {.inverse = 1.0f / temp};
    l.smax = *f32_at(sstat, r, 0);
    l.sln = (float)log((double)*f32_at(sstat, r, 1));
    if (tstat.data == NULL) return l;
    l.tmax = *f32_at(tstat, t, 0);
    l.tln = (float)log((double)*f32_at(tstat, t, 1));
    return l;
}

LANE_FN f32x16 log_prob16(f32x16 z, float inverse, float max, float ln) {
    return (z * inverse - max) - ln;
}
// 1/2 sign(q - p), 0 where they are equal
LANE_FN f32x16 half_sign16(f32x16 q, f32x16 p) {
    return select16(q > p, lanes(0.5f), lanes(0.0f)) - select16(q < p, lanes(0.5f), lanes(0.0f));
}

typedef struct {
    f32x16 kl, tv, qs;
} StatLanes;

LANE_FN void stat_add(StatLanes *s, f32x16 sz, f32x16 tz, const RowLogs *l) {
    const f32x16 lp = log_prob16(tz, l->inverse, l->tmax, l->tln);
    const f32x16 lq = log_prob16(sz, l->inverse, l->smax, l->sln);
    const f32x16 p = exp16(lp), q = exp16(lq);
    s->kl += p * (lp - lq);
    s->tv += abs16(p - q);
    s->qs += q * half_sign16(q, p);
}

KERNEL static void stats_span(double stat[3], const float *sz, const float *tz, const RowLogs *logs,
                              int64_t n) {
    const RowLogs l = *logs;
    StatLanes s = {{0}, {0}, {0}};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) stat_add(&s, load16(sz + i), load16(tz + i), &l);
    if (i < n) // -1e30 has probability 0 on both sides and a finite difference of logarithms
        stat_add(&s, load_tail(sz + i, n - i, -1e30f), load_tail(tz + i, n - i, -1e30f), &l);
    stat[0] += sum_lanes(s.kl);
    stat[1] += 0.5f * sum_lanes(s.tv);
    stat[2] += sum_lanes(s.qs);
}

// Column of row r's target inside this tile, -1 when it has none here.
static int64_t target_column(Tensor target, LossKind kind, Tensor trow, int64_t r, int64_t v0,
                             int64_t cols) {
    if (target.data == NULL) return -1;
    const int64_t at = kind == LOSS_CE_ARGMAX ? *i32_at(trow, 0, r) : r;
    const int64_t c = *i32_at(target, 0, at) - v0;
    return c >= 0 && c < cols ? c : -1;
}

static void check_target(Tensor target, LossKind kind, int64_t rows, int64_t teacher_rows) {
    if (target.data == NULL) return;
    CHECK_TYPE(target, DT_I32);
    CHECK_SHAPE(target, 1, kind == LOSS_CE_ARGMAX ? teacher_rows : rows);
}

static void check_rows(Tensor sz, Tensor tz, Tensor sstat, Tensor tstat, Tensor trow) {
    CHECK_FLOAT(sz);
    CHECK_SHAPE(sstat, sz.rows, 2);
    CHECK_SHAPE(trow, 1, sz.rows);
    CHECK_TYPE(trow, DT_I32);
    if (tz.data == NULL) return;
    CHECK_FLOAT(tz);
    CHECK_SHAPE(tz, tz.rows, sz.cols);
    CHECK_SHAPE(tstat, tz.rows, 2);
    for (int64_t r = 0; r < sz.rows; r++)
        CHECK(*i32_at(trow, 0, r) >= 0 && *i32_at(trow, 0, r) < tz.rows, "(row %d of %lld)",
              *i32_at(trow, 0, r), (long long)tz.rows);
}

void cpu_loss_stats(Device *dev, Tensor stat, Tensor sz, Tensor tz, Tensor sstat, Tensor tstat,
                    Tensor trow, Tensor target, LossKind kind, float temp, int64_t v0) {
    check_rows(sz, tz, sstat, tstat, trow);
    CHECK_SHAPE(stat, sz.rows, 4);
    CHECK(tz.data != NULL && temp > 0.0f);
    check_target(target, kind, sz.rows, tz.rows);
#pragma omp parallel for num_threads(cpu_threads(dev, 8 * tensor_count(sz)))
    for (int64_t r = 0; r < sz.rows; r++) {
        const int64_t t = *i32_at(trow, 0, r);
        const RowLogs l = row_logs(sstat, tstat, r, t, temp);
        double sum[3] = {0};
        for (int64_t c = 0; c < sz.cols; c += SPAN) {
            const int64_t n = span_size(sz.cols, c);
            float sb[SPAN], tb[SPAN];
            stats_span(sum, span_read(sz, r, c, n, sb), span_read(tz, t, c, n, tb), &l, n);
        }
        float *s = f32_at(stat, r, 0);
        if (v0 == 0) memset(s, 0, 4 * sizeof *s);
        for (int i = 0; i < 3; i++) s[i] += (float)sum[i];
        const int64_t c = target_column(target, kind, trow, r, v0, sz.cols);
        if (c < 0) continue;
        float one;
        const float z = *span_read(sz, r, c, 1, &one);
        s[3] = -((z * l.inverse - l.smax) - l.sln);
    }
}

// What a row's gradient is made of: g = kl (q - p) + tv q (s - stat2) + ce (q - 1_target).
typedef struct {
    float kl, tv, ce, stat2;
} GradMix;

static GradMix grad_mix(LossKind kind, float mix, float weight, float stat2) {
    switch (kind) {
    case LOSS_FKL:
        return (GradMix){.kl = weight};
    case LOSS_TV:
        return (GradMix){.tv = weight, .stat2 = stat2};
    case LOSS_HYBRID:
        return (GradMix){.kl = weight * mix, .tv = weight * (1 - mix), .stat2 = stat2};
    default:
        return (GradMix){.ce = weight};
    }
}

LANE_FN f32x16 grad16(f32x16 sz, f32x16 tz, const RowLogs *l, const GradMix *m) {
    const f32x16 q = exp16(log_prob16(sz, l->inverse, l->smax, l->sln));
    const f32x16 p = exp16(log_prob16(tz, l->inverse, l->tmax, l->tln));
    if (m->tv == 0.0f) return m->kl * (q - p);
    return m->kl * (q - p) + m->tv * (q * (half_sign16(q, p) - m->stat2));
}

KERNEL static void grad_span(float *g, const float *sz, const float *tz, const RowLogs *logs,
                             const GradMix *mix, int64_t n) {
    const RowLogs l = *logs;
    const GradMix m = *mix;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        store16(g + i, grad16(load16(sz + i), load16(tz + i), &l, &m));
    if (i < n)
        store_tail(
            g + i, n - i,
            grad16(load_tail(sz + i, n - i, -1e30f), load_tail(tz + i, n - i, -1e30f), &l, &m));
}

// CE needs no teacher; the target's -1 is added by the caller
KERNEL static void softspan_max(float *g, const float *z, float inverse, float max, float ln,
                                float weight, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        store16(g + i, weight * exp16(log_prob16(load16(z + i), inverse, max, ln)));
    if (i < n)
        store_tail(g + i, n - i,
                   weight * exp16(log_prob16(load_tail(z + i, n - i, -1e30f), inverse, max, ln)));
}

static void grad_row(Tensor g, Tensor sz, Tensor tz, const RowLogs *l, const GradMix *m, int64_t r,
                     int64_t t, int64_t target) {
    for (int64_t c = 0; c < g.cols; c += SPAN) {
        const int64_t n = span_size(g.cols, c);
        float sb[SPAN], tb[SPAN], gb[SPAN], *gs = span_begin(g, r, c, gb);
        const float *zs = span_read(sz, r, c, n, sb);
        if (m->ce != 0.0f)
            softspan_max(gs, zs, l->inverse, l->smax, l->sln, m->ce, n);
        else
            grad_span(gs, zs, span_read(tz, t, c, n, tb), l, m, n);
        if (m->ce != 0.0f && target >= c && target < c + n) gs[target - c] -= m->ce;
        span_end(g, r, c, n, gs);
    }
}

void cpu_loss_grad(Device *dev, Tensor g, Tensor sz, Tensor tz, Tensor sstat, Tensor tstat,
                   Tensor stat, Tensor trow, Tensor target, Tensor weight, LossKind kind, float mix,
                   float temp, int64_t v0) {
    const bool ce = kind == LOSS_CE_ARGMAX || kind == LOSS_CE_LABEL;
    if (ce) tz.data = NULL;
    check_rows(sz, tz, sstat, tstat, trow);
    CHECK_SHAPE(g, sz.rows, sz.cols);
    CHECK_FLOAT(g);
    CHECK_SHAPE(stat, sz.rows, 4);
    CHECK_SHAPE(weight, 1, sz.rows);
    CHECK((ce || tz.data != NULL) && temp > 0.0f);
    check_target(target, kind, sz.rows, tz.rows);
    if (ce) tstat.data = NULL;
#pragma omp parallel for num_threads(cpu_threads(dev, 8 * tensor_count(sz)))
    for (int64_t r = 0; r < sz.rows; r++) {
        const float w = *f32_at(weight, 0, r) / temp;
        if (w == 0.0f) { // padding: whatever its logits are, nothing flows back
            memset((char *)g.data + (size_t)(r * g.ld) * dtype_size(g.dtype), 0,
                   (size_t)g.cols * dtype_size(g.dtype));
            continue;
        }
        const int64_t t = ce ? 0 : *i32_at(trow, 0, r);
        const RowLogs l = row_logs(sstat, tstat, r, t, temp);
        const GradMix m = grad_mix(kind, mix, w, *f32_at(stat, r, 2));
        grad_row(g, sz, tz, &l, &m, r, t,
                 ce ? target_column(target, kind, trow, r, v0, sz.cols) : -1);
    }
}
