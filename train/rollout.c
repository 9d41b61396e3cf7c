// train/rollout.c - K draft steps of all anchors forward, the loss of all steps, back through the
// steps.
#include "train/rollout.h"

#include <math.h>
#include <stdlib.h>

#include "train/loss.h"

// Device memory of one run.
typedef struct {
    Tensor tokens, row_index; // I32 (K, rows), (1, rows)
    StepActs step[DRAFT_MAX];
    Tensor y, dy;       // of all steps: row j * rows + r
    Tensor dfeature[2]; // F32 (rows, B): gradients of the features of neighbouring steps
    AnchorPlan plan;
} Acts;

struct Rollout {
    RolloutOptions opt;
    HeadLoss *loss;
    Arena arena; // part of the caller's
    LossItem *item;
    int64_t items;        // of the last run
    uint32_t *seen, *hit; // (max_rows) bit j: step j has a label, and its draft is the label
    AttnSeg seg[2][PACK_SEQS_MAX];
};

static LossOptions loss_options(const RolloutOptions *o, float softcap) {
    return (LossOptions){.kind = o->loss,
                         .mix = o->hybrid_kl,
                         .temperature = o->temperature,
                         .softcap = softcap,
                         .route = o->route,
                         .route_detached = o->route_detached,
                         .max_items = o->K * o->max_rows,
                         .max_teachers = o->max_tokens,
                         .per_teacher = o->K,
                         .head_bytes = o->head_bytes};
}

static void take_acts(const Assistant *a, const RolloutOptions *o, Acts *s, int64_t rows, bool grad,
                      Arena *arena) {
    const int64_t B = a->cfg.backbone, H = a->cfg.text.hidden;
    *s = (Acts){0};
    s->tokens = tensor_take(arena, DT_I32, o->K, rows);
    s->row_index = tensor_take(arena, DT_I32, 1, rows);
    s->y = tensor_take(arena, a->dtype, o->K * rows, H);
    if (grad) {
        s->dy = tensor_take(arena, DT_F32, o->K * rows, H);
        for (int i = 0; i < 2; i++) s->dfeature[i] = tensor_take(arena, DT_F32, rows, B);
    }
    for (int j = 0; j < o->K; j++) {
        assistant_acts_take(a, &s->step[j], rows, true, arena);
        s->step[j].y = tensor_rows(s->y, j * rows, rows);
        if (j > 0) s->step[j - 1].f = assistant_feature_slot(a, &s->step[j]);
    }
}

size_t rollout_bytes(const Assistant *a, const TargetConfig *tc, const RolloutOptions *opt) {
    const LossOptions lo = loss_options(opt, 0.0f);
    Arena count;
    Acts acts;
    arena_open(&count, NULL, 0);
    take_acts(a, opt, &acts, opt->max_rows, true, &count);
    const size_t head = head_loss_bytes(a, tc, &lo), back = assistant_back_bytes(a, opt->max_rows);
    return count.peak + anchor_plan_bytes(a, opt->max_rows) + (head > back ? head : back);
}

Rollout *rollout_open(const Assistant *a, const TargetConfig *tc, float softcap,
                      const RolloutOptions *opt, Arena *arena, Err *err) {
    CHECK(opt->K >= 1 && opt->K <= DRAFT_MAX && opt->max_rows > 0);
    Rollout *r = calloc(1, sizeof *r);
    CHECK_MEMORY(r);
    const LossOptions lo = loss_options(opt, softcap);
    const size_t bytes = rollout_bytes(a, tc, opt);
    r->opt = *opt;
    if ((r->loss = head_loss_open(a, tc, &lo, err)) == NULL) goto fail;
    r->item = malloc((size_t)lo.max_items * sizeof *r->item);
    r->seen = malloc((size_t)opt->max_rows * sizeof *r->seen);
    r->hit = malloc((size_t)opt->max_rows * sizeof *r->hit);
    if (r->item == NULL || r->seen == NULL || r->hit == NULL) {
        err_set(err, ERR_FAILED, "no memory for %lld rows of loss", (long long)lo.max_items);
        goto fail;
    }
    arena_open(&r->arena, arena_take(arena, bytes), bytes);
    CHECK(r->arena.block != NULL);
    return r;
fail:
    rollout_close(r);
    return NULL;
}

void rollout_close(Rollout *r) {
    if (r == NULL) return;
    head_loss_close(r->loss);
    free(r->item);
    free(r->seen);
    free(r->hit);
    free(r);
}

// The rows that carry weight; their sum of weights.
static int64_t list_items(const Rollout *r, const Batch *b, const FeaturePack *pack,
                          const float *weight, double *sum) {
    int64_t n = 0;
    *sum = 0.0;
    for (int64_t i = 0; i < r->opt.K * b->rows; i++) {
        if (weight[i] == 0.0f || !b->valid[i]) continue;
        const int64_t j = i / b->rows, a = i % b->rows, s = b->seq_of[a];
        const int64_t at = pack->start[s] + b->T[a] + j;
        CHECK(b->token[i] >= 0 && b->label[i] >= 0 && at < pack->start[s + 1],
              "(step %lld of anchor %d)", (long long)j, b->T[a]);
        *sum += weight[i];
        r->item[n++] = (LossItem){
            .y = (int32_t)i, .teacher = (int32_t)at, .label = b->label[i], .weight = weight[i]};
    }
    for (int64_t i = 0; i < n; i++) r->item[i].weight = (float)(r->item[i].weight / *sum);
    return n;
}

