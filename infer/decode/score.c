// infer/decode/score.c - blocks of text positions: the target's distributions, then those of every
// draft that meets them.
#include "infer/decode/score.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "infer/decode/verify.h"
#include "infer/model/suppress.h"

// Hidden row `row` of the pack decides token x_{at} of a job; anchors T0 .. T1 of the call, of
// which the first is row r0, may draft it.
typedef struct {
    int32_t row, job, at, T0, T1;
    int64_t r0;
} Position;

// Draft `step` of the call's row `r`, met by position `p` of the block.
typedef struct {
    int32_t r, step, p;
} Item;

typedef struct {
    Dist q;
    float *all; // (V), -infinity where a head offers nothing
} Worker;

// Device tensors; room for `tile` positions and `items` drafts.
typedef struct {
    Tensor y;            // (K * max_anchors, H): states of all steps
    Tensor hidden, some; // (tile, B), (items, H)
    Tensor z, index;     // (1, z_room), I32 (1, items or tile)
    Tensor token;        // I32 (1, items of the centroid head * its columns)
} Room;

struct Scorer {
    Device *dev;
    SimulatorOptions opt;
    int64_t V, tile, items[2]; // positions at once; drafts at once, by head
    void *block;
    Arena arena;
    size_t fixed;
    Room room;
    Position *pos; // (positions)
    Item *item;    // (K * tile)
    int32_t *index, *token;
    float *z;
    Dist *p;        // (tile)
    int32_t *top;   // (tile)
    Worker *worker; // (threads)
};

