// train/bench_step.c - random pair, features and anchors; one step of rollout, sum, clip and AdamW.
#include "train/bench_step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/log.h"
#include "infer/base/rng.h"

void bench_close(Bench *b) {
    rollout_close(b->rollout);
    assistant_close(b->a);
    if (b->dev) {
        dev_free(b->dev, b->block);
        dev_free(b->dev, b->table_block);
    }
    free(b->batch.T);
    free(b->batch.seq_of);
    free(b->batch.token);
    free(b->batch.label);
    free(b->batch.valid);
    free(b->weight);
}

// Random rows in the pack's dtype: unit variance, as norms leave them.
static void *random_rows(int64_t rows, int64_t cols, uint64_t stream) {
    bf16 *x = malloc((size_t)(rows * cols) * sizeof *x);
    if (x == NULL) return NULL;
    for (int64_t i = 0; i < rows * cols; i++) {
        const uint64_t u = rng_u64(1, RNG_INIT, stream, (uint64_t)i);
        const float sum = (float)(u & 0xffff) + (float)(u >> 16 & 0xffff) +
                          (float)(u >> 32 & 0xffff) + (float)(u >> 48) - 131070.0f;
        x[i] = bf16_from_f32(sum / 37837.0f);
    }
    return x;
}

static bool fill_pack(Bench *b, const BenchCase *c, Err *err) {
    FeaturePack *p = &b->pack;
    bool ok = true;
    for (int64_t s = 0; ok && s < c->batch; s++) {
        void *rows[5];
        const int64_t width[5] = {p->width, p->kv_width[0], p->kv_width[1], p->kv_width[0],
                                  p->kv_width[1]};
        for (int i = 0; i < 5; i++)
            ok = (rows[i] = random_rows(c->seq, width[i], (uint64_t)(8 * s + i))) && ok;
        features_begin(p);
        const void *const k[2] = {rows[1], rows[2]}, *const v[2] = {rows[3], rows[4]};
        if (ok) features_load(p, b->dev, rows[0], 0, k, v, c->seq);
        for (int i = 0; i < 5; i++) free(rows[i]);
    }
    return ok || err_set(err, ERR_FAILED, "out of memory for random features");
}

// Every position with K more is an anchor.
static bool fill_batch(Bench *b, const BenchCase *c, Err *err) {
    const int64_t per = c->seq - c->K, rows = per * c->batch;
    Batch *t = &b->batch;
    *t = (Batch){.nseq = (int)c->batch, .rows = rows, .tokens = c->batch * c->seq};
    t->T = malloc((size_t)rows * sizeof *t->T);
    t->seq_of = malloc((size_t)rows * sizeof *t->seq_of);
    t->token = malloc((size_t)(rows * c->K) * sizeof *t->token);
    t->label = malloc((size_t)(rows * c->K) * sizeof *t->label);
    t->valid = malloc((size_t)(rows * c->K));
    b->weight = malloc((size_t)(rows * c->K) * sizeof *b->weight);
    if (!t->T || !t->seq_of || !t->token || !t->label || !t->valid || !b->weight)
        return err_set(err, ERR_FAILED, "out of memory for %lld anchors", (long long)rows);
    for (int64_t r = 0; r < rows; r++) {
        t->seq_of[r] = (int32_t)(r / per);
        t->T[r] = (int32_t)(r % per + 1);
    }
    for (int64_t i = 0; i < rows * c->K; i++) {
        t->token[i] = (int32_t)rng_below(2, RNG_INIT, 0, (uint64_t)i, (uint64_t)c->shape->vocab);
        t->label[i] = (int32_t)rng_below(2, RNG_INIT, 1, (uint64_t)i, (uint64_t)c->shape->vocab);
        t->valid[i] = 1;
        b->weight[i] = (float)pow(0.8, (double)(i / rows));
    }
    return true;
}

