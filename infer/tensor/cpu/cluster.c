// infer/tensor/cpu/cluster.c - the centroid head: cluster masses, their cross-entropy, and sparse
// logits.
#include <math.h>
#include <string.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"

void cpu_cluster_mass(Device *dev, Tensor mass, Tensor p, Tensor cluster_of, int64_t v0) {
    CHECK_SHAPE(mass, p.rows, mass.cols);
    CHECK_TYPE(mass, DT_F32);
    CHECK_TYPE(p, DT_F32);
    CHECK_TYPE(cluster_of, DT_I32);
    CHECK(cluster_of.rows == 1 && v0 >= 0 && v0 + p.cols <= cluster_of.cols);
    const int32_t *cluster = i32_at(cluster_of, 0, v0);
    for (int64_t c = 0; c < p.cols; c++)
        CHECK(cluster[c] >= 0 && cluster[c] < mass.cols, "(cluster %d of %lld)", cluster[c],
              (long long)mass.cols);
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(p)))
    for (int64_t r = 0; r < p.rows; r++) {
        float *m = f32_at(mass, r, 0);
        const float *ps = f32_at(p, r, 0);
        for (int64_t c = 0; c < p.cols; c++) m[cluster[c]] += ps[c];
    }
}

typedef struct {
    double sum, mass, dot; // sum e^(z - max), sum P, sum P (z - max)
} ClusterSums;

KERNEL static void cluster_sums(ClusterSums *s, const float *z, const float *mass, float max,
                                int64_t n) {
    f32x16 sum = {0}, total = {0}, dot = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32x16 d = load16(z + i) - max, p = load16(mass + i);
        sum += exp16_low(d);
        total += p;
        dot += p * d;
    }
    if (i < n) {
        const f32x16 d = load_tail(z + i, n - i, -1e30f) - max,
                     p = load_tail(mass + i, n - i, 0.0f);
        sum += exp16_low(d);
        total += p;
        dot += p * d;
    }
    s->sum += sum_lanes(sum);
    s->mass += sum_lanes(total);
    s->dot += sum_lanes(dot);
}

KERNEL static void cluster_grad_span(float *g, const float *z, const float *mass, float max,
                                     float share, float weight, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        store16(g + i, weight * (share * exp16_low(load16(z + i) - max) - load16(mass + i)));
    if (i < n) {
        const f32x16 q = exp16_low(load_tail(z + i, n - i, 0.0f) - max);
        store_tail(g + i, n - i, weight * (share * q - load_tail(mass + i, n - i, 0.0f)));
    }
}

static void cluster_row(float *loss, Tensor g, Tensor z, const float *mass, const float *weight,
                        int64_t r) {
    float zb[SPAN], gb[SPAN], max = -INFINITY;
    ClusterSums s = {0};
    for (int64_t c = 0; c < z.cols; c += SPAN) {
        const int64_t n = span_size(z.cols, c);
        max = fmaxf(max, span_max(span_read(z, r, c, n, zb), n));
    }
    for (int64_t c = 0; c < z.cols; c += SPAN) {
        const int64_t n = span_size(z.cols, c);
        cluster_sums(&s, span_read(z, r, c, n, zb), mass + c, max, n);
    }
    *loss = (float)(s.mass * log(s.sum) - s.dot);
    if (g.data == NULL) return;
    for (int64_t c = 0; c < z.cols; c += SPAN) {
        const int64_t n = span_size(z.cols, c);
        float *gs = span_begin(g, r, c, gb);
        cluster_grad_span(gs, span_read(z, r, c, n, zb), mass + c, max, (float)(s.mass / s.sum),
                          *weight, n);
        span_end(g, r, c, n, gs);
    }
}

void cpu_cluster_ce(Device *dev, Tensor loss, Tensor g, Tensor z, Tensor mass, Tensor trow,
                    Tensor weight) {
    CHECK_SHAPE(loss, 1, z.rows);
    CHECK_SHAPE(mass, mass.rows, z.cols);
    CHECK_SHAPE(trow, 1, z.rows);
    CHECK_TYPE(loss, DT_F32);
    CHECK_TYPE(mass, DT_F32);
    CHECK_FLOAT(z);
    if (g.data) {
        CHECK_SHAPE(g, z.rows, z.cols);
        CHECK_SHAPE(weight, 1, z.rows);
        CHECK_FLOAT(g);
    }
#pragma omp parallel for num_threads(cpu_threads(dev, 8 * tensor_count(z)))
    for (int64_t r = 0; r < z.rows; r++) {
        const int64_t t = *i32_at(trow, 0, r);
        CHECK(t >= 0 && t < mass.rows, "(row %lld of %lld)", (long long)t, (long long)mass.rows);
        cluster_row(f32_at(loss, 0, r), g, z, f32_at(mass, t, 0),
                    g.data ? f32_at(weight, 0, r) : NULL, r);
    }
}

static float dot_rows(Tensor a, int64_t ra, Tensor b, int64_t rb) {
    float sum = 0.0f;
    for (int64_t c = 0; c < a.cols; c += SPAN) {
        const int64_t n = span_size(a.cols, c);
        float ab[SPAN], bb[SPAN];
        sum += span_dot(span_read(a, ra, c, n, ab), span_read(b, rb, c, n, bb), n);
    }
    return sum;
}

// What is asked of the centroid head's table.
typedef struct {
    Tensor z, token, y, table, ordering, idx;
} Clusters;

static int32_t token_of(const Clusters *c, int64_t cluster, int64_t j) {
    const int32_t v = *i32_at(c->ordering, cluster, j);
    CHECK(v >= 0 && v < c->table.rows, "(token %d of %lld)", v, (long long)c->table.rows);
    return v;
}

