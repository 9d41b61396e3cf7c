// eval/quant/step_walk.c - sequences are packed, their anchors cut into calls, steps rolled one by
// one.
#include "eval/quant/step_walk.h"

#include <stdlib.h>

struct Walk {
    const Assistant *a;
    SeqSource src;
    int K, every;
    int64_t max_anchors;
    void *block;
    Arena arena;
    size_t mark; // behind the pack
    FeaturePack pack;
    Tensor tokens;
    // The group being packed
    int n;
    CapturedSeq seq[PACK_SEQS_MAX];
    // A call
    int64_t rows;
    int32_t *T, *seq_of, *token; // (max_anchors), (K, max_anchors)
    uint8_t *valid;
    AttnSeg seg[2][PACK_SEQS_MAX];
};

static int64_t longest(const SeqSource *src) {
    int64_t most = 1;
    for (int64_t i = 0; i < src->count; i++) {
        const int64_t n = src->length(src->ctx, i);
        if (n > most) most = n;
    }
    return most;
}

// The pack holds the longest sequence, and as many anchors as a call has.
static int64_t pack_room(const SeqSource *src, int64_t max_anchors) {
    const int64_t most = longest(src);
    return most > max_anchors ? most : max_anchors;
}

typedef struct {
    Tensor row_index, feature0;
} CallRoom;

static CallRoom take_call(const Assistant *a, int64_t rows, Arena *arena) {
    const CallRoom c = {.row_index = tensor_take(arena, DT_I32, 1, rows),
                        .feature0 = tensor_take(arena, a->dtype, rows, a->cfg.backbone)};
    return c;
}

static void take_all(const TargetConfig *tc, int64_t room, int64_t max_anchors, FeaturePack *pack,
                     Tensor *tokens, Arena *arena) {
    features_take(pack, tc, room, DT_BF16, arena);
    *tokens = tensor_take(arena, DT_I32, 1, max_anchors);
}

size_t walk_bytes(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                  int64_t max_anchors) {
    Arena plan;
    FeaturePack pack;
    Tensor tokens;
    arena_open(&plan, NULL, 0);
    take_all(tc, pack_room(src, max_anchors), max_anchors, &pack, &tokens, &plan);
    take_call(a, max_anchors, &plan);
    arena_take(&plan, anchor_plan_bytes(a, max_anchors));
    return plan.peak;
}

Walk *walk_open(const Assistant *a, const TargetConfig *tc, const SeqSource *src, int K,
                int64_t max_anchors, int every, Err *err) {
    CHECK(K >= 1 && max_anchors >= 1 && every >= 1);
    const size_t n = (size_t)max_anchors, bytes = walk_bytes(a, tc, src, max_anchors);
    Walk *w = calloc(1, sizeof *w);
    CHECK_MEMORY(w);
    w->a = a;
    w->src = *src;
    w->K = K;
    w->every = every;
    w->max_anchors = max_anchors;
    w->T = calloc(n, sizeof *w->T);
    w->seq_of = calloc(n, sizeof *w->seq_of);
    w->token = calloc((size_t)K * n, sizeof *w->token);
    w->valid = calloc((size_t)K * n, 1);
    if (!w->T || !w->seq_of || !w->token || !w->valid) {
        err_set(err, ERR_FAILED, "no memory for %zu anchors", n);
        goto fail;
    }
    if ((w->block = dev_alloc(a->dev, bytes, err)) == NULL) goto fail;
    arena_open(&w->arena, w->block, bytes);
    take_all(tc, pack_room(src, max_anchors), max_anchors, &w->pack, &w->tokens, &w->arena);
    w->mark = arena_mark(&w->arena);
    return w;
fail:
    walk_close(w);
    return NULL;
}

static void drop_group(Walk *w) {
    for (int i = 0; i < w->n; i++) captured_free(&w->seq[i]);
    w->n = 0;
    features_clear(&w->pack);
}

void walk_close(Walk *w) {
    if (w == NULL) return;
    drop_group(w);
    if (w->block != NULL) dev_free(w->a->dev, w->block);
    free(w->T);
    free(w->seq_of);
    free(w->token);
    free(w->valid);
    free(w);
}