static bool load_pair(Bench *b, const BenchCase *c, const char *dir, Err *err) {
    char draft[PATH_ROOM], target[PATH_ROOM];
    path_join(draft, dir, "assistant");
    path_join(target, dir, "target");
    if (!target_config_load(&b->target, target, err)) return false;
    const int64_t V = c->shape->vocab, B = c->shape->hidden;
    b->table_block = dev_alloc(b->dev, (size_t)(V * B) * dtype_size(c->dtype), err);
    if (b->table_block == NULL) return false;
    b->table = tensor_of(b->table_block, c->dtype, V, B);
    // repeated: the values of a table do not change its speed
    enum { ROWS = 4096 };
    bf16 *rows = random_rows(ROWS, B, 99);
    void *block = dev_alloc(b->dev, (size_t)(ROWS * B) * sizeof *rows, err);
    const Tensor some = tensor_of(block, DT_BF16, ROWS, B);
    if (rows == NULL) err_set(err, ERR_FAILED, "out of memory");
    if (rows != NULL && block != NULL) dev_upload(b->dev, some, rows);
    for (int64_t v = 0; rows != NULL && block != NULL && v < V; v += ROWS) {
        const int64_t n = V - v < ROWS ? V - v : ROWS;
        op_copy(b->dev, tensor_rows(b->table, v, n), tensor_rows(some, 0, n));
    }
    free(rows);
    dev_free(b->dev, block);
    if (rows == NULL || block == NULL) return false;
    const AssistantOptions opt = {
        .dir = draft, .dtype = c->dtype, .target_table = b->table, .target_scale = sqrtf((float)B)};
    return (b->a = assistant_open(b->dev, &opt, err)) != NULL;
}

bool bench_open(Bench *b, const BenchCase *c, const char *dir, Err *err) {
    const OptimizerOptions adam = {
        .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .decay = 0.01f, .clip = 1.0};
    if (!load_pair(b, c, dir, err) || !fill_batch(b, c, err)) return false;
    const RolloutOptions opt = {.K = c->K,
                                .loss = LOSS_FKL,
                                .temperature = 1.0f,
                                .max_rows = b->batch.rows,
                                .max_tokens = b->batch.tokens,
                                .max_seqs = (int)c->batch};
    const size_t bytes = optimizer_bytes(&b->a->cfg, &adam) +
                         features_bytes(&b->target, b->batch.tokens, DT_BF16) +
                         rollout_bytes(b->a, &b->target, &opt) + 4 * ARENA_ALIGN;
    Arena arena;
    if ((b->block = dev_alloc(b->dev, bytes, err)) == NULL) return false;
    arena_open(&arena, b->block, bytes);
    if (!optimizer_open(&b->optimizer, b->a, &adam, NULL, 0, &arena, err)) return false;
    features_take(&b->pack, &b->target, b->batch.tokens, DT_BF16, &arena);
    b->rollout = rollout_open(b->a, &b->target, 30.0f, &opt, &arena, err);
    return b->rollout != NULL && fill_pack(b, c, err);
}

bool bench_step(Bench *b, AllReduce *reduce, int64_t step, double *seconds, Err *err) {
    RolloutStats stats;
    double norm;
    const double begin = now_s();
    op_zero(b->dev, b->optimizer.grad);
    if (!rollout_run(b->rollout, b->a, &b->batch, &b->pack, b->weight, &b->optimizer.grads, &stats,
                     err))
        return false;
    if (reduce != NULL &&
        (!all_reduce_start(reduce, b->optimizer.grad, err) || !all_reduce_finish(reduce, err)))
        return false;
    if (!optimizer_norm(&b->optimizer, b->dev, &norm, err)) return false;
    optimizer_step(&b->optimizer, b->dev, norm, 1e-4, step);
    if (!dev_sync(b->dev, err)) return false;
    *seconds = now_s() - begin;
    return true;
}

bool bench_pair(char dir[PATH_ROOM], const PairShape *shape, Err *err) {
    char part[PATH_ROOM];
    strcpy(dir, "/tmp/draftsmith-bench-XXXXXX");
    if (mkdtemp(dir) == NULL) return err_errno(err, "temporary folder %s", dir);
    // of the target only the config is read: the trainer never runs it
    return synthetic_target_config(path_join(part, dir, "target"), shape, err) &&
           synthetic_assistant(path_join(part, dir, "assistant"), shape, 1, err);
}