static int64_t at_least_1(int64_t x) {
    return x < 1 ? 1 : x;
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t most_positions(const SimulatorOptions *o) {
    return o->max_anchors + (o->K - 1) * least(o->max_anchors, PACK_SEQS_MAX);
}

// Logits live in one tile, the target's distributions beside it in as many bytes: where nothing is
// cut, a probability and an id for every token.
static void plan_sizes(Scorer *s, const Assistant *a, const SimulatorOptions *o) {
    const int64_t V = a->cfg.text.vocab, each = o->sampler.top_k > 0 ? 4 : 12,
                  bytes = (int64_t)(o->tile_bytes > 0 ? o->tile_bytes : SCORE_TILE_BYTES);
    s->opt = *o;
    s->V = V;
    s->tile = least(at_least_1(bytes / (each * V)), most_positions(o));
    for (int h = 0; h < 2; h++)
        s->items[h] = !o->head[h] ? 0
                                  : least(at_least_1(bytes / 4 / assistant_logit_cols(a, (Head)h)),
                                          o->K * s->tile);
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

static void take_room(const Scorer *s, const Assistant *a, int64_t width, DType table, Room *r,
                      Arena *arena) {
    r->y = tensor_take(arena, a->dtype, s->opt.K * s->opt.max_anchors, a->cfg.text.hidden);
    r->hidden = tensor_take(arena, table, s->tile, width);
    r->some = tensor_take(arena, a->dtype, most_items(s), a->cfg.text.hidden);
    r->z = tensor_take(arena, DT_F32, 1, z_room(s, a));
    r->index = tensor_take(arena, DT_I32, 1, index_room(s));
    r->token = tensor_take(arena, DT_I32, 1, token_room(s, a));
}

static size_t device_bytes(const Scorer *s, const Assistant *a, int64_t width, DType table) {
    Arena plan;
    Room r;
    arena_open(&plan, NULL, 0);
    take_room(s, a, width, table, &r, &plan);
    arena_take(&plan, assistant_head_bytes(a, at_least_1(most_items(s))));
    return plan.peak;
}

size_t scorer_bytes(const Assistant *a, const TargetConfig *c, const SimulatorOptions *opt) {
    Scorer s = {0};
    plan_sizes(&s, a, opt);
    const int64_t whole = opt->sampler.top_k > 0 ? 2 * opt->sampler.top_k : s.V;
    const int64_t dist = sizeof(int32_t) + sizeof(double),
                  scratch = 2 * sizeof(DistOrder) + sizeof(double);
    const int64_t host = most_positions(opt) * (int64_t)sizeof(Position) +
                         opt->K * s.tile * (int64_t)sizeof(Item) + 4 * z_room(&s, a) +
                         4 * token_room(&s, a) + 4 * index_room(&s) + 4 * s.tile +
                         s.tile * (whole * dist + (int64_t)sizeof(Dist)) +
                         a->dev->threads * s.V * (dist + scratch + (int64_t)sizeof(float));
    return device_bytes(&s, a, c->text.hidden, DT_F32) + (size_t)host;
}

static bool take_host(Scorer *s, const Assistant *a) {
    const int threads = s->dev->threads;
    s->pos = calloc((size_t)most_positions(&s->opt), sizeof *s->pos);
    s->item = calloc((size_t)(s->opt.K * s->tile), sizeof *s->item);
    s->index = calloc((size_t)index_room(s), sizeof *s->index);
    s->token = calloc((size_t)token_room(s, a), sizeof *s->token);
    s->z = calloc((size_t)z_room(s, a), sizeof *s->z);
    s->p = calloc((size_t)s->tile, sizeof *s->p);
    s->top = calloc((size_t)s->tile, sizeof *s->top);
    s->worker = calloc((size_t)threads, sizeof *s->worker);
    if (!s->pos || !s->item || !s->index || !s->token || !s->z || !s->p || !s->top || !s->worker)
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
    for (int64_t i = 0; s->p != NULL && i < s->tile; i++) dist_free(&s->p[i]);
    for (int i = 0; s->worker != NULL && i < s->dev->threads; i++) {
        dist_free(&s->worker[i].q);
        free(s->worker[i].all);
    }
    void *const host[] = {s->pos, s->item, s->index, s->token, s->z, s->p, s->top, s->worker};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++) free(host[i]);
    free(s);
}

void scorer_keep(Scorer *s, int step, Tensor y) {
    op_copy(s->dev, tensor_rows(s->room.y, step * s->opt.max_anchors, y.rows), y);
}

// All positions that the call's anchors draft, in order.
static int64_t lay_positions(Scorer *s, const FeaturePack *pack, const ScoreCall *c) {
    int64_t n = 0;
    for (int64_t r0 = 0, r1; r0 < c->rows; r0 = r1) {
        const SimulateJob *o = &c->job[c->of[r0]];
        for (r1 = r0 + 1; r1 < c->rows && c->of[r1] == c->of[r0];) r1++;
        const int64_t start = pack->start[o->seq], T0 = c->T[r0], T1 = c->T[r1 - 1];
        CHECK(T1 - T0 == r1 - 1 - r0 && pack->start[o->seq + 1] - start >= o->n - 1);
        for (int h = 0; h < 2; h++) CHECK(!s->opt.head[h] || o->drafts[h] != NULL);
        for (int64_t at = T0 + 1; at <= T1 + s->opt.K && at < o->n; at++)
            s->pos[n++] = (Position){.row = (int32_t)(start + at - 1),
                                     .job = c->of[r0],
                                     .at = (int32_t)at,
                                     .T0 = (int32_t)T0,
                                     .T1 = (int32_t)T1,
                                     .r0 = r0};
    }
    return n;
}

static int64_t lay_items(Scorer *s, const Position *pos, int64_t n) {
    int64_t items = 0;
    for (int64_t p = 0; p < n; p++)
        for (int step = s->opt.K - 1; step >= 0; step--) {
            const int64_t T = pos[p].at - 1 - step;
            if (T < pos[p].T0 || T > pos[p].T1) continue;
            s->item[items++] =
                (Item){.r = (int32_t)(pos[p].r0 + T - pos[p].T0), .step = step, .p = (int32_t)p};
        }
    return items;
}

static int32_t best_of(const float *z, int64_t n) {
    int64_t best = 0;
    for (int64_t v = 1; v < n; v++)
        if (z[v] > z[best]) best = v;
    return (int32_t)best;
}

// The target's distributions behind the positions of a block.
static bool target_block(Scorer *s, const FeaturePack *pack, const Position *pos, int64_t n,
                         bool best, Err *err) {
    const TargetConfig *c = target_config(s->opt.target);
    const Room *r = &s->room;
    const Tensor z = tensor_of(r->z.data, DT_F32, n, s->V), hidden = tensor_rows(r->hidden, 0, n);
    for (int64_t i = 0; i < n; i++) s->index[i] = pos[i].row;
    const Tensor index = tensor_of(r->index.data, DT_I32, 1, n);
    dev_upload(s->dev, index, s->index);
    op_gather(s->dev, hidden, pack->hidden, index, 1.0f);
    op_matmul_nt(s->dev, z, hidden, target_embedding(s->opt.target), 0.0f);
    op_softcap(s->dev, z, (float)c->text.softcap);
    dev_download(s->dev, s->z, z);
    if (!dev_sync(s->dev, err)) return false;
#pragma omp parallel for num_threads(s->dev->threads)
    for (int64_t i = 0; i < n; i++) {
        float *row = s->z + i * s->V;
        Dist *d = &s->worker[omp_get_thread_num()].q;
        for (int j = 0; j < c->suppress.n; j++) row[c->suppress.id[j]] = -INFINITY;
        dist_from_logits(d, row, s->V, &s->opt.sampler);
        dist_copy(&s->p[i], d);
        if (best) s->top[i] = best_of(row, s->V);
    }
    for (int64_t i = 0; i < n; i++)
        if (s->p[i].n == 0)
            return err_set(err, ERR_FAILED, "logits of the target are not finite at position %d",
                           pos[i].at);
    return true;
}

// What is known of one draft: q it would be drawn from, p of the target, y that the text has.
static void score_draft(const DraftScores *out, int64_t at, const Dist *p, const Dist *q, int32_t y,
                        int32_t drafted) {
    const double py = dist_prob(p, y), qy = dist_prob(q, y);
    if (out->drawn != NULL) out->drawn[at] = dist_top(q);
    if (out->keep[RULE_REJECTION] != NULL) // where p has no y, rounding cut it off there
        out->keep[RULE_REJECTION][at] = qy < py ? qy / py : qy > 0.0 ? 1.0 : 0.0;
    if (out->alpha[RULE_REJECTION] != NULL) out->alpha[RULE_REJECTION][at] = verify_overlap(p, q);
    if (out->keep[RULE_BEST] != NULL) out->keep[RULE_BEST][at] = drafted == y ? 1.0 : 0.0;
    if (out->alpha[RULE_BEST] != NULL) out->alpha[RULE_BEST][at] = dist_prob(p, drafted);
    if (out->keep[RULE_STRICT] != NULL) out->keep[RULE_STRICT][at] = qy;
    if (out->alpha[RULE_STRICT] != NULL) out->alpha[RULE_STRICT][at] = verify_equality(p, q);
}

// The drafter's distribution of row i of the tile.
static const Dist *drafter_dist(const Scorer *s, const Assistant *a, Head head, int64_t i) {
    Worker *w = &s->worker[omp_get_thread_num()];
    const int64_t cols = assistant_logit_cols(a, head);
    const float *z = s->z + i * cols;
    const int32_t *token = s->token + i * cols;
    if (head == HEAD_DENSE) {
        dist_from_logits(&w->q, z, s->V, &s->opt.sampler);
        return &w->q;
    }
    for (int64_t c = 0; c < cols; c++) w->all[token[c]] = z[c];
    dist_from_logits(&w->q, w->all, s->V, &s->opt.sampler);
    for (int64_t c = 0; c < cols; c++) w->all[token[c]] = -INFINITY;
    return &w->q;
}

static bool head_items(Scorer *s, const Assistant *a, Head head, const ScoreCall *c,
                       const Position *pos, const Item *item, int64_t n, Err *err) {
    const Room *r = &s->room;
    const int64_t cols = assistant_logit_cols(a, head);
    const Tensor z = tensor_of(r->z.data, DT_F32, n, cols), some = tensor_rows(r->some, 0, n);
    const Tensor index = tensor_of(r->index.data, DT_I32, 1, n),
                 token =
                     head == HEAD_CENTROID ? tensor_of(r->token.data, DT_I32, n, cols) : NO_TENSOR;
    for (int64_t i = 0; i < n; i++)
        s->index[i] = (int32_t)(item[i].step * s->opt.max_anchors + item[i].r);
    dev_upload(s->dev, index, s->index);
    op_gather(s->dev, some, r->y, index, 1.0f);
    arena_reset(&s->arena, s->fixed);
    assistant_logits(a, head, z, token, some, &s->arena);
    dev_download(s->dev, s->z, z);
    if (head == HEAD_CENTROID) dev_download(s->dev, s->token, token);
    if (!dev_sync(s->dev, err)) return false;
    int64_t bad = n;
#pragma omp parallel for num_threads(s->dev->threads) reduction(min : bad)
    for (int64_t i = 0; i < n; i++) {
        const Position *at = &pos[item[i].p];
        const SimulateJob *o = &c->job[at->job];
        const int64_t out = c->anchor[item[i].r] * s->opt.K + item[i].step;
        const Dist *q = drafter_dist(s, a, head, i);
        score_draft(&o->score[head], out, &s->p[item[i].p], q, o->ids[at->at],
                    o->drafts[head][out]);
        if (q->n == 0 && i < bad) bad = i;
    }
    return bad == n ||
           err_set(err, ERR_FAILED, "logits of the drafter are not finite at T %d, step %d",
                   c->T[item[bad].r], item[bad].step);
}

// Per position, not per draft: the best token and whether the text's token is possible.
static void note_positions(const Scorer *s, const ScoreCall *c, const Position *pos,
                           const Item *item, int64_t items, int32_t *best, int64_t *impossible) {
    for (int64_t i = 0; i < items; i++) {
        const Position *at = &pos[item[i].p];
        if (best != NULL) best[item[i].step * c->rows + item[i].r] = s->top[item[i].p];
        if (item[i].step == 0) // the anchor before it, in this call or in another
            *impossible += dist_prob(&s->p[item[i].p], c->job[at->job].ids[at->at]) == 0.0;
    }
}

bool scorer_run(Scorer *s, const Assistant *a, const FeaturePack *pack, const ScoreCall *c,
                int32_t *best, int64_t *impossible, Err *err) {
    const int64_t all = lay_positions(s, pack, c);
    for (int64_t i = 0; best != NULL && i < s->opt.K * c->rows; i++) best[i] = -1;
    for (int64_t at = 0; at < all; at += s->tile) {
        const int64_t n = least(s->tile, all - at);
        const Position *pos = s->pos + at;
        if (!target_block(s, pack, pos, n, best != NULL, err)) return false;
        const int64_t items = lay_items(s, pos, n);
        note_positions(s, c, pos, s->item, items, best, impossible);
        for (int h = 0; h < 2; h++)
            for (int64_t i = 0; s->opt.head[h] && i < items; i += s->items[h])
                if (!head_items(s, a, (Head)h, c, pos, s->item + i, least(s->items[h], items - i),
                                err))
                    return false;
    }
    return true;
}