// A row of y, and which of its clusters.
typedef struct {
    int32_t row, slot;
} Pair;

// Columns at .. at + cols - 1 of the products of DOT_COLS tokens, v, with the rows that chose their
// cluster, where they are tokens j and following of it; n of them are there, the first stands in
// for the others, and so it is with rows.
static void token_logits(const Clusters *c, const int32_t *v, int64_t j, int n, const Pair *pair,
                         int64_t pairs, int64_t at, int64_t cols) {
    float part[DOT_COLS][DOTS], buf_a[DOTS][SPAN], buf_b[DOT_COLS][SPAN];
    const float *a[DOTS], *b[DOT_COLS];
    b[0] = span_read(c->table, v[0], at, cols, buf_b[0]);
    for (int t = 1; t < DOT_COLS; t++)
        b[t] = t < n ? span_read(c->table, v[t], at, cols, buf_b[t]) : b[0];
    for (int64_t i = 0; i < pairs; i += DOTS) {
        const int rows = pairs - i < DOTS ? (int)(pairs - i) : DOTS;
        a[0] = span_read(c->y, pair[i].row, at, cols, buf_a[0]);
        for (int d = 1; d < DOTS; d++)
            a[d] = d < rows ? span_read(c->y, pair[i + d].row, at, cols, buf_a[d]) : a[0];
        span_dots(part, a, b, cols);
        for (int d = 0; d < rows; d++) {
            const int64_t to = pair[i + d].slot * c->ordering.cols + j;
            float *z = f32_at(c->z, pair[i + d].row, to);
            for (int t = 0; t < n; t++) z[t] = (at > 0 ? z[t] : 0.0f) + part[t][d];
        }
    }
}

// All tokens of a cluster for the rows that chose it: a token's row of the table is read once.
static void cluster_rows(const Clusters *c, int64_t cluster, const Pair *pair, int64_t pairs) {
    const int64_t per = c->ordering.cols;
    if (pairs == 0) return;
    for (int64_t j = 0; j < per; j += DOT_COLS) {
        const int n = per - j < DOT_COLS ? (int)(per - j) : DOT_COLS;
        int32_t v[DOT_COLS];
        for (int t = 0; t < n; t++) v[t] = token_of(c, cluster, j + t);
        for (int64_t at = 0; at < c->y.cols; at += SPAN)
            token_logits(c, v, j, n, pair, pairs, at, span_size(c->y.cols, at));
        for (int64_t i = 0; i < pairs; i++)
            for (int t = 0; t < n; t++)
                *i32_at(c->token, pair[i].row, pair[i].slot * per + j + t) = v[t];
    }
}

// Rows and slots by cluster: those of cluster c are pair[start[c]] .. pair[start[c + 1] - 1].
static Pair *pairs_by_cluster(Device *dev, const Clusters *c, int32_t **start) {
    const int64_t pairs = tensor_count(c->idx), clusters = c->ordering.rows, k = c->idx.cols;
    Pair *pair = cpu_scratch(
        dev, SCRATCH_PAIRS, (size_t)pairs * sizeof *pair + (size_t)(clusters + 2) * sizeof **start);
    int32_t *at = *start = (int32_t *)(pair + pairs);
    memset(at, 0, (size_t)(clusters + 2) * sizeof *at);
    for (int64_t i = 0; i < pairs; i++) at[*i32_at(c->idx, i / k, i % k) + 2]++;
    for (int64_t i = 0; i < clusters; i++) at[i + 2] += at[i + 1];
    for (int64_t i = 0; i < pairs; i++)
        pair[at[*i32_at(c->idx, i / k, i % k) + 1]++] = (Pair){(int32_t)(i / k), (int32_t)(i % k)};
    return pair;
}

void cpu_cluster_logits(Device *dev, Tensor z, Tensor token, Tensor y, Tensor table,
                        Tensor ordering, Tensor idx) {
    const Clusters all = {z, token, y, table, ordering, idx};
    const int64_t per = ordering.cols, k = idx.cols;
    CHECK_SHAPE(z, y.rows, k * per);
    CHECK_SHAPE(token, y.rows, k * per);
    CHECK_SHAPE(idx, y.rows, k);
    CHECK_SHAPE(table, table.rows, y.cols);
    CHECK_TYPE(z, DT_F32);
    CHECK_TYPE(token, DT_I32);
    CHECK_TYPE(idx, DT_I32);
    CHECK_TYPE(ordering, DT_I32);
    CHECK_FLOAT(y);
    CHECK_FLOAT(table);
    for (int64_t i = 0; i < y.rows * k; i++)
        CHECK(*i32_at(idx, i / k, i % k) >= 0 && *i32_at(idx, i / k, i % k) < ordering.rows,
              "(cluster %d of %lld)", *i32_at(idx, i / k, i % k), (long long)ordering.rows);
    const int threads = cpu_threads(dev, tensor_count(z) * y.cols);
    if (y.rows * k < ordering.rows) { // few of them share a cluster
#pragma omp parallel for num_threads(threads)
        for (int64_t i = 0; i < y.rows * k; i++)
            for (int64_t j = 0; j < per; j++) {
                const int32_t v = token_of(&all, *i32_at(idx, i / k, i % k), j);
                *i32_at(token, i / k, i % k * per + j) = v;
                *f32_at(z, i / k, i % k * per + j) = dot_rows(y, i / k, table, v);
            }
        return;
    }
    int32_t *start;
    const Pair *pair = pairs_by_cluster(dev, &all, &start);
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads)
    for (int64_t c = 0; c < ordering.rows; c++)
        cluster_rows(&all, c, pair + start[c], start[c + 1] - start[c]);
}
