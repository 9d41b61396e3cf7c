// train/optimizer.c - buffers, frozen parameters, clipping and the AdamW step, one tensor at a
// time.
#include "train/optimizer.h"

#include <fnmatch.h>
#include <math.h>
#include <string.h>

static void take_buffers(Optimizer *o, int64_t count, const OptimizerOptions *opt, Arena *arena) {
    Tensor *const all[] = {&o->master, &o->m, &o->v, &o->grad};
    for (int i = 0; i < 4; i++) *all[i] = tensor_take(arena, DT_F32, 1, count);
    o->ema = opt->ema > 0 ? tensor_take(arena, DT_F32, 1, count) : NO_TENSOR;
    o->sum = tensor_take(arena, DT_F64, 1, 1);
}

size_t optimizer_bytes(const AssistantConfig *c, const OptimizerOptions *opt) {
    Arena count;
    arena_open(&count, NULL, 0);
    Optimizer o;
    AssistantWeights w;
    take_buffers(&o, assistant_layout(c, &w, NULL, DT_F32), opt, &count);
    return count.used;
}

static bool freeze_params(Optimizer *o, char *const *pattern, int n, Err *err) {
    for (int i = 0; i < n; i++) {
        int hits = 0;
        for (int p = 0; p < o->n; p++)
            if (fnmatch(pattern[i], o->param[p].name, 0) == 0) o->param[p].frozen = true, hits++;
        // These two are no parameters: they never move, and saying so is no mistake.
        const bool buffer = fnmatch(pattern[i], "masked_embedding.token_ordering", 0) == 0 ||
                            fnmatch(pattern[i], "model.layers.0.layer_scalar", 0) == 0;
        if (hits == 0 && !buffer)
            return err_set(err, ERR_USAGE, "train.freeze: '%s' matches no tensor of the assistant",
                           pattern[i]);
    }
    o->trainable = 0;
    for (int p = 0; p < o->n; p++)
        if (!o->param[p].frozen) o->trainable += o->param[p].count;
    if (o->trainable == 0)
        return err_set(err, ERR_USAGE, "train.freeze: no tensor is left to train");
    return true;
}

bool optimizer_open(Optimizer *o, Assistant *a, const OptimizerOptions *opt, char *const *freeze,
                    int nfreeze, Arena *arena, Err *err) {
    *o = (Optimizer){.opt = *opt};
    AssistantParam use[ASSISTANT_PARAMS_MAX], flat[ASSISTANT_PARAMS_MAX];
    AssistantWeights masters;
    o->count = assistant_layout(&a->cfg, &masters, NULL, DT_F32);
    take_buffers(o, o->count, opt, arena);
    op_zero(a->dev, o->m);
    op_zero(a->dev, o->v);
    op_zero(a->dev, o->grad);
    assistant_layout(&a->cfg, &masters, o->master.data, DT_F32);
    assistant_layout(&a->cfg, &o->grads, o->grad.data, DT_F32);
    o->n = assistant_params(&a->cfg, &masters, flat);
    CHECK(assistant_params(&a->cfg, &a->w, use) == o->n, "parameter lists differ");
    for (int i = 0; i < o->n; i++) {
        OptParam *p = &o->param[i];
        const Tensor t = *flat[i].tensor;
        memcpy(p->name, flat[i].name, sizeof p->name);
        p->offset = (float *)t.data - (float *)o->master.data;
        p->rows = t.rows, p->cols = t.cols, p->count = tensor_count(t);
        p->decay = flat[i].decay;
        p->use = use[i].tensor;
        CHECK(p->offset >= 0 && p->offset + p->count <= o->count && tensor_is_contiguous(t),
              "%s lies outside the flat buffer", p->name);
        op_copy(a->dev, t, *p->use);
        if (a->dtype == DT_F32) *p->use = t;
    }
    if (o->ema.data != NULL) op_copy(a->dev, o->ema, o->master);
    return freeze_params(o, freeze, nfreeze, err) && dev_sync(a->dev, err);
}

void optimizer_mask(Optimizer *o, Device *dev) {
    for (int i = 0; i < o->n; i++)
        if (o->param[i].frozen)
            op_zero(dev, tensor_cols(o->grad, o->param[i].offset, o->param[i].count));
}

bool optimizer_norm(Optimizer *o, Device *dev, double *norm, Err *err) {
    double sum = 0.0;
    op_sumsq(dev, o->sum, o->grad);
    dev_download(dev, &sum, o->sum);
    *norm = sqrt(sum);
    return dev_sync(dev, err);
}

void optimizer_step(Optimizer *o, Device *dev, double norm, double lr, int64_t step) {
    const OptimizerOptions *p = &o->opt;
    float scale = 1.0f;
    if (p->clip > 0) scale = (float)fmin(1.0, p->clip / (norm + 1e-6));
    for (int i = 0; i < o->n; i++) {
        const OptParam *q = &o->param[i];
        if (q->frozen) continue;
        const Tensor w = tensor_cols(o->master, q->offset, q->count);
        const Tensor copy = q->use->dtype == DT_F32 ? NO_TENSOR : tensor_view(*q->use, 1, q->count);
        op_adamw(dev, w, tensor_cols(o->m, q->offset, q->count),
                 tensor_cols(o->v, q->offset, q->count), copy,
                 tensor_cols(o->grad, q->offset, q->count), scale, (float)lr, p->beta1, p->beta2,
                 p->eps, q->decay ? p->decay : 0.0f, step);
    }
    if (o->ema.data != NULL) {
        const double d = fmin(p->ema, (1.0 + (double)step) / (10.0 + (double)step));
        op_axpby(dev, o->ema, o->master, (float)(1.0 - d), (float)d);
    }
}

void optimizer_publish(Optimizer *o, Device *dev, bool average) {
    CHECK(!average || o->ema.data != NULL, "no weight average is kept");
    const Tensor from = average ? o->ema : o->master;
    for (int i = 0; i < o->n; i++) {
        const OptParam *q = &o->param[i];
        if (q->frozen) continue; // an average of equals may still differ from them in the last bit
        const Tensor t = tensor_view(tensor_cols(from, q->offset, q->count), q->rows, q->cols);
        // f32 weights are read in place: the pointer moves, not the numbers
        if (q->use->dtype == DT_F32)
            *q->use = t;
        else
            op_copy(dev, *q->use, t);
    }
}
