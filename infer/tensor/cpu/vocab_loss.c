// infer/tensor/cpu/vocab_loss.c - softmax of teacher and student over vocabulary tiles, and the
// losses between them: no (rows, V) matrix of probabilities exists.
//
// With x = z / temp, a row's lse is (max x, sum e^(x - max)); ln softmax = (x - max) - ln sum.
#include <math.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"

KERNEL static float exp_sum_span(const float *z, float inverse, float max, int64_t n) {
    f32x16 sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) sum += exp16_low(load16(z + i) * inverse - max);
    if (i < n) sum += exp16_low(load_tail(z + i, n - i, -INFINITY) * inverse - max);
    return sum_lanes(sum);
}

// The two best of a tile lie in the two blocks of the greatest maxima.
static void best2_blocks(Best2 *best, const Best2 *block, Tensor z, int64_t r, int64_t v0) {
    for (int i = 0; i < 2 && block->id[i] >= 0; i++) {
        const int64_t c = (int64_t)block->id[i] * MAX_BLOCK,
                      n = z.cols - c < MAX_BLOCK ? z.cols - c : MAX_BLOCK;
        float buf[MAX_BLOCK];
        const float *zs = span_read(z, r, c, n, buf);
        for (int64_t k = 0; k < n; k++) best2_add(best, zs[k], (int32_t)(v0 + c + k));
    }
}

static void lse_row(float *stat, Best2 *best, Tensor z, int64_t r, float cap, float inverse,
                    int64_t v0) {
    float max = v0 > 0 ? stat[0] : -INFINITY;
    double sum = v0 > 0 ? (double)stat[1] : 0.0;
    Best2 block = BEST2_NONE;
    for (int64_t c = 0; c < z.cols; c += SPAN) {
        const int64_t n = span_size(z.cols, c);
        float buf[SPAN], top[SPAN / MAX_BLOCK];
        if (cap != 0.0f) span_softcap(f32_at(z, r, c), cap, n);
        const float *zs = span_read(z, r, c, n, buf);
        block_max(top, zs, n);
        for (int64_t i = 0; i * MAX_BLOCK < n; i++)
            best2_add(&block, top[i], (int32_t)(c / MAX_BLOCK + i));
        const float m = block.value[0] * inverse;
        if (m > max) sum *= exp((double)max - m), max = m;
        if (max > -INFINITY) sum += exp_sum_span(zs, inverse, max, n);
    }
    stat[0] = max;
    stat[1] = (float)sum;
    if (best) best2_blocks(best, &block, z, r, v0);
}

void cpu_lse_tile(Device *dev, Tensor lse, Tensor best, Tensor id, Tensor z, float cap, float temp,
                  int64_t v0) {
    CHECK_SHAPE(lse, z.rows, 2);
    CHECK_TYPE(lse, DT_F32);
    CHECK_FLOAT(z);
    CHECK(temp > 0.0f && v0 >= 0 && v0 + z.cols <= INT32_MAX);
    CHECK(cap == 0.0f || z.dtype == DT_F32, "(softcap of %s)", dtype_name(z.dtype));
    if (best.data) {
        CHECK_SHAPE(best, z.rows, 2);
        CHECK_SHAPE(id, z.rows, 2);
        CHECK_TYPE(best, DT_F32);
        CHECK_TYPE(id, DT_I32);
    }
#pragma omp parallel for num_threads(cpu_threads(dev, 4 * tensor_count(z)))
    for (int64_t r = 0; r < z.rows; r++) {
        Best2 b = BEST2_NONE;
        float *value = best.data ? f32_at(best, r, 0) : NULL;
        int32_t *ids = best.data ? i32_at(id, r, 0) : NULL;
        if (value && v0 > 0) b = (Best2){{value[0], value[1]}, {ids[0], ids[1]}};
        lse_row(f32_at(lse, r, 0), value ? &b : NULL, z, r, cap, 1.0f / temp, v0);
        for (int i = 0; value && i < 2; i++) value[i] = b.value[i], ids[i] = b.id[i];
    }
}

// What turns a row's logits into logarithms of its probabilities: ln p = d - log_sum with
// d = z / temp - max.
typedef struct {
    float inverse, max, ln; // 1 / temp, maximum, log_sum as the spans take it
    double log_sum;
} RowLog;

