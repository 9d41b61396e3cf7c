// infer/model/target_weights.c - where every weight of the target lies, under which name it is
// found, and how it gets there: straight into its place, with the adapter merged on the way.
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/model/target_parts.h"

enum { SPECS_MAX = 32, COMPARE_BYTES = 1 << 20 };

// One tensor of the file and its place. rank 1: a vector as one F32 row. rank 3: `to` is the matrix
// of expert 0 and the next one begins `stride` rows below.
typedef struct {
    char name[96];
    int rank;
    Tensor to;
    int64_t experts, stride;
} Spec;

typedef struct {
    Spec spec[SPECS_MAX];
    int n;
} SpecList;

QkvRows target_qkv_rows(const TextConfig *c, int layer) {
    const int64_t hd = layer_head_dim(c, layer);
    const int64_t kv = layer_owns_kv(c, layer) ? layer_kv_heads(c, layer) * hd : 0;
    const bool own_v = !(c->k_eq_v && c->kind[layer] == LAYER_FULL);
    return (QkvRows){.q = c->heads * hd, .k = kv, .v = own_v ? kv : 0};
}

static void take_layer(const TextConfig *c, int layer, DType dtype, TargetLayer *w, Arena *arena) {
    const int64_t b = c->hidden, hd = layer_head_dim(c, layer), inter = layer_inter(c, layer);
    const QkvRows n = target_qkv_rows(c, layer);
    w->in_norm = tensor_take(arena, DT_F32, 1, b);
    w->post_attn_norm = tensor_take(arena, DT_F32, 1, b);
    w->pre_ff_norm = tensor_take(arena, DT_F32, 1, b);
    w->post_ff_norm = tensor_take(arena, DT_F32, 1, b);
    w->q_norm = tensor_take(arena, DT_F32, 1, hd);
    if (n.k > 0) w->k_norm = tensor_take(arena, DT_F32, 1, hd);
    w->qkv = tensor_take(arena, dtype, n.q + n.k + n.v, b);
    w->o = tensor_take(arena, dtype, b, n.q);
    w->gate_up = tensor_take(arena, dtype, 2 * inter, b);
    w->down = tensor_take(arena, dtype, b, inter);
    if (c->moe) {
        const int64_t e = c->experts, mid = c->expert_inter;
        w->router = tensor_take(arena, DT_F32, e, b); // small, and a choice hangs on its last bits
        w->router_scale = tensor_take(arena, DT_F32, 1, b);
        w->expert_scale = tensor_take(arena, DT_F32, 1, e);
        w->experts_gate_up = tensor_take(arena, dtype, e * 2 * mid, b);
        w->experts_down = tensor_take(arena, dtype, e * b, mid);
        w->dense_norm = tensor_take(arena, DT_F32, 1, b);
        w->experts_in_norm = tensor_take(arena, DT_F32, 1, b);
        w->experts_norm = tensor_take(arena, DT_F32, 1, b);
    }
    if (c->ple == 0) return;
    w->ple_gate = tensor_take(arena, dtype, c->ple, b);
    w->ple_proj = tensor_take(arena, dtype, b, c->ple);
    w->ple_norm = tensor_take(arena, DT_F32, 1, b);
}

void target_weights_take(const TextConfig *c, DType dtype, DType ple, TargetWeights *w,
                         Arena *arena) {
    *w = (TargetWeights){0};
    w->embed = tensor_take(arena, dtype, c->vocab, c->hidden);
    w->norm = tensor_take(arena, DT_F32, 1, c->hidden);
    for (int k = 0; k < 2; k++)
        w->inv_freq[k] =
            tensor_take(arena, DT_F32, 1, (k == LAYER_FULL ? c->global_head_dim : c->head_dim) / 2);
    if (c->ple > 0) {
        w->ple_table = tensor_take(arena, ple, c->ple_vocab, c->layers * c->ple);
        w->ple_model = tensor_take(arena, dtype, c->layers * c->ple, c->hidden);
        w->ple_norm = tensor_take(arena, DT_F32, 1, c->ple);
    }
    for (int l = 0; l < c->layers; l++) take_layer(c, l, dtype, &w->layer[l], arena);
}

