// infer/decode/exactness.c - random distributions, the outcomes of one draft, and every path of a
// round of three.
#include "infer/decode/exactness.h"

#include <float.h>
#include <math.h>

#include "infer/base/err.h"
#include "infer/base/rng.h"

enum { SIZE = EXACT_SIZE, V = EXACT_TOKENS, K = EXACT_DRAFTS };

const ExactRule exact_own_rule = {verify_accept, verify_residual};

typedef struct {
    uint64_t seed, draws;
} Chance;

static double uniform(Chance *c) {
    return rng_uniform(c->seed, RNG_TEST, 1, c->draws++);
}

void dist_from_weights(Dist *d, const double *weight, int64_t n) {
    double total = 0.0;
    dist_room(d, n);
    d->n = 0;
    for (int64_t v = 0; v < n; v++) {
        if (weight[v] <= 0.0) continue;
        d->id[d->n] = (int32_t)v;
        total += d->p[d->n++] = weight[v];
    }
    for (int64_t i = 0; i < d->n; i++) d->p[i] /= total;
}

typedef enum { DENSE, ONE_HOT, SUBNORMAL, SPARSE, LOW_HALF, HIGH_HALF, SHAPES } Shape;

static void random_dist(Chance *c, Dist *d, int64_t n, Shape shape) {
    double w[SIZE];
    const int64_t hot = (int64_t)(uniform(c) * (double)n);
    for (int64_t v = 0; v < n; v++) {
        const double x = uniform(c) + 1e-9;
        w[v] = shape == ONE_HOT     ? v == hot
               : shape == SUBNORMAL ? (v == hot ? 1.0 : x * 4 * DBL_MIN * DBL_EPSILON)
               : shape == SPARSE    ? (v == hot || uniform(c) < 0.3 ? x : 0.0)
               : shape == LOW_HALF  ? (v < (n + 1) / 2 ? x : 0.0)
               : shape == HIGH_HALF ? (v >= n / 2 ? x : 0.0)
                                    : pow(x, 6);
    }
    dist_from_weights(d, w, n);
}

void exactness_dist(Dist *d, int64_t n, int shape, uint64_t seed, uint64_t number) {
    Chance c = {.seed = seed, .draws = number << 8}; // one distribution takes fewer
    CHECK(n >= 1 && n <= SIZE && shape >= 0 && shape < SHAPES && (int)SHAPES == EXACT_SHAPES);
    random_dist(&c, d, n, (Shape)shape);
}

// What warped logits give: top-k and top-p cut.
static void warped_dist(Chance *c, Dist *d, int64_t n) {
    float z[SIZE];
    for (int64_t v = 0; v < n; v++) z[v] = (float)(8 * uniform(c));
    const Sampler s = {.temperature = 0.4 + uniform(c),
                       .top_k = 1 + (int64_t)(uniform(c) * 8),
                       .top_p = 0.5 + 0.5 * uniform(c)};
    dist_from_logits(d, z, n, &s);
}

// Largest error of the emitted token's probability.
static double worst_of(const ExactRule *rule, const Dist *p, const Dist *q, int64_t n, Dist *r) {
    double out[SIZE] = {0}, fallen = 0.0, worst = 0.0;
    for (int64_t i = 0; i < q->n; i++) {
        if (q->p[i] <= 0.0) continue;
        const double a = rule->accept(p, q, q->id[i]);
        out[q->id[i]] += q->p[i] * a;
        fallen += q->p[i] * (1.0 - a);
    }
    rule->residual(r, p, q);
    for (int64_t i = 0; i < r->n; i++) out[r->id[i]] += fallen * r->p[i];
    for (int64_t v = 0; v < n; v++) worst = fmax(worst, fabs(out[v] - dist_prob(p, (int32_t)v)));
    return worst;
}

double exactness_of_pairs(const ExactRule *rule, int64_t pairs, uint64_t seed) {
    Dist p = {0}, q = {0}, r = {0};
    double worst = 0.0;
    Chance c = {.seed = seed};
    for (int64_t i = 0; i < pairs; i++) {
        const int64_t n = 2 + i % (SIZE - 1);
        const int kind = (int)(uniform(&c) * (SHAPES * SHAPES + 2));
        if (kind < SHAPES * SHAPES) {
            random_dist(&c, &p, n, (Shape)(kind / SHAPES));
            random_dist(&c, &q, n, (Shape)(kind % SHAPES));
        } else {
            warped_dist(&c, &p, n);
            if (kind == SHAPES * SHAPES)
                warped_dist(&c, &q, n);
            else
                dist_copy(&q, &p);
        }
        worst = fmax(worst, worst_of(rule, &p, &q, n, &r));
    }
    dist_free(&p), dist_free(&q), dist_free(&r);
    return worst;
}

