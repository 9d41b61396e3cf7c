// data/prepare_pick.c - which items are taken, and in which order: weights, limits, a seed.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/prepare.h"
#include "infer/base/rng.h"

// Whole numbers that come nearest to share[i] and add up to `sum`: the largest remainders go up.
static void round_shares(int64_t *quota, const double *share, const int64_t *there, int n,
                         int64_t sum) {
    for (int i = 0; i < n; i++) {
        quota[i] = (int64_t)floor(share[i] + 1e-9);
        sum -= quota[i];
    }
    for (; sum > 0; sum--) {
        int best = -1;
        for (int i = 0; i < n; i++)
            if (quota[i] < there[i] &&
                (best < 0 || share[i] - (double)quota[i] > share[best] - (double)quota[best]))
                best = i;
        if (best < 0) return;
        quota[best]++;
    }
}

void prepare_quota(int64_t *quota, const double *weight, const int64_t *there, int n,
                   int64_t limit) {
    double *share = calloc((size_t)n + 1, sizeof *share), least = INFINITY;
    bool *whole = calloc((size_t)n + 1, sizeof *whole); // a source that gives all it has
    CHECK_MEMORY(share && whole ? share : NULL);
    for (int i = 0; i < n; i++)
        if (there[i] > 0) least = fmin(least, (double)there[i] / weight[i]);
    int64_t left = limit, all = 0;
    for (bool again = limit > 0; again;) { // what small sources cannot give, the others do
        double weights = 0;
        again = false;
        for (int i = 0; i < n; i++) weights += whole[i] ? 0 : weight[i];
        const double rest = (double)left;
        for (int i = 0; i < n; i++) {
            if (whole[i]) continue;
            share[i] = rest * weight[i] / weights;
            if (share[i] < (double)there[i]) continue;
            whole[i] = again = true;
            share[i] = (double)there[i];
            left -= there[i];
        }
        if (left < 0) left = 0;
    }
    for (int i = 0; i < n && limit == 0; i++) share[i] = there[i] > 0 ? least * weight[i] : 0;
    for (int i = 0; i < n; i++) all += there[i];
    const int64_t most = limit < all ? limit : all;
    round_shares(quota, share, there, n, limit > 0 ? most : 0);
    free(whole);
    free(share);
}

static void quotas(const Prepared *p, Split split, int64_t limit, int64_t *quota) {
    const Sources *s = &p->sources[split == SPLIT_EVAL ? INPUT_EVAL : INPUT_TRAIN];
    int64_t *there = calloc((size_t)s->n + 1, sizeof *there);
    double *weight = calloc((size_t)s->n + 1, sizeof *weight);
    CHECK_MEMORY(there && weight ? there : NULL);
    for (int64_t i = 0; i < p->split[split].n; i++) there[p->split[split].entry[i].source]++;
    for (int i = 0; i < s->n; i++) weight[i] = s->item[i].weight;
    prepare_quota(quota, weight, there, s->n, limit);
    free(weight);
    free(there);
}

static bool leave(Prepared *p, Input input, const Entry *e, Err *err) {
    char head[1024];
    const size_t size = (size_t)e->size < sizeof head - 1 ? (size_t)e->size : sizeof head - 1;
    if (!spool_read(p->spool, e->at, head, size, err)) return false;
    head[size] = '\0';
    char *id = strchr(head, '\n'), *end = id ? strchr(id + 1, '\n') : NULL;
    CHECK(end != NULL, "(an entry of %d bytes)", (int)e->size);
    *id = *end = '\0';
    p->count[input][e->source].items.over_limit++;
    rejects_add(&p->rejects, input, false, head, id + 1, "beyond the number of samples wanted");
    return true;
}

bool prepare_pick(Prepared *p, Split split, int64_t limit, uint64_t seed, Err *err) {
    const Input input = split == SPLIT_EVAL ? INPUT_EVAL : INPUT_TRAIN;
    const Sources *s = &p->sources[input];
    const int64_t n = p->split[split].n;
    Entry *from = p->split[split].entry, *to = malloc((size_t)(n + 1) * sizeof *to);
    int64_t *perm = malloc((size_t)(n + 1) * sizeof *perm), kept = 0;
    int64_t *quota = calloc((size_t)s->n + 1, sizeof *quota);
    CHECK_MEMORY(to && perm && quota ? to : NULL);
    rng_permutation(seed, RNG_SHUFFLE, (uint64_t)split, perm, n);
    if (s->weighted) quotas(p, split, limit, quota);
    bool ok = true;
    for (int64_t i = 0; i < n && ok; i++) {
        const Entry *e = &from[perm[i]];
        SourceCount *count = &p->count[input][e->source];
        if (s->weighted ? quota[e->source]-- <= 0 : limit > 0 && kept >= limit) {
            ok = leave(p, input, e, err);
            continue;
        }
        to[kept++] = *e;
        count->items.out++;
        count->samples += e->samples;
        count->tokens += e->tokens;
        p->split[split].samples += e->samples;
        p->split[split].tokens += e->tokens;
    }
    free(quota);
    free(perm);
    free(from);
    p->split[split].entry = to;
    p->split[split].n = kept;
    p->split[split].room = n + 1;
    return ok;
}
