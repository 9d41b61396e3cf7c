// tests/infer/decode/chi_square.h - rounds of rejection sampling with their real randomness, many
// of them, against what the target says: chi-square over the first two tokens.
//
// With N = 25 / TV^2 rounds and 16 tokens a bias of total variation TV is found with power 99.7 %
// at alpha = 1e-6 (spec: at least 4 N TV^2 of non-centrality). Wrong rounds must be found.
#ifndef TESTS_DECODE_CHI_SQUARE_H
#define TESTS_DECODE_CHI_SQUARE_H

#include <math.h>
#include <stdlib.h>

#include "infer/base/rng.h"
#include "infer/decode/verify.h"
#include "tests/testing.h"

enum { CHI_V = 16, CHI_K = 4, CHI_SETTINGS = 40 };

typedef enum {
    PLANT_NONE,
    PLANT_BEST_DRAFT,    // the drafter's best token, judged as if it had been drawn
    PLANT_ONE_SIDED,     // temperature, top-k and top-p on the drafts only
    PLANT_BF16_DRAFT,    // drawn from bf16 logits, judged by f32 ones
    PLANT_EQUALITY,      // a draft stands where it is the target's best token
    PLANT_TRUSTED_FIRST, // the first draft is not looked at
    PLANTS
} Plant;

typedef struct {
    Sampler s;
    int k;
} ChiSetting;

// Distributions behind every token: of the target, of the drafter, and what drafts are drawn from.
typedef struct {
    Dist p[CHI_V], q[CHI_V], drawn[CHI_V], judged[CHI_V];
    int32_t draft[CHI_K];
    Plant plant;
} ChiToy;

static inline ChiSetting chi_setting(int i) {
    static const double temperature[] = {0.5, 0.7, 1.0, 1.5}, top_p[] = {1.0, 0.95, 0.8};
    static const int64_t top_k[] = {0, 3, 8};
    return (ChiSetting){.s = {.temperature = temperature[i % 4],
                              .top_k = top_k[i / 4 % 3],
                              .top_p = top_p[i / 12 % 3],
                              .seed = 100 + (uint64_t)i},
                        .k = 1 + i % CHI_K};
}

static inline void chi_open(ChiToy *t, const ChiSetting *o, Plant plant) {
    const Sampler raw = {.temperature = 1.0, .top_p = 1.0};
    t->plant = plant;
    for (int v = 0; v < CHI_V; v++) {
        float z[CHI_V], y[CHI_V], coarse[CHI_V];
        for (int i = 0; i < CHI_V; i++) { // large, as logits are, and alike
            z[i] = 20.0f + 1.5f * rng_normal(5, RNG_TEST, (uint64_t)v, (uint64_t)i);
            y[i] = z[i] + 0.7f * rng_normal(6, RNG_TEST, (uint64_t)v, (uint64_t)i);
            coarse[i] = round_bf16(y[i]);
        }
        dist_from_logits(&t->p[v], z, CHI_V, &o->s);
        dist_from_logits(&t->q[v], y, CHI_V, &o->s);
        dist_from_logits(&t->drawn[v], plant == PLANT_BF16_DRAFT ? coarse : y, CHI_V, &o->s);
        dist_from_logits(&t->judged[v], z, CHI_V, plant == PLANT_ONE_SIDED ? &raw : &o->s);
    }
}

static inline void chi_close(ChiToy *t) {
    for (int v = 0; v < CHI_V; v++) {
        dist_free(&t->p[v]), dist_free(&t->q[v]);
        dist_free(&t->drawn[v]), dist_free(&t->judged[v]);
    }
}

static inline int32_t chi_best(const Dist *d) {
    int64_t best = 0;
    for (int64_t i = 1; i < d->n; i++)
        if (d->p[i] > d->p[best]) best = i;
    return d->id[best];
}

static inline const Dist *chi_target(void *ctx, int j) {
    const ChiToy *t = ctx;
    return &t->judged[j == 0 ? 0 : t->draft[j - 1]];
}

