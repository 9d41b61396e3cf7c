// infer/decode/draft.c - anchors of many cache slots in one set, and the draft steps over them.
#include "infer/decode/draft.h"

#include <math.h>
#include <stdlib.h>

#include "infer/base/rng.h"

enum { LOGIT_BYTES = 64 << 20 }; // of the tile of logits that drawing needs

// Rows of a shared layer in feature_dtype: (capacity, kv_width).
typedef struct {
    Tensor k, v;
} Copy;

// Device tensors of one call, for n lanes.
typedef struct {
    Tensor row, feature, token, best, id, lse;
    StepActs acts;
} Buffers;

struct Drafts {
    Target *target;
    const Assistant *a;
    Device *dev;
    const KvCache *kv;
    int slots, k;
    DType feature_dtype;
    Copy *copy;    // (slots, 2): slot, then kind; NULL where the cache is read itself
    int64_t *kept; // (slots): rows copied
    void *block;
    Arena arena; // copies and the logit tile, from `fixed` on the buffers of a call
    size_t fixed;
    int64_t tile_rows;             // 0: nothing is drawn
    Tensor z, id_of;               // (tile_rows, columns of the wider head)
    AttnSeg *seg[2];               // (slots)
    int32_t *T, *token, *row, *id; // (slots); id (slots, 2)
    float *best, *lse;             // (slots, 2)
    bool *ended;                   // (slots)
    float *z_host, *all;           // a tile; (V) with -inf where a head offers nothing
    int32_t *id_host;
    Dist dist, *q; // q: (slots, k)
};

static bool copies(const DraftOptions *opt, DType kv_dtype) {
    return opt->feature_dtype != kv_dtype || opt->assistant->window_extra > 0;
}

static int64_t wider_head(const Assistant *a) {
    return assistant_logit_cols(a, HEAD_DENSE); // the centroid head offers a part of it
}

static int64_t tile_rows(const Assistant *a, bool sampled, int slots) {
    const int64_t fit = LOGIT_BYTES / (4 * wider_head(a));
    return !sampled ? 0 : fit < 1 ? 1 : fit > slots ? slots : fit;
}

static void buffers_take(const Assistant *a, Buffers *b, DType feature, int64_t n, Arena *arena) {
    b->row = tensor_take(arena, DT_I32, 1, n);
    b->feature = tensor_take(arena, feature, n, a->cfg.backbone);
    b->token = tensor_take(arena, DT_I32, 1, n);
    b->best = tensor_take(arena, DT_F32, n, 2);
    b->id = tensor_take(arena, DT_I32, n, 2);
    b->lse = tensor_take(arena, DT_F32, n, 2);
    assistant_acts_take(a, &b->acts, n, false, arena);
}

static void take_fixed(Drafts *d, const TargetConfig *c, bool copied, int64_t capacity,
                       Arena *arena) {
    d->z = tensor_take(arena, DT_F32, d->tile_rows, wider_head(d->a));
    d->id_of = tensor_take(arena, DT_I32, d->tile_rows, wider_head(d->a));
    for (int i = 0; copied && i < 2 * d->slots; i++) {
        const int layer = c->kv_source[i % 2];
        const int64_t width = layer_kv_heads(&c->text, layer) * layer_head_dim(&c->text, layer);
        const Copy one = {tensor_take(arena, d->feature_dtype, capacity, width),
                          tensor_take(arena, d->feature_dtype, capacity, width)};
        if (d->copy != NULL) d->copy[i] = one;
    }
}

static size_t call_bytes(const Drafts *d) {
    Arena plan;
    Buffers b;
    arena_open(&plan, NULL, 0);
    buffers_take(d->a, &b, d->feature_dtype, d->slots, &plan);
    arena_take(&plan, anchor_plan_bytes(d->a, d->slots));
    size_t head = 0; // not monotone in rows: its tiles have whole columns
    for (int64_t rows = 1; rows <= d->slots; rows++) {
        const size_t bytes = assistant_head_bytes(d->a, rows);
        if (bytes > head) head = bytes;
    }
    arena_take(&plan, head);
    return plan.peak;
}

