// infer/decode/simulate.c - teacher-forced rollout of all anchors, the two best tokens of every
// step.
#include <math.h>
#include <stdlib.h>

#include "infer/decode/simulate_parts.h"

static void buffers_take(const Assistant *a, Buffers *b, int64_t rows, Arena *arena) {
    b->row_index = tensor_take(arena, DT_I32, 1, rows);
    b->tokens = tensor_take(arena, DT_I32, 1, rows);
    b->best = tensor_take(arena, DT_F32, rows, 2);
    b->id = tensor_take(arena, DT_I32, rows, 2);
    b->lse = tensor_take(arena, DT_F32, rows, 2);
    b->clusters = tensor_take(arena, DT_I32, rows, a->cfg.ordered ? a->cfg.cluster_topk : 1);
    assistant_acts_take(a, &b->acts, rows, false, arena);
}

size_t simulator_bytes(const Assistant *a, int64_t max_anchors) {
    Arena plan;
    Buffers b;
    arena_open(&plan, NULL, 0);
    tensor_take(&plan, a->dtype, max_anchors, a->cfg.backbone);
    buffers_take(a, &b, max_anchors, &plan);
    arena_take(&plan, anchor_plan_bytes(a, max_anchors));
    size_t head = 0; // not monotone in rows: its tiles have whole columns
    for (int64_t rows = 1; rows <= max_anchors; rows++) {
        const size_t bytes = assistant_head_bytes(a, rows);
        if (bytes > head) head = bytes;
    }
    arena_take(&plan, head);
    return plan.peak;
}

Simulator *simulator_open(const Assistant *a, int64_t max_anchors, int K, Err *err) {
    CHECK(max_anchors >= 1 && K >= 1 && K <= DRAFT_MAX);
    const size_t n = (size_t)max_anchors, bytes = simulator_bytes(a, max_anchors);
    Simulator *s = calloc(1, sizeof *s);
    if (s == NULL) goto memory;
    *s = (Simulator){.dev = a->dev, .K = K, .max_anchors = max_anchors};
    s->T = calloc(n, sizeof *s->T);
    s->seq_of = calloc(n, sizeof *s->seq_of);
    s->job = calloc(n, sizeof *s->job);
    s->token = calloc(n, sizeof *s->token);
    s->id = calloc(2 * n, sizeof *s->id);
    s->place = calloc(n, sizeof *s->place);
    s->anchor = calloc(n, sizeof *s->anchor);
    s->dead = calloc(n, sizeof *s->dead);
    s->best = calloc(2 * n, sizeof *s->best);
    s->lse = calloc(2 * n, sizeof *s->lse);
    if (!s->T || !s->seq_of || !s->job || !s->token || !s->id || !s->place || !s->anchor ||
        !s->dead || !s->best || !s->lse)
        goto memory;
    if ((s->block = dev_alloc(s->dev, bytes, err)) == NULL) goto fail;
    arena_open(&s->arena, s->block, bytes);
    s->feature = tensor_take(&s->arena, a->dtype, max_anchors, a->cfg.backbone);
    s->behind = arena_mark(&s->arena);
    return s;
memory:
    err_set(err, ERR_FAILED, "no memory for %zu anchors", n);
fail:
    err_wrap(err, "simulator");
    simulator_close(s);
    return NULL;
}

void simulator_close(Simulator *s) {
    if (s == NULL) return;
    if (s->block != NULL) dev_free(s->dev, s->block);
    free(s->T);
    free(s->seq_of);
    free(s->job);
    free(s->token);
    free(s->id);
    free(s->place);
    free(s->anchor);
    free(s->dead);
    free(s->walks);
    free(s->passed);
    free(s->best);
    free(s->lse);
    scorer_close(s->scorer);
    free(s->cluster_of);
    free(s->chosen);
    free(s->target_best);
    free(s);
}

static bool sampled(const SimulatorOptions *o) {
    return o->sampler.temperature > 0.0;
}

size_t simulator_scored_bytes(const Assistant *a, const TargetConfig *c,
                              const SimulatorOptions *o) {
    size_t bytes = simulator_bytes(a, o->max_anchors);
    if (sampled(o)) bytes += scorer_bytes(a, c, o);
    if (o->recall && a->cfg.ordered)
        bytes +=
            (size_t)(4 * (a->cfg.text.vocab + o->max_anchors * o->K * (a->cfg.cluster_topk + 1)));
    return bytes;
}