// A Markov target and drafter over V tokens.
typedef struct {
    Dist p[V], q[V];
    const int32_t *draft;
    int32_t before;
} Toy;

static const Dist *toy_target(void *ctx, int j) {
    const Toy *t = ctx;
    return &t->p[j == 0 ? t->before : t->draft[j - 1]];
}

static double middle(const Dist *d, int64_t i) { // a uniform that picks the i-th
    double below = 0.0;
    for (int64_t k = 0; k < i; k++) below += d->p[k];
    return below + d->p[i] / 2;
}

static double chain(const Toy *t, int32_t before, const int32_t *x, int n) {
    double w = 1.0;
    for (int i = 0; i < n; before = x[i++]) w *= dist_prob(&t->p[before], x[i]);
    return w;
}

// Adds `weight` to every way of going on from the first n of four tokens.
static void go_on(const Toy *t, int32_t *x, int n, double weight, double *joint) {
    for (int rest = 0, ways = (int)pow(V, K + 1 - n); rest < ways; rest++) {
        for (int i = n, left = rest; i <= K; i++, left /= V) x[i] = left % V;
        joint[((x[0] * V + x[1]) * V + x[2]) * V + x[3]] +=
            weight * chain(t, x[n - 1], x + n, K + 1 - n);
    }
}

// One vector of drafts whose first `stand` coins fall below the acceptance and the next above it;
// every token behind them, weighted.
static void add_branch(Toy *t, ExactRound *round, const Dist *q, const int32_t *draft, int stand,
                       double weight, double *joint) {
    double coin[K], pick[K + 1];
    Dist r = {0}, room = {0};
    t->draft = draft;
    for (int j = 0; j < K; j++) {
        const double a = verify_accept(toy_target(t, j), &q[j], draft[j]);
        coin[j] = j < stand ? a / 2 : (1.0 + a) / 2;
        if (j <= stand) weight *= j < stand ? a : 1.0 - a;
    }
    if (weight > 0.0) {
        if (stand < K)
            verify_residual(&r, toy_target(t, stand), &q[stand]);
        else
            dist_copy(&r, toy_target(t, K));
        for (int64_t i = 0; i < r.n; i++) {
            int32_t x[K + 1], next;
            for (int j = 0; j <= K; j++) pick[j] = middle(&r, i);
            const VerifyRound v = {.k = K, .draft = draft, .q = q, .coin = coin, .pick = pick};
            const int got = round(&v, toy_target, t, &room, &next);
            for (int j = 0; j < got; j++) x[j] = draft[j];
            x[got] = next;
            go_on(t, x, got + 1, weight * r.p[i], joint);
        }
    }
    dist_free(&r), dist_free(&room);
}

// Largest error of the V^4 joint probabilities of four tokens, of which the round gives the first
// ones. Drafts are a chain of the drafter; each coin and pick is integrated exactly.
static double worst_of_paths(Toy *t, ExactRound *round) {
    double joint[V * V * V * V] = {0}, worst = 0.0;
    for (int path = 0; path < V * V * V; path++) {
        const int32_t draft[K] = {path / (V * V), path / V % V, path % V};
        Dist q[K];
        double weight = 1.0;
        for (int j = 0; j < K; j++) {
            q[j] = t->q[j == 0 ? t->before : draft[j - 1]];
            weight *= dist_prob(&q[j], draft[j]);
        }
        for (int stand = 0; weight > 0.0 && stand <= K; stand++)
            add_branch(t, round, q, draft, stand, weight, joint);
    }
    for (int i = 0; i < V * V * V * V; i++) {
        const int32_t x[K + 1] = {i / (V * V * V), i / (V * V) % V, i / V % V, i % V};
        worst = fmax(worst, fabs(joint[i] - chain(t, t->before, x, K + 1)));
    }
    return worst;
}

double exactness_of_rounds(ExactRound *round, int64_t pairs, uint64_t seed) {
    double worst = 0.0;
    Toy t = {0};
    Chance c = {.seed = seed};
    for (int64_t n = 0; n < pairs; n++) {
        for (int v = 0; v < V; v++) {
            random_dist(&c, &t.p[v], V, n % 3 == 2 ? SPARSE : DENSE);
            random_dist(&c, &t.q[v], V, n % 3 == 1 ? SPARSE : n % 7 == 6 ? ONE_HOT : DENSE);
        }
        t.before = (int32_t)(n % V);
        worst = fmax(worst, worst_of_paths(&t, round));
    }
    for (int v = 0; v < V; v++) dist_free(&t.p[v]), dist_free(&t.q[v]);
    return worst;
}
