// infer/tensor/cuda/vocab_loss.cuh - the loss of one student row: what a sweep over its logits
// computes, element by element, and how the sums get into its statistics.
#ifndef CUDA_VOCAB_LOSS_CUH
#define CUDA_VOCAB_LOSS_CUH

#include "infer/tensor/cuda/vocab_lse.cuh"

typedef enum {
    SWEEP_STATS, // the sums of KL and TV
    SWEEP_SIGNS, // the same and sum q s
    SWEEP_KL,    // SWEEP_STATS and g = kl (q - p)
    SWEEP_CE,    // SWEEP_STATS and g = ce (q - 1_target)
    SWEEP_TV     // g = kl (q - p) + tv q (s - mean)
} Sweep;
template <Sweep W> constexpr bool SWEEP_SUMS = W != SWEEP_TV;
template <Sweep W> constexpr bool SWEEP_GRAD = W >= SWEEP_KL;

// LossArgs as kernels get them.
typedef struct {
    Tensor p, psum, trow, target, weight;
    LossKind kind;
    float mix, temp;
    unsigned parts;
    int v0;
    int32_t *alarm;
} LossCall;

static inline LossCall loss_call(const Cuda *cu, const LossArgs *a, int64_t v0) {
    CHECK(v0 >= 0 && v0 + a->p.cols <= INT32_MAX);
    return LossCall{a->p,   a->psum, a->trow,  a->target, a->weight, a->kind,
                    a->mix, a->temp, a->parts, (int)v0,   cu->alarm};
}

static inline void loss_check(const LossArgs *a, Tensor stat, Tensor lse, int64_t rows,
                              int64_t cols) {
    const int64_t teachers = a->p.rows;
    CHECK_SHAPE(stat, rows, 4);
    CHECK_TYPE(stat, DT_F64);
    CHECK_SHAPE(lse, rows, 2);
    CHECK_TYPE(lse, DT_F32);
    CHECK_SHAPE(a->p, teachers, cols);
    CHECK_TYPE(a->p, DT_F32);
    CHECK_SHAPE(a->trow, 1, rows);
    CHECK_TYPE(a->trow, DT_I32);
    CHECK(a->temp > 0.0f);
    if (a->target.data) {
        CHECK_SHAPE(a->target, 1, a->kind == LOSS_CE_ARGMAX ? teachers : rows);
        CHECK_TYPE(a->target, DT_I32);
    }
    if (a->parts & LOSS_STATS && a->psum.data) {
        CHECK_SHAPE(a->psum, teachers, 2);
        CHECK_TYPE(a->psum, DT_F64);
    }
    if (a->parts & LOSS_GRAD) {
        CHECK_SHAPE(a->weight, 1, rows);
        CHECK_TYPE(a->weight, DT_F32);
    }
}

typedef struct {
    RowLog log;
    float kl, tv, ce; // factors of the gradient; all 0 for padding: nothing flows back
    float mean;       // finished sum q s
    int teacher;      // row of p; -1: there is none such, and an alarm was raised
    int target;       // column of the tile, -1: none here
    bool grad;
} LossRow;

// Column of row r's target inside the tile, -1 when it has none here.
DEVICE_FN int loss_target(const LossCall &c, int64_t r, int teacher) {
    if (c.target.data == NULL) return -1;
    const int v = *i32_at(c.target, 0, c.kind == LOSS_CE_ARGMAX ? teacher : r) - c.v0;
    return v >= 0 && v < c.p.cols ? v : -1;
}

DEVICE_FN LossRow loss_row(const LossCall &c, Tensor lse, Tensor stat, int64_t r) {
    LossRow row;
    row.log = row_log(lse, r, c.temp);
    row.teacher = *i32_at(c.trow, 0, r);
    if (row.teacher < 0 || row.teacher >= c.p.rows) {
        cuda_raise(c.alarm, ALARM_ROW);
        row.teacher = -1;
        return row;
    }
    row.target = loss_target(c, r, row.teacher);
    const float weight = c.parts & LOSS_GRAD ? *f32_at(c.weight, 0, r) : 0.0f, w = weight / c.temp;
    row.grad = weight != 0.0f;
    row.kl = c.kind == LOSS_FKL ? w : c.kind == LOSS_HYBRID ? w * c.mix : 0.0f;
    row.tv = c.kind == LOSS_TV ? w : c.kind == LOSS_HYBRID ? w * (1 - c.mix) : 0.0f;
    row.ce = c.kind == LOSS_CE_ARGMAX || c.kind == LOSS_CE_LABEL ? w : 0.0f;
    row.mean = (float)*f64_at(stat, r, 2);
    return row;
}

// Sums over elements: p d, |q - p|, q s.
typedef struct {
    float pd, tv, qs;
} LossLanes;
typedef struct {
    double pd, tv, qs;
} LossSums;

// What the parts of rows found, part i of row r at [r * parts + i], goes into their statistics.
typedef struct {
    Tensor stat, lse;
    LossCall l;
    LossSums *part; // NULL: a row is one part
} LossParts;
void loss_finish(Cuda *cu, int64_t rows, int parts, const LossParts *c); // vocab_loss.cu

// s = 1/2 sign(q - p), 0 where they are equal
DEVICE_FN float half_sign(float q, float p) {
    return q > p ? 0.5f : q < p ? -0.5f : 0.0f;
}

// Adds an element to the sums; its gradient. d = z / temp - max, q its probability.
template <Sweep W>
DEVICE_FN float loss_element(LossLanes &s, float d, float q, float p, const LossRow &r,
                             int column) {
    const float more = q - p;
    if (SWEEP_SUMS<W>) {
        s.pd += p * d;
        s.tv += fabsf(more);
        if (W == SWEEP_SIGNS) s.qs += q * half_sign(q, p);
    }
    if (!SWEEP_GRAD<W> || !r.grad) return 0.0f;
    if (W == SWEEP_KL) return r.kl * more;
    if (W == SWEEP_TV) return r.kl * more + r.tv * (q * (half_sign(q, p) - r.mean));
    return column == r.target ? r.ce * q - r.ce : r.ce * q;
}

// Statistic 3 once the target's logit z is at hand.
DEVICE_FN void loss_put_target(const LossCall &c, Tensor stat, int64_t row, const LossRow &r,
                               float z) {
    if (c.parts & LOSS_STATS)
        *f64_at(stat, row, 3) = r.log.log_sum - (double)(z * r.log.inverse - r.log.max);
}

// A tile's sums: sum p (ln p - ln q) = psum[1] - (sum p d - log_sum sum p).
DEVICE_FN void loss_add(const LossCall &c, Tensor stat, int64_t row, const LossRow &r, LossSums s) {
    double *to = f64_at(stat, row, 0);
    const double *psum = c.psum.data ? f64_at(c.psum, r.teacher, 0) : NULL;
    const double p0 = psum ? psum[0] : 0.0, p1 = psum ? psum[1] : 0.0;
    const double add[3] = {p1 - (s.pd - r.log.log_sum * p0), 0.5 * s.tv, s.qs};
#pragma unroll
    for (int i = 0; i < 3; i++) to[i] = c.v0 > 0 ? to[i] + add[i] : add[i];
    if (c.v0 == 0 && r.target < 0) to[3] = 0.0;
}

#endif
