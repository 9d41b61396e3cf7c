// infer/model/target.c - opening and closing a target: config, memory plan, weights.
#include "infer/model/target.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/model/target_parts.h"

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

// Elements of gate and up for the layer that needs the most of them.
static int64_t gate_up_room(Device *dev, const TextConfig *c, DType dtype, int64_t rows) {
    int64_t most = 0;
    for (int l = 0; l < c->layers; l++) {
        const int64_t n = layer_inter(c, l);
        most = larger(most, 2 * n * op_gated_room(dev, rows, n, c->hidden, dtype, dtype));
    }
    return most;
}

static void acts_take(Device *dev, const TextConfig *c, DType dtype, int64_t rows, TargetActs *a,
                      Arena *arena) {
    int64_t qkv = 0, q = 0, kv = 0, inter = 0;
    for (int l = 0; l < c->layers; l++) {
        const QkvRows n = target_qkv_rows(c, l);
        qkv = larger(qkv, n.q + n.k + n.v);
        q = larger(q, n.q);
        kv = larger(kv, n.k);
        inter = larger(inter, layer_inter(c, l));
    }
    *a = (TargetActs){0};
    a->ids = tensor_take(arena, DT_I32, 1, rows);
    a->pos = tensor_take(arena, DT_I32, 1, rows);
    a->end = tensor_take(arena, DT_I32, 1, rows);
    a->cs[LAYER_SLIDING] = tensor_take(arena, DT_F32, rows, c->head_dim);
    a->cs[LAYER_FULL] = tensor_take(arena, DT_F32, rows, c->global_head_dim);
    a->x = tensor_take(arena, DT_F32, rows, c->hidden);
    a->in = tensor_take(arena, dtype, rows, c->hidden);
    a->qkv = tensor_take(arena, DT_F32, rows, qkv);
    a->q = tensor_take(arena, dtype, rows, q);
    a->k = tensor_take(arena, DT_F32, rows, kv);
    a->v = tensor_take(arena, DT_F32, rows, kv);
    a->o = tensor_take(arena, dtype, rows, q);
    a->proj = tensor_take(arena, DT_F32, rows, c->hidden);
    a->gate_up = tensor_take(arena, dtype, 1, gate_up_room(dev, c, dtype, rows));
    a->mid = tensor_take(arena, dtype, rows, inter);
    a->logits = tensor_take(arena, DT_F32, rows, VOCAB_TILE);
    if (c->moe) {
        a->dense = tensor_take(arena, DT_F32, rows, c->hidden);
        a->mixed = tensor_take(arena, DT_F32, rows, c->hidden);
        a->router = tensor_take(arena, DT_F32, rows, c->experts);
        a->choice = tensor_take(arena, DT_I32, rows, c->top_experts);
        a->share = tensor_take(arena, DT_F32, rows, c->top_experts);
    }
    if (c->ple == 0) return;
    a->ple = tensor_take(arena, DT_F32, rows, c->layers * c->ple);
    a->ple_in = tensor_take(arena, DT_F32, rows, c->layers * c->ple);
    a->ple_gate = tensor_take(arena, DT_F32, rows, c->ple);
    a->ple_mid = tensor_take(arena, dtype, rows, c->ple);
}

static void take_weights(Target *t, DType ple, Arena *arena) {
    const TextConfig *c = &t->cfg.text;
    if (t->max_rows > 0)
        target_weights_take(c, t->dtype, ple, &t->w, arena);
    else
        t->w = (TargetWeights){.embed = tensor_take(arena, t->dtype, c->vocab, c->hidden)};
}

static void take_acts(Target *t, Arena *arena) {
    acts_take(t->dev, &t->cfg.text, t->dtype, t->max_rows, &t->acts, arena);
    if (t->cfg.suppress.n > 0) t->acts.never = tensor_take(arena, DT_F32, t->max_rows, 1);
}

static void tell_plan(const Target *t, const char *dir, size_t weights, size_t acts) {
    if (t->max_rows == 0)
        log_info("target %s: %.1f MiB, its embedding table alone (%s)", dir,
                 (double)weights / 1048576.0, dtype_name(t->dtype));
    else
        log_info("target %s: %.1f MiB of weights (%s), %.1f MiB for %lld rows at once", dir,
                 (double)weights / 1048576.0, dtype_name(t->dtype), (double)acts / 1048576.0,
                 (long long)t->max_rows);
}