static size_t all_bytes(Drafts *d, const TargetConfig *c, bool copied, int64_t capacity) {
    Arena plan;
    arena_open(&plan, NULL, 0);
    take_fixed(d, c, copied, capacity, &plan);
    arena_take(&plan, call_bytes(d));
    return plan.peak;
}

size_t drafts_bytes(const TargetConfig *c, const DraftOptions *opt, bool sampled, int slots,
                    int64_t capacity, DType kv_dtype) {
    if (opt->assistant == NULL) return 0;
    Drafts d = {.a = opt->assistant, .slots = slots, .feature_dtype = opt->feature_dtype};
    d.tile_rows = tile_rows(d.a, sampled, slots);
    return all_bytes(&d, c, copies(opt, kv_dtype), capacity);
}

static bool take_host(Drafts *d, bool copied) {
    const size_t n = (size_t)d->slots, V = (size_t)wider_head(d->a);
    const size_t tile = (size_t)d->tile_rows * V + 1;
    if (copied) d->copy = calloc(2 * n, sizeof *d->copy);
    d->kept = calloc(n, sizeof *d->kept);
    d->seg[0] = calloc(n, sizeof **d->seg);
    d->seg[1] = calloc(n, sizeof **d->seg);
    d->T = calloc(n, sizeof *d->T);
    d->token = calloc(n, sizeof *d->token);
    d->row = calloc(n, sizeof *d->row);
    d->id = calloc(2 * n, sizeof *d->id);
    d->best = calloc(2 * n, sizeof *d->best);
    d->lse = calloc(2 * n, sizeof *d->lse);
    d->ended = calloc(n, sizeof *d->ended);
    d->z_host = calloc(tile, sizeof *d->z_host);
    d->id_host = calloc(tile, sizeof *d->id_host);
    d->all = calloc(V, sizeof *d->all);
    d->q = calloc(n * (size_t)d->k + 1, sizeof *d->q);
    return (!copied || d->copy) && d->kept && d->seg[0] && d->seg[1] && d->T && d->token &&
           d->row && d->id && d->best && d->lse && d->ended && d->z_host && d->id_host && d->all &&
           d->q;
}

Drafts *drafts_open(Target *t, const KvCache *kv, const DraftOptions *opt, bool sampled, int slots,
                    int64_t capacity, Err *err) {
    CHECK(opt->assistant != NULL && opt->k >= 1 && opt->k <= DRAFT_MAX && slots >= 1);
    const TargetConfig *c = target_config(t);
    const bool copied =
        copies(opt, kv_view(kv, 0, c->kv_source[LAYER_FULL]).k.dtype); // of all its layers
    Drafts *d = calloc(1, sizeof *d);
    CHECK_MEMORY(d);
    *d = (Drafts){.target = t,
                  .a = opt->assistant,
                  .dev = target_device(t),
                  .kv = kv,
                  .slots = slots,
                  .k = opt->k,
                  .feature_dtype = opt->feature_dtype};
    d->tile_rows = tile_rows(d->a, sampled, slots);
    if (!take_host(d, copied)) {
        err_set(err, ERR_FAILED, "no memory for drafts of %d sequences", slots);
        goto fail;
    }
    const size_t bytes = all_bytes(d, c, copied, capacity);
    if ((d->block = dev_alloc(d->dev, bytes, err)) == NULL) goto fail;
    arena_open(&d->arena, d->block, bytes);
    take_fixed(d, c, copied, capacity, &d->arena);
    d->fixed = arena_mark(&d->arena);
    return d;
fail:
    drafts_close(d);
    return NULL;
}

void drafts_close(Drafts *d) {
    if (d == NULL) return;
    if (d->block != NULL) dev_free(d->dev, d->block);
    for (int i = 0; d->q != NULL && i < d->slots * d->k; i++) dist_free(&d->q[i]);
    dist_free(&d->dist);
    void *const host[] = {d->copy,  d->kept,   d->seg[0],  d->seg[1], d->T,
                          d->token, d->row,    d->id,      d->best,   d->lse,
                          d->ended, d->z_host, d->id_host, d->all,    d->q};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++) free(host[i]);
    free(d);
}

