// infer/model/assistant.c - the parameters of an assistant: their order, shapes, names and files.
#include "infer/model/assistant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/weight_source.h"

typedef struct {
    AssistantParam p;
    int64_t rows, cols;
} Entry;

static void add(Entry **e, Tensor *t, int64_t rows, int64_t cols, const char *name) {
    **e = (Entry){.p = {.tensor = t, .decay = rows > 1}, .rows = rows, .cols = cols};
    CHECK(snprintf((*e)->p.name, sizeof(*e)->p.name, "%s.weight", name) < (int)sizeof(*e)->p.name);
    (*e)++;
}

static void add_layer(Entry **e, AssistantLayer *l, const TextConfig *c, int i) {
    const int64_t H = c->hidden, hd = layer_head_dim(c, i), Q = c->heads * hd,
                  F = layer_inter(c, i);
    const struct {
        Tensor *t;
        int64_t rows, cols;
        const char *name;
    } part[] = {
        {&l->in_norm, 1, H, "input_layernorm"},
        {&l->down, H, F, "mlp.down_proj"},
        {&l->gate, F, H, "mlp.gate_proj"}, // gate and up are neighbours: one product serves both
        {&l->up, F, H, "mlp.up_proj"},
        {&l->post_attn_norm, 1, H, "post_attention_layernorm"},
        {&l->post_ff_norm, 1, H, "post_feedforward_layernorm"},
        {&l->pre_ff_norm, 1, H, "pre_feedforward_layernorm"},
        {&l->o_proj, H, Q, "self_attn.o_proj"},
        {&l->q_norm, 1, hd, "self_attn.q_norm"},
        {&l->q_proj, Q, H, "self_attn.q_proj"},
    };
    for (size_t k = 0; k < sizeof part / sizeof *part; k++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%d.%s", i, part[k].name);
        add(e, part[k].t, part[k].rows, part[k].cols, name);
    }
}

// In the order of the keys of a Hugging Face file.
static int list_params(const AssistantConfig *c, AssistantWeights *w,
                       Entry out[ASSISTANT_PARAMS_MAX]) {
    const int64_t H = c->text.hidden, B = c->backbone, V = c->text.vocab;
    Entry *e = out;
    if (c->ordered) add(&e, &w->centroids, c->clusters, H, "masked_embedding.centroids");
    add(&e, &w->table, V, H, "model.embed_tokens");
    for (int i = 0; i < c->text.layers; i++) add_layer(&e, &w->layer[i], &c->text, i);
    add(&e, &w->norm, 1, H, "model.norm");
    add(&e, &w->post, B, H, "post_projection");
    add(&e, &w->pre, H, 2 * B, "pre_projection");
    return (int)(e - out);
}

int assistant_params(const AssistantConfig *c, AssistantWeights *w,
                     AssistantParam out[ASSISTANT_PARAMS_MAX]) {
    Entry e[ASSISTANT_PARAMS_MAX];
    const int n = list_params(c, w, e);
    for (int i = 0; i < n; i++) out[i] = e[i].p;
    return n;
}

int64_t assistant_layout(const AssistantConfig *c, AssistantWeights *w, void *flat, DType dtype) {
    Entry e[ASSISTANT_PARAMS_MAX];
    *w = (AssistantWeights){0};
    const int n = list_params(c, w, e);
    int64_t at = 0;
    for (int i = 0; i < n; i++) {
        void *data = flat ? (char *)flat + (size_t)at * dtype_size(dtype) : NULL;
        *e[i].p.tensor = tensor_of(data, dtype, e[i].rows, e[i].cols);
        at += e[i].rows * e[i].cols;
    }
    return at;
}

static bool shape_matches(const SourceTensor *t, int64_t rows, int64_t cols, Err *err) {
    const bool vector = rows == 1;
    const bool ok = vector ? t->rank == 1 && t->dim[0] == cols
                           : t->rank == 2 && t->dim[0] == rows && t->dim[1] == cols;
    if (ok) return true;
    char is[64] = "", want[64];
    for (int i = 0, at = 0; i < t->rank && at < 48; i++)
        at += snprintf(is + at, sizeof is - (size_t)at, "%s%lld", i ? ", " : "",
                       (long long)t->dim[i]);
    snprintf(want, sizeof want, vector ? "%lld" : "%lld, %lld", (long long)(vector ? cols : rows),
             (long long)cols);
    return err_set(err, ERR_INPUT, "%s has shape [%s], the configuration says [%s]", t->key, is,
                   want);
}

