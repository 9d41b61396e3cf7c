// eval/audit/wiring.c - the same rollout in two shapes: all anchors with activations kept, and one
// at a time.
#include "eval/audit/wiring.h"

#include <math.h>
#include <stdlib.h>

#include "infer/decode/acceptance.h"

typedef struct {
    Tensor row_index, feature0, tokens, best, id;
    StepActs step[DRAFT_MAX];
} Buffers;

typedef struct {
    const Assistant *a;
    const FeaturePack *pack;
    const int32_t *ids;
    int64_t n;
    int K;
    AttnSeg seg[2][PACK_SEQS_MAX];
    Arena arena;
} Rollout;

// What a rollout leaves, in host memory: rows of every step.
typedef struct {
    float *y, *f; // (K, rows, H), (K, rows, B)
    float *best;  // (K, rows, 2)
    int32_t *id;  // (K, rows, 2)
} Record;

double wiring_tolerance(DType dtype) {
    return dtype == DT_F32 ? 1e-4 : 2e-2;
}

static void take(const Assistant *a, Buffers *b, int64_t rows, int K, bool training, Arena *arena) {
    b->row_index = tensor_take(arena, DT_I32, 1, rows);
    b->feature0 = tensor_take(arena, a->dtype, rows, a->cfg.backbone);
    b->tokens = tensor_take(arena, DT_I32, 1, rows);
    b->best = tensor_take(arena, DT_F32, rows, 2);
    b->id = tensor_take(arena, DT_I32, rows, 2);
    for (int j = 0; j < K; j++) {
        StepActs *s = &b->step[j];
        if (!training && j > 0) {
            *s = b->step[0];
            continue;
        }
        assistant_acts_take(a, s, rows, training, arena);
        if (!training) continue;
        s->y = tensor_take(arena, a->dtype, rows, a->cfg.text.hidden);
        if (j > 0)
            b->step[j - 1].f = assistant_feature_slot(a, s); // as the trainer chains its steps
        if (j + 1 == K) s->f = tensor_take(arena, a->dtype, rows, a->cfg.backbone);
    }
}

static size_t bytes_of(const Assistant *a, int64_t rows, int K, bool training) {
    Arena plan;
    Buffers b;
    arena_open(&plan, NULL, 0);
    take(a, &b, rows, K, training, &plan);
    arena_take(&plan, anchor_plan_bytes(a, rows));
    arena_take(&plan, assistant_head_bytes(a, rows));
    return plan.peak;
}

static void download_f32(Device *dev, float *dst, Tensor src) {
    dev_download(dev, dst, src);
    if (src.dtype == DT_F32) return;
    CHECK(src.dtype == DT_BF16);
    const bf16 *packed = (const bf16 *)dst; // widened in place, from the end
    for (int64_t i = tensor_count(src) - 1; i >= 0; i--) dst[i] = bf16_to_f32(packed[i]);
}

// Anchors T[0..rows-1]; row r of the record is row at + r of `all`.
static void roll(Rollout *o, const int32_t *T, int64_t rows, bool training, Record *rec, int64_t at,
                 int64_t all) {
    const Assistant *a = o->a;
    const int64_t H = a->cfg.text.hidden, B = a->cfg.backbone;
    int32_t seq[1024] = {0}, token[1024];
    Buffers b;
    AnchorSet set = {0};
    AnchorPlan plan = {0};
    CHECK(rows <= 1024);
    arena_reset(&o->arena, 0);
    take(a, &b, rows, o->K, training, &o->arena);
    features_anchors(o->pack, a->dev, a, T, seq, rows, &set, o->seg[LAYER_SLIDING],
                     o->seg[LAYER_FULL], b.row_index, b.feature0);
    anchor_plan(a, &set, &plan, &o->arena);
    for (int j = 0; j < o->K; j++) {
        for (int64_t r = 0; r < rows; r++) token[r] = T[r] + j < o->n ? o->ids[T[r] + j] : -1;
        dev_upload(a->dev, b.tokens, token);
        assistant_step(a, &plan, b.tokens, j == 0 ? b.feature0 : b.step[j - 1].f, &b.step[j], true);
        assistant_top2(a, HEAD_DENSE, b.best, b.id, NO_TENSOR, b.step[j].y, &o->arena);
        download_f32(a->dev, rec->y + (j * all + at) * H, b.step[j].y);
        download_f32(a->dev, rec->f + (j * all + at) * B, b.step[j].f);
        dev_download(a->dev, rec->best + (j * all + at) * 2, b.best);
        dev_download(a->dev, rec->id + (j * all + at) * 2, b.id);
    }
}

