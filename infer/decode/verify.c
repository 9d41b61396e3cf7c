// infer/decode/verify.c - acceptance, the residual, and a round of them.
#include "infer/decode/verify.h"

#include <stdbool.h>
#include <stddef.h>

#include "infer/base/err.h"

double verify_accept(const Dist *p, const Dist *q, int32_t draft) {
    const double px = dist_prob(p, draft), qx = dist_prob(q, draft);
    CHECK(qx > 0.0, "(draft %d has no probability)", draft);
    return px >= qx ? 1.0 : px / qx;
}

// Probabilities by id where no token is missing, else NULL.
static const double *by_id(const Dist *d) {
    return d->n > 0 && d->id[d->n - 1] == d->n - 1 ? d->p : NULL;
}

typedef double Both(double p, double q);
static double lesser(double p, double q) {
    return p < q ? p : q;
}
static double product(double p, double q) {
    return p * q;
}

// Sum over the tokens that both have; `of` is symmetric.
static inline __attribute__((always_inline)) double sum_over(const Dist *p, const Dist *q,
                                                             Both *of) {
    const double *all = by_id(p);
    double sum = 0.0;
    int64_t j = 0;
    for (int64_t i = 0; all != NULL && i < q->n && q->id[i] < p->n; i++)
        sum += of(all[q->id[i]], q->p[i]);
    for (int64_t i = 0; all == NULL && i < p->n; i++) {
        while (j < q->n && q->id[j] < p->id[i]) j++;
        if (j < q->n && q->id[j] == p->id[i]) sum += of(p->p[i], q->p[j]);
    }
    return sum;
}

double verify_overlap(const Dist *p, const Dist *q) {
    return by_id(q) != NULL ? sum_over(q, p, lesser) : sum_over(p, q, lesser);
}

double verify_equality(const Dist *p, const Dist *q) {
    return by_id(q) != NULL ? sum_over(q, p, product) : sum_over(p, q, product);
}

void verify_residual(Dist *r, const Dist *p, const Dist *q) {
    double total = 0.0;
    int64_t at = 0;
    dist_room(r, p->n);
    r->n = 0;
    for (int64_t i = 0; i < p->n; i++) {
        while (at < q->n && q->id[at] < p->id[i]) at++;
        const double other = at < q->n && q->id[at] == p->id[i] ? q->p[at] : 0.0;
        if (p->p[i] <= other) continue;
        r->id[r->n] = p->id[i];
        total += r->p[r->n++] = p->p[i] - other;
    }
    if (total > 0.0)
        for (int64_t i = 0; i < r->n; i++) r->p[i] /= total;
    else
        dist_copy(r, p);
}

int verify_round(const VerifyRound *v, VerifyTarget *target, void *ctx, Dist *r, int32_t *next) {
    for (int j = 0;; j++) {
        const Dist *p = target(ctx, j);
        if (p->n == 0) return -1;
        const bool drafted = j < v->k;
        if (drafted && v->coin[j] < verify_accept(p, &v->q[j], v->draft[j])) continue;
        if (drafted) verify_residual(r, p, &v->q[j]);
        *next = dist_pick(drafted ? r : p, v->pick[j]);
        return j;
    }
}