static void add_spec(SpecList *list, int layer, const char *name, int rank, Tensor to) {
    CHECK(list->n < SPECS_MAX);
    Spec *s = &list->spec[list->n++];
    *s = (Spec){.rank = rank, .to = to};
    if (layer < 0)
        snprintf(s->name, sizeof s->name, "%s.weight", name);
    else
        snprintf(s->name, sizeof s->name, "layers.%d.%s.weight", layer, name);
}

// A parameter that is no module's weight: its key has no ".weight".
static Spec *add_bare(SpecList *list, int layer, const char *name, int rank, Tensor to) {
    add_spec(list, layer, name, rank, to);
    Spec *s = &list->spec[list->n - 1];
    s->name[strlen(s->name) - strlen(".weight")] = '\0';
    return s;
}

static void add_experts(SpecList *list, int layer, const char *name, bool bare, Tensor to,
                        int64_t experts, int64_t stride) {
    if (bare)
        add_bare(list, layer, name, 3, to);
    else
        add_spec(list, layer, name, 3, to);
    list->spec[list->n - 1].experts = experts;
    list->spec[list->n - 1].stride = stride;
}

// Files for MLX keep gate and up apart, under a module of their own.
static void mixture_specs(const TextConfig *c, int l, const TargetLayer *w, bool mlx,
                          SpecList *list) {
    const int64_t e = c->experts, mid = c->expert_inter;
    const Tensor down = tensor_rows(w->experts_down, 0, c->hidden);
    add_spec(list, l, "router.proj", 2, w->router);
    add_bare(list, l, "router.scale", 1, w->router_scale);
    add_bare(list, l, "router.per_expert_scale", 1, w->expert_scale);
    add_spec(list, l, "post_feedforward_layernorm_1", 1, w->dense_norm);
    add_spec(list, l, "pre_feedforward_layernorm_2", 1, w->experts_in_norm);
    add_spec(list, l, "post_feedforward_layernorm_2", 1, w->experts_norm);
    if (mlx) {
        add_experts(list, l, "experts.switch_glu.gate_proj", false,
                    tensor_rows(w->experts_gate_up, 0, mid), e, 2 * mid);
        add_experts(list, l, "experts.switch_glu.up_proj", false,
                    tensor_rows(w->experts_gate_up, mid, mid), e, 2 * mid);
        add_experts(list, l, "experts.switch_glu.down_proj", false, down, e, c->hidden);
    } else {
        add_experts(list, l, "experts.gate_up_proj", true,
                    tensor_rows(w->experts_gate_up, 0, 2 * mid), e, 2 * mid);
        add_experts(list, l, "experts.down_proj", true, down, e, c->hidden);
    }
}

static void layer_specs(const TextConfig *c, int l, const TargetLayer *w, bool mlx,
                        SpecList *list) {
    const QkvRows n = target_qkv_rows(c, l);
    const int64_t inter = layer_inter(c, l);
    list->n = 0;
    add_spec(list, l, "input_layernorm", 1, w->in_norm);
    add_spec(list, l, "post_attention_layernorm", 1, w->post_attn_norm);
    add_spec(list, l, "pre_feedforward_layernorm", 1, w->pre_ff_norm);
    add_spec(list, l, "post_feedforward_layernorm", 1, w->post_ff_norm);
    add_spec(list, l, "self_attn.q_norm", 1, w->q_norm);
    add_spec(list, l, "self_attn.q_proj", 2, tensor_rows(w->qkv, 0, n.q));
    if (n.k > 0) {
        add_spec(list, l, "self_attn.k_norm", 1, w->k_norm);
        add_spec(list, l, "self_attn.k_proj", 2, tensor_rows(w->qkv, n.q, n.k));
    }
    if (n.v > 0) add_spec(list, l, "self_attn.v_proj", 2, tensor_rows(w->qkv, n.q + n.k, n.v));
    add_spec(list, l, "self_attn.o_proj", 2, w->o);
    add_spec(list, l, "mlp.gate_proj", 2, tensor_rows(w->gate_up, 0, inter));
    add_spec(list, l, "mlp.up_proj", 2, tensor_rows(w->gate_up, inter, inter));
    add_spec(list, l, "mlp.down_proj", 2, w->down);
    if (c->moe) mixture_specs(c, l, w, mlx, list);
    if (c->ple == 0) return;
    add_spec(list, l, "per_layer_input_gate", 2, w->ple_gate);
    add_spec(list, l, "per_layer_projection", 2, w->ple_proj);
    add_spec(list, l, "post_per_layer_input_norm", 1, w->ple_norm);
}