Simulator *simulator_open_scored(const Assistant *a, const SimulatorOptions *o, Err *err) {
    Simulator *s = simulator_open(a, o->max_anchors, o->K, err);
    if (s == NULL) return NULL;
    s->reached = o->reached;
    CHECK(!o->reached || !o->recall);
    if (sampled(o) && (s->scorer = scorer_open(a, o, err)) == NULL) goto fail;
    if (!o->recall || !a->cfg.ordered) return s;
    const size_t drafts = (size_t)(o->max_anchors * o->K);
    s->cluster_of = malloc((size_t)a->cfg.text.vocab * sizeof *s->cluster_of);
    s->chosen = malloc(drafts * (size_t)a->cfg.cluster_topk * sizeof *s->chosen);
    s->target_best = malloc(drafts * sizeof *s->target_best);
    CHECK_MEMORY(s->cluster_of);
    CHECK_MEMORY(s->chosen);
    CHECK_MEMORY(s->target_best);
    dev_download(s->dev, s->cluster_of, a->cluster_of);
    if (dev_sync(s->dev, err)) return s;
fail:
    err_wrap(err, "simulator");
    simulator_close(s);
    return NULL;
}

int64_t simulator_impossible(const Simulator *s) {
    return s->impossible;
}

// Stores the two best of step j for every anchor of the call.
static bool keep_step(Simulator *s, const SimulateJob *job, Head head, int64_t rows, int j,
                      Err *err) {
    for (int64_t r = 0; r < rows; r++) {
        const SimulateJob *o = &job[s->job[r]];
        const bool inside = s->T[r] + 1 + j < o->n;
        const int64_t at = s->anchor[r] * s->K + j;
        if (inside && !isfinite(s->best[2 * r]))
            return err_set(err, ERR_FAILED, "logits of the drafter are not finite at T %d, step %d",
                           s->T[r], j);
        if (o->drafts[head] != NULL) o->drafts[head][at] = inside ? s->id[2 * r] : -1;
        if (o->margin[head] != NULL)
            o->margin[head][at] = inside ? s->best[2 * r] - s->best[2 * r + 1] : 0.0f;
        if (inside && o->score[head].top != NULL)
            o->score[head].top[at] = 1.0 / (double)s->lse[2 * r + 1];
    }
    return true;
}

static bool chosen_has(const int32_t *chosen, int64_t n, int32_t cluster) {
    for (int64_t i = 0; i < n; i++)
        if (chosen[i] == cluster) return true;
    return false;
}

// Of all steps of the call; greedy text is the target's best token itself.
static void keep_recall(const Call *c) {
    const Simulator *s = c->s;
    const int64_t rows = c->rows, n = c->a->cfg.cluster_topk;
    for (int64_t i = 0; i < s->K * rows; i++) {
        const int64_t r = i % rows, j = i / rows, at = s->T[r] + 1 + j;
        const SimulateJob *o = &c->job[s->job[r]];
        uint8_t *recall = o->score[HEAD_CENTROID].recall;
        if (recall == NULL || at >= o->n) continue;
        const int32_t text = o->ids[at], best = s->scorer == NULL ? text
                                                : c->ahead ? scorer_best(s->scorer, s->place[r] + j)
                                                           : s->target_best[i];
        const int32_t *chosen = s->chosen + i * n;
        recall[s->anchor[r] * s->K + j] =
            (chosen_has(chosen, n, s->cluster_of[best]) ? RECALL_BEST : 0) |
            (chosen_has(chosen, n, s->cluster_of[text]) ? RECALL_TEXT : 0);
    }
}

static ScoreCall score_call(const Call *c) {
    const Simulator *s = c->s;
    return (ScoreCall){
        .job = c->job, .of = s->job, .T = s->T, .anchor = s->anchor, .rows = c->rows};
}

// The two best of a head into s->id, best and lse.
static bool head_of_step(Call *c, Head head, int j, Err *err) {
    Simulator *s = c->s;
    const Tensor lse = c->want->top[head] ? c->b.lse : NO_TENSOR;
    const ScoreCall call = score_call(c);
    if (!c->ahead || !c->want->sampled)
        assistant_top2(c->a, head, c->b.best, c->b.id, lse, c->b.acts.y, &s->arena);
    else if (!scorer_step(s->scorer, c->a, &call, s->place, j, head, c->b.acts.y, c->b.best,
                          c->b.id, lse, err))
        return false;
    dev_download(s->dev, s->id, c->b.id);
    dev_download(s->dev, s->best, c->b.best);
    if (c->want->top[head]) dev_download(s->dev, s->lse, c->b.lse);
    return dev_sync(s->dev, err) && keep_step(s, c->job, head, c->rows, j, err);
}

// What the scores need of a step once the next one has overwritten its state.
static void keep_state(const Call *c, int j) {
    const Simulator *s = c->s;
    if (s->scorer != NULL && !c->ahead && (c->want->sampled || c->want->recall))
        scorer_keep(s->scorer, j, c->b.acts.y);
    if (!c->want->recall) return;
    assistant_clusters(c->a, c->b.clusters, c->b.acts.y, &c->s->arena);
    dev_download(s->dev, s->chosen + j * tensor_count(c->b.clusters), c->b.clusters);
}

static bool score_anchors(const Call *c, Err *err) {
    Simulator *s = c->s;
    const ScoreCall call = score_call(c);
    if (s->scorer != NULL && !c->ahead && (c->want->sampled || c->want->recall) &&
        !scorer_run(s->scorer, c->a, c->pack, &call, c->want->recall ? s->target_best : NULL,
                    &s->impossible, err))
        return false;
    if (c->want->recall) keep_recall(c);
    return dev_sync(s->dev, err);
}