static RowLog row_log(Tensor lse, int64_t r, float temp) {
    RowLog l = {.inverse = 1.0f / temp, .max = *f32_at(lse, r, 0)};
    l.log_sum = log((double)*f32_at(lse, r, 1));
    l.ln = (float)l.log_sum;
    return l;
}

// Beyond a row's end z is -1e30: probability 0, and a finite logarithm to multiply it with.
static const float NOWHERE = -1e30f;

LANE_FN f32x16 prob16(f32x16 sum[2], f32x16 z, const RowLog *l) {
    const f32x16 d = z * l->inverse - l->max, p = exp16_low(d - l->ln);
    sum[0] += p;
    sum[1] += p * d;
    return p;
}

// Adds sum p and sum p d: lane by lane as loss16 adds up p d of the student, so that equal rows
// have no loss.
KERNEL static void prob_span(double total[2], float *p, const float *z, const RowLog *row,
                             int64_t n) {
    const RowLog l = *row;
    f32x16 sum[2] = {{0}, {0}};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store16(p + i, prob16(sum, load16(z + i), &l));
    if (i < n) store_tail(p + i, n - i, prob16(sum, load_tail(z + i, n - i, NOWHERE), &l));
    for (int k = 0; k < 2; k++) total[k] += sum_lanes(sum[k]);
}

static void prob_row(double sum[2], Tensor p, Tensor z, int64_t r, const RowLog *l, float cap) {
    double total[2] = {0};
    for (int64_t c = 0; c < z.cols; c += SPAN) {
        const int64_t n = span_size(z.cols, c);
        float *ps = f32_at(p, r, c), buf[SPAN];
        const float *zs = span_read(z, r, c, n, buf);
        if (cap != 0.0f) {
            if (ps != zs) memcpy(ps, zs, (size_t)n * sizeof *ps);
            span_softcap(ps, cap, n);
            zs = ps;
        }
        prob_span(total, ps, zs, l, n);
    }
    if (sum == NULL) return;
    sum[0] = total[0];
    sum[1] = total[1] - l->log_sum * total[0];
}

void cpu_prob_tile(Device *dev, Tensor p, Tensor psum, Tensor z, Tensor lse, float cap,
                   float temp) {
    CHECK_SHAPE(p, z.rows, z.cols);
    CHECK_TYPE(p, DT_F32);
    CHECK_FLOAT(z);
    CHECK_SHAPE(lse, z.rows, 2);
    CHECK_TYPE(lse, DT_F32);
    CHECK(temp > 0.0f);
    if (psum.data) {
        CHECK_SHAPE(psum, z.rows, 2);
        CHECK_TYPE(psum, DT_F64);
    }
#pragma omp parallel for num_threads(cpu_threads(dev, 4 * tensor_count(z)))
    for (int64_t r = 0; r < z.rows; r++) {
        const RowLog l = row_log(lse, r, temp);
        prob_row(psum.data ? f64_at(psum, r, 0) : NULL, p, z, r, &l, cap);
    }
}

// What one sweep over a student row computes.
typedef enum {
    SWEEP_STATS, // the sums of KL and TV
    SWEEP_SIGNS, // the same and sum q s
    SWEEP_KL,    // SWEEP_STATS and g = kl (q - p)
    SWEEP_CE,    // SWEEP_STATS and g = ce q; the target's -ce is the caller's
    SWEEP_TV     // g = kl (q - p) + tv q (s - mean)
} Sweep;

typedef struct {
    RowLog log;
    float kl, tv, ce; // factors of the gradient
    float mean;       // finished sum q s
} LossRow;

typedef struct {
    f32x16 pd, tv, qs; // p d, |q - p|, q s
} StatLanes;

// s = 1/2 sign(q - p), 0 where they are equal
LANE_FN f32x16 half_sign16(f32x16 q, f32x16 p) {
    return select16(q > p, lanes(0.5f), lanes(0.0f)) - select16(q < p, lanes(0.5f), lanes(0.0f));
}

