// infer/model/gguf_config.c - an assistant's configuration out of the keys of a GGUF file.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/source_gguf.h"

typedef struct {
    const GgufFile *f;
    GgufDialect dialect;
    TextConfig *c;
} Keys;

static const char *key_of(const Keys *k, const char *name, char out[96]) {
    snprintf(out, 96, "%s.%s", gguf_architecture(k->dialect), name);
    return out;
}

static bool number(const Keys *k, const char *name, int64_t min, int64_t max, int64_t *out,
                   Err *err) {
    char key[96];
    return gguf_int(k->f, key_of(k, name, key), min, max, out, err);
}

static bool real(const Keys *k, const char *name, double min, double max, double *out, Err *err) {
    char key[96];
    if (!gguf_real(k->f, key_of(k, name, key), out, err)) return false;
    if (*out >= min && *out <= max) return true;
    return err_set(err, ERR_INPUT, "%s: %s is %g, allowed %g to %g", gguf_path(k->f), key, *out,
                   min, max);
}

static bool equal(const Keys *k, const char *a, int64_t x, const char *b, int64_t y, Err *err) {
    if (x == y) return true;
    return err_set(err, ERR_INPUT, "%s: %s is %lld, %s is %lld", gguf_path(k->f), a, (long long)x,
                   b, (long long)y);
}

static bool read_sizes(const Keys *k, AssistantConfig *a, Err *err) {
    TextConfig *c = k->c;
    const bool ik = k->dialect == GGUF_IK;
    return number(k, "block_count", 1, ASSISTANT_LAYERS_MAX, &c->layers, err) &&
           number(k, "context_length", 1, INT32_MAX, &c->max_positions, err) &&
           number(k, "embedding_length", 1, 1 << 20, &c->hidden, err) &&
           number(k, "feed_forward_length", 1, 1 << 24, &c->inter, err) &&
           number(k, "attention.head_count", 1, 4096, &c->heads, err) &&
           number(k, "attention.sliding_window", 1, 1 << 24, &c->window, err) &&
           number(k, ik ? "backbone_embedding_length" : "embedding_length_out", 1, 1 << 20,
                  &a->backbone, err) &&
           real(k, "attention.layer_norm_rms_epsilon", 1e-30, 1.0, &c->eps, err);
}

// The last layers read the target's K/V: all of an assistant's do.
static bool read_arch(const Keys *k, Err *err) {
    int64_t shared, drafting;
    if (k->dialect == GGUF_IK) return true;
    return number(k, "attention.shared_kv_layers", 0, 4096, &shared, err) &&
           number(k, "nextn_predict_layers", 0, 4096, &drafting, err) &&
           equal(k, "attention.shared_kv_layers", shared, "block_count", k->c->layers, err) &&
           equal(k, "nextn_predict_layers", drafting, "block_count", k->c->layers, err);
}

static bool read_heads(const Keys *k, Err *err) {
    TextConfig *c = k->c;
    int64_t v, vs, rot, rots;
    return number(k, "attention.key_length", 2, HEAD_DIM_MAX, &c->global_head_dim, err) &&
           number(k, "attention.value_length", 2, HEAD_DIM_MAX, &v, err) &&
           number(k, "attention.key_length_swa", 2, HEAD_DIM_MAX, &c->head_dim, err) &&
           number(k, "attention.value_length_swa", 2, HEAD_DIM_MAX, &vs, err) &&
           number(k, "rope.dimension_count", 2, HEAD_DIM_MAX, &rot, err) &&
           number(k, "rope.dimension_count_swa", 2, HEAD_DIM_MAX, &rots, err) &&
           equal(k, "attention.key_length", c->global_head_dim, "value_length", v, err) &&
           equal(k, "attention.key_length_swa", c->head_dim, "value_length_swa", vs, err) &&
           equal(k, "attention.key_length", c->global_head_dim, "rope.dimension_count", rot, err) &&
           equal(k, "attention.key_length_swa", c->head_dim, "rope.dimension_count_swa", rots, err);
}

