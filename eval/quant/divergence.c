// eval/quant/divergence.c - two rollouts of the same anchors, their heads compared row by row.
#include "eval/quant/divergence.h"

#include <stdlib.h>
#include <string.h>

enum { LOGIT_BYTES = 128 << 20 }; // of both heads' logits

// Device tensors; logits of whole rows, so that one tile holds a distribution.
typedef struct {
    StepActs acts;
    Tensor y[1 + DIVERGENCE_MAX]; // (K * max, H): of the drafter, of every variant
    Tensor z[2], lse, psum;       // (block, V) twice, (block, 2)
    Tensor stat, row;             // F64 (block, 4), I32 (1, block)
} Room;

struct Divergence {
    Device *dev;
    int K;
    int64_t max_anchors, block;
    void *memory;
    Room r;
    double *stat; // host (block, 4)
    // A run
    const Assistant *a, *const *variant;
    Walk *walk;
    int n;
    double *kl, *rows; // (n, K), (K)
    Tensor into;       // y of the rollout at hand
};

static int64_t block_rows(const Assistant *a, int K, int64_t max_anchors) {
    const int64_t fit = LOGIT_BYTES / 8 / a->cfg.text.vocab, all = K * max_anchors;
    return fit < 1 ? 1 : fit < all ? fit : all;
}

static void take_room(const Assistant *a, int K, int64_t max_anchors, Room *r, Arena *arena) {
    const int64_t block = block_rows(a, K, max_anchors), V = a->cfg.text.vocab;
    assistant_acts_take(a, &r->acts, max_anchors, false, arena);
    for (int i = 0; i <= DIVERGENCE_MAX; i++)
        r->y[i] = tensor_take(arena, a->dtype, K * max_anchors, a->cfg.text.hidden);
    for (int i = 0; i < 2; i++) r->z[i] = tensor_take(arena, DT_F32, block, V);
    r->lse = tensor_take(arena, DT_F32, block, 2);
    r->psum = tensor_take(arena, DT_F64, block, 2);
    r->stat = tensor_take(arena, DT_F64, block, 4);
    r->row = tensor_take(arena, DT_I32, 1, block);
}

size_t divergence_bytes(const Assistant *a, int K, int64_t max_anchors) {
    Arena plan;
    Room r;
    arena_open(&plan, NULL, 0);
    take_room(a, K, max_anchors, &r, &plan);
    return plan.peak;
}

static bool number_rows(Divergence *d, Err *err) {
    int32_t *row = malloc((size_t)d->block * sizeof *row);
    CHECK_MEMORY(row);
    for (int64_t i = 0; i < d->block; i++) row[i] = (int32_t)i;
    dev_upload(d->dev, d->r.row, row);
    const bool ok = dev_sync(d->dev, err);
    free(row);
    return ok;
}

Divergence *divergence_open(const Assistant *a, int K, int64_t max_anchors, Err *err) {
    const size_t bytes = divergence_bytes(a, K, max_anchors);
    Divergence *d = calloc(1, sizeof *d);
    CHECK_MEMORY(d);
    *d = (Divergence){
        .dev = a->dev, .K = K, .max_anchors = max_anchors, .block = block_rows(a, K, max_anchors)};
    d->stat = malloc((size_t)d->block * 4 * sizeof *d->stat);
    d->rows = calloc((size_t)K, sizeof *d->rows);
    CHECK_MEMORY(d->stat);
    CHECK_MEMORY(d->rows);
    if ((d->memory = dev_alloc(a->dev, bytes, err)) != NULL) {
        Arena arena;
        arena_open(&arena, d->memory, bytes);
        take_room(a, K, max_anchors, &d->r, &arena);
        if (number_rows(d, err)) return d;
    }
    divergence_close(d);
    return NULL;
}

void divergence_close(Divergence *d) {
    if (d == NULL) return;
    if (d->memory != NULL) dev_free(d->dev, d->memory);
    free(d->stat);
    free(d->rows);
    free(d);
}

// The states of a step behind those of the steps before it.
static bool keep_step(void *ctx, int j, const StepActs *acts, Err *err) {
    Divergence *d = ctx;
    (void)err;
    op_copy(d->dev, tensor_rows(d->into, j * acts->y.rows, acts->y.rows), acts->y);
    return true;
}