LANE_FN f32x16 loss16(StatLanes *s, f32x16 z, f32x16 p, const LossRow *r, Sweep sweep) {
    const f32x16 d = z * r->log.inverse - r->log.max, q = exp16_low(d - r->log.ln), more = q - p;
    if (sweep == SWEEP_TV) return r->kl * more + r->tv * (q * (half_sign16(q, p) - r->mean));
    s->pd += p * d;
    s->tv += abs16(more);
    if (sweep == SWEEP_SIGNS) s->qs += q * half_sign16(q, p);
    return sweep == SWEEP_KL ? r->kl * more : r->ce * q;
}

LANE_FN void loss_loop(float *g, double sum[3], const float *z, const float *p, const LossRow *row,
                       int64_t n, Sweep sweep) {
    const LossRow r = *row;
    const bool grad = sweep >= SWEEP_KL;
    StatLanes s = {{0}, {0}, {0}};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32x16 gs = loss16(&s, load16(z + i), load16(p + i), &r, sweep);
        if (grad) store16(g + i, gs);
    }
    if (i < n) {
        const f32x16 gs =
            loss16(&s, load_tail(z + i, n - i, NOWHERE), load_tail(p + i, n - i, 0.0f), &r, sweep);
        if (grad) store_tail(g + i, n - i, gs);
    }
    if (sweep == SWEEP_TV) return;
    sum[0] += sum_lanes(s.pd);
    sum[1] += sum_lanes(s.tv);
    if (sweep == SWEEP_SIGNS) sum[2] += sum_lanes(s.qs);
}

KERNEL static void loss_span(float *g, double sum[3], const float *z, const float *p,
                             const LossRow *row, int64_t n, Sweep sweep) {
    switch (sweep) { // each call is inlined for its sweep
    case SWEEP_STATS:
        return loss_loop(g, sum, z, p, row, n, SWEEP_STATS);
    case SWEEP_SIGNS:
        return loss_loop(g, sum, z, p, row, n, SWEEP_SIGNS);
    case SWEEP_KL:
        return loss_loop(g, sum, z, p, row, n, SWEEP_KL);
    case SWEEP_CE:
        return loss_loop(g, sum, z, p, row, n, SWEEP_CE);
    case SWEEP_TV:
        return loss_loop(g, sum, z, p, row, n, SWEEP_TV);
    }
}

static void loss_sweep(double sum[3], Tensor g, Tensor z, int64_t r, const float *p,
                       const LossRow *row, int64_t target, Sweep sweep) {
    for (int64_t c = 0; c < z.cols; c += SPAN) {
        const int64_t n = span_size(z.cols, c);
        float zb[SPAN], gb[SPAN], *gs = sweep < SWEEP_KL ? NULL : span_begin(g, r, c, gb);
        loss_span(gs, sum, span_read(z, r, c, n, zb), p + c, row, n, sweep);
        if (gs == NULL) continue;
        if (sweep == SWEEP_CE && target >= c && target < c + n) gs[target - c] -= row->ce;
        span_end(g, r, c, n, gs);
    }
}

// Column of row r's target inside this tile, -1 when it has none here.
static int64_t target_column(const LossArgs *a, int64_t r, int64_t v0, int64_t cols) {
    if (a->target.data == NULL) return -1;
    const int64_t at = a->kind == LOSS_CE_ARGMAX ? *i32_at(a->trow, 0, r) : r;
    const int64_t c = *i32_at(a->target, 0, at) - v0;
    return c >= 0 && c < cols ? c : -1;
}

static LossRow loss_row_of(const LossArgs *a, Tensor lse, int64_t r) {
    LossRow row = {.log = row_log(lse, r, a->temp)};
    const float w = a->parts & LOSS_GRAD ? *f32_at(a->weight, 0, r) / a->temp : 0.0f;
    if (a->kind == LOSS_FKL)
        row.kl = w;
    else if (a->kind == LOSS_TV)
        row.tv = w;
    else if (a->kind == LOSS_HYBRID)
        row.kl = w * a->mix, row.tv = w * (1 - a->mix);
    else
        row.ce = w;
    return row;
}

