// infer/decode/simulate.c - teacher-forced rollout of all anchors, the two best tokens of every
// step.
#include "infer/decode/simulate.h"

#include <math.h>
#include <stdlib.h>

// Device tensors of one call, for `rows` anchors.
typedef struct {
    Tensor row_index, feature0, tokens, best, id;
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
    float *best;                            // host (max_anchors, 2)
};

static void buffers_take(const Assistant *a, Buffers *b, int64_t rows, Arena *arena) {
    b->row_index = tensor_take(arena, DT_I32, 1, rows);
    b->feature0 = tensor_take(arena, a->dtype, rows, a->cfg.backbone);
    b->tokens = tensor_take(arena, DT_I32, 1, rows);
    b->best = tensor_take(arena, DT_F32, rows, 2);
    b->id = tensor_take(arena, DT_I32, rows, 2);
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
    if (!s->T || !s->seq_of || !s->job || !s->token || !s->id || !s->anchor || !s->best)
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
    free(s);
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
    }
    return true;
}

// All K steps of the `rows` anchors described by s->T, seq_of, job, anchor.
static bool run_anchors(Simulator *s, const Assistant *a, const FeaturePack *pack,
                        const SimulateJob *job, int64_t rows, const bool want[2], Err *err) {
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
            if (!want[head]) continue;
            assistant_top2(a, (Head)head, b.best, b.id, NO_TENSOR, b.acts.y, &s->arena);
            dev_download(s->dev, s->id, b.id);
            dev_download(s->dev, s->best, b.best);
            if (!dev_sync(s->dev, err) || !keep_step(s, job, (Head)head, rows, j, err))
                return false;
        }
    }
    return true;
}

bool simulator_run(Simulator *s, const Assistant *a, const FeaturePack *pack,
                   const SimulateJob *job, int jobs, Err *err) {
    bool want[2] = {false, false};
    int64_t rows = 0;
    for (int i = 0; i < jobs; i++) {
        const SimulateJob *o = &job[i];
        CHECK(o->seq >= 0 && o->seq < pack->nseq && (i == 0 || o->seq > job[i - 1].seq));
        CHECK(o->first >= 1 && pack->start[o->seq + 1] - pack->start[o->seq] >= o->n - 2);
        for (int head = 0; head < 2; head++) want[head] |= o->drafts[head] || o->margin[head];
        for (int64_t T = o->first; T < o->n - 1; T++) {
            s->T[rows] = (int32_t)T;
            s->seq_of[rows] = o->seq;
            s->job[rows] = i;
            s->anchor[rows] = T - o->first;
            if (++rows < s->max_anchors) continue;
            if (!run_anchors(s, a, pack, job, rows, want, err)) return false;
            rows = 0;
        }
    }
    return rows == 0 || run_anchors(s, a, pack, job, rows, want, err);
}

bool simulator_drafts(Simulator *s, const Assistant *a, const FeaturePack *pack, int seq,
                      const int32_t *ids, int64_t n, int64_t first, Head head, int32_t *drafts,
                      float *margin, Err *err) {
    SimulateJob job = {.seq = seq, .ids = ids, .n = n, .first = first};
    job.drafts[head] = drafts;
    job.margin[head] = margin;
    return simulator_run(s, a, pack, &job, 1, err);
}