// Both arenas are priced before either is taken, and the plan is said before it can fail.
static bool allocate(Target *t, DType ple, const char *dir, Err *err) {
    Arena weights, acts;
    arena_open(&weights, NULL, 0);
    arena_open(&acts, NULL, 0);
    take_weights(t, ple, &weights);
    take_acts(t, &acts);
    tell_plan(t, dir, weights.used, acts.used);
    t->bytes = weights.used + acts.used;
    t->weight_block = dev_alloc(t->dev, weights.used, err);
    t->act_block = t->weight_block != NULL ? dev_alloc(t->dev, acts.used, err) : NULL;
    if (t->act_block == NULL) return err_wrap(err, "target %s", dir);
    arena_open(&weights, t->weight_block, weights.used);
    arena_open(&acts, t->act_block, acts.used);
    take_weights(t, ple, &weights);
    take_acts(t, &acts);
    const size_t rows = (size_t)t->max_rows + 1;
    t->pos_host = malloc(rows * sizeof *t->pos_host);
    t->end_host = malloc(rows * sizeof *t->end_host);
    t->row_host = malloc(rows * sizeof *t->row_host);
    t->seg = malloc(rows * sizeof *t->seg);
    if (t->pos_host == NULL || t->end_host == NULL || t->row_host == NULL || t->seg == NULL)
        return err_set(err, ERR_FAILED, "out of memory for %lld rows", (long long)t->max_rows);
    return true;
}

static void upload_frequencies(Target *t) {
    const TextConfig *c = &t->cfg.text;
    for (int k = 0; k < 2; k++) {
        const int64_t hd = k == LAYER_FULL ? c->global_head_dim : c->head_dim;
        float f[HEAD_DIM_MAX / 2];
        rope_frequencies(&c->rope[k], hd, f);
        dev_upload(t->dev, t->w.inv_freq[k], f);
    }
}

static bool is_bf16(const TargetSource *s, const char *name) {
    const StTensor *t = weight_map_find(s->map, name);
    return t != NULL && strcmp(t->dtype, "BF16") == 0;
}

static void set_scales(Target *t, EmbedScale scale, bool bf16_file) {
    const bool rounded = scale == EMBED_SCALE_BF16 || (scale == EMBED_SCALE_AUTO && bf16_file);
    const float ple = (float)sqrt((double)t->cfg.text.ple);
    t->embed_scale = (float)(rounded ? t->cfg.embed_scale_bf16 : t->cfg.embed_scale_f32);
    t->ple_scale = rounded ? round_bf16(ple) : ple;
}

static bool open_target(Target *t, const TargetOptions *opt, TargetSource *s, Err *err) {
    if (!target_config_load(&t->cfg, opt->dir, err)) return false;
    if (!target_source_open(s, opt->dir, opt->adapter, err)) return false;
    // The per-layer table is the largest tensor and only looked up: a bf16 file stays bf16.
    const bool small = t->dtype == DT_BF16 || is_bf16(s, "embed_tokens_per_layer.weight");
    if (!allocate(t, small ? DT_BF16 : DT_F32, opt->dir, err)) return false;
    if (!target_weights_read(t, s, err)) return false;
    if (t->max_rows > 0) upload_frequencies(t);
    set_scales(t, opt->scale, is_bf16(s, "embed_tokens.weight"));
    if (t->max_rows > 0 && t->cfg.suppress.n > 0 && !suppress_fill(t->dev, t->acts.never, err))
        return false;
    return dev_sync(t->dev, err);
}

Target *target_open(Device *dev, const TargetOptions *opt, Err *err) {
    CHECK(opt->dtype == DT_F32 || opt->dtype == DT_BF16);
    CHECK(opt->max_rows >= 0);
    Target *t = calloc(1, sizeof *t);
    if (t == NULL) {
        err_set(err, ERR_FAILED, "out of memory");
        return NULL;
    }
    t->dev = dev;
    t->dtype = opt->dtype;
    t->max_rows = opt->max_rows;
    TargetSource source = {0};
    const bool ok = open_target(t, opt, &source, err);
    target_source_close(&source);
    if (ok) return t;
    target_close(t);
    return NULL;
}

void target_close(Target *t) {
    if (t == NULL) return;
    dev_free(t->dev, t->weight_block);
    dev_free(t->dev, t->act_block);
    free(t->pos_host);
    free(t->end_host);
    free(t->row_host);
    free(t->seg);
    free(t);
}

const TargetConfig *target_config(const Target *t) {
    return &t->cfg;
}
Tensor target_embedding(const Target *t) {
    return t->w.embed;
}
float target_embed_scale(const Target *t) {
    return t->embed_scale;
}
Device *target_device(const Target *t) {
    return t->dev;
}
size_t target_bytes(const Target *t) {
    return t->bytes;
}