// sum p (ln p - ln q) = psum[1] - (sum p d - log_sum sum p)
static void stat_add(double stat[4], const double sum[3], const double psum[2], double log_sum) {
    stat[0] += psum[1] - (sum[0] - log_sum * psum[0]);
    stat[1] += 0.5 * sum[1];
    stat[2] += sum[2];
}

static void loss_row(double *stat, Tensor g, Tensor z, Tensor lse, int64_t r, const LossArgs *a,
                     int64_t v0) {
    const int64_t t = *i32_at(a->trow, 0, r), target = target_column(a, r, v0, z.cols);
    const float *p = f32_at(a->p, t, 0);
    const bool stats = a->parts & LOSS_STATS, signs = a->kind == LOSS_TV || a->kind == LOSS_HYBRID;
    // padding: whatever its logits are, nothing flows back
    const bool grad = a->parts & LOSS_GRAD && *f32_at(a->weight, 0, r) != 0.0f;
    LossRow row = loss_row_of(a, lse, r);
    double sum[3] = {0};
    if (stats && v0 == 0) memset(stat, 0, 4 * sizeof *stat);
    if (stats && target >= 0) {
        float one;
        const float zt = *span_read(z, r, target, 1, &one);
        stat[3] = row.log.log_sum - (zt * row.log.inverse - row.log.max);
    }
    if (signs && stats) loss_sweep(sum, g, z, r, p, &row, target, SWEEP_SIGNS);
    if (!signs && (stats || grad))
        loss_sweep(sum, g, z, r, p, &row, target,
                   !grad                 ? SWEEP_STATS
                   : a->kind == LOSS_FKL ? SWEEP_KL
                                         : SWEEP_CE);
    const double none[2] = {0};
    if (stats) stat_add(stat, sum, a->psum.data ? f64_at(a->psum, t, 0) : none, row.log.log_sum);
    row.mean = (float)stat[2];
    if (signs && grad) loss_sweep(sum, g, z, r, p, &row, target, SWEEP_TV);
    if (a->parts & LOSS_GRAD && !grad)
        memset((char *)g.data + (size_t)(r * g.ld) * dtype_size(g.dtype), 0,
               (size_t)g.cols * dtype_size(g.dtype));
}

static void check_args(const LossArgs *a, Tensor z) {
    const int64_t teachers = a->p.rows;
    CHECK_SHAPE(a->p, teachers, z.cols);
    CHECK_TYPE(a->p, DT_F32);
    CHECK_SHAPE(a->trow, 1, z.rows);
    CHECK_TYPE(a->trow, DT_I32);
    CHECK(a->temp > 0.0f);
    for (int64_t r = 0; r < z.rows; r++)
        CHECK(*i32_at(a->trow, 0, r) >= 0 && *i32_at(a->trow, 0, r) < teachers, "(row %d of %lld)",
              *i32_at(a->trow, 0, r), (long long)teachers);
    if (a->target.data) {
        CHECK_SHAPE(a->target, 1, a->kind == LOSS_CE_ARGMAX ? teachers : z.rows);
        CHECK_TYPE(a->target, DT_I32);
    }
    if (a->parts & LOSS_STATS && a->psum.data) {
        CHECK_SHAPE(a->psum, teachers, 2);
        CHECK_TYPE(a->psum, DT_F64);
    }
    if (a->parts & LOSS_GRAD) {
        CHECK_SHAPE(a->weight, 1, z.rows);
        CHECK_TYPE(a->weight, DT_F32);
    }
}

void cpu_loss_tile(Device *dev, Tensor stat, Tensor g, Tensor z, Tensor lse, const LossArgs *args,
                   int64_t v0) {
    CHECK_FLOAT(z);
    CHECK_SHAPE(stat, z.rows, 4);
    CHECK_TYPE(stat, DT_F64);
    CHECK_SHAPE(lse, z.rows, 2);
    CHECK_TYPE(lse, DT_F32);
    check_args(args, z);
    if (args->parts & LOSS_GRAD) {
        CHECK_SHAPE(g, z.rows, z.cols);
        CHECK_FLOAT(g);
    }
#pragma omp parallel for num_threads(cpu_threads(dev, 8 * tensor_count(z)))
    for (int64_t r = 0; r < z.rows; r++) loss_row(f64_at(stat, r, 0), g, z, lse, r, args, v0);
}
