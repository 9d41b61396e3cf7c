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
    Arena arena;          // part of the caller's
    LossItem *item;       // of a tile
    int32_t *token;       // (K, tile) of a tile that is not the whole batch
    uint32_t *seen, *hit; // (tile) bit j: step j has a label, and its draft is the label
    double seq_loss[PACK_SEQS_MAX], seq_weight[PACK_SEQS_MAX]; // of the last run
    AttnSeg seg[2][PACK_SEQS_MAX];
};

// Anchors first .. first+rows-1 of a batch; its items name rows of the tile: j * rows + anchor.
typedef struct {
    const Batch *b;
    int64_t first, rows;
} Tile;

static int64_t tile_rows(const RolloutOptions *o) {
    return o->tile > 0 && o->tile < o->max_rows ? o->tile : o->max_rows;
}

static LossOptions loss_options(const RolloutOptions *o, float softcap) {
    return (LossOptions){.kind = o->loss,
                         .mix = o->hybrid_kl,
                         .temperature = o->temperature,
                         .softcap = softcap,
                         .route = o->route,
                         .route_detached = o->route_detached,
                         .max_items = o->K * tile_rows(o),
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
    const int64_t rows = tile_rows(opt);
    take_acts(a, opt, &acts, rows, true, &count);
    const size_t head = head_loss_bytes(a, tc, &lo), back = assistant_back_bytes(a, rows);
    return count.peak + anchor_plan_bytes(a, rows) + (head > back ? head : back);
}

size_t rollout_host_bytes(const RolloutOptions *opt) {
    const LossOptions lo = loss_options(opt, 0.0f);
    const int64_t rows = tile_rows(opt);
    return head_loss_host_bytes(&lo) + (size_t)lo.max_items * sizeof(LossItem) +
           (size_t)rows * (2 * sizeof(uint32_t) + (size_t)opt->K * sizeof(int32_t));
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
    const size_t rows = (size_t)tile_rows(opt);
    r->token = malloc((size_t)opt->K * rows * sizeof *r->token);
    r->seen = malloc(rows * sizeof *r->seen);
    r->hit = malloc(rows * sizeof *r->hit);
    if (r->item == NULL || r->token == NULL || r->seen == NULL || r->hit == NULL) {
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
    free(r->token);
    free(r->seen);
    free(r->hit);
    free(r);
}

static bool counts(const Batch *b, const float *weight, int64_t i) {
    return weight[i] != 0.0f && b->valid[i];
}

double rollout_weight(const Rollout *r, const Batch *b, const float *weight) {
    double sum = 0.0;
    for (int64_t i = 0; i < r->opt.K * b->rows; i++)
        if (counts(b, weight, i)) sum += weight[i];
    return sum;
}

// The rows of a tile that carry weight; sum: of the weights of the batch.
static int64_t list_items(const Rollout *r, const Tile *t, const FeaturePack *pack,
                          const float *weight, double sum) {
    const Batch *b = t->b;
    int64_t n = 0;
    for (int64_t k = 0; k < r->opt.K * t->rows; k++) {
        const int64_t j = k / t->rows, a = t->first + k % t->rows, i = j * b->rows + a;
        if (!counts(b, weight, i)) continue;
        const int64_t s = b->seq_of[a], at = pack->start[s] + b->T[a] + j;
        CHECK(b->token[i] >= 0 && b->label[i] >= 0 && at < pack->start[s + 1],
              "(step %lld of anchor %d)", (long long)j, b->T[a]);
        r->item[n++] = (LossItem){.y = (int32_t)k,
                                  .teacher = (int32_t)at,
                                  .label = b->label[i],
                                  .weight = (float)((double)weight[i] / sum)};
    }
    return n;
}

// Tokens of a tile, (K, rows).
static const int32_t *tokens_of(Rollout *r, const Tile *t) {
    if (t->rows == t->b->rows) return t->b->token;
    for (int64_t j = 0; j < r->opt.K; j++)
        memcpy(r->token + j * t->rows, t->b->token + j * t->b->rows + t->first,
               (size_t)t->rows * sizeof *r->token);
    return r->token;
}

static void forward(Rollout *r, const Assistant *a, const Tile *t, const FeaturePack *pack,
                    Acts *s) {
    AnchorSet set;
    const Tensor feature = assistant_feature_slot(a, &s->step[0]);
    features_anchors(pack, a->dev, a, t->b->T + t->first, t->b->seq_of + t->first, t->rows, &set,
                     r->seg[LAYER_SLIDING], r->seg[LAYER_FULL], s->row_index, feature);
    anchor_plan(a, &set, &s->plan, &r->arena);
    dev_upload(a->dev, s->tokens, tokens_of(r, t));
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

static bool all_finite(const Rollout *r, const Tile *t, int64_t n, Err *err) {
    const Batch *b = t->b;
    for (int64_t i = 0; i < n; i++) {
        const LossItem *it = &r->item[i];
        const int64_t j = it->y / t->rows, anchor = t->first + it->y % t->rows,
                      s = b->seq_of[anchor];
        if (!isfinite(it->loss))
            return err_set(
                err, ERR_FAILED, "loss %g at draft step %lld of anchor T %d in sequence %lld",
                (double)it->loss, (long long)j, b->T[anchor], (long long)b->seq_index[s]);
    }
    return true;
}

// How far each anchor's drafts match in a row: step j is looked at where all before it matched.
static void add_keeps(const Rollout *r, const Tile *t, int64_t n, RolloutStats *st) {
    memset(r->seen, 0, (size_t)t->rows * sizeof *r->seen);
    memset(r->hit, 0, (size_t)t->rows * sizeof *r->hit);
    for (int64_t i = 0; i < n; i++) {
        const LossItem *it = &r->item[i];
        const uint32_t bit = 1u << it->y / t->rows;
        r->seen[it->y % t->rows] |= bit;
        if (it->best == it->label) r->hit[it->y % t->rows] |= bit;
    }
    for (int64_t a = 0; a < t->rows; a++) {
        const double share = batch_share(t->b, t->first + a);
        for (int j = 0; j < r->opt.K && (r->seen[a] >> j & 1); j++) {
            st->step_reached[j] += share;
            if (!(r->hit[a] >> j & 1)) break;
            st->step_keep[j] += share;
        }
    }
}

static void add_stats(Rollout *r, const Tile *t, int64_t n, RolloutStats *st) {
    for (int64_t i = 0; i < n; i++) {
        const LossItem *it = &r->item[i];
        const int64_t j = it->y / t->rows;
        const int32_t s = t->b->seq_of[t->first + it->y % t->rows];
        r->seq_loss[s] += (double)it->weight * it->loss;
        r->seq_weight[s] += it->weight;
        st->loss += (double)it->weight * it->loss;
        st->step_loss[j] += it->loss;
        st->step_match[j] += it->best == it->label;
        st->step_rows[j]++;
        st->fkl += it->fkl;
        st->tv += it->tv;
        st->route += it->route;
    }
    add_keeps(r, t, n, st);
}

void rollout_means(RolloutStats *st) {
    int64_t n = 0;
    for (int j = 0; j < DRAFT_MAX; j++) {
        const double rows = st->step_rows[j] ? (double)st->step_rows[j] : 1.0;
        st->step_loss[j] /= rows;
        st->step_match[j] /= rows;
        if (st->step_reached[j] > 0) st->step_keep[j] /= st->step_reached[j];
        n += st->step_rows[j];
    }
    const double rows = n ? (double)n : 1.0;
    st->fkl /= rows;
    st->tv /= rows;
    st->route /= rows;
}

void rollout_by_sequence(const Rollout *r, const Batch *b, double *loss, double *weight) {
    for (int s = 0; s < b->nseq; s++) {
        loss[s] += r->seq_loss[s];
        weight[s] += r->seq_weight[s];
    }
}

// The n items of a tile, listed before.
static bool run_tile(Rollout *r, const Assistant *a, const Tile *t, const FeaturePack *pack,
                     int64_t n, AssistantWeights *g, RolloutStats *stats, Err *err) {
    const bool last = t->first + t->rows == t->b->rows;
    Acts acts;
    arena_reset(&r->arena, 0);
    take_acts(a, &r->opt, &acts, t->rows, g != NULL, &r->arena);
    forward(r, a, t, pack, &acts);
    if (g) op_zero(a->dev, acts.dy);
    head_loss_run(r->loss, a, pack, r->item, n, acts.y, acts.dy, g, &r->arena);
    if (!dev_sync(a->dev, err) || !all_finite(r, t, n, err)) return false;
    if (g && last && r->opt.head_done) r->opt.head_done(r->opt.head_ctx);
    if (g) backward(r, a, &acts, g);
    add_stats(r, t, n, stats);
    return dev_sync(a->dev, err);
}

bool rollout_part(Rollout *r, const Assistant *a, const Batch *b, const FeaturePack *pack,
                  const float *weight, double total, AssistantWeights *g, RolloutStats *stats,
                  Err *err) {
    CHECK(b->rows <= r->opt.max_rows && pack->rows <= r->opt.max_tokens);
    const int64_t most = tile_rows(&r->opt);
    *stats = (RolloutStats){.weight = total};
    memset(r->seq_loss, 0, sizeof r->seq_loss);
    memset(r->seq_weight, 0, sizeof r->seq_weight);
    for (Tile t = {.b = b}; t.first < b->rows; t.first += t.rows) {
        t.rows = b->rows - t.first < most ? b->rows - t.first : most;
        const int64_t n = list_items(r, &t, pack, weight, total);
        if (n > 0 && !run_tile(r, a, &t, pack, n, g, stats, err)) return false;
    }
    return true;
}

bool rollout_run(Rollout *r, const Assistant *a, const Batch *b, const FeaturePack *pack,
                 const float *weight, AssistantWeights *g, RolloutStats *stats, Err *err) {
    const double total = rollout_weight(r, b, weight);
    if (!rollout_part(r, a, b, pack, weight, total, g, stats, err)) return false;
    rollout_means(stats);
    return true;
}
