// infer/decode/simulate.c - teacher-forced rollout of all anchors, the two best tokens of every
// step.
#include "infer/decode/simulate.h"

#include <math.h>
#include <stdlib.h>

#include "infer/decode/score.h"

// Device tensors of one call, for `rows` anchors.
typedef struct {
    Tensor row_index, feature0, tokens, best, id, lse, clusters;
    StepActs acts;
} Buffers;

struct Simulator {
    Device *dev;
    int K;
    int64_t max_anchors;
    void *block; // the arena's
    Arena arena;
    AttnSeg seg[2][PACK_SEQS_MAX];
    int32_t *T, *seq_of, *job, *token, *id; // host (max_anchors); id (max_anchors, 2)
    int64_t *anchor;                        // host (max_anchors): number inside its job
    float *best, *lse;                      // host (max_anchors, 2)
    // Scores; NULL where not wanted
    Scorer *scorer;
    int32_t *cluster_of, *chosen; // host (V); (K, rows, cluster_topk)
    int32_t *target_best;         // host (K, rows)
    int64_t impossible;
};

static void buffers_take(const Assistant *a, Buffers *b, int64_t rows, Arena *arena) {
    b->row_index = tensor_take(arena, DT_I32, 1, rows);
    b->feature0 = tensor_take(arena, a->dtype, rows, a->cfg.backbone);
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
    s->anchor = calloc(n, sizeof *s->anchor);
    s->best = calloc(2 * n, sizeof *s->best);
    s->lse = calloc(2 * n, sizeof *s->lse);
    if (!s->T || !s->seq_of || !s->job || !s->token || !s->id || !s->anchor || !s->best || !s->lse)
        goto memory;
    if ((s->block = dev_alloc(s->dev, bytes, err)) == NULL) goto fail;
    arena_open(&s->arena, s->block, bytes);
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
    free(s->anchor);
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
static void keep_recall(const Simulator *s, int64_t n, const SimulateJob *job, int64_t rows) {
    for (int64_t i = 0; i < s->K * rows; i++) {
        const int64_t r = i % rows, j = i / rows, at = s->T[r] + 1 + j;
        const SimulateJob *o = &job[s->job[r]];
        uint8_t *recall = o->score[HEAD_CENTROID].recall;
        if (recall == NULL || at >= o->n) continue;
        const int32_t text = o->ids[at], best = s->scorer != NULL ? s->target_best[i] : text;
        const int32_t *chosen = s->chosen + i * n;
        recall[s->anchor[r] * s->K + j] =
            (chosen_has(chosen, n, s->cluster_of[best]) ? RECALL_BEST : 0) |
            (chosen_has(chosen, n, s->cluster_of[text]) ? RECALL_TEXT : 0);
    }
}

// What any of the jobs asks for.
typedef struct {
    bool head[2], top[2], recall, sampled;
} Wanted;

static bool top2_of_step(Simulator *s, const Assistant *a, const Buffers *b, Head head, bool top,
                         Err *err) {
    assistant_top2(a, head, b->best, b->id, top ? b->lse : NO_TENSOR, b->acts.y, &s->arena);
    dev_download(s->dev, s->id, b->id);
    dev_download(s->dev, s->best, b->best);
    if (top) dev_download(s->dev, s->lse, b->lse);
    return dev_sync(s->dev, err);
}

// What the scores need of a step once the next one has overwritten its state.
static void keep_state(Simulator *s, const Assistant *a, const Buffers *b, const Wanted *want,
                       int j) {
    if (s->scorer != NULL && (want->sampled || want->recall)) scorer_keep(s->scorer, j, b->acts.y);
    if (!want->recall) return;
    assistant_clusters(a, b->clusters, b->acts.y, &s->arena);
    dev_download(s->dev, s->chosen + j * tensor_count(b->clusters), b->clusters);
}

static bool score_anchors(Simulator *s, const Assistant *a, const FeaturePack *pack,
                          const SimulateJob *job, int64_t rows, const Wanted *want, Err *err) {
    const ScoreCall call = {.job = job, .of = s->job, .T = s->T, .anchor = s->anchor, .rows = rows};
    if (s->scorer != NULL && (want->sampled || want->recall) &&
        !scorer_run(s->scorer, a, pack, &call, want->recall ? s->target_best : NULL, &s->impossible,
                    err))
        return false;
    if (want->recall) keep_recall(s, a->cfg.cluster_topk, job, rows);
    return dev_sync(s->dev, err);
}

// All K steps of the `rows` anchors described by s->T, seq_of, job, anchor.
static bool run_anchors(Simulator *s, const Assistant *a, const FeaturePack *pack,
                        const SimulateJob *job, int64_t rows, const Wanted *want, Err *err) {
    Buffers b;
    AnchorSet set = {0};
    AnchorPlan plan = {0};
    arena_reset(&s->arena, 0);
    buffers_take(a, &b, rows, &s->arena);
    features_anchors(pack, s->dev, a, s->T, s->seq_of, rows, &set, s->seg[LAYER_SLIDING],
                     s->seg[LAYER_FULL], b.row_index, b.feature0);
    anchor_plan(a, &set, &plan, &s->arena);
    for (int j = 0; j < s->K; j++) {
        for (int64_t r = 0; r < rows; r++) {
            const SimulateJob *o = &job[s->job[r]];
            s->token[r] = s->T[r] + j < o->n ? o->ids[s->T[r] + j] : -1;
        }
        dev_upload(s->dev, b.tokens, s->token);
        assistant_step(a, &plan, b.tokens, j == 0 ? b.feature0 : b.acts.f, &b.acts, j + 1 < s->K);
        for (int head = HEAD_DENSE; head <= HEAD_CENTROID; head++) {
            if (!want->head[head]) continue;
            if (!top2_of_step(s, a, &b, (Head)head, want->top[head], err) ||
                !keep_step(s, job, (Head)head, rows, j, err))
                return false;
        }
        keep_state(s, a, &b, want, j);
    }
    return score_anchors(s, a, pack, job, rows, want, err);
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
