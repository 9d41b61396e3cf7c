// eval/quant/divergence.c - two rollouts of the same anchors, their heads compared row by row.
#include "eval/quant/divergence.h"

#include <stdlib.h>
#include <string.h>

#include "eval/quant/row_kl.h"

enum { LOGIT_BYTES = 128 << 20 }; // of both heads' logits

// Device tensors; logits of whole rows, so that one tile holds a distribution.
typedef struct {
    StepActs acts;
    Tensor y[1 + DIVERGENCE_MAX]; // (K * max, H): of the drafter, of every variant
    RowKl kl;
} Room;

struct Divergence {
    Device *dev;
    int K;
    int64_t max_anchors, block;
    void *memory;
    Room r;
    double *row; // (block): KL of the rows at hand
    // A run
    const Assistant *a, *const *variant;
    Walk *walk;
    int n;
    double *kl, *rows; // (n, K), (K)
    Tensor into;       // y of the rollout at hand
};

static void take_room(const Assistant *a, int K, int64_t max_anchors, Room *r, Arena *arena) {
    const int64_t V = a->cfg.text.vocab, block = row_kl_rows(V, K * max_anchors, LOGIT_BYTES);
    assistant_acts_take(a, &r->acts, max_anchors, false, arena);
    for (int i = 0; i <= DIVERGENCE_MAX; i++)
        r->y[i] = tensor_take(arena, a->dtype, K * max_anchors, a->cfg.text.hidden);
    row_kl_take(&r->kl, block, V, arena);
}

size_t divergence_bytes(const Assistant *a, int K, int64_t max_anchors) {
    Arena plan;
    Room r;
    arena_open(&plan, NULL, 0);
    take_room(a, K, max_anchors, &r, &plan);
    return plan.peak;
}

Divergence *divergence_open(const Assistant *a, int K, int64_t max_anchors, Err *err) {
    const size_t bytes = divergence_bytes(a, K, max_anchors);
    Divergence *d = calloc(1, sizeof *d);
    CHECK_MEMORY(d);
    *d = (Divergence){.dev = a->dev, .K = K, .max_anchors = max_anchors};
    d->rows = calloc((size_t)K, sizeof *d->rows);
    CHECK_MEMORY(d->rows);
    if ((d->memory = dev_alloc(a->dev, bytes, err)) == NULL) goto fail;
    Arena arena;
    arena_open(&arena, d->memory, bytes);
    take_room(a, K, max_anchors, &d->r, &arena);
    d->block = d->r.kl.rows;
    d->row = malloc((size_t)d->block * sizeof *d->row);
    CHECK_MEMORY(d->row);
    if (row_kl_open(&d->r.kl, a->dev, err)) return d;
fail:
    divergence_close(d);
    return NULL;
}

void divergence_close(Divergence *d) {
    if (d == NULL) return;
    if (d->memory != NULL) dev_free(d->dev, d->memory);
    row_kl_close(&d->r.kl);
    free(d->row);
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

// Variant v against the drafter for n rows from `first` on.
static bool compare_rows(Divergence *d, int v, const uint8_t *valid, int64_t first, int64_t n,
                         int64_t rows, Err *err) {
    op_matmul_nt(d->dev, tensor_rows(d->r.kl.z[1], 0, n), tensor_rows(d->r.y[1 + v], first, n),
                 d->variant[v]->w.table, 0.0f);
    if (!row_kl_student(&d->r.kl, n, d->row, err)) return false;
    for (int64_t i = 0; i < n; i++)
        if (valid[first + i]) d->kl[v * d->K + (first + i) / rows] += d->row[i];
    return true;
}

static bool compare_chunk(void *ctx, const WalkChunk *c, Err *err) {
    Divergence *d = ctx;
    const int64_t all = d->K * c->rows;
    for (int64_t i = 0; i < all; i++) d->rows[i / c->rows] += c->valid[i];
    for (int v = -1; v < d->n; v++)
        if (!roll(d, v < 0 ? d->a : d->variant[v], c, d->r.y[1 + v], err)) return false;
    for (int64_t at = 0; at < all; at += d->block) {
        const int64_t n = all - at < d->block ? all - at : d->block;
        op_matmul_nt(d->dev, tensor_rows(d->r.kl.z[0], 0, n), tensor_rows(d->r.y[0], at, n),
                     d->a->w.table, 0.0f);
        row_kl_teacher(&d->r.kl, n);
        for (int v = 0; v < d->n; v++)
            if (!compare_rows(d, v, c->valid, at, n, c->rows, err)) return false;
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
