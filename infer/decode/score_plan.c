// infer/decode/score_plan.c - sizes of the scorer's blocks, its memory, opening and closing.
#include <math.h>
#include <stdlib.h>

#include "infer/decode/score_parts.h"

// p and id of a survivor. What p of a whole call may take: else it is worked through in blocks.
enum { DIST_BYTES = 12, ROWS_MOST = 128 };
#define AHEAD_BYTES ((int64_t)128 << 20)

static int64_t at_least_1(int64_t x) {
    return x < 1 ? 1 : x;
}

// Survivors of a distribution: top-k keeps ties, too.
static int64_t survivors(const Scorer *s) {
    const int64_t k = s->opt.sampler.top_k;
    return k > 0 ? score_least(2 * k, s->V) : s->V;
}

// Logits live in one tile, the target's distributions beside it in as many bytes: where nothing is
// cut, a probability and an id for every token. More rows than ROWS_MOST gain nothing.
static void plan_sizes(Scorer *s, const Assistant *a, const SimulatorOptions *o) {
    const int64_t V = a->cfg.text.vocab, each = o->sampler.top_k > 0 ? 4 : 12,
                  bytes = (int64_t)(o->tile_bytes > 0 ? o->tile_bytes : SCORE_TILE_BYTES);
    s->opt = *o;
    s->V = V;
    s->ahead =
        o->sampler.top_k > 0 && score_positions(o) * survivors(s) * DIST_BYTES <= AHEAD_BYTES;
    s->tile =
        score_least(score_least(at_least_1(bytes / (each * V)), ROWS_MOST), score_positions(o));
    for (int h = 0; h < 2; h++) {
        const int64_t fit = at_least_1(bytes / 4 / assistant_logit_cols(a, (Head)h)),
                      most = s->ahead ? o->max_anchors : o->K * s->tile;
        s->items[h] = !o->head[h] ? 0 : score_least(score_least(fit, ROWS_MOST), most);
    }
}

static int64_t dists(const Scorer *s) {
    return s->ahead ? score_positions(&s->opt) : s->tile;
}

static int64_t most_items(const Scorer *s) {
    return s->items[0] > s->items[1] ? s->items[0] : s->items[1];
}

static int64_t z_room(const Scorer *s, const Assistant *a) {
    int64_t most = s->tile * s->V;
    for (int h = 0; h < 2; h++) {
        const int64_t n = s->items[h] * assistant_logit_cols(a, (Head)h);
        if (s->items[h] > 0 && n > most) most = n;
    }
    return most;
}

static int64_t token_room(const Scorer *s, const Assistant *a) {
    return s->items[HEAD_CENTROID] == 0
               ? 1
               : s->items[HEAD_CENTROID] * assistant_logit_cols(a, HEAD_CENTROID);
}

static int64_t index_room(const Scorer *s) {
    return most_items(s) > s->tile ? most_items(s) : s->tile;
}

static void take_room(const Scorer *s, const Assistant *a, int64_t width, DType table, ScoreRoom *r,
                      Arena *arena) {
    const int64_t H = a->cfg.text.hidden;
    *r = (ScoreRoom){.hidden = tensor_take(arena, table, s->tile, width)};
    if (!s->ahead) {
        r->y = tensor_take(arena, a->dtype, s->opt.K * s->opt.max_anchors, H);
        r->some = tensor_take(arena, a->dtype, most_items(s), H);
    }
    r->z = tensor_take(arena, DT_F32, 1, z_room(s, a));
    r->index = tensor_take(arena, DT_I32, 1, index_room(s));
    r->token = tensor_take(arena, DT_I32, 1, token_room(s, a));
}

static size_t device_bytes(const Scorer *s, const Assistant *a, int64_t width, DType table) {
    Arena plan;
    ScoreRoom r;
    arena_open(&plan, NULL, 0);
    take_room(s, a, width, table, &r, &plan);
    arena_take(&plan, assistant_head_bytes(a, at_least_1(most_items(s))));
    return plan.peak;
}

