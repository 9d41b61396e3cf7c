// infer/decode/sampling.c - temperature, then top-k, then top-p, then softmax, as HF's warpers in
// float64.
#include "infer/decode/sampling.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/err.h"

void dist_free(Dist *d) {
    free(d->id);
    free(d->p);
    free(d->order);
    free(d->sorted);
    free(d->e);
    *d = (Dist){0};
}

void dist_room(Dist *d, int64_t n) {
    if (n <= d->room) return;
    d->id = realloc(d->id, (size_t)n * sizeof *d->id);
    d->p = realloc(d->p, (size_t)n * sizeof *d->p);
    CHECK_MEMORY(d->id);
    CHECK_MEMORY(d->p);
    d->room = n;
}

static void scratch_room(Dist *d) {
    if (d->n <= d->scratch_room) return;
    d->order = realloc(d->order, (size_t)d->n * sizeof *d->order);
    d->sorted = realloc(d->sorted, (size_t)d->n * sizeof *d->sorted);
    d->e = realloc(d->e, (size_t)d->n * sizeof *d->e);
    CHECK_MEMORY(d->order);
    CHECK_MEMORY(d->sorted);
    CHECK_MEMORY(d->e);
    d->scratch_room = d->n;
}

// The k-th largest of v[0..n-1] (k from 1); v is reordered. Quickselect with the middle as pivot.
static double kth_largest(double *v, int64_t n, int64_t k) {
    int64_t lo = 0, hi = n - 1;
    const int64_t want = k - 1;
    while (lo < hi) {
        const double pivot = v[lo + (hi - lo) / 2];
        int64_t i = lo, j = hi;
        while (i <= j) {
            while (v[i] > pivot) i++;
            while (v[j] < pivot) j--;
            if (i <= j) {
                const double t = v[i];
                v[i++] = v[j];
                v[j--] = t;
            }
        }
        if (want <= j)
            hi = j;
        else if (want >= i)
            lo = i;
        else
            break;
    }
    return v[want];
}

// Drops what is below `edge`, in place.
static void keep_from(Dist *d, double edge) {
    int64_t kept = 0;
    for (int64_t i = 0; i < d->n; i++)
        if (d->p[i] >= edge) {
            d->id[kept] = d->id[i];
            d->p[kept++] = d->p[i];
        }
    d->n = kept;
}

static void keep_top_k(Dist *d, int64_t k) {
    if (k <= 0 || k >= d->n) return;
    scratch_room(d);
    memcpy(d->e, d->p, (size_t)d->n * sizeof *d->e);
    keep_from(d, kth_largest(d->e, d->n, k)); // ties at the edge all stay
}

// Ascending by value; among equals the lower id is cut first.
static int by_value(const void *pa, const void *pb) {
    const DistOrder *a = pa, *b = pb;
    if (a->x != b->x) return a->x < b->x ? -1 : 1;
    return a->at < b->at ? -1 : a->at > b->at;
}

static void sort_few(DistOrder *v, int64_t n) {
    if (n > 64) {
        qsort(v, (size_t)n, sizeof *v, by_value);
        return;
    }
    for (int64_t i = 1; i < n; i++) {
        const DistOrder x = v[i];
        int64_t j = i;
        for (; j > 0 && v[j - 1].x > x.x; j--) v[j] = v[j - 1]; // equal ones keep their order
        v[j] = x;
    }
}

// from[0..m-1], `at` ascending, by value into to: through buckets, of which each is sorted.
static void sort_by_value(DistOrder *to, const DistOrder *from, int64_t m) {
    enum { BUCKETS = 1 << 14 };
    int32_t end[BUCKETS + 1];
    double low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < m; i++) {
        low = from[i].x < low ? from[i].x : low;
        high = from[i].x > high ? from[i].x : high;
    }
    const int64_t buckets = m < BUCKETS ? m : BUCKETS;
    const double scale = (double)(buckets - 1) / (high - low);
    if (m <= 64 || !isfinite(scale)) {
        memcpy(to, from, (size_t)m * sizeof *to);
        sort_few(to, m);
        return;
    }
    memset(end, 0, (size_t)(buckets + 1) * sizeof *end);
    for (int64_t i = 0; i < m; i++) end[(int)((from[i].x - low) * scale) + 1]++;
    for (int64_t b = 0; b < buckets; b++) end[b + 1] += end[b];
    for (int64_t i = 0; i < m; i++) to[end[(int)((from[i].x - low) * scale)]++] = from[i];
    for (int64_t b = 0, first = 0; b < buckets; first = end[b++])
        sort_few(to + first, end[b] - first);
}