static bool read_params(const AssistantConfig *c, AssistantWeights *w, Device *dev,
                        const WeightSource *s, Err *err) {
    AssistantParam p[ASSISTANT_PARAMS_MAX];
    const int n = assistant_params(c, w, p);
    int64_t most = 0;
    for (int i = 0; i < n; i++)
        if (tensor_count(*p[i].tensor) > most) most = tensor_count(*p[i].tensor);
    float *host = malloc((size_t)most * sizeof *host);
    if (host == NULL)
        return err_set(err, ERR_FAILED, "no memory for a tensor of %lld values", (long long)most);
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        const Tensor dst = *p[i].tensor;
        SourceTensor t;
        if (!weight_source_find(s, p[i].name, &t))
            ok = err_set(err, ERR_INPUT, "no tensor %s", p[i].name);
        else
            ok = shape_matches(&t, dst.rows, dst.cols, err) &&
                 weight_source_read(s, &t, dst.dtype, host, err);
        if (ok) dev_upload(dev, dst, host);
    }
    free(host);
    return ok && dev_sync(dev, err);
}

bool assistant_read(const AssistantConfig *c, AssistantWeights *w, Device *dev,
                    const char *artifact, Err *err) {
    WeightSource *s = weight_source_open(artifact, err);
    const bool ok = s != NULL && read_params(c, w, dev, s, err);
    if (!ok) err_wrap(err, "%s", artifact);
    weight_source_close(s);
    return ok;
}

static bool read_scalars(Assistant *a, const WeightSource *s, Err *err) {
    for (int i = 0; i < a->cfg.text.layers; i++) {
        char name[64];
        SourceTensor t;
        snprintf(name, sizeof name, "model.layers.%d.layer_scalar", i);
        if (!weight_source_find(s, name, &t)) return err_set(err, ERR_INPUT, "no tensor %s", name);
        if (t.count != 1)
            return err_set(err, ERR_INPUT, "%s has %lld values, expected 1", name,
                           (long long)t.count);
        if (!weight_source_read(s, &t, DT_F32, &a->layer_scalar[i], err)) return false;
    }
    return true;
}

// raw (V) as in the file -> token ids and the cluster of every token. false: not a permutation.
static bool invert(const char *key, const int64_t *raw, int64_t V, int64_t per, int32_t *order,
                   int32_t *cluster_of, Err *err) {
    for (int64_t v = 0; v < V; v++) cluster_of[v] = -1;
    for (int64_t i = 0; i < V; i++) {
        const int64_t id = raw[i];
        if (id < 0 || id >= V)
            return err_set(err, ERR_INPUT,
                           "%s: slot %lld holds token %lld, the vocabulary has %lld", key,
                           (long long)i, (long long)id, (long long)V);
        if (cluster_of[id] >= 0)
            return err_set(err, ERR_INPUT, "%s: token %lld stands in two slots (second: %lld)", key,
                           (long long)id, (long long)i);
        order[i] = (int32_t)id;
        cluster_of[id] = (int32_t)(i / per);
    }
    return true;
}

static bool read_ordering(Assistant *a, const WeightSource *s, Err *err) {
    const int64_t V = a->cfg.text.vocab, per = V / a->cfg.clusters;
    SourceTensor t;
    if (!weight_source_find(s, "masked_embedding.token_ordering", &t))
        return err_set(err, ERR_INPUT, "no tensor %s", t.key);
    if (t.count != V)
        return err_set(err, ERR_INPUT, "%s has %lld values, the vocabulary has %lld", t.key,
                       (long long)t.count, (long long)V);
    int64_t *raw = malloc((size_t)V * sizeof *raw);
    int32_t *map = malloc(2 * (size_t)V * sizeof *map);
    bool ok = raw != NULL && map != NULL;
    if (!ok) err_set(err, ERR_FAILED, "no memory for %s", t.key);
    ok = ok && weight_source_read_ints(s, &t, raw, err) &&
         invert(t.key, raw, V, per, map, map + V, err);
    if (ok) {
        dev_upload(a->dev, a->ordering, map);
        dev_upload(a->dev, a->cluster_of, map + V);
        ok = dev_sync(a->dev, err);
    }
    free(raw);
    free(map);
    return ok;
}

static void upload_frequencies(Assistant *a) {
    float f[1024];
    for (int i = 0; i < a->cfg.text.layers; i++) {
        const LayerKind kind = a->cfg.text.kind[i];
        rope_frequencies(&a->cfg.text.rope[kind], layer_head_dim(&a->cfg.text, i), f);
        dev_upload(a->dev, a->inv_freq[kind], f);
    }
}

