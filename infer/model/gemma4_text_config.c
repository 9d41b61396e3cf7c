// infer/model/gemma4_text_config.c - fields of text_config with the defaults of its model_type.
#include "infer/model/gemma4_text_config.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"

static const char *const KIND_NAME[2] = {"sliding_attention", "full_attention"};

bool config_int(const json_t *o, const char *key, int64_t min, int64_t max, int64_t *out,
                Err *err) {
    if (!json_get_i64(o, key, out, err)) return false;
    if (*out >= min && *out <= max) return true;
    return err_set(err, ERR_INPUT, "%s is %lld, must be %lld to %lld", key, (long long)*out,
                   (long long)min, (long long)max);
}

bool config_flag(const json_t *o, const char *key, int *out, Err *err) {
    bool value = *out != 0;
    if (!json_get_bool(o, key, &value, err)) return false;
    *out = value;
    return true;
}

bool config_real(const json_t *o, const char *key, double min, double max, double *out, Err *err) {
    if (!json_get_f64(o, key, out, err)) return false;
    if (*out >= min && *out <= max) return true; // a NaN is neither
    return err_set(err, ERR_INPUT, "%s is %g, must be %g to %g", key, *out, min, max);
}

// Defaults are those of gemma4_text.
static const struct {
    const char *key;
    size_t offset;
    int64_t min, max, fallback;
} FIELDS[] = {
#define FIELD(key, member, min, max, fallback)                                                     \
    { key, offsetof(TextConfig, member), min, max, fallback }
    FIELD("vocab_size", vocab, 1, 1 << 24, 262144),
    FIELD("hidden_size", hidden, 1, 1 << 20, 2304),
    FIELD("intermediate_size", inter, 1, 1 << 22, 9216),
    FIELD("num_hidden_layers", layers, 1, LAYERS_MAX, 30),
    FIELD("num_attention_heads", heads, 1, 4096, 8),
    FIELD("num_key_value_heads", kv_heads, 1, 4096, 4),
    FIELD("head_dim", head_dim, 2, HEAD_DIM_MAX, 256),
    FIELD("num_kv_shared_layers", kv_shared, 0, LAYERS_MAX, 0),
    FIELD("hidden_size_per_layer_input", ple, 0, 1 << 16, 256),
    FIELD("vocab_size_per_layer_input", ple_vocab, 0, 1 << 24, 262144),
    FIELD("sliding_window", window, 1, INT32_MAX, 512),
    FIELD("max_position_embeddings", max_positions, 1, INT32_MAX, 131072),
    FIELD("num_experts", experts, 0, 1 << 16, 0),
    FIELD("top_k_experts", top_experts, 0, 1 << 16, 0),
    FIELD("expert_intermediate_size", expert_inter, 0, 1 << 22, 0),
    FIELD("moe_intermediate_size", expert_inter, 0, 1 << 22, 0),
    FIELD("bos_token_id", bos, 0, 1 << 24, 2),
    FIELD("pad_token_id", pad, 0, 1 << 24, 0),
#undef FIELD
};

static bool read_numbers(TextConfig *c, const json_t *text, bool unified, bool assistant,
                         Err *err) {
    const size_t n = sizeof FIELDS / sizeof *FIELDS;
    for (size_t i = 0; i < n; i++) *(int64_t *)((char *)c + FIELDS[i].offset) = FIELDS[i].fallback;
    if (unified) {
        c->window = 1024;
        c->max_positions = 262144;
    }
    if (unified || assistant) c->ple = c->ple_vocab = 0;
    for (size_t i = 0; i < n; i++)
        if (!config_int(text, FIELDS[i].key, FIELDS[i].min, FIELDS[i].max,
                        (int64_t *)((char *)c + FIELDS[i].offset), err))
            return false;
    c->eps = 1e-6;
    return config_real(text, "rms_norm_eps", 1e-30, 1.0, &c->eps, err) &&
           config_real(text, "final_logit_softcapping", 0.0, 1e6, &c->softcap, err) &&
           config_flag(text, "attention_k_eq_v", &c->k_eq_v, err) &&
           config_flag(text, "use_double_wide_mlp", &c->double_wide, err) &&
           config_flag(text, "enable_moe_block", &c->moe, err);
}

// What we do not compute is refused by name instead of computed wrongly.
static bool refuse_unknown_maths(const json_t *text, Err *err) {
    const char *activation = "gelu_pytorch_tanh", *both_ways = "vision";
    int bias = 0;
    if (!json_get_str(text, "hidden_activation", &activation, err) ||
        !json_get_str(text, "use_bidirectional_attention", &both_ways, err) ||
        !config_flag(text, "attention_bias", &bias, err))
        return false;
    if (strcmp(activation, "gelu_pytorch_tanh") != 0)
        return err_set(err, ERR_INPUT, "hidden_activation is %s, supported: gelu_pytorch_tanh",
                       activation);
    if (strcmp(both_ways, "vision") != 0) // "vision" concerns image tokens only
        return err_set(err, ERR_INPUT, "use_bidirectional_attention is %s, supported: null, vision",
                       both_ways);
    if (bias) return err_set(err, ERR_INPUT, "attention_bias is true, supported: false");
    return true;
}