size_t scorer_bytes(const Assistant *a, const TargetConfig *c, const SimulatorOptions *opt) {
    Scorer s = {0};
    plan_sizes(&s, a, opt);
    const int64_t scratch = 2 * sizeof(DistOrder) + sizeof(double);
    const int64_t host = score_positions(opt) * (int64_t)sizeof(Position) +
                         (s.ahead ? 0 : opt->K * s.tile * (int64_t)sizeof(Item)) +
                         4 * z_room(&s, a) + 4 * token_room(&s, a) + 4 * index_room(&s) +
                         8 * most_items(&s) +
                         dists(&s) * (survivors(&s) * DIST_BYTES + 4 + (int64_t)sizeof(Dist)) +
                         a->dev->threads * s.V * (DIST_BYTES + scratch + (int64_t)sizeof(float));
    return device_bytes(&s, a, c->text.hidden, DT_F32) + (size_t)host;
}

static bool take_host(Scorer *s, const Assistant *a) {
    const int threads = s->dev->threads;
    s->pos = calloc((size_t)score_positions(&s->opt), sizeof *s->pos);
    s->item = calloc((size_t)(s->ahead ? 1 : s->opt.K * s->tile), sizeof *s->item);
    s->id = calloc((size_t)(2 * most_items(s)), sizeof *s->id);
    s->index = calloc((size_t)index_room(s), sizeof *s->index);
    s->token = calloc((size_t)token_room(s, a), sizeof *s->token);
    s->z = calloc((size_t)z_room(s, a), sizeof *s->z);
    s->p = calloc((size_t)dists(s), sizeof *s->p);
    s->top = calloc((size_t)dists(s), sizeof *s->top);
    s->worker = calloc((size_t)threads, sizeof *s->worker);
    if (!s->pos || !s->item || !s->id || !s->index || !s->token || !s->z || !s->p || !s->top ||
        !s->worker)
        return false;
    for (int i = 0; i < threads; i++) {
        float *all = s->worker[i].all = malloc((size_t)s->V * sizeof *all);
        if (all == NULL) return false;
        for (int64_t v = 0; v < s->V; v++) all[v] = -INFINITY;
    }
    return true;
}

Scorer *scorer_open(const Assistant *a, const SimulatorOptions *opt, Err *err) {
    CHECK(opt->sampler.temperature > 0.0 && opt->target != NULL);
    const Tensor table = target_embedding(opt->target);
    Scorer *s = calloc(1, sizeof *s);
    CHECK_MEMORY(s);
    s->dev = a->dev;
    plan_sizes(s, a, opt);
    if (!take_host(s, a)) {
        err_set(err, ERR_FAILED, "no memory for the distributions of %lld positions",
                (long long)s->tile);
        goto fail;
    }
    const size_t bytes = device_bytes(s, a, table.cols, table.dtype);
    if ((s->block = dev_alloc(s->dev, bytes, err)) == NULL) goto fail;
    arena_open(&s->arena, s->block, bytes);
    take_room(s, a, table.cols, table.dtype, &s->room, &s->arena);
    s->fixed = arena_mark(&s->arena);
    return s;
fail:
    scorer_close(s);
    return NULL;
}

void scorer_close(Scorer *s) {
    if (s == NULL) return;
    if (s->block != NULL) dev_free(s->dev, s->block);
    for (int64_t i = 0; s->p != NULL && i < dists(s); i++) dist_free(&s->p[i]);
    for (int i = 0; s->worker != NULL && i < s->dev->threads; i++) {
        dist_free(&s->worker[i].q);
        free(s->worker[i].all);
    }
    void *const host[] = {s->pos, s->item, s->id,  s->index, s->token,
                          s->z,   s->p,    s->top, s->worker};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++) free(host[i]);
    free(s);
}

bool scorer_ahead(const Scorer *s) {
    return s->ahead;
}
