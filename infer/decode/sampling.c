// infer/decode/sampling.c - temperature, then top-k, then top-p, then softmax, as HF's warpers in
// float64.
#include "infer/decode/sampling.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/err.h"

void dist_free(Dist *d) {
    free(d->id);
    free(d->p);
    free(d->order);
    *d = (Dist){0};
}

void dist_room(Dist *d, int64_t n) {
    if (n <= d->room) return;
    d->id = realloc(d->id, (size_t)n * sizeof *d->id);
    d->p = realloc(d->p, (size_t)n * sizeof *d->p);
    d->order = realloc(d->order, (size_t)n * sizeof *d->order);
    CHECK_MEMORY(d->id);
    CHECK_MEMORY(d->p);
    CHECK_MEMORY(d->order);
    d->room = n;
}

// The k-th largest x of v[0..n-1] (k from 1); v is reordered. Quickselect with the middle as pivot.
static double kth_largest(DistOrder *v, int64_t n, int64_t k) {
    int64_t lo = 0, hi = n - 1;
    const int64_t want = k - 1;
    while (lo < hi) {
        const double pivot = v[lo + (hi - lo) / 2].x;
        int64_t i = lo, j = hi;
        while (i <= j) {
            while (v[i].x > pivot) i++;
            while (v[j].x < pivot) j--;
            if (i <= j) {
                const DistOrder t = v[i];
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
    return v[want].x;
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
    for (int64_t i = 0; i < d->n; i++) d->order[i] = (DistOrder){.x = d->p[i], .at = i};
    keep_from(d, kth_largest(d->order, d->n, k)); // ties at the edge all stay
}

// Ascending by value; among equals the lower id is cut first.
static int by_value(const void *pa, const void *pb) {
    const DistOrder *a = pa, *b = pb;
    if (a->x != b->x) return a->x < b->x ? -1 : 1;
    return a->at < b->at ? -1 : a->at > b->at;
}

static double largest(const Dist *d) {
    double top = -INFINITY;
    for (int64_t i = 0; i < d->n; i++)
        if (d->p[i] > top) top = d->p[i];
    return top;
}

// Marks what top-p cuts. Only the tokens above `floor` are sorted; the others count as a mass
// `rest` below them. False: the cut lies under the floor, so that it must be lowered.
static bool cut_top_p(Dist *d, double top, double total, double top_p, double floor) {
    double rest = 0.0;
    int64_t m = 0;
    for (int64_t i = 0; i < d->n; i++) {
        if (d->p[i] > floor)
            d->order[m++] = (DistOrder){.x = d->p[i], .at = i};
        else
            rest += exp(d->p[i] - top) / total;
    }
    qsort(d->order, (size_t)m, sizeof *d->order, by_value);
    double mass = rest;
    int64_t cut = 0;
    for (; cut < m - 1; cut++) { // the largest always stays
        mass += exp(d->order[cut].x - top) / total;
        if (mass > 1.0 - top_p) break;
    }
    if (cut == 0 && m < d->n) return false;
    for (int64_t i = 0; i < d->n; i++)
        if (d->p[i] <= floor) d->p[i] = -INFINITY;
    for (int64_t i = 0; i < cut; i++) d->p[d->order[i].at] = -INFINITY;
    return true;
}

static void keep_top_p(Dist *d, double top_p) {
    if (top_p >= 1.0) return;
    const double top = largest(d);
    double total = 0.0;
    for (int64_t i = 0; i < d->n; i++) total += exp(d->p[i] - top);
    for (double depth = 4.0; !cut_top_p(d, top, total, top_p, top - depth); depth *= 4.0)
        if (depth > 4096.0) depth = INFINITY;
    keep_from(d, -DBL_MAX);
}

void dist_from_logits(Dist *d, const float *logits, int64_t vocab, const Sampler *s) {
    CHECK(s->temperature > 0.0);
    dist_room(d, vocab);
    d->n = 0;
    for (int64_t v = 0; v < vocab; v++) {
        if (isnan(logits[v]) || logits[v] == INFINITY) { // no distribution
            d->n = 0;
            return;
        }
        if (logits[v] == -INFINITY) continue;
        d->id[d->n] = (int32_t)v;
        d->p[d->n++] = (double)logits[v] / s->temperature;
    }
    if (d->n == 0) return;
    keep_top_k(d, s->top_k);
    keep_top_p(d, s->top_p);
    const double top = largest(d);
    double total = 0.0;
    for (int64_t i = 0; i < d->n; i++) total += d->p[i] = exp(d->p[i] - top);
    for (int64_t i = 0; i < d->n; i++) d->p[i] /= total;
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