void drafts_clear(Drafts *d, int slot) {
    d->kept[slot] = 0;
}

void drafts_keep(Drafts *d, int slot) {
    const int64_t from = d->kept[slot], to = kv_length(d->kv, slot);
    d->kept[slot] = to;
    for (int kind = 0; d->copy != NULL && kind < 2 && to > from; kind++) {
        const int layer = target_config(d->target)->kv_source[kind];
        const KvView rows = kv_rows(d->kv, slot, layer, from, to - from);
        const Copy *c = &d->copy[2 * slot + kind];
        op_copy(d->dev, tensor_rows(c->k, from, to - from), rows.k);
        op_copy(d->dev, tensor_rows(c->v, from, to - from), rows.v);
    }
}

static AttnSeg segment(const Drafts *d, int slot, int kind, int lane) {
    AttnSeg seg = {.q0 = lane, .nq = 1};
    if (d->copy != NULL) {
        seg.k = tensor_rows(d->copy[2 * slot + kind].k, 0, d->kept[slot]);
        seg.v = tensor_rows(d->copy[2 * slot + kind].v, 0, d->kept[slot]);
        return seg;
    }
    const KvView view = kv_view(d->kv, slot, target_config(d->target)->kv_source[kind]);
    seg.k = view.k;
    seg.v = view.v;
    seg.first = view.first;
    return seg;
}

// Lanes become anchors; features come from their rows of hidden.
static void place(Drafts *d, int k, const DraftLane *lane, int n, Tensor hidden, Buffers *b,
                  AnchorPlan *plan) {
    for (int i = 0; i < n; i++) {
        DraftRound *r = lane[i].round;
        CHECK(r->T == kv_length(d->kv, lane[i].slot) &&
              (!d->copy || r->T == d->kept[lane[i].slot]));
        for (int kind = 0; kind < 2; kind++) d->seg[kind][i] = segment(d, lane[i].slot, kind, i);
        d->T[i] = (int32_t)r->T;
        d->token[i] = lane[i].bonus;
        d->row[i] = lane[i].hidden_row;
        d->ended[i] = false;
        r->wanted = k;
        r->drafted = 0;
    }
    arena_reset(&d->arena, d->fixed);
    buffers_take(d->a, b, d->feature_dtype, n, &d->arena);
    dev_upload(d->dev, b->row, d->row);
    op_gather(d->dev, b->feature, hidden, b->row, 1.0f);
    const AnchorSet set = {.rows = n, .T = d->T, .seg = {d->seg[0], d->seg[1]}, .nseg = n};
    anchor_plan(d->a, &set, plan, &d->arena);
}

static bool not_finite(const DraftRound *r, int j, Err *err) {
    return err_set(err, ERR_FAILED, "logits of the drafter are not finite at T %lld, step %d",
                   (long long)r->T, j);
}

static void add_draft(Drafts *d, int lane, DraftRound *r, int32_t id, float margin) {
    r->margin[r->drafted] = margin;
    d->token[lane] = r->draft[r->drafted++] = id;
}

static bool take_best(Drafts *d, const DraftOptions *opt, const DraftLane *lane, int n, int j,
                      const Buffers *b, Err *err) {
    const bool bounded = opt->p_min > 0;
    dev_download(d->dev, d->id, b->id);
    dev_download(d->dev, d->best, b->best);
    if (bounded) dev_download(d->dev, d->lse, b->lse);
    if (!dev_sync(d->dev, err)) return false;
    for (int i = 0; i < n; i++) {
        if (d->ended[i]) continue;
        if (!isfinite(d->best[2 * i])) return not_finite(lane[i].round, j, err);
        d->ended[i] = bounded && 1.0 / (double)d->lse[2 * i + 1] < opt->p_min;
        if (!d->ended[i])
            add_draft(d, i, lane[i].round, d->id[2 * i], d->best[2 * i] - d->best[2 * i + 1]);
    }
    return true;
}