// Everything the assistant owns, from a counting arena first.
static void take_tensors(Assistant *a, Arena *arena) {
    const TextConfig *t = &a->cfg.text;
    AssistantWeights w;
    const int64_t n = assistant_layout(&a->cfg, &w, NULL, a->dtype);
    assistant_layout(&a->cfg, &a->w, arena_take(arena, (size_t)n * dtype_size(a->dtype)), a->dtype);
    if (a->cfg.ordered) {
        a->ordering = tensor_take(arena, DT_I32, a->cfg.clusters, t->vocab / a->cfg.clusters);
        a->cluster_of = tensor_take(arena, DT_I32, 1, t->vocab);
    }
    for (int i = 0; i < t->layers; i++) // one of each kind
        if (a->inv_freq[t->kind[i]].cols == 0)
            a->inv_freq[t->kind[i]] = tensor_take(arena, DT_F32, 1, layer_head_dim(t, i) / 2);
}

size_t assistant_bytes(const Assistant *a) {
    Assistant priced = {.cfg = a->cfg, .dtype = a->dtype};
    Arena arena;
    arena_open(&arena, NULL, 0);
    take_tensors(&priced, &arena);
    return arena.peak;
}

static bool check_config(const AssistantConfig *c, const AssistantOptions *o, Err *err) {
    const TextConfig *t = &c->text;
    if (t->layers < 1 || t->layers > ASSISTANT_LAYERS_MAX)
        return err_set(err, ERR_INPUT, "%lld layers, this program takes 1 to %d",
                       (long long)t->layers, ASSISTANT_LAYERS_MAX);
    if (c->ordered && (c->clusters < 1 || t->vocab % c->clusters != 0))
        return err_set(err, ERR_INPUT, "%lld tokens do not divide into %lld clusters",
                       (long long)t->vocab, (long long)c->clusters);
    if (c->ordered && (c->cluster_topk < 1 || c->cluster_topk > c->clusters))
        return err_set(err, ERR_INPUT, "centroid_intermediate_top_k %lld of %lld clusters",
                       (long long)c->cluster_topk, (long long)c->clusters);
    for (int i = 0; i < t->layers; i++) {
        const int64_t hd = layer_head_dim(t, i), kv = layer_kv_heads(t, i);
        if (hd < 2 || hd % 2 != 0 || hd > 2048 || kv < 1 || t->heads % kv != 0)
            return err_set(err, ERR_INPUT,
                           "layer %d: head size %lld, %lld heads over %lld kv heads", i,
                           (long long)hd, (long long)t->heads, (long long)kv);
    }
    if (o->target_table.rows != t->vocab || o->target_table.cols != c->backbone)
        return err_set(err, ERR_INPUT,
                       "the target's embedding is %lld x %lld, the assistant expects %lld x %lld",
                       (long long)o->target_table.rows, (long long)o->target_table.cols,
                       (long long)t->vocab, (long long)c->backbone);
    return true;
}

static bool load(Assistant *a, const char *dir, Err *err) {
    WeightSource *s = weight_source_open(dir, err);
    const bool ok = s != NULL && read_params(&a->cfg, &a->w, a->dev, s, err) &&
                    read_scalars(a, s, err) && (!a->cfg.ordered || read_ordering(a, s, err));
    weight_source_close(s);
    return ok;
}

Assistant *assistant_open(Device *dev, const AssistantOptions *opt, Err *err) {
    CHECK(opt->dtype == DT_F32 || opt->dtype == DT_BF16);
    Assistant *a = calloc(1, sizeof *a);
    CHECK_MEMORY(a);
    *a = (Assistant){.dev = dev,
                     .dtype = opt->dtype,
                     .target_table = opt->target_table,
                     .target_scale = opt->target_scale,
                     .pos_offset = opt->pos_offset,
                     .window_extra = opt->window_extra};
    Arena arena;
    if (!weight_source_config(&a->cfg, opt->dir, err) || !check_config(&a->cfg, opt, err))
        goto fail;
    const size_t bytes = assistant_bytes(a);
    if ((a->block = dev_alloc(dev, bytes, err)) == NULL) goto fail;
    arena_open(&arena, a->block, bytes);
    take_tensors(a, &arena);
    upload_frequencies(a);
    if (!load(a, opt->dir, err)) goto fail;
    return a;
fail:
    err_wrap(err, "assistant %s", opt->dir);
    assistant_close(a);
    return NULL;
}

void assistant_close(Assistant *a) {
    if (a == NULL) return;
    dev_free(a->dev, a->block);
    free(a);
}