static void table_spec(const TargetWeights *w, SpecList *list) {
    list->n = 0;
    add_spec(list, -1, "embed_tokens", 2, w->embed);
}

static void model_specs(const TextConfig *c, const TargetWeights *w, SpecList *list) {
    table_spec(w, list);
    add_spec(list, -1, "norm", 1, w->norm);
    if (c->ple == 0) return;
    add_spec(list, -1, "embed_tokens_per_layer", 2, w->ple_table);
    add_spec(list, -1, "per_layer_model_projection", 2, w->ple_model);
    add_spec(list, -1, "per_layer_projection_norm", 1, w->ple_norm);
}

// The specs that are modules to quantise, behind those that are there.
static int add_modules(const SpecList *list, TargetModule *out, int n) {
    for (int i = 0; i < list->n; i++) {
        const Spec *s = &list->spec[i];
        if (s->rank < 2 || strstr(s->name, "embed_tokens") || strstr(s->name, "router.")) continue;
        if (out != NULL) {
            out[n] = (TargetModule){.first = s->to, .experts = s->experts, .stride = s->stride};
            snprintf(out[n].name, sizeof out[n].name, "%.*s",
                     (int)(strlen(s->name) - strlen(".weight")), s->name);
        }
        n++;
    }
    return n;
}

int target_modules(const Target *t, TargetModule *out) {
    SpecList list;
    int n = 0;
    for (int l = 0; l < t->cfg.text.layers; l++) {
        layer_specs(&t->cfg.text, l, &t->w.layer[l], true, &list);
        n = add_modules(&list, out, n);
    }
    model_specs(&t->cfg.text, &t->w, &list);
    return add_modules(&list, out, n);
}

bool target_source_open(TargetSource *s, const char *dir, const char *adapter, Err *err) {
    return (s->file = st_open(dir, err)) != NULL &&
           (s->map = weight_map_open(s->file, err)) != NULL &&
           (s->adapter = adapter_open(adapter, err)) != NULL;
}

void target_source_close(TargetSource *s) {
    adapter_close(s->adapter);
    weight_map_close(s->map);
    st_close(s->file);
    *s = (TargetSource){0};
}

bool weight_part_adapted(const Adapter *a, const WeightPart *p, const StTensor *t) {
    if (p->experts == 0) return adapter_has(a, p->module);
    return adapter_has_expert(a, p->module, t->dim[0], t->dim[1]);
}

StTensor expert_slice(const StTensor *t, int64_t e) {
    StTensor s = *t;
    s.rank = 2;
    s.dim[0] = t->dim[1];
    s.dim[1] = t->dim[2];
    s.count = t->count / t->dim[0];
    s.bytes = t->bytes / t->dim[0];
    s.offset = t->offset + e * s.bytes;
    return s;
}

bool merged_matrix(const StFile *f, const StTensor *t, const Adapter *a, const WeightPart *p,
                   float *out, Err *err) {
    bool merged = false;
    const int64_t rows = t->dim[0], cols = t->dim[1];
    if (!st_read_f32(f, t, out, err)) return false;
    if (!(p->experts == 0 ? adapter_merge(a, p->module, out, rows, cols, &merged, err)
                          : adapter_merge_expert(a, p->module, p->expert, p->experts, out, rows,
                                                 cols, &merged, err)))
        return false;
    if (!merged || strcmp(t->dtype, "F32") == 0) return true;
    if (strcmp(t->dtype, "BF16") != 0)
        return err_set(err, ERR_INPUT, "tensor %s: an adapter is merged into BF16 or F32, not %s",
                       t->name, t->dtype);
    for (int64_t i = 0; i < t->count; i++) out[i] = round_bf16(out[i]);
    return true;
}