static StepActs first_rows(const Divergence *d, const Assistant *a, int64_t rows, Arena *arena,
                           void *memory) {
    StepActs acts;
    arena_open(arena, memory, divergence_bytes(a, d->K, d->max_anchors));
    assistant_acts_take(a, &acts, rows, false, arena);
    return acts;
}

static bool roll(Divergence *d, const Assistant *a, const WalkChunk *c, Tensor into, Err *err) {
    Arena arena;
    StepActs acts = first_rows(d, a, c->rows, &arena, d->memory);
    d->into = into;
    return walk_roll(d->walk, a, c, &acts, keep_step, d, err);
}

// p of the drafter for n rows of y.
static Tensor teacher_rows(const Divergence *d, int64_t first, int64_t n) {
    const Tensor z = tensor_rows(d->r.z[0], 0, n), lse = tensor_rows(d->r.lse, 0, n);
    op_matmul_nt(d->dev, z, tensor_rows(d->r.y[0], first, n), d->a->w.table, 0.0f);
    op_lse_tile(d->dev, lse, NO_TENSOR, NO_TENSOR, z, 0.0f, 1.0f, 0);
    op_prob_tile(d->dev, z, tensor_rows(d->r.psum, 0, n), z, lse, 0.0f, 1.0f);
    return z;
}

// Variant v against p for n rows from `first` on.
static bool compare_rows(Divergence *d, int v, Tensor p, const uint8_t *valid, int64_t first,
                         int64_t rows, Err *err) {
    const int64_t n = p.rows;
    const Tensor z = tensor_rows(d->r.z[1], 0, n), lse = tensor_rows(d->r.lse, 0, n),
                 stat = tensor_rows(d->r.stat, 0, n);
    const LossArgs args = {.p = p,
                           .psum = tensor_rows(d->r.psum, 0, n),
                           .trow = tensor_cols(d->r.row, 0, n),
                           .kind = LOSS_FKL,
                           .temp = 1.0f,
                           .parts = LOSS_STATS};
    op_matmul_nt(d->dev, z, tensor_rows(d->r.y[1 + v], first, n), d->variant[v]->w.table, 0.0f);
    op_lse_tile(d->dev, lse, NO_TENSOR, NO_TENSOR, z, 0.0f, 1.0f, 0);
    op_loss_tile(d->dev, stat, NO_TENSOR, z, lse, &args, 0);
    dev_download(d->dev, d->stat, stat);
    if (!dev_sync(d->dev, err)) return false;
    for (int64_t i = 0; i < n; i++)
        if (valid[first + i]) d->kl[v * d->K + (first + i) / rows] += d->stat[4 * i];
    return true;
}

static bool compare_chunk(void *ctx, const WalkChunk *c, Err *err) {
    Divergence *d = ctx;
    const int64_t all = d->K * c->rows;
    for (int64_t i = 0; i < all; i++) d->rows[i / c->rows] += c->valid[i];
    for (int v = -1; v < d->n; v++)
        if (!roll(d, v < 0 ? d->a : d->variant[v], c, d->r.y[1 + v], err)) return false;
    for (int64_t at = 0; at < all; at += d->block) {
        const Tensor p = teacher_rows(d, at, all - at < d->block ? all - at : d->block);
        for (int v = 0; v < d->n; v++)
            if (!compare_rows(d, v, p, c->valid, at, c->rows, err)) return false;
    }
    return true;
}

bool divergence_run(Divergence *d, Walk *w, const Assistant *a, const Assistant *const *variant,
                    int n, double *kl, Err *err) {
    CHECK(n >= 0 && n <= DIVERGENCE_MAX);
    memset(kl, 0, (size_t)(n * d->K) * sizeof *kl);
    memset(d->rows, 0, (size_t)d->K * sizeof *d->rows);
    d->a = a;
    d->variant = variant;
    d->n = n;
    d->kl = kl;
    d->walk = w;
    if (!walk_run(w, compare_chunk, d, err)) return err_wrap(err, "divergence");
    for (int i = 0; i < n * d->K; i++)
        if (d->rows[i % d->K] > 0) kl[i] /= d->rows[i % d->K];
    return true;
}

double divergence_mean(const double *kl, const double *reach, int K) {
    double sum = 0.0, weight = 0.0;
    for (int j = 0; j < K; j++) {
        sum += reach[j] * kl[j];
        weight += reach[j];
    }
    return weight > 0.0 ? sum / weight : 0.0;
}