static bool record_open(Record *r, const Assistant *a, int64_t cells) {
    r->y = malloc((size_t)(cells * a->cfg.text.hidden) * sizeof(float));
    r->f = malloc((size_t)(cells * a->cfg.backbone) * sizeof(float));
    r->best = malloc((size_t)cells * 2 * sizeof(float));
    r->id = malloc((size_t)cells * 2 * sizeof(int32_t));
    return r->y && r->f && r->best && r->id;
}

static void record_close(Record *r) {
    free(r->y);
    free(r->f);
    free(r->best);
    free(r->id);
}

static void add_values(Wiring *sum, const float *x, const float *y, int64_t n) {
    sum->values += n;
    for (int64_t i = 0; i < n; i++) {
        const double d = fabs((double)x[i] - y[i]) / (1.0 + fabs((double)y[i]));
        if (!(d <= sum->worst)) sum->worst = d;
    }
}

// Steps whose token lies past the text say nothing.
static void compare(Wiring *sum, const Rollout *o, const Record *x, const Record *y,
                    const int32_t *T, int64_t rows, double near_tie) {
    const int64_t H = o->a->cfg.text.hidden, B = o->a->cfg.backbone;
    for (int j = 0; j < o->K; j++)
        for (int64_t r = 0; r < rows && T[r] + j < o->n; r++) {
            const int64_t cell = j * rows + r;
            add_values(sum, x->y + cell * H, y->y + cell * H, H);
            add_values(sum, x->f + cell * B, y->f + cell * B, B);
            sum->choices++;
            const double gap = fmin(x->best[2 * cell] - x->best[2 * cell + 1],
                                    y->best[2 * cell] - y->best[2 * cell + 1]);
            sum->choices_differ += x->id[2 * cell] != y->id[2 * cell] && gap >= near_tie;
        }
}

bool wiring_compare(Wiring *sum, const Assistant *a, const FeaturePack *pack, const int32_t *ids,
                    int64_t n, int64_t first, int K, int64_t max_anchors, double near_tie,
                    Err *err) {
    Rollout o = {.a = a, .pack = pack, .ids = ids, .n = n, .K = K};
    Record all = {0}, one = {0};
    int32_t T[1024];
    int64_t rows = n - first - 1 < max_anchors ? n - first - 1 : max_anchors;
    if (rows <= 0) return true;
    CHECK(max_anchors <= 1024);
    for (int64_t r = 0; r < rows; r++) T[r] = (int32_t)(first + r);
    const size_t train = bytes_of(a, rows, K, true), live = bytes_of(a, 1, K, false);
    const size_t bytes = train > live ? train : live;
    void *block = dev_alloc(a->dev, bytes, err);
    bool ok = false;
    if (block == NULL) return false;
    if (!record_open(&all, a, K * rows) || !record_open(&one, a, K * rows)) {
        err_set(err, ERR_FAILED, "no memory to compare %lld anchors", (long long)rows);
        goto end;
    }
    arena_open(&o.arena, block, bytes);
    roll(&o, T, rows, true, &all, 0, rows);
    for (int64_t r = 0; r < rows; r++) roll(&o, T + r, 1, false, &one, r, rows);
    if (!dev_sync(a->dev, err)) goto end;
    compare(sum, &o, &all, &one, T, rows, near_tie);
    ok = true;
end:
    record_close(&all);
    record_close(&one);
    dev_free(a->dev, block);
    return ok;
}
