// eval/quant/variant.c - one matrix of an assistant, stored and read back, in memory of its own.
#include "eval/quant/variant.h"

#include <stdlib.h>
#include <string.h>

// gate and up are neighbours, and stay so: a change of one moves both.
static AssistantLayer *layer_of(const AssistantConfig *c, AssistantWeights *w, const Tensor *p) {
    for (int i = 0; i < c->text.layers; i++)
        if (p == &w->layer[i].gate || p == &w->layer[i].up) return &w->layer[i];
    return NULL;
}

// Host f32 of a device tensor, or back.
static void fetch(Device *dev, float *out, Tensor t) {
    dev_download(dev, out, t);
    for (int64_t i = tensor_count(t); t.dtype == DT_BF16 && i-- > 0;) { // in place, from the end
        bf16 x;
        memcpy(&x, (const char *)out + (size_t)i * sizeof x, sizeof x);
        out[i] = bf16_to_f32(x);
    }
}

static void store(Device *dev, Tensor t, float *x) {
    for (int64_t i = 0; t.dtype == DT_BF16 && i < tensor_count(t); i++) { // in place
        const bf16 h = bf16_from_f32(x[i]);
        memcpy((char *)x + (size_t)i * sizeof h, &h, sizeof h);
    }
    dev_upload(dev, t, x);
}

static bool fill(Variant *v, Tensor from, Tensor to, const MixType *t, const float *importance,
                 Err *err) {
    float *x = malloc((size_t)tensor_count(from) * sizeof *x);
    if (x == NULL)
        return err_set(err, ERR_FAILED, "no memory for %lld values", (long long)tensor_count(from));
    fetch(v->a.dev, x, from);
    const bool ok =
        dev_sync(v->a.dev, err) && roundtrip(t, x, from.rows, from.cols, importance, err);
    if (ok) store(v->a.dev, to, x);
    const bool done = dev_sync(v->a.dev, err);
    free(x);
    return ok && done;
}

bool variant_open(Variant *v, const Assistant *from, int param, const MixType *t,
                  const float *importance, Err *err) {
    AssistantParam p[ASSISTANT_PARAMS_MAX];
    *v = (Variant){.a = *from};
    v->a.block = NULL; // not ours
    const int n = assistant_params(&from->cfg, &v->a.w, p);
    CHECK(param >= 0 && param < n && p[param].decay);
    Tensor *at = p[param].tensor;
    const Tensor old = *at;
    AssistantLayer *l = layer_of(&from->cfg, &v->a.w, at);
    const size_t bytes =
        l != NULL ? tensor_bytes(l->gate) + tensor_bytes(l->up) : tensor_bytes(old);
    if ((v->block = dev_alloc(from->dev, bytes, err)) == NULL)
        return err_wrap(err, "%s", p[param].name);
    if (l == NULL) {
        at->data = v->block;
    } else {
        const Tensor gate = l->gate, up = l->up;
        l->gate.data = v->block;
        l->up.data = (char *)v->block + tensor_bytes(gate);
        op_copy(from->dev, l->gate, gate);
        op_copy(from->dev, l->up, up);
    }
    if (fill(v, old, *at, t, importance, err)) return true;
    err_wrap(err, "%s", p[param].name);
    variant_close(v);
    return false;
}

void variant_close(Variant *v) {
    if (v->block != NULL) dev_free(v->a.dev, v->block);
    *v = (Variant){0};
}

size_t variant_bytes(const Assistant *a) {
    AssistantParam p[ASSISTANT_PARAMS_MAX];
    AssistantWeights w;
    size_t most = 0;
    assistant_layout(&a->cfg, &w, NULL, a->dtype);
    const int n = assistant_params(&a->cfg, &w, p);
    for (int i = 0; i < n; i++)
        if (2 * tensor_bytes(*p[i].tensor) > most) most = 2 * tensor_bytes(*p[i].tensor);
    return most;
}