// Logits of lane `row` of the tile, by token id.
static const float *by_token(const Drafts *d, Head head, int64_t row) {
    const int64_t cols = assistant_logit_cols(d->a, head);
    const float *z = d->z_host + row * cols;
    if (head == HEAD_DENSE) return z;
    for (int64_t v = 0; v < wider_head(d->a); v++) d->all[v] = -INFINITY;
    for (int64_t i = 0; i < cols; i++) d->all[d->id_host[row * cols + i]] = z[i];
    return d->all;
}

static bool draw(Drafts *d, const DraftOptions *opt, const Sampler *s, const DraftLane *lane, int n,
                 int j, const Buffers *b, Err *err) {
    const int64_t cols = assistant_logit_cols(d->a, opt->head);
    for (int64_t at = 0; at < n; at += d->tile_rows) {
        const int64_t m = n - at < d->tile_rows ? n - at : d->tile_rows;
        const Tensor z = tensor_of(d->z.data, DT_F32, m, cols);
        const Tensor id = tensor_of(d->id_of.data, DT_I32, m, cols);
        assistant_logits(d->a, opt->head, z, id, tensor_rows(b->acts.y, at, m), &d->arena);
        dev_download(d->dev, d->z_host, z);
        if (opt->head == HEAD_CENTROID) dev_download(d->dev, d->id_host, id);
        if (!dev_sync(d->dev, err)) return false;
        for (int64_t i = at; i < at + m; i++) {
            if (d->ended[i]) continue;
            dist_from_logits(&d->dist, by_token(d, opt->head, i - at), wider_head(d->a), s);
            if (d->dist.n == 0) return not_finite(lane[i].round, j, err);
            d->ended[i] = dist_top(&d->dist) < opt->p_min;
            if (d->ended[i]) continue;
            const double u =
                rng_uniform(s->seed, RNG_DRAFT, lane[i].stream, (uint64_t)(lane[i].at + j));
            dist_copy(&d->q[i * d->k + j], &d->dist);
            add_draft(d, (int)i, lane[i].round, dist_pick(&d->dist, u), 0.0f);
        }
    }
    return true;
}

static bool all_ended(const Drafts *d, int n) {
    for (int i = 0; i < n; i++)
        if (!d->ended[i]) return false;
    return true;
}

// A step and, where nothing is drawn, its best tokens: launches that take longer than their
// kernels, so they go to the device as a span.
static void draft_step(Drafts *d, const DraftOptions *opt, const AnchorPlan *plan, Buffers *b,
                       int j, bool drawn) {
    const bool bounded = opt->p_min > 0;
    dev_span_begin(d->dev);
    assistant_step(d->a, plan, b->token, j == 0 ? b->feature : b->acts.f, &b->acts, j + 1 < opt->k);
    if (!drawn)
        assistant_top2(d->a, opt->head, b->best, b->id, bounded ? b->lse : NO_TENSOR, b->acts.y,
                       &d->arena);
    dev_span_end(d->dev);
}

bool drafts_make(Drafts *d, const DraftOptions *opt, const Sampler *s, const DraftLane *lane, int n,
                 Tensor hidden, Err *err) {
    Buffers b;
    AnchorPlan plan;
    const bool drawn = s->temperature > 0 && opt->rule != DRAFT_BEST;
    CHECK(n >= 1 && n <= d->slots && opt->k <= d->k && (!drawn || d->tile_rows > 0));
    place(d, opt->k, lane, n, hidden, &b, &plan);
    for (int j = 0; j < opt->k && !all_ended(d, n); j++) {
        dev_upload(d->dev, b.token, d->token);
        draft_step(d, opt, &plan, &b, j, drawn);
        if (!(drawn ? draw(d, opt, s, lane, n, j, &b, err)
                    : take_best(d, opt, lane, n, j, &b, err)))
            return false;
    }
    return true;
}

const Dist *drafts_drawn_from(const Drafts *d, int lane) {
    return &d->q[lane * d->k];
}