// One round behind token 0; the first two tokens, the second drawn where the round gave one only.
static inline void chi_round(ChiToy *t, const ChiSetting *o, uint64_t stream, Dist *room,
                             int32_t out[2]) {
    double coin[CHI_K], pick[CHI_K + 1];
    Dist q[CHI_K];
    int32_t next;
    for (int j = 0; j <= o->k; j++)
        pick[j] = rng_uniform(o->s.seed, RNG_SAMPLE, stream, (uint64_t)j);
    for (int j = 0; j < o->k; j++) {
        const int32_t before = j == 0 ? 0 : t->draft[j - 1];
        const double u = rng_uniform(o->s.seed, RNG_DRAFT, stream, (uint64_t)j);
        coin[j] = rng_uniform(o->s.seed, RNG_ACCEPT, stream, (uint64_t)j);
        q[j] = t->q[before];
        t->draft[j] =
            t->plant == PLANT_BEST_DRAFT ? chi_best(&q[j]) : dist_pick(&t->drawn[before], u);
        if (t->plant == PLANT_EQUALITY)
            coin[j] = t->draft[j] == chi_best(chi_target(t, j)) ? -1.0 : 2.0;
        if (dist_prob(&q[j], t->draft[j]) == 0.0) // bf16 let another token through
            t->draft[j] = chi_best(&q[j]);
    }
    if (t->plant == PLANT_TRUSTED_FIRST) coin[0] = -1.0;
    const VerifyRound v = {.k = o->k, .draft = t->draft, .q = q, .coin = coin, .pick = pick};
    const int got = verify_round(&v, chi_target, t, room, &next);
    out[0] = got > 0 ? t->draft[0] : next;
    out[1] = got > 1 ? t->draft[1] : next;
    if (got == 0)
        out[1] = dist_pick(&t->judged[next], rng_uniform(o->s.seed, RNG_SAMPLE, stream, 1));
}

// chi-square over its critical value at alpha = 1e-6 (Wilson and Hilferty); a token that cannot be
// counts as without bound.
static inline double chi_over_critical(const double *count, const double *p, double n) {
    double chi2 = 0.0;
    int cells = 0;
    for (int v = 0; v < CHI_V; v++) {
        if (p[v] <= 0.0 && count[v] > 0) return INFINITY;
        if (p[v] <= 0.0) continue;
        chi2 += (count[v] - n * p[v]) * (count[v] - n * p[v]) / (n * p[v]);
        cells++;
    }
    const double df = cells - 1, a = 2.0 / (9.0 * df);
    return df < 1 ? 0.0 : chi2 / (df * pow(1.0 - a + 4.7534 * sqrt(a), 3));
}

static inline double chi_setting_over_critical(const ChiSetting *o, Plant plant, int64_t rounds) {
    static ChiToy t;
    double count[2][CHI_V] = {{0}}, p[2][CHI_V] = {{0}};
    Dist room = {0};
    chi_open(&t, o, plant);
    for (int64_t i = 0; i < rounds; i++) {
        int32_t x[2];
        chi_round(&t, o, (uint64_t)i, &room, x);
        count[0][x[0]]++;
        count[1][x[1]]++;
    }
    for (int v = 0; v < CHI_V; v++) {
        p[0][v] = dist_prob(&t.p[0], v);
        for (int w = 0; w < CHI_V; w++) p[1][w] += p[0][v] * dist_prob(&t.p[v], w);
    }
    chi_close(&t);
    dist_free(&room);
    return fmax(chi_over_critical(count[0], p[0], (double)rounds),
                chi_over_critical(count[1], p[1], (double)rounds));
}

// The worst of all settings; below 1 passes.
static inline double chi_worst(Plant plant, int64_t rounds) {
    double worst = 0.0;
    for (int i = 0; i < CHI_SETTINGS; i++) {
        const ChiSetting o = chi_setting(i);
        worst = fmax(worst, chi_setting_over_critical(&o, plant, rounds));
    }
    return worst;
}

#endif