static const char *shape_text(char out[96], const int64_t *dim, int rank) {
    int n = snprintf(out, 96, "[");
    for (int i = 0; i < rank; i++)
        n += snprintf(out + n, 96 - (size_t)n, "%s%lld", i > 0 ? ", " : "", (long long)dim[i]);
    snprintf(out + n, 96 - (size_t)n, "]");
    return out;
}

static bool check_shape(const StFile *f, const StTensor *t, const Spec *s, Err *err) {
    const int64_t vector[] = {s->to.cols}, matrix[] = {s->to.rows, s->to.cols},
                  experts[] = {s->experts, s->to.rows, s->to.cols};
    const int64_t *want = s->rank == 1 ? vector : s->rank == 2 ? matrix : experts;
    bool same = t->rank == s->rank;
    for (int i = 0; same && i < s->rank; i++) same = t->dim[i] == want[i];
    if (same) return true;
    char is[96], makes[96];
    return err_set(err, ERR_INPUT, "%s: tensor %s is %s, config.json makes it %s", st_path(f),
                   t->name, shape_text(is, t->dim, t->rank), shape_text(makes, want, s->rank));
}

// Values of the tensor in the dtype of `to`, into host memory of its size.
static bool read_values(const TargetSource *s, const StTensor *t, const WeightPart *p, Tensor to,
                        void *out, Err *err) {
    if (strcmp(t->dtype, dtype_name(to.dtype)) == 0 && !weight_part_adapted(s->adapter, p, t))
        return st_read(s->file, t, out, err);
    float *wide = to.dtype == DT_F32 ? out : malloc((size_t)t->count * sizeof *wide);
    if (wide == NULL) return err_set(err, ERR_FAILED, "out of memory for %s", t->name);
    const bool ok = merged_matrix(s->file, t, s->adapter, p, wide, err);
    if (to.dtype == DT_F32) return ok;
    for (int64_t i = 0; ok && i < t->count; i++) ((bf16 *)out)[i] = bf16_from_f32(wide[i]);
    free(wide);
    return ok;
}

// One matrix or vector into its place, by way of host memory where the device has its own.
static bool read_one(Target *t, const TargetSource *s, const StTensor *from, const WeightPart *p,
                     Tensor to, Err *err) {
    const bool direct = strcmp(t->dev->kind, "cpu") == 0;
    void *out = direct ? to.data : malloc(tensor_bytes(to));
    if (out == NULL) return err_set(err, ERR_FAILED, "out of memory for %s", from->name);
    const bool ok = from->rank == 1 ? st_read_f32(s->file, from, out, err)
                                    : read_values(s, from, p, to, out, err);
    if (direct) return ok;
    if (ok) dev_upload(t->dev, to, out);
    free(out);
    return ok;
}

static bool read_spec(Target *t, const TargetSource *s, const Spec *spec, Err *err) {
    const StTensor *from = weight_map_find(s->map, spec->name);
    if (from == NULL)
        return err_set(err, ERR_INPUT, "%s: no tensor %s", st_path(s->file), spec->name);
    if (!check_shape(s->file, from, spec, err)) return false;
    WeightPart part = {.experts = spec->experts};
    const size_t n = strlen(spec->name), tail = strlen(".weight");
    const bool weight = n > tail && strcmp(spec->name + n - tail, ".weight") == 0;
    snprintf(part.module, sizeof part.module, "%.*s", (int)(weight ? n - tail : n), spec->name);
    if (spec->rank < 3) return read_one(t, s, from, &part, spec->to, err);
    for (; part.expert < part.experts; part.expert++) {
        const StTensor one = expert_slice(from, part.expert);
        Tensor to = spec->to;
        const int64_t row = part.expert * spec->stride;
        to.data = (char *)to.data + (size_t)(row * to.ld) * dtype_size(to.dtype);
        if (!read_one(t, s, &one, &part, to, err)) return false;
    }
    return true;
}