static double largest(const Dist *d) {
    double top = -INFINITY, lane[8]; // lanes: the compiler makes vectors of them
    int64_t i = 0;
    for (int j = 0; j < 8; j++) lane[j] = -INFINITY;
    for (; i + 8 <= d->n; i += 8)
        for (int j = 0; j < 8; j++) lane[j] = d->p[i + j] > lane[j] ? d->p[i + j] : lane[j];
    for (int j = 0; j < 8; j++) top = lane[j] > top ? lane[j] : top;
    for (; i < d->n; i++) top = d->p[i] > top ? d->p[i] : top;
    return top;
}

// Marks what top-p cuts; d->e holds e^(x - largest x), total their sum. Only the tokens above
// `floor` are sorted; the others count as a mass `rest` below them. False: the cut lies under the
// floor, so that it must be lowered.
static bool cut_top_p(Dist *d, double total, double top_p, double floor) {
    double rest = 0.0;
    int64_t m = 0;
    for (int64_t i = 0; i < d->n; i++) {
        if (d->p[i] > floor)
            d->order[m++] = (DistOrder){.x = d->p[i], .at = i};
        else
            rest += d->e[i] / total;
    }
    sort_by_value(d->sorted, d->order, m);
    double mass = rest;
    int64_t cut = 0;
    for (; cut < m - 1; cut++) { // the largest always stays
        mass += d->e[d->sorted[cut].at] / total;
        if (mass > 1.0 - top_p) break;
    }
    if (cut == 0 && m < d->n) return false;
    for (int64_t i = 0; i < d->n; i++)
        if (d->p[i] <= floor) d->p[i] = -INFINITY;
    for (int64_t i = 0; i < cut; i++) d->p[d->sorted[i].at] = -INFINITY;
    return true;
}

static void keep_top_p(Dist *d, double top_p) {
    if (top_p >= 1.0) return;
    const double top = largest(d);
    double total = 0.0;
    scratch_room(d);
    for (int64_t i = 0; i < d->n; i++) total += d->e[i] = exp(d->p[i] - top);
    for (double depth = 4.0; !cut_top_p(d, total, top_p, top - depth); depth *= 4.0)
        if (depth > 4096.0) depth = INFINITY;
    keep_from(d, -DBL_MAX);
}

static bool no_nan_nor_infinity(const float *z, int64_t n) {
    int bad = 0;
    for (int64_t i = 0; i < n; i++) bad |= !(z[i] < INFINITY);
    return !bad;
}

// A value that at least k logits reach, -infinity where none is easily had: the k-th largest of the
// maxima of LANES interleaved parts. Far fewer than all logits reach it, too.
static float low_bound(const float *z, int64_t n, int64_t k) {
    enum { LANES = 512, FEWER = 128 };
    float most[LANES];
    double order[LANES];
    const int lanes = n >= 4 * LANES ? LANES : FEWER;
    if (k <= 0 || k > lanes / 2 || n < 4 * lanes) return -INFINITY;
    for (int j = 0; j < lanes; j++) most[j] = z[j];
    for (int64_t i = lanes; i + lanes <= n; i += lanes)
        for (int j = 0; j < lanes; j++) most[j] = z[i + j] > most[j] ? z[i + j] : most[j];
    for (int j = 0; j < lanes; j++) order[j] = most[j];
    return (float)kth_largest(order, lanes, k);
}