// An array with one entry per layer.
static const GgufValue *per_layer(const Keys *k, const char *name, Err *err) {
    char key[96];
    const GgufValue *v = gguf_value(k->f, key_of(k, name, key));
    if (v != NULL && v->array && v->count == k->c->layers) return v;
    if (v == NULL)
        err_set(err, ERR_INPUT, "%s: no key %s", gguf_path(k->f), key);
    else
        err_set(err, ERR_INPUT, "%s: %s has %lld entries, block_count is %lld", gguf_path(k->f),
                key, (long long)v->count, (long long)k->c->layers);
    return NULL;
}

static bool read_pattern(const Keys *k, Err *err) {
    const GgufValue *v = per_layer(k, "attention.sliding_window_pattern", err);
    if (v == NULL) return false;
    if (v->kind != GGUF_BOOL)
        return err_set(err, ERR_INPUT, "%s: %s is an array of %s, expected bool", gguf_path(k->f),
                       v->key, gguf_kind_name(v->kind));
    for (int i = 0; i < k->c->layers; i++) {
        int64_t sliding;
        (void)gguf_int_at(k->f, v, i, &sliding);
        k->c->kind[i] = sliding ? LAYER_SLIDING : LAYER_FULL;
    }
    if (k->c->kind[k->c->layers - 1] == LAYER_FULL) return true;
    return err_set(err, ERR_INPUT,
                   "%s: %s: the last layer is sliding, a Gemma 4 ends in a full one",
                   gguf_path(k->f), v->key);
}

// One number, or one per layer; layers of a kind must agree.
static bool read_kv_heads(const Keys *k, Err *err) {
    TextConfig *c = k->c;
    char key[96];
    const GgufValue *v = gguf_value(k->f, key_of(k, "attention.head_count_kv", key));
    int64_t seen[2] = {0, 0};
    if (v == NULL || !v->array) {
        if (!gguf_int(k->f, key, 1, 4096, &c->kv_heads, err)) return false;
        seen[0] = seen[1] = c->kv_heads;
    } else if ((v = per_layer(k, "attention.head_count_kv", err)) == NULL) {
        return false;
    }
    for (int i = 0; v != NULL && v->array && i < c->layers; i++) {
        int64_t n, *of = &seen[c->kind[i]];
        if (!gguf_int_at(k->f, v, i, &n) || n < 1 || n > 4096 || (*of != 0 && *of != n))
            return err_set(err, ERR_INPUT,
                           "%s: %s[%d]: not a count of heads that layers of its kind "
                           "share",
                           gguf_path(k->f), key, i);
        *of = n;
    }
    c->global_kv_heads = seen[LAYER_FULL];
    c->kv_heads = seen[LAYER_SLIDING] ? seen[LAYER_SLIDING] : seen[LAYER_FULL];
    for (int i = 0; i < 2; i++)
        if (seen[i] != 0 && c->heads % seen[i] != 0)
            return err_set(err, ERR_INPUT, "%s: %lld heads are no multiple of %lld kv heads",
                           gguf_path(k->f), (long long)c->heads, (long long)seen[i]);
    if (c->head_dim % 2 == 0 && c->global_head_dim % 2 == 0) return true;
    return err_set(err, ERR_INPUT, "%s: head sizes %lld and %lld must be even", gguf_path(k->f),
                   (long long)c->head_dim, (long long)c->global_head_dim);
}

// How many pairs of the full layers turn: factor 1, against 1e30 for those that do not. A file of
// the other dialect does not say; every Gemma 4 turns a quarter of them.
static bool read_turning(const Keys *k, Err *err) {
    RopeConfig *full = &k->c->rope[LAYER_FULL];
    full->partial = 0.25;
    if (k->dialect == GGUF_IK) return true;
    float factor[HEAD_DIM_MAX / 2];
    const int64_t half = k->c->global_head_dim / 2;
    const GgufTensor *t = gguf_find(k->f, "rope_freqs.weight");
    if (t == NULL || t->count != half)
        return err_set(err, ERR_INPUT, "%s: rope_freqs.weight has %lld values, expected %lld",
                       gguf_path(k->f), t ? (long long)t->count : 0LL, (long long)half);
    if (!gguf_read_f32(k->f, t, 0, t->rows, factor, err)) return false;
    int64_t turning = 0;
    while (turning < half && factor[turning] == 1.0f) turning++;
    for (int64_t i = turning; i < half; i++)
        if (!(factor[i] >= 1e20f))
            return err_set(err, ERR_INPUT, "%s: rope_freqs.weight[%lld] is %g, expected 1 or 1e30",
                           gguf_path(k->f), (long long)i, (double)factor[i]);
    full->partial = (double)turning / (double)half;
    return true;
}

