// infer/model/gemma4_config.c - which model a folder holds, its stops, and what layers of it look
// like.
#include "infer/model/gemma4_config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/fp.h"
#include "infer/base/json.h"
#include "infer/model/assistant.h"
#include "infer/model/gemma4_text_config.h"

enum { CONFIG_LIMIT = 16 << 20 };

static const char *const TARGET_TYPES[] = {"gemma4", "gemma4_text", "gemma4_unified",
                                           "gemma4_unified_text", NULL};
static const char *const ASSISTANT_TYPES[] = {"gemma4_assistant", "gemma4_unified_assistant", NULL};

static bool listed(const char *const *list, const char *name) {
    for (; *list != NULL; list++)
        if (strcmp(*list, name) == 0) return true;
    return false;
}

static bool check_type(const json_t *root, bool assistant, char out[64], Err *err) {
    const char *type = NULL;
    if (!json_is_object(root)) return err_set(err, ERR_INPUT, "not a JSON object");
    if (!json_get_str(root, "model_type", &type, err)) return false;
    if (type == NULL) return err_set(err, ERR_INPUT, "no model_type");
    if (!listed(assistant ? ASSISTANT_TYPES : TARGET_TYPES, type)) {
        if (listed(assistant ? TARGET_TYPES : ASSISTANT_TYPES, type))
            return err_set(err, ERR_INPUT, "model_type %s is %s where %s is needed", type,
                           assistant ? "a target" : "an assistant",
                           assistant ? "an assistant" : "a target");
        return err_set(err, ERR_INPUT, "model_type %.64s is not supported (%s)", type,
                       assistant ? "gemma4_assistant, gemma4_unified_assistant"
                                 : "gemma4, gemma4_text, gemma4_unified, gemma4_unified_text");
    }
    strcpy(out, type); // a listed name fits
    return true;
}

// A number or a list; absent or null leaves *n alone.
static bool read_ids(const json_t *o, const char *key, int64_t *out, int room, int *n, Err *err) {
    const json_t *v = json_object_get(o, key);
    if (v == NULL || json_is_null(v)) return true;
    const size_t size = json_is_array(v) ? json_array_size(v) : 1;
    if (size > (size_t)room)
        return err_set(err, ERR_INPUT, "%s has %zu entries, at most %d are supported", key, size,
                       room);
    for (size_t i = 0; i < size; i++) {
        const json_t *id = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_integer(id) || json_integer_value(id) < 0)
            return err_set(err, ERR_INPUT, "%s is not a token id or a list of them", key);
        out[i] = json_integer_value(id);
    }
    *n = (int)size;
    return true;
}

static bool read_stops(const json_t *o, TargetConfig *c, Err *err) {
    return read_ids(o, "eos_token_id", c->stop, STOP_MAX, &c->nstop, err);
}

static bool read_suppress(const json_t *generation, TargetConfig *c, Err *err) {
    Suppress *s = &c->suppress;
    if (!read_ids(generation, "suppress_tokens", s->id, SUPPRESS_MAX, &s->n, err)) return false;
    for (int i = 0; i < s->n; i++)
        if (s->id[i] >= c->text.vocab)
            return err_set(err, ERR_INPUT, "suppress_tokens holds %lld, the vocabulary has %lld",
                           (long long)s->id[i], (long long)c->text.vocab);
    return true;
}

static json_t *read_config(const char *dir, Sha256 *hash, Err *err) {
    char path[PATH_ROOM];
    size_t size = 0;
    json_t *root = NULL;
    char *text = file_read(path_join(path, dir, "config.json"), CONFIG_LIMIT, &size, err);
    if (text == NULL) return NULL;
    if (sha256_bytes(hash, text, size, err)) root = json_read_text(text, size, err);
    if (root == NULL) err_wrap(err, "%s", path);
    free(text);
    return root;
}

// A borrowed empty object stands for an absent file. New reference.
static json_t *read_generation(const char *dir, Err *err) {
    char path[PATH_ROOM];
    if (!file_exists(path_join(path, dir, "generation_config.json"))) return json_object();
    return json_read_file(path, CONFIG_LIMIT, err);
}

