// infer/decode/score.c - the target's distributions at text positions, and those of every draft
// that meets them: step by step, or by blocks of positions behind the steps.
#include <math.h>
#include <omp.h>

#include "infer/decode/score_parts.h"
#include "infer/model/suppress.h"

void scorer_keep(Scorer *s, int step, Tensor y) {
    CHECK(!s->ahead);
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

// The target's distributions behind the positions of a block, and their best tokens for recall.
static bool target_block(Scorer *s, const FeaturePack *pack, const Position *pos, int64_t n,
                         Dist *p, int32_t *top, Err *err) {
    const TargetConfig *c = target_config(s->opt.target);
    const ScoreRoom *r = &s->room;
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
        dist_copy(&p[i], d);
        if (s->opt.recall) top[i] = best_of(row, s->V);
    }
    for (int64_t i = 0; i < n; i++)
        if (p[i].n == 0)
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
    if (s->opt.sampler.top_k > 0) {
        dist_from_some(&w->q, z, token, cols, &s->opt.sampler);
        return &w->q;
    }
    for (int64_t c = 0; c < cols; c++) w->all[token[c]] = z[c];
    dist_from_logits(&w->q, w->all, s->V, &s->opt.sampler);
    for (int64_t c = 0; c < cols; c++) w->all[token[c]] = -INFINITY;
    return &w->q;
}

static bool head_items(Scorer *s, const Assistant *a, Head head, const ScoreCall *c,
                       const Position *pos, const Item *item, int64_t n, Err *err) {
    const ScoreRoom *r = &s->room;
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
    CHECK(!s->ahead);
    for (int64_t i = 0; best != NULL && i < s->opt.K * c->rows; i++) best[i] = -1;
    for (int64_t at = 0; at < all; at += s->tile) {
        const int64_t n = score_least(s->tile, all - at);
        const Position *pos = s->pos + at;
        if (!target_block(s, pack, pos, n, s->p, s->top, err)) return false;
        const int64_t items = lay_items(s, pos, n);
        note_positions(s, c, pos, s->item, items, best, impossible);
        for (int h = 0; h < 2; h++)
            for (int64_t i = 0; s->opt.head[h] && i < items; i += s->items[h])
                if (!head_items(s, a, (Head)h, c, pos, s->item + i,
                                score_least(s->items[h], items - i), err))
                    return false;
    }
    return true;
}

bool scorer_begin(Scorer *s, const FeaturePack *pack, const ScoreCall *c, int32_t *place,
                  int64_t *impossible, Err *err) {
    const int64_t all = lay_positions(s, pack, c);
    CHECK(s->ahead);
    for (int64_t at = 0; at < all; at += s->tile)
        if (!target_block(s, pack, s->pos + at, score_least(s->tile, all - at), s->p + at,
                          s->top + at, err))
            return false;
    int64_t p = 0;
    for (int64_t r = 0; r < c->rows; r++) { // of one job: one position further each
        const int32_t *ids = c->job[c->of[r]].ids;
        while (s->pos[p].job != c->of[r] || s->pos[p].at != c->T[r] + 1) p++;
        place[r] = (int32_t)p;
        *impossible += dist_prob(&s->p[p], ids[c->T[r] + 1]) == 0.0;
    }
    return true;
}

int32_t scorer_best(const Scorer *s, int64_t position) {
    return s->top[position];
}

// Drafts of rows r0 .. r0 + n - 1, whose logits and best tokens are on the host.
static bool score_rows(Scorer *s, const Assistant *a, const ScoreCall *c, const int32_t *place,
                       int step, Head head, int64_t r0, int64_t n, Err *err) {
    int64_t bad = n;
#pragma omp parallel for num_threads(s->dev->threads) reduction(min : bad)
    for (int64_t i = 0; i < n; i++) {
        const int64_t r = r0 + i, at = c->T[r] + 1 + step;
        const SimulateJob *o = &c->job[c->of[r]];
        if (at >= o->n) continue;
        const Dist *q = drafter_dist(s, a, head, i);
        score_draft(&o->score[head], c->anchor[r] * s->opt.K + step, &s->p[place[r] + step], q,
                    o->ids[at], s->id[2 * i]);
        if (q->n == 0 && i < bad) bad = i;
    }
    return bad == n ||
           err_set(err, ERR_FAILED, "logits of the drafter are not finite at T %d, step %d",
                   c->T[r0 + bad], step);
}

bool scorer_step(Scorer *s, const Assistant *a, const ScoreCall *c, const int32_t *place, int step,
                 Head head, Tensor y, Tensor best, Tensor id, Tensor lse, Err *err) {
    const int64_t cols = assistant_logit_cols(a, head);
    for (int64_t r = 0; r < c->rows; r += s->items[head]) {
        const int64_t n = score_least(s->items[head], c->rows - r);
        const Tensor z = tensor_of(s->room.z.data, DT_F32, n, cols), ids = tensor_rows(id, r, n);
        const Tensor token =
            head == HEAD_CENTROID ? tensor_of(s->room.token.data, DT_I32, n, cols) : NO_TENSOR;
        arena_reset(&s->arena, s->fixed);
        assistant_logits(a, head, z, token, tensor_rows(y, r, n), &s->arena);
        assistant_best(a, tensor_rows(best, r, n), ids,
                       lse.data != NULL ? tensor_rows(lse, r, n) : NO_TENSOR, z, token);
        dev_download(s->dev, s->z, z);
        dev_download(s->dev, s->id, ids);
        if (head == HEAD_CENTROID) dev_download(s->dev, s->token, token);
        if (!dev_sync(s->dev, err) || !score_rows(s, a, c, place, step, head, r, n, err))
            return false;
    }
    return true;
}