static bool read_rope(const Keys *k, Err *err) {
    RopeConfig *full = &k->c->rope[LAYER_FULL], *sliding = &k->c->rope[LAYER_SLIDING];
    *full = (RopeConfig){.factor = 1.0, .proportional = 1};
    *sliding = (RopeConfig){.partial = 1.0, .factor = 1.0};
    return real(k, "rope.freq_base", 1.0, 1e12, &full->theta, err) &&
           real(k, "rope.freq_base_swa", 1.0, 1e12, &sliding->theta, err) && read_turning(k, err);
}

// The vocabulary is as long as the table; tokens must say the same.
static bool read_vocabulary(const Keys *k, Err *err) {
    const GgufTensor *t = gguf_find(k->f, "token_embd.weight");
    const GgufValue *tokens = gguf_value(k->f, "tokenizer.ggml.tokens");
    if (t == NULL || t->rank != 2)
        return err_set(err, ERR_INPUT, "%s: no matrix token_embd.weight", gguf_path(k->f));
    k->c->vocab = t->dim[1];
    if (tokens == NULL || tokens->kind != GGUF_TEXT || tokens->count != k->c->vocab)
        return err_set(err, ERR_INPUT,
                       "%s: %lld tokenizer.ggml.tokens, token_embd.weight has %lld "
                       "rows",
                       gguf_path(k->f), tokens ? (long long)tokens->count : 0LL,
                       (long long)k->c->vocab);
    k->c->bos = 2;
    k->c->pad = 0;
    return (gguf_value(k->f, "tokenizer.ggml.bos_token_id") == NULL ||
            gguf_int(k->f, "tokenizer.ggml.bos_token_id", 0, k->c->vocab - 1, &k->c->bos, err)) &&
           (gguf_value(k->f, "tokenizer.ggml.padding_token_id") == NULL ||
            gguf_int(k->f, "tokenizer.ggml.padding_token_id", 0, k->c->vocab - 1, &k->c->pad, err));
}

bool gguf_assistant_config(AssistantConfig *c, GgufDialect *d, const GgufFile *f, Err *err) {
    size_t size;
    memset(c, 0, sizeof *c);
    if (!gguf_dialect(d, f, err)) return false;
    const Keys k = {f, *d, &c->text};
    strcpy(c->text.model_type, "gemma4_assistant");
    if (!read_sizes(&k, c, err) || !read_arch(&k, err) || !read_heads(&k, err) ||
        !read_pattern(&k, err) || !read_kv_heads(&k, err) || !read_rope(&k, err) ||
        !read_vocabulary(&k, err))
        return false;
    c->text.kv_shared = c->text.layers;
    c->text.tied = 1;
    c->clusters = 1;
    c->cluster_topk = 1;
    const void *head = gguf_head(f, &size);
    return sha256_bytes(&c->hash, head, size, err);
}

const char *gguf_file_type_name(int64_t file_type) {
    static const struct {
        int id;
        const char *name;
    } TYPES[] = {{0, "F32"},     {1, "F16"},     {2, "Q4_0"},    {3, "Q4_1"},      {7, "Q8_0"},
                 {8, "Q5_0"},    {9, "Q5_1"},    {11, "Q3_K_S"}, {12, "Q3_K_M"},   {13, "Q3_K_L"},
                 {14, "Q4_K_S"}, {15, "Q4_K_M"}, {16, "Q5_K_S"}, {17, "Q5_K_M"},   {18, "Q6_K"},
                 {25, "IQ4_NL"}, {30, "IQ4_XS"}, {32, "BF16"},   {38, "MXFP4_MOE"}};
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        if (TYPES[i].id == file_type) return TYPES[i].name;
    return "?";
}