// Logits from `low` on, over the temperature; -infinity is none.
static void take_from(Dist *d, const float *z, int64_t n, float low, double temperature) {
    enum { BLOCK = 32 };
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t end = i + BLOCK < n ? i + BLOCK : n;
        int any = 0;
        for (int64_t v = i; v < end; v++) any |= z[v] >= low && z[v] > -INFINITY;
        for (int64_t v = i; any && v < end; v++) {
            if (z[v] < low || z[v] == -INFINITY) continue;
            d->id[d->n] = (int32_t)v;
            d->p[d->n++] = (double)z[v] / temperature;
        }
    }
}

// Top-p of what d holds, then softmax.
static void finish(Dist *d, const Sampler *s) {
    keep_top_p(d, s->top_p);
    const double top = largest(d);
    double total = 0.0;
    for (int64_t i = 0; i < d->n; i++) total += d->p[i] = exp(d->p[i] - top);
    for (int64_t i = 0; i < d->n; i++) d->p[i] /= total;
}

void dist_from_logits(Dist *d, const float *logits, int64_t vocab, const Sampler *s) {
    CHECK(s->temperature > 0.0);
    dist_room(d, vocab);
    d->n = 0;
    if (!no_nan_nor_infinity(logits, vocab)) return;
    take_from(d, logits, vocab, low_bound(logits, vocab, s->top_k), s->temperature);
    if (d->n == 0) return;
    keep_top_k(d, s->top_k);
    finish(d, s);
}

static int by_id(const void *pa, const void *pb) {
    const DistOrder *a = pa, *b = pb;
    return (a->at > b->at) - (a->at < b->at);
}

static void sort_by_id(Dist *d) {
    enum { FEW = 128 };
    scratch_room(d);
    for (int64_t i = 0; i < d->n; i++) {
        const DistOrder x = {.x = d->p[i], .at = d->id[i]};
        int64_t at = i;
        for (; d->n <= FEW && at > 0 && d->order[at - 1].at > x.at; at--)
            d->order[at] = d->order[at - 1];
        d->order[at] = x;
    }
    if (d->n > FEW) qsort(d->order, (size_t)d->n, sizeof *d->order, by_id);
    for (int64_t i = 0; i < d->n; i++) {
        d->id[i] = (int32_t)d->order[i].at;
        d->p[i] = d->order[i].x;
    }
}

void dist_from_some(Dist *d, const float *logits, const int32_t *token, int64_t n,
                    const Sampler *s) {
    CHECK(s->temperature > 0.0);
    dist_room(d, n);
    d->n = 0;
    if (!no_nan_nor_infinity(logits, n)) return;
    const float low = low_bound(logits, n, s->top_k);
    for (int64_t i = 0; i < n; i++) {
        if (logits[i] < low || logits[i] == -INFINITY) continue;
        d->id[d->n] = token[i];
        d->p[d->n++] = (double)logits[i] / s->temperature;
    }
    if (d->n == 0) return;
    keep_top_k(d, s->top_k);
    sort_by_id(d);
    finish(d, s);
}

int32_t dist_pick(const Dist *d, double uniform) {
    CHECK(d->n > 0 && uniform >= 0.0 && uniform < 1.0);
    double mass = 0.0;
    int64_t last = 0;
    for (int64_t i = 0; i < d->n; i++) {
        mass += d->p[i];
        if (uniform < mass) return d->id[i];
        if (d->p[i] > 0.0) last = i;
    }
    return d->id[last]; // the sum of p fell short of 1 by rounding
}

void dist_copy(Dist *to, const Dist *from) {
    dist_room(to, from->n);
    to->n = from->n;
    if (from->n == 0) return;
    memcpy(to->id, from->id, (size_t)from->n * sizeof *to->id);
    memcpy(to->p, from->p, (size_t)from->n * sizeof *to->p);
}

double dist_prob(const Dist *d, int32_t id) {
    int64_t lo = 0, hi = d->n;
    while (lo < hi) {
        const int64_t mid = lo + (hi - lo) / 2;
        if (d->id[mid] < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < d->n && d->id[lo] == id ? d->p[lo] : 0.0;
}

double dist_top(const Dist *d) {
    return d->n > 0 ? largest(d) : 0.0;
}
