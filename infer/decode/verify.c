// infer/decode/verify.c - acceptance, the residual, and a round of them.
#include "infer/decode/verify.h"

#include <stdbool.h>

#include "infer/base/err.h"

double verify_accept(const Dist *p, const Dist *q, int32_t draft) {
    const double px = dist_prob(p, draft), qx = dist_prob(q, draft);
    CHECK(qx > 0.0, "(draft %d has no probability)", draft);
    return px >= qx ? 1.0 : px / qx;
}

double verify_overlap(const Dist *p, const Dist *q) {
    double sum = 0.0;
    for (int64_t i = 0, j = 0; i < p->n && j < q->n;) {
        if (p->id[i] == q->id[j]) sum += p->p[i] < q->p[j] ? p->p[i] : q->p[j];
        const bool next_p = p->id[i] <= q->id[j], next_q = q->id[j] <= p->id[i];
        i += next_p;
        j += next_q;
    }
    return sum;
}

double verify_equality(const Dist *p, const Dist *q) {
    double sum = 0.0;
    for (int64_t i = 0, j = 0; i < p->n && j < q->n;) {
        if (p->id[i] == q->id[j]) sum += p->p[i] * q->p[j];
        const bool next_p = p->id[i] <= q->id[j], next_q = q->id[j] <= p->id[i];
        i += next_p;
        j += next_q;
    }
    return sum;
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