static bool read_specs(Target *t, const TargetSource *s, const SpecList *list, Err *err) {
    for (int i = 0; i < list->n; i++)
        if (!read_spec(t, s, &list->spec[i], err)) return false;
    return true;
}

static bool read_scalar(const TargetSource *s, int layer, float *out, Err *err) {
    char name[96];
    snprintf(name, sizeof name, "layers.%d.layer_scalar", layer);
    const StTensor *t = weight_map_find(s->map, name);
    if (t == NULL) return err_set(err, ERR_INPUT, "%s: no tensor %s", st_path(s->file), name);
    if (t->count != 1)
        return err_set(err, ERR_INPUT, "%s: tensor %s has %lld values, one is needed",
                       st_path(s->file), t->name, (long long)t->count);
    return st_read_f32(s->file, t, out, err);
}

void target_pass_over_shared_kv(const TextConfig *c, const TargetSource *s) {
    static const char *const NAMES[] = {"k_proj", "v_proj", "k_norm"};
    int tensors = 0, modules = 0;
    for (int l = 0; l < c->layers; l++)
        for (int i = 0; i < 3 && !layer_owns_kv(c, l); i++) {
            char module[96], name[128];
            snprintf(module, sizeof module, "layers.%d.self_attn.%s", l, NAMES[i]);
            snprintf(name, sizeof name, "%s.weight", module);
            tensors += weight_map_find(s->map, name) != NULL;
            modules += adapter_has(s->adapter, module);
        }
    if (tensors + modules > 0)
        log_info("%s: %d tensors and %d adapter modules of layers that share K/V are not used",
                 st_path(s->file), tensors, modules);
}

bool target_check_head(const TextConfig *c, const TargetSource *s, Err *err) {
    const StTensor *head = weight_map_find(s->map, "lm_head.weight");
    const StTensor *table = weight_map_find(s->map, "embed_tokens.weight");
    if (head == NULL && c->tied) return true;
    if (table == NULL)
        return err_set(err, ERR_INPUT, "%s: no tensor embed_tokens.weight", st_path(s->file));
    if (head == NULL)
        return err_set(err, ERR_INPUT,
                       "%s: tie_word_embeddings is false and there is no lm_head.weight",
                       st_path(s->file));
    bool same = head->bytes == table->bytes && strcmp(head->dtype, table->dtype) == 0;
    char *a = malloc(COMPARE_BYTES), *b = malloc(COMPARE_BYTES);
    bool ok = a != NULL && b != NULL;
    if (!ok) err_set(err, ERR_FAILED, "out of memory");
    for (int64_t at = 0; ok && same && at < head->bytes; at += COMPARE_BYTES) {
        const int64_t n = head->bytes - at < COMPARE_BYTES ? head->bytes - at : COMPARE_BYTES;
        ok = st_read_part(s->file, head, at, n, a, err) &&
             st_read_part(s->file, table, at, n, b, err);
        same = ok && memcmp(a, b, (size_t)n) == 0;
    }
    free(a);
    free(b);
    if (ok && !same)
        return err_set(err, ERR_INPUT,
                       "%s: lm_head.weight differs from embed_tokens.weight: only tied "
                       "heads are supported",
                       st_path(s->file));
    return ok;
}

bool target_weights_read(Target *t, const TargetSource *s, Err *err) {
    const TextConfig *c = &t->cfg.text;
    SpecList list;
    const bool mlx =
        weight_map_find(s->map, "layers.0.experts.switch_glu.gate_proj.weight") != NULL;
    table_spec(&t->w, &list);
    if (t->max_rows == 0) return read_specs(t, s, &list, err) && target_check_head(c, s, err);
    model_specs(c, &t->w, &list);
    if (!read_specs(t, s, &list, err)) return false;
    for (int l = 0; l < c->layers; l++) {
        layer_specs(c, l, &t->w.layer[l], mlx, &list);
        if (!read_specs(t, s, &list, err)) return false;
        if (!read_scalar(s, l, &t->w.layer[l].scalar, err)) return false;
    }
    target_pass_over_shared_kv(c, s);
    return target_check_head(c, s, err) && weight_map_all_used(s->map, err) &&
           adapter_all_used(s->adapter, err);
}