static bool find_kv_sources(TargetConfig *c, Err *err) {
    c->kv_source[LAYER_SLIDING] = c->kv_source[LAYER_FULL] = -1;
    for (int i = 0; i < c->text.layers - c->text.kv_shared; i++) c->kv_source[c->text.kind[i]] = i;
    for (int k = 0; k < 2; k++)
        if (c->kv_source[k] < 0)
            return err_set(err, ERR_INPUT, "layer_types: no %s layer owns K/V",
                           k == LAYER_FULL ? "full" : "sliding");
    return true;
}

static bool target_read(TargetConfig *c, const json_t *root, const json_t *generation, Err *err) {
    if (!check_type(root, false, c->text.model_type, err)) return false;
    if (!text_config_read(&c->text, root, false, err)) return false;
    if (!find_kv_sources(c, err)) return false;
    c->stop[0] = 1;
    c->nstop = 1;
    if (!read_stops(json_object_get(root, "text_config"), c, err) || !read_stops(root, c, err) ||
        !read_stops(generation, c, err) || !read_suppress(generation, c, err) ||
        !config_real(generation, "temperature", 0.0, 1e6, &c->temperature, err) ||
        !config_real(generation, "top_p", 0.0, 1.0, &c->top_p, err) ||
        !config_int(generation, "top_k", 0, INT32_MAX, &c->top_k, err))
        return false;
    c->embed_scale_f32 = (float)sqrt((double)c->text.hidden);
    c->embed_scale_bf16 = round_bf16((float)c->embed_scale_f32);
    return true;
}

bool target_config_load(TargetConfig *c, const char *dir, Err *err) {
    memset(c, 0, sizeof *c);
    json_t *generation = NULL, *root = read_config(dir, &c->hash, err);
    bool ok = root != NULL && (generation = read_generation(dir, err)) != NULL;
    if (ok && !target_read(c, root, generation, err)) ok = err_wrap(err, "%s", dir);
    json_decref(root);
    json_decref(generation);
    return ok;
}

static bool check_assistant(AssistantConfig *c, Err *err) {
    TextConfig *t = &c->text;
    if (t->layers > ASSISTANT_LAYERS_MAX)
        return err_set(err, ERR_INPUT, "num_hidden_layers is %lld, at most %d in an assistant",
                       (long long)t->layers, ASSISTANT_LAYERS_MAX);
    if (t->ple != 0 || t->moe || t->double_wide)
        return err_set(
            err, ERR_INPUT,
            "an assistant has no hidden_size_per_layer_input (%lld), no enable_moe_block (%d), "
            "no use_double_wide_mlp (%d)",
            (long long)t->ple, t->moe, t->double_wide);
    if (t->kv_shared == 0) t->kv_shared = t->layers;
    if (t->kv_shared != t->layers)
        return err_set(err, ERR_INPUT,
                       "num_kv_shared_layers is %lld, an assistant's %lld layers own no K/V",
                       (long long)t->kv_shared, (long long)t->layers);
    if (c->ordered && t->vocab % c->clusters != 0)
        return err_set(err, ERR_INPUT, "vocab_size %lld is no multiple of num_centroids %lld",
                       (long long)t->vocab, (long long)c->clusters);
    if (c->ordered && c->cluster_topk > c->clusters)
        return err_set(err, ERR_INPUT, "centroid_intermediate_top_k is %lld, num_centroids is %lld",
                       (long long)c->cluster_topk, (long long)c->clusters);
    return true;
}

static bool assistant_read_config(AssistantConfig *c, const json_t *root, const json_t *generation,
                                  Err *err) {
    if (!check_type(root, true, c->text.model_type, err)) return false;
    if (!text_config_read(&c->text, root, true, err)) return false;
    c->backbone = 1536;
    c->clusters = 2048;
    c->cluster_topk = 32;
    return config_int(root, "backbone_hidden_size", 1, 1 << 20, &c->backbone, err) &&
           config_flag(root, "use_ordered_embeddings", &c->ordered, err) &&
           config_int(root, "num_centroids", 1, 1 << 24, &c->clusters, err) &&
           config_int(root, "centroid_intermediate_top_k", 1, 1 << 24, &c->cluster_topk, err) &&
           config_int(generation, "num_assistant_tokens", 0, 1024, &c->draft_tokens, err) &&
           check_assistant(c, err);
}