static bool read_layer_types(TextConfig *c, const json_t *text, Err *err) {
    const json_t *list = json_object_get(text, "layer_types");
    if (list == NULL || json_is_null(list)) {
        for (int i = 0; i < c->layers; i++) c->kind[i] = (i + 1) % 6 ? LAYER_SLIDING : LAYER_FULL;
    } else if (!json_is_array(list) || (int64_t)json_array_size(list) != c->layers) {
        return err_set(err, ERR_INPUT, "layer_types has %zu entries, num_hidden_layers is %lld",
                       json_array_size(list), (long long)c->layers);
    } else {
        for (int i = 0; i < c->layers; i++) {
            const char *name = json_string_value(json_array_get(list, (size_t)i));
            if (name == NULL) return err_set(err, ERR_INPUT, "layer_types[%d] is not a string", i);
            if (strcmp(name, KIND_NAME[LAYER_FULL]) == 0)
                c->kind[i] = LAYER_FULL;
            else if (strcmp(name, KIND_NAME[LAYER_SLIDING]) == 0)
                c->kind[i] = LAYER_SLIDING;
            else
                return err_set(err, ERR_INPUT, "layer_types[%d] is %.64s, supported: %s, %s", i,
                               name, KIND_NAME[0], KIND_NAME[1]);
        }
    }
    c->kind[c->layers - 1] = LAYER_FULL; // as the reference forces it
    return true;
}

static bool read_rope(RopeConfig *r, const json_t *o, Err *err) {
    const char *type = "default";
    double partial = 1.0;
    r->factor = 1.0;
    if (!json_is_object(o)) return err_set(err, ERR_INPUT, "not an object");
    if (!json_get_str(o, "rope_type", &type, err) ||
        !config_real(o, "rope_theta", 1.0, 1e12, &r->theta, err) ||
        !config_real(o, "partial_rotary_factor", 0.0, 1.0, &partial, err))
        return false;
    r->proportional = strcmp(type, "proportional") == 0;
    if (!r->proportional && strcmp(type, "default") != 0)
        return err_set(err, ERR_INPUT, "rope_type is %.64s, supported: default, proportional",
                       type);
    r->partial = r->proportional ? partial : 1.0;
    return !r->proportional || config_real(o, "factor", 1e-6, 1e6, &r->factor, err);
}

static bool read_ropes(TextConfig *c, const json_t *text, Err *err) {
    const json_t *both = json_object_get(text, "rope_parameters");
    c->rope[LAYER_SLIDING] = (RopeConfig){.theta = 1e4, .partial = 1.0, .factor = 1.0};
    c->rope[LAYER_FULL] =
        (RopeConfig){.theta = 1e6, .partial = 0.25, .factor = 1.0, .proportional = 1};
    if (both == NULL || json_is_null(both)) return true;
    for (int k = 0; k < 2; k++) {
        const json_t *one = json_object_get(both, KIND_NAME[k]);
        if (!read_rope(&c->rope[k], one, err))
            return err_wrap(err, "rope_parameters.%s", KIND_NAME[k]);
    }
    return true;
}

// Head sizes as current tools save them: overrides keyed by layer index. Layers of a kind must
// agree.
static bool read_per_layer(TextConfig *c, const json_t *map, Err *err) {
    int64_t hd[LAYERS_MAX], kv[LAYERS_MAX];
    for (int i = 0; i < c->layers; i++) hd[i] = c->head_dim, kv[i] = c->kv_heads;
    const char *key, *name;
    json_t *entry, *value;
    if (!json_is_object(map)) return err_set(err, ERR_INPUT, "not an object");
    json_object_foreach((json_t *)map, key, entry) {
        char *end;
        const long i = strtol(key, &end, 10);
        if (end == key || *end != '\0' || i < 0 || i >= c->layers || !json_is_object(entry))
            return err_set(err, ERR_INPUT, "\"%.32s\" is no layer of 0 to %lld with its overrides",
                           key, (long long)c->layers - 1);
        json_object_foreach(entry, name, value) {
            if (strcmp(name, "head_dim") != 0 && strcmp(name, "num_key_value_heads") != 0)
                return err_set(err, ERR_INPUT,
                               "layer %ld overrides %.64s, supported: head_dim, "
                               "num_key_value_heads",
                               i, name);
        }
        if (!config_int(entry, "head_dim", 2, HEAD_DIM_MAX, &hd[i], err) ||
            !config_int(entry, "num_key_value_heads", 1, 4096, &kv[i], err))
            return false;
    }
    int first[2] = {-1, -1};
    for (int i = 0; i < c->layers; i++) {
        int *f = &first[c->kind[i]];
        if (*f < 0) *f = i;
        if (hd[i] != hd[*f] || kv[i] != kv[*f])
            return err_set(err, ERR_INPUT,
                           "layers %d and %d, both %s, have %lld and %lld heads of %lld and %lld",
                           *f, i, KIND_NAME[c->kind[i]], (long long)kv[*f], (long long)kv[i],
                           (long long)hd[*f], (long long)hd[i]);
    }
    if (first[LAYER_SLIDING] >= 0)
        c->head_dim = hd[first[LAYER_SLIDING]], c->kv_heads = kv[first[LAYER_SLIDING]];
    c->global_head_dim = hd[first[LAYER_FULL]]; // the last layer is full
    c->global_kv_heads = kv[first[LAYER_FULL]];
    return true;
}

