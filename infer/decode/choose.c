// infer/decode/choose.c - the target's choices behind the rows of a step: greedy, or drawn; which
// drafts they leave standing.
#include <math.h>

#include "infer/base/rng.h"
#include "infer/decode/generate_parts.h"
#include "infer/decode/verify.h"

static bool sampled(const Generator *g) {
    return g->opt.sampler.temperature > 0.0;
}

static bool not_finite(const Slot *s, int j, Err *err) {
    return err_set(err, ERR_FAILED, "logits of the target are not finite at position %lld",
                   (long long)(s->job.n + s->n + j));
}

bool choose_begin(Generator *g, int64_t rows, Err *err) {
    g->tile = g->tile_end = 0;
    if (sampled(g)) return true;
    dev_download(g->dev, g->id_host, tensor_rows(g->id, 0, rows));
    dev_download(g->dev, g->best_host, tensor_rows(g->best, 0, rows));
    return dev_sync(g->dev, err);
}

static bool choose_greedy(const Generator *g, const Chooser *c, Choice *out, Err *err) {
    const Slot *s = &g->slot[c->slot];
    for (int j = 0;; j++) {
        const int64_t at = 2 * ((int64_t)c->row + j);
        if (!isfinite(g->best_host[at])) return not_finite(s, j, err);
        out->id[j] = g->id_host[at];
        if (j + 1 < c->count && out->id[j] == s->now.draft[j]) continue;
        out->accepted = j;
        break;
    }
    for (int j = 0; j < c->count; j++) {
        const float *best = g->best_host + 2 * (c->row + j);
        out->margin[j] = best[0] - best[1];
    }
    return true;
}

// Distributions behind the rows of one chooser, in order.
typedef struct {
    Generator *g;
    const Chooser *c;
    Err *err;
    bool failed; // err is set
} Source;

// Rows from `row` on are brought to the host when the first of them is asked for.
static bool bring(Generator *g, int64_t row, Err *err) {
    const int64_t end = g->chooser[g->choosers - 1].row + g->chooser[g->choosers - 1].count;
    const int64_t n = end - row < g->logit_rows ? end - row : g->logit_rows;
    const Tensor logits = tensor_rows(g->logits, 0, n);
    target_logits(g->target, logits, tensor_rows(g->hidden, row, n));
    dev_download(g->dev, g->logits_host, logits);
    g->tile = row;
    g->tile_end = row + n;
    return dev_sync(g->dev, err);
}

static const Dist *target_dist(void *ctx, int j) {
    Source *s = ctx;
    Generator *g = s->g;
    const TargetConfig *c = target_config(g->target);
    const int64_t row = s->c->row + j;
    g->dist.n = 0;
    s->failed = row >= g->tile_end && !bring(g, row, s->err);
    if (s->failed) return &g->dist;
    float *z = g->logits_host + (row - g->tile) * c->text.vocab;
    for (int i = 0; i < c->suppress.n; i++) z[c->suppress.id[i]] = -INFINITY;
    dist_from_logits(&g->dist, z, c->text.vocab, &g->opt.sampler);
    return &g->dist;
}

static double uniform(const Generator *g, const Slot *s, RngStream what, int j) {
    return rng_uniform(g->opt.sampler.seed, what, s->job.stream, (uint64_t)(s->n + j));
}

// The target draws as without a drafter; drafts that are what it drew stand. -1: no distribution.
static int match(Source *src, const Slot *s, int32_t *id) {
    const Generator *g = src->g;
    for (int j = 0;; j++) {
        const Dist *p = target_dist(src, j);
        if (p->n == 0) return -1;
        id[j] = dist_pick(p, uniform(g, s, RNG_SAMPLE, j));
        if (j + 1 == src->c->count || id[j] != s->now.draft[j]) return j;
    }
}

static int reject(Source *src, const Slot *s, int32_t *id) {
    Generator *g = src->g;
    double coin[DRAFT_MAX], pick[DRAFT_MAX + 1];
    const int k = src->c->count - 1;
    for (int j = 0; j <= k; j++) pick[j] = uniform(g, s, RNG_SAMPLE, j);
    for (int j = 0; j < k; j++) coin[j] = uniform(g, s, RNG_ACCEPT, j);
    const VerifyRound v = {.k = k,
                           .draft = s->now.draft,
                           .q = k > 0 ? drafts_drawn_from(g->drafts, src->c->lane) : NULL,
                           .coin = coin,
                           .pick = pick};
    int32_t next;
    const int accepted = verify_round(&v, target_dist, src, &g->residual, &next);
    for (int j = 0; j < accepted; j++) id[j] = s->now.draft[j];
    if (accepted >= 0) id[accepted] = next;
    return accepted;
}

bool choose(Generator *g, const Chooser *c, Choice *out, Err *err) {
    if (!sampled(g)) return choose_greedy(g, c, out, err);
    const Slot *s = &g->slot[c->slot];
    Source src = {.g = g, .c = c, .err = err};
    *out = (Choice){0};
    out->accepted = (g->opt.draft.rule == DRAFT_REJECTION ? reject : match)(&src, s, out->id);
    return out->accepted >= 0 || (!src.failed && not_finite(s, 0, err));
}