bool assistant_config_load(AssistantConfig *c, const char *dir, Err *err) {
    memset(c, 0, sizeof *c);
    json_t *generation = NULL, *root = read_config(dir, &c->hash, err);
    bool ok = root != NULL && (generation = read_generation(dir, err)) != NULL;
    if (ok && !assistant_read_config(c, root, generation, err)) ok = err_wrap(err, "%s", dir);
    json_decref(root);
    json_decref(generation);
    return ok;
}

static bool same(const char *what, int64_t target, int64_t assistant, Err *err) {
    if (target == assistant) return true;
    return err_set(err, ERR_INPUT,
                   "the pair does not fit: %s is %lld in the target, %lld in the assistant", what,
                   (long long)target, (long long)assistant);
}

static bool same_rope(const char *what, const RopeConfig *t, const RopeConfig *a, Err *err) {
    if (t->theta == a->theta && t->partial == a->partial && t->factor == a->factor &&
        t->proportional == a->proportional)
        return true;
    return err_set(
        err, ERR_INPUT,
        "the pair does not fit: rope_parameters.%s has theta %g, partial %g, factor %g in the "
        "target, %g, %g, %g in the assistant",
        what, t->theta, t->partial, t->factor, a->theta, a->partial, a->factor);
}

bool pair_check(const TargetConfig *target, const AssistantConfig *assistant, Err *err) {
    const TextConfig *t = &target->text, *a = &assistant->text;
    return same("hidden_size and backbone_hidden_size", t->hidden, assistant->backbone, err) &&
           same("vocab_size", t->vocab, a->vocab, err) &&
           same("head_dim", t->head_dim, a->head_dim, err) &&
           same("global_head_dim", t->global_head_dim, a->global_head_dim, err) &&
           same("num_key_value_heads", t->kv_heads, a->kv_heads, err) &&
           same("kv heads of full layers", t->global_kv_heads, a->global_kv_heads, err) &&
           same("sliding_window", t->window, a->window, err) &&
           same_rope("sliding_attention", &t->rope[0], &a->rope[0], err) &&
           same_rope("full_attention", &t->rope[1], &a->rope[1], err);
}

int64_t layer_head_dim(const TextConfig *c, int layer) {
    return c->kind[layer] == LAYER_FULL ? c->global_head_dim : c->head_dim;
}

int64_t layer_kv_heads(const TextConfig *c, int layer) {
    return c->kind[layer] == LAYER_FULL ? c->global_kv_heads : c->kv_heads;
}

int64_t layer_inter(const TextConfig *c, int layer) {
    return c->double_wide && !layer_owns_kv(c, layer) ? 2 * c->inter : c->inter;
}

int layer_owns_kv(const TextConfig *c, int layer) {
    return layer < c->layers - c->kv_shared;
}

int layer_kv_source(const TextConfig *c, int layer) {
    if (layer_owns_kv(c, layer)) return layer;
    for (int i = (int)(c->layers - c->kv_shared) - 1; i >= 0; i--)
        if (c->kind[i] == c->kind[layer]) return i;
    return -1; // an assistant's layers read the target's
}

void rope_frequencies(const RopeConfig *r, int64_t hd, float *f) {
    const int64_t half = hd / 2,
                  turning = r->proportional ? (int64_t)(r->partial * (double)hd / 2) : half;
    for (int64_t i = 0; i < half; i++) {
        // float32 after every step: exponent, power, reciprocal, as the reference computes them
        const float exponent = (float)(2 * i) / (float)hd;
        const float power = (float)pow(r->theta, (double)exponent);
        f[i] = i < turning ? 1.0f / power / (float)r->factor : 0.0f;
    }
}