static bool read_head_sizes(TextConfig *c, const json_t *text, Err *err) {
    const json_t *map = json_object_get(text, "per_layer_config");
    c->global_head_dim = 512;
    c->global_kv_heads = c->kv_heads;
    if (map != NULL && !json_is_null(map))
        return read_per_layer(c, map, err) || err_wrap(err, "per_layer_config");
    int64_t kv = c->kv_heads;
    if (!config_int(text, "global_head_dim", 2, HEAD_DIM_MAX, &c->global_head_dim, err) ||
        !config_int(text, "num_global_key_value_heads", 1, 4096, &kv, err))
        return false;
    if (c->k_eq_v) c->global_kv_heads = kv; // the reference honours it only then
    return true;
}

static bool check_sizes(const TextConfig *c, Err *err) {
    for (int k = 0; k < 2; k++) {
        const int64_t hd = k == LAYER_FULL ? c->global_head_dim : c->head_dim;
        const int64_t kv = k == LAYER_FULL ? c->global_kv_heads : c->kv_heads;
        if (hd % 2 != 0)
            return err_set(err, ERR_INPUT, "head size %lld of %s is odd", (long long)hd,
                           KIND_NAME[k]);
        if (c->heads % kv != 0)
            return err_set(err, ERR_INPUT, "%lld heads are no multiple of %lld kv heads of %s",
                           (long long)c->heads, (long long)kv, KIND_NAME[k]);
    }
    if (c->kv_shared > c->layers)
        return err_set(err, ERR_INPUT, "num_kv_shared_layers is %lld, num_hidden_layers is %lld",
                       (long long)c->kv_shared, (long long)c->layers);
    if (c->bos >= c->vocab || c->pad >= c->vocab)
        return err_set(err, ERR_INPUT,
                       "bos_token_id %lld or pad_token_id %lld lies beyond vocab_size %lld",
                       (long long)c->bos, (long long)c->pad, (long long)c->vocab);
    if (c->ple > 0 && c->ple_vocab < c->vocab)
        return err_set(err, ERR_INPUT, "vocab_size_per_layer_input is %lld, vocab_size is %lld",
                       (long long)c->ple_vocab, (long long)c->vocab);
    if (c->moe && (c->experts < 1 || c->top_experts < 1 || c->top_experts > c->experts ||
                   c->expert_inter < 1))
        return err_set(err, ERR_INPUT,
                       "enable_moe_block with num_experts %lld, top_k_experts %lld, "
                       "moe_intermediate_size %lld",
                       (long long)c->experts, (long long)c->top_experts,
                       (long long)c->expert_inter);
    return true;
}

bool text_config_read(TextConfig *c, const json_t *root, bool assistant, Err *err) {
    const json_t *nested = json_object_get(root, "text_config");
    const json_t *text = nested != NULL && !json_is_null(nested) ? nested : root;
    const char *type = strstr(c->model_type, "unified") ? "gemma4_unified_text" : "gemma4_text";
    if (!json_is_object(text)) return err_set(err, ERR_INPUT, "text_config is not an object");
    if (text != root && !json_get_str(text, "model_type", &type, err)) return false;
    const bool unified = strcmp(type, "gemma4_unified_text") == 0;
    if (!unified && strcmp(type, "gemma4_text") != 0)
        return err_set(
            err, ERR_INPUT,
            "text_config.model_type is %.64s, supported: gemma4_text, gemma4_unified_text", type);
    if (!refuse_unknown_maths(text, err) || !read_numbers(c, text, unified, assistant, err) ||
        !read_layer_types(c, text, err) || !read_ropes(c, text, err) ||
        !read_head_sizes(c, text, err))
        return false;
    int tied_text = 1, tied_top = 1;
    if (!config_flag(text, "tie_word_embeddings", &tied_text, err) ||
        !config_flag(root, "tie_word_embeddings", &tied_top, err))
        return false;
    c->tied = tied_text && tied_top;
    return check_sizes(c, err);
}