static void fill_tokens(Walk *w) {
    for (int j = 0; j < w->K; j++)
        for (int64_t r = 0; r < w->rows; r++) {
            const Sample *s = &w->seq[w->seq_of[r]].sample;
            const int64_t at = w->T[r] + j, i = j * w->rows + r;
            w->token[i] = at < s->n ? s->ids[at] : -1;
            w->valid[i] = at + 1 < s->n;
        }
}

static bool show(Walk *w, WalkVisit *visit, void *ctx, Err *err) {
    AnchorSet set = {0};
    AnchorPlan plan = {0};
    if (w->rows == 0) return true;
    arena_reset(&w->arena, w->mark);
    const CallRoom room = take_call(w->a, w->rows, &w->arena);
    features_anchors(&w->pack, w->a->dev, w->a, w->T, w->seq_of, w->rows, &set,
                     w->seg[LAYER_SLIDING], w->seg[LAYER_FULL], room.row_index, room.feature0);
    anchor_plan(w->a, &set, &plan, &w->arena);
    fill_tokens(w);
    const WalkChunk c = {.rows = w->rows,
                         .plan = &plan,
                         .feature0 = room.feature0,
                         .token = w->token,
                         .valid = w->valid};
    w->rows = 0;
    return visit(ctx, &c, err) && dev_sync(w->a->dev, err);
}

// The anchors of the packed sequences.
static bool run_group(Walk *w, WalkVisit *visit, void *ctx, Err *err) {
    for (int i = 0; i < w->n; i++) {
        const Sample *s = &w->seq[i].sample;
        for (int64_t T = s->prompt; T < s->n - 1; T += w->every) {
            w->T[w->rows] = (int32_t)T;
            w->seq_of[w->rows] = i;
            if (++w->rows == w->max_anchors && !show(w, visit, ctx, err)) return false;
        }
    }
    const bool ok = show(w, visit, ctx, err);
    drop_group(w);
    return ok;
}

static bool take_sequence(Walk *w, int64_t i, Err *err) {
    CapturedSeq *c = &w->seq[w->n];
    *c = (CapturedSeq){0};
    if (!w->src.read(w->src.ctx, i, c, err)) return false;
    w->n++; // from here on drop_group frees it
    const Sample *s = &c->sample;
    if (s->prompt < 1 || s->prompt > s->n || s->n > w->pack.room - w->pack.rows)
        return err_set(err, ERR_INPUT, "sequence %s: %lld tokens, prompt %lld, room for %lld",
                       s->id, (long long)s->n, (long long)s->prompt,
                       (long long)(w->pack.room - w->pack.rows));
    features_begin(&w->pack);
    features_load(&w->pack, w->a->dev, c->hidden, c->bare, (const void *const *)c->k,
                  (const void *const *)c->v, s->n);
    captured_drop_rows(c);
    return true;
}

bool walk_run(Walk *w, WalkVisit *visit, void *ctx, Err *err) {
    w->rows = 0;
    drop_group(w);
    for (int64_t i = 0; i < w->src.count; i++) {
        const int64_t more = w->src.length(w->src.ctx, i);
        if ((w->n == PACK_SEQS_MAX || w->pack.rows + more > w->pack.room) &&
            !run_group(w, visit, ctx, err))
            return false;
        if (!take_sequence(w, i, err)) return false;
    }
    return run_group(w, visit, ctx, err);
}

bool walk_roll(const Walk *w, const Assistant *a, const WalkChunk *c, StepActs *acts,
               WalkStep *step, void *ctx, Err *err) {
    const Tensor tokens = tensor_cols(w->tokens, 0, c->rows);
    for (int j = 0; j < w->K; j++) {
        dev_upload(a->dev, tokens, c->token + j * c->rows);
        assistant_step(a, c->plan, tokens, j == 0 ? c->feature0 : acts->f, acts, j + 1 < w->K);
        if (!step(ctx, j, acts, err)) return false;
    }
    return true;
}
