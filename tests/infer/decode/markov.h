// tests/infer/decode/markov.h - a target whose next token depends on the last one, with an easy and
// a hard regime, and drafters of it: what a round gives is known exactly.
#ifndef TESTS_DECODE_MARKOV_H
#define TESTS_DECODE_MARKOV_H

#include <math.h>
#include <string.h>

#include "infer/base/rng.h"
#include "infer/decode/acceptance.h"
#include "infer/decode/verify.h"
#include "tests/testing.h"

enum { MARKOV_V = 12, MARKOV_K = 7, MARKOV_DRAFTERS = 3 };

// Every id is a survivor, so that p[v] is that of token v.
typedef struct {
    int V, K;
    Dist p[MARKOV_V], q[MARKOV_K][MARKOV_V]; // behind token x; q by draft step
} Markov;

static inline double markov_normal(int seed, int a, int b) {
    return rng_normal((uint64_t)seed, RNG_TEST, (uint64_t)a, (uint64_t)b);
}

static inline void markov_softmax(Dist *d, const double *x, int n) {
    double total = 0;
    dist_room(d, n);
    d->n = n;
    for (int i = 0; i < n; i++) total += d->p[i] = exp(x[i]);
    for (int i = 0; i < n; i++) {
        d->id[i] = i;
        d->p[i] /= total;
    }
}

// The first half of the tokens is easy: one or two likely successors; the regime changes seldom.
static inline void markov_open(Markov *m, int V, int K, int drafter) {
    static const double wrong[MARKOV_DRAFTERS][2] = {{0.3, 1.2}, {0.8, 2.5}, {0.5, 2.0}};
    memset(m, 0, sizeof *m);
    m->V = V;
    m->K = K;
    for (int x = 0; x < V; x++) {
        double z[MARKOV_V];
        const int hard = 2 * x >= V;
        for (int y = 0; y < V; y++)
            z[y] = (hard ? 0.8 : 3.0) * markov_normal(1, x, y) - (hard == (2 * y >= V) ? 0 : 4.0);
        markov_softmax(&m->p[x], z, V);
        for (int j = 0; j < K; j++) {
            double w[MARKOV_V];
            for (int y = 0; y < V; y++)
                w[y] = z[y] + wrong[drafter][hard] * sqrt(1 + 0.3 * j) *
                                  markov_normal(2 + drafter, x * MARKOV_K + j, y);
            markov_softmax(&m->q[j][x], w, V);
        }
    }
}

static inline void markov_close(Markov *m) {
    for (int x = 0; x < m->V; x++) {
        dist_free(&m->p[x]);
        for (int j = 0; j < m->K; j++) dist_free(&m->q[j][x]);
    }
}

static inline int32_t markov_best(const Dist *q) {
    int64_t best = 0;
    for (int64_t i = 1; i < q->n; i++)
        if (q->p[i] > q->p[best]) best = i;
    return q->id[best];
}

// Probability that behind x draft j + 1 stands and is y, and that some draft stands, given y.
static inline double markov_stands(const Markov *m, AcceptRule rule, int j, int x, int y) {
    const Dist *p = &m->p[x], *q = &m->q[j][x];
    if (rule == RULE_REJECTION) return fmin(p->p[y], q->p[y]);
    if (rule == RULE_STRICT) return p->p[y] * q->p[y];
    return y == markov_best(q) ? p->p[y] : 0.0; // the best token; greedy text: see markov_test.c
}

// One round of k drafts behind x: out[j][y] = probability that j drafts stand and y is the last of
// the j + 1 tokens.
static inline void markov_round(const Markov *m, AcceptRule rule, int k, int x,
                                double out[MARKOV_K + 1][MARKOV_V]) {
    double at[MARKOV_V] = {0};
    at[x] = 1;
    for (int j = 0; j <= k; j++) {
        double next[MARKOV_V] = {0};
        for (int y = 0; y < m->V; y++) {
            out[j][y] = 0;
            for (int s = 0; s < m->V; s++) {
                const double stands = j < k ? markov_stands(m, rule, j, s, y) : 0;
                out[j][y] += at[s] * (m->p[s].p[y] - stands);
                next[y] += at[s] * stands;
            }
        }
        memcpy(at, next, sizeof at);
    }
}

// Tokens a round in the long run: the chain of the tokens that rounds end with, at rest.
static inline double markov_tau(const Markov *m, AcceptRule rule, int k) {
    static double round[MARKOV_V][MARKOV_K + 1][MARKOV_V];
    double rest[MARKOV_V], tau = 0;
    for (int x = 0; x < m->V; x++) {
        markov_round(m, rule, k, x, round[x]);
        rest[x] = 1.0 / m->V;
    }
    for (int turn = 0; turn < 3000; turn++) {
        double next[MARKOV_V] = {0};
        for (int x = 0; x < m->V; x++)
            for (int j = 0; j <= k; j++)
                for (int y = 0; y < m->V; y++) next[y] += rest[x] * round[x][j][y];
        memcpy(rest, next, sizeof rest);
    }
    for (int x = 0; x < m->V; x++)
        for (int j = 0; j <= k; j++)
            for (int y = 0; y < m->V; y++) tau += rest[x] * round[x][j][y] * (j + 1);
    return tau;
}

// What the simulator would say of a text; anchors = n - 1 (the first token is the bonus).
static inline void markov_odds(const Markov *m, AcceptRule rule, const int32_t *text, int64_t n,
                               double *keep, double *alpha) {
    for (int64_t a = 0; a < n - 1; a++)
        for (int64_t j = 0; j < m->K && a + 1 + j < n; j++) {
            const int32_t x = text[a + j], y = text[a + 1 + j];
            double all = 0;
            for (int v = 0; v < m->V; v++) all += markov_stands(m, rule, (int)j, x, v);
            keep[a * m->K + j] = markov_stands(m, rule, (int)j, x, y) / m->p[x].p[y];
            alpha[a * m->K + j] = all;
        }
}

#endif