static void forward(Rollout *r, const Assistant *a, const Batch *b, const FeaturePack *pack,
                    Acts *s) {
    AnchorSet set;
    const Tensor feature = assistant_feature_slot(a, &s->step[0]);
    features_anchors(pack, a->dev, a, b->T, b->seq_of, b->rows, &set, r->seg[LAYER_SLIDING],
                     r->seg[LAYER_FULL], s->row_index, feature);
    anchor_plan(a, &set, &s->plan, &r->arena);
    dev_upload(a->dev, s->tokens, b->token);
    for (int j = 0; j < r->opt.K; j++)
        assistant_step(a, &s->plan, tensor_rows(s->tokens, j, 1),
                       assistant_feature_slot(a, &s->step[j]), &s->step[j], j + 1 < r->opt.K);
}

static void backward(Rollout *r, const Assistant *a, Acts *s, AssistantWeights *g) {
    const int64_t rows = s->row_index.cols;
    Tensor df = NO_TENSOR;
    for (int j = r->opt.K - 1; j >= 0; j--) {
        const bool chained = j > 0 && !r->opt.detach_feature;
        const Tensor before = chained ? s->dfeature[j % 2] : NO_TENSOR;
        if (chained) op_zero(a->dev, before);
        assistant_step_back(a, &s->plan, &s->step[j], tensor_rows(s->dy, j * rows, rows), df, g,
                            before, &r->arena);
        df = before;
    }
}

static bool all_finite(const Rollout *r, const Batch *b, int64_t n, Err *err) {
    for (int64_t i = 0; i < n; i++) {
        const LossItem *it = &r->item[i];
        const int64_t j = it->y / b->rows, anchor = it->y % b->rows, s = b->seq_of[anchor];
        if (!isfinite(it->loss))
            return err_set(
                err, ERR_FAILED, "loss %g at draft step %lld of anchor T %d in sequence %lld",
                (double)it->loss, (long long)j, b->T[anchor], (long long)b->seq_index[s]);
    }
    return true;
}

// How far each anchor's drafts match in a row: step j is looked at where all before it matched.
static void keep_rates(const Rollout *r, const Batch *b, int64_t n, RolloutStats *st) {
    memset(r->seen, 0, (size_t)b->rows * sizeof *r->seen);
    memset(r->hit, 0, (size_t)b->rows * sizeof *r->hit);
    for (int64_t i = 0; i < n; i++) {
        const LossItem *it = &r->item[i];
        const uint32_t bit = 1u << it->y / b->rows;
        r->seen[it->y % b->rows] |= bit;
        if (it->best == it->label) r->hit[it->y % b->rows] |= bit;
    }
    for (int64_t a = 0; a < b->rows; a++)
        for (int j = 0; j < r->opt.K && (r->seen[a] >> j & 1); j++) {
            st->step_reached[j]++;
            if (!(r->hit[a] >> j & 1)) break;
            st->step_keep[j]++;
        }
    for (int j = 0; j < r->opt.K; j++)
        if (st->step_reached[j] > 0) st->step_keep[j] /= (double)st->step_reached[j];
}

static void sum_up(const Rollout *r, const Batch *b, int64_t n, double weight, RolloutStats *st) {
    *st = (RolloutStats){.weight = weight};
    for (int64_t i = 0; i < n; i++) {
        const LossItem *it = &r->item[i];
        const int64_t j = it->y / b->rows;
        st->loss += (double)it->weight * it->loss;
        st->step_loss[j] += it->loss;
        st->step_match[j] += it->best == it->label;
        st->step_rows[j]++;
        st->fkl += it->fkl;
        st->tv += it->tv;
        st->route += it->route;
    }
    for (int j = 0; j < r->opt.K; j++) {
        const double rows = st->step_rows[j] ? (double)st->step_rows[j] : 1.0;
        st->step_loss[j] /= rows;
        st->step_match[j] /= rows;
    }
    keep_rates(r, b, n, st);
    const double rows = n ? (double)n : 1.0;
    st->fkl /= rows;
    st->tv /= rows;
    st->route /= rows;
}

void rollout_by_sequence(const Rollout *r, const Batch *b, double *loss, double *weight) {
    for (int64_t i = 0; i < r->items; i++) {
        const LossItem *it = &r->item[i];
        const int32_t s = b->seq_of[it->y % b->rows];
        loss[s] += (double)it->weight * it->loss;
        weight[s] += it->weight;
    }
}

bool rollout_run(Rollout *r, const Assistant *a, const Batch *b, const FeaturePack *pack,
                 const float *weight, AssistantWeights *g, RolloutStats *stats, Err *err) {
    Acts acts;
    double sum;
    CHECK(b->rows <= r->opt.max_rows && pack->rows <= r->opt.max_tokens);
    const int64_t n = list_items(r, b, pack, weight, &sum);
    *stats = (RolloutStats){0};
    r->items = n;
    if (n == 0) return true;
    arena_reset(&r->arena, 0);
    take_acts(a, &r->opt, &acts, b->rows, g != NULL, &r->arena);
    forward(r, a, b, pack, &acts);
    if (g) op_zero(a->dev, acts.dy);
    head_loss_run(r->loss, a, pack, r->item, n, acts.y, acts.dy, g, &r->arena);
    if (!dev_sync(a->dev, err) || !all_finite(r, b, n, err)) return false;
    if (g) backward(r, a, &acts, g);
    sum_up(r, b, n, sum, stats);
    return dev_sync(a->dev, err);
}