void simulate_lay_out(Call *c) {
    Simulator *s = c->s;
    arena_reset(&s->arena, s->behind);
    buffers_take(c->a, &c->b, c->rows, &s->arena);
}

static void upload_tokens(const Call *c, int j) {
    const Simulator *s = c->s;
    for (int64_t r = 0; r < c->rows; r++) {
        const SimulateJob *o = &c->job[s->job[r]];
        s->token[r] = s->T[r] + j < o->n ? o->ids[s->T[r] + j] : -1;
    }
    dev_upload(s->dev, c->b.tokens, s->token);
}

static bool begin(Call *c, Err *err) {
    Simulator *s = c->s;
    simulate_lay_out(c);
    features_anchors(c->pack, s->dev, c->a, s->T, s->seq_of, c->rows, &c->set,
                     s->seg[LAYER_SLIDING], s->seg[LAYER_FULL], c->b.row_index,
                     tensor_rows(s->feature, 0, c->rows));
    anchor_plan(c->a, &c->set, &c->plan, &s->arena);
    for (int64_t r = 0; r < c->rows; r++) s->dead[r] = false;
    c->ahead = s->scorer != NULL && scorer_ahead(s->scorer);
    const ScoreCall call = score_call(c);
    return !c->ahead || !(c->want->sampled || c->want->recall) ||
           scorer_begin(s->scorer, c->pack, &call, s->place, &s->impossible, err);
}

// All K steps of the anchors.
static bool run_anchors(Simulator *s, const Assistant *a, const FeaturePack *pack,
                        const SimulateJob *job, int64_t rows, const Wanted *want, Err *err) {
    Call c = {.s = s, .a = a, .pack = pack, .job = job, .want = want, .rows = rows};
    if (!begin(&c, err)) return false;
    const bool drops = s->reached && (s->scorer == NULL || c.ahead);
    bool moved = true; // the feature lies in s->feature, not in the step's own
    for (int j = 0; j < s->K && c.rows > 0; j++) {
        upload_tokens(&c, j);
        assistant_step(a, &c.plan, c.b.tokens,
                       moved ? tensor_rows(s->feature, 0, c.rows) : c.b.acts.f, &c.b.acts,
                       j + 1 < s->K);
        for (int head = HEAD_DENSE; head <= HEAD_CENTROID; head++)
            if (want->head[head] && !head_of_step(&c, (Head)head, j, err)) return false;
        keep_state(&c, j);
        moved = drops && j + 1 < s->K && simulate_drop(&c, j);
    }
    return score_anchors(&c, err);
}

static Wanted wanted(const Simulator *s, const SimulateJob *job, int jobs) {
    Wanted w = {0};
    for (int i = 0; i < jobs; i++)
        for (int h = 0; h < 2; h++) {
            const SimulateJob *o = &job[i];
            w.head[h] |= o->drafts[h] || o->margin[h];
            w.top[h] |= o->score[h].top != NULL;
            w.recall |= s->chosen != NULL && o->score[h].recall != NULL;
            w.sampled |= s->scorer != NULL && o->score[h].drawn != NULL;
            for (int r = 0; r < RULE_COUNT; r++)
                w.sampled |= s->scorer != NULL && (o->score[h].keep[r] || o->score[h].alpha[r]);
        }
    return w;
}

bool simulator_run(Simulator *s, const Assistant *a, const FeaturePack *pack,
                   const SimulateJob *job, int jobs, Err *err) {
    const Wanted want = wanted(s, job, jobs);
    int64_t rows = 0;
    for (int i = 0; i < jobs; i++) {
        const SimulateJob *o = &job[i];
        CHECK(o->seq >= 0 && o->seq < pack->nseq && (i == 0 || o->seq > job[i - 1].seq));
        CHECK(o->first >= 1 && pack->start[o->seq + 1] - pack->start[o->seq] >= o->n - 2);
        for (int64_t T = o->first; T < o->n - 1; T++) {
            s->T[rows] = (int32_t)T;
            s->seq_of[rows] = o->seq;
            s->job[rows] = i;
            s->anchor[rows] = T - o->first;
            if (++rows < s->max_anchors) continue;
            if (!run_anchors(s, a, pack, job, rows, &want, err)) return false;
            rows = 0;
        }
    }
    return rows == 0 || run_anchors(s, a, pack, job, rows, &want, err);
}

bool simulator_drafts(Simulator *s, const Assistant *a, const FeaturePack *pack, int seq,
                      const int32_t *ids, int64_t n, int64_t first, Head head, int32_t *drafts,
                      float *margin, Err *err) {
    SimulateJob job = {.seq = seq, .ids = ids, .n = n, .first = first};
    job.drafts[head] = drafts;
    job.margin[head] = margin;
    return simulator_run(s, a, pack, &job, 1, err);
}
