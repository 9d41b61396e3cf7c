// data/synthetic.c - config and random tensors of a pair at a chosen shape.
#include "data/synthetic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/cores.h"
#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/base/rng.h"
#include "infer/format/safetensors.h"

static const PairShape SHAPES[] = {
    {"demo", 256, 768, 8, 4,     4,     2,     0,   64,  128, 4,   32, 64,
     8192,   0,   0,   0, false, false, false, 256, 512, 4,   256, 16},
    {"e2b",  1536, 6144, 35, 5,     8,    1,     0,   256,  512, 20,   256, 512,
     262144, 0,    0,    0,  false, true, false, 256, 2048, 4,   2048, 32},
    {"e4b",  2560, 10240, 42, 6,     8,     2,     0,   256,  512, 18,   256, 512,
     262144, 0,    0,     0,  false, false, false, 256, 2048, 4,   2048, 32},
    {"12b",  3840, 15360, 48, 6,    16,    8,    1,    256,  512, 0, 0, 1024,
     262144, 0,    0,     0,  true, false, true, 1024, 8192, 16,  0, 0},
    {"26b",  2816, 2112, 30,  6,    16,    8,     2,    256,  512, 0, 0, 1024,
     262144, 128,  8,    704, true, false, false, 1024, 8192, 16,  0, 0},
    {"31b",  5376, 21504, 60, 6,    32,    16,    4,    256,  512, 0, 0, 1024,
     262144, 0,    0,     0,  true, false, false, 1024, 8192, 32,  0, 0},
};

const PairShape *pair_shape(const char *name) {
    for (size_t i = 0; i < sizeof SHAPES / sizeof SHAPES[0]; i++)
        if (strcmp(SHAPES[i].name, name) == 0) return &SHAPES[i];
    return NULL;
}

static bool is_full(const PairShape *s, int64_t layer) {
    return (layer + 1) % s->period == 0 || layer + 1 == s->layers;
}

// --- config.json

static void set_int(json_t *o, const char *key, int64_t v) {
    json_object_set_new(o, key, json_integer(v));
}
static void set_int_or_null(json_t *o, const char *key, int64_t v) {
    json_object_set_new(o, key, v > 0 ? json_integer(v) : json_null());
}
static void set_bool(json_t *o, const char *key, bool v) {
    json_object_set_new(o, key, json_boolean(v));
}
static void set_str(json_t *o, const char *key, const char *v) {
    json_object_set_new(o, key, json_string(v));
}

static json_t *rope_json(void) {
    return json_pack("{s:{s:s,s:f,s:f},s:{s:s,s:f}}", "full_attention", "rope_type", "proportional",
                     "rope_theta", 1e6, "partial_rotary_factor", 0.25, "sliding_attention",
                     "rope_type", "default", "rope_theta", 1e4);
}

static json_t *text_json(const PairShape *s, bool draft) {
    json_t *t = json_object(), *kinds = json_array();
    const int64_t layers = draft ? 4 : s->layers;
    for (int64_t i = 0; i < layers; i++)
        json_array_append_new(
            kinds,
            json_string((draft ? i == 3 : is_full(s, i)) ? "full_attention" : "sliding_attention"));
    set_str(t, "model_type", s->unified ? "gemma4_unified_text" : "gemma4_text");
    set_int(t, "vocab_size", s->vocab);
    set_int(t, "hidden_size", draft ? s->draft_hidden : s->hidden);
    set_int(t, "intermediate_size", draft ? s->draft_inter : s->inter);
    set_int(t, "num_hidden_layers", layers);
    set_int(t, "num_attention_heads", draft ? s->draft_heads : s->heads);
    set_int(t, "num_key_value_heads", s->kv_heads);
    set_int_or_null(t, "num_global_key_value_heads", s->global_kv_heads);
    set_int(t, "head_dim", s->head_dim);
    set_int(t, "global_head_dim", s->global_head_dim);
    set_bool(t, "attention_k_eq_v", s->k_eq_v);
    set_int(t, "num_kv_shared_layers", draft ? layers : s->shared);
    set_bool(t, "use_double_wide_mlp", !draft && s->wide);
    set_int(t, "hidden_size_per_layer_input", draft ? 0 : s->ple);
    set_int(t, "vocab_size_per_layer_input", draft || s->ple == 0 ? 0 : s->vocab);
    json_object_set_new(t, "layer_types", kinds);
    set_int(t, "sliding_window", s->window);
    json_object_set_new(t, "rope_parameters", rope_json());
    json_object_set_new(t, "rms_norm_eps", json_real(1e-6));
    set_str(t, "hidden_activation", "gelu_pytorch_tanh");
    json_object_set_new(t, "final_logit_softcapping", draft ? json_null() : json_real(30.0));
    set_bool(t, "tie_word_embeddings", true);
    set_bool(t, "attention_bias", false);
    set_bool(t, "enable_moe_block", !draft && s->experts > 0);
    set_int_or_null(t, "num_experts", draft ? 0 : s->experts);
    set_int_or_null(t, "top_k_experts", draft ? 0 : s->top_experts);
    set_int_or_null(t, "moe_intermediate_size", draft ? 0 : s->expert_inter);
    set_int(t, "max_position_embeddings", 131072);
    set_int(t, "bos_token_id", 2);
    set_int(t, "eos_token_id", 1);
    set_int(t, "pad_token_id", 0);
    return t;
}

static bool write_configs(const char *dir, const PairShape *s, bool draft, Err *err) {
    char path[PATH_ROOM];
    json_t *c = json_object();
    set_str(c, "model_type",
            draft ? (s->unified ? "gemma4_unified_assistant" : "gemma4_assistant")
                  : (s->unified ? "gemma4_unified" : "gemma4"));
    set_str(c, "dtype", "bfloat16");
    set_bool(c, "tie_word_embeddings", true);
    if (draft) {
        set_int(c, "backbone_hidden_size", s->hidden);
        set_bool(c, "use_ordered_embeddings", s->clusters > 0);
        set_int(c, "num_centroids", s->clusters > 0 ? s->clusters : 2048);
        set_int(c, "centroid_intermediate_top_k", s->clusters > 0 ? s->cluster_topk : 32);
    }
    json_object_set_new(c, "text_config", text_json(s, draft));
    bool ok = json_write_file(path_join(path, dir, "config.json"), c, err);
    json_decref(c);
    json_t *g = json_pack("{s:i,s:[i,i],s:i}", "bos_token_id", 2, "eos_token_id", 1, 106,
                          "pad_token_id", 0);
    if (draft) set_int(g, "num_assistant_tokens", 6);
    ok = ok && json_write_file(path_join(path, dir, "generation_config.json"), g, err);
    json_decref(g);
    return ok;
}

// --- tensors

static bool declare(StWriter *w, Err *err, const char *name, int rank, int64_t a, int64_t b,
                    int64_t c) {
    const int64_t dim[3] = {a, b, c};
    return st_writer_declare(w, name, "BF16", rank, dim, err);
}

static bool declare_layer(StWriter *w, Err *err, const char *prefix, int64_t i, const char *what,
                          int rank, int64_t a, int64_t b, int64_t c) {
    char name[256];
    snprintf(name, sizeof name, "%slayers.%lld.%s", prefix, (long long)i, what);
    return declare(w, err, name, rank, a, b, c);
}
#define LAYER(what, rank, a, b, c) declare_layer(w, err, prefix, i, what, rank, a, b, c)

static bool declare_block(StWriter *w, Err *err, const char *prefix, int64_t i, int64_t width,
                          int64_t inter, int64_t q, int64_t hd) {
    return LAYER("input_layernorm.weight", 1, width, 0, 0) &&
           LAYER("post_attention_layernorm.weight", 1, width, 0, 0) &&
           LAYER("pre_feedforward_layernorm.weight", 1, width, 0, 0) &&
           LAYER("post_feedforward_layernorm.weight", 1, width, 0, 0) &&
           LAYER("self_attn.q_proj.weight", 2, q, width, 0) &&
           LAYER("self_attn.q_norm.weight", 1, hd, 0, 0) &&
           LAYER("self_attn.o_proj.weight", 2, width, q, 0) &&
           LAYER("mlp.gate_proj.weight", 2, inter, width, 0) &&
           LAYER("mlp.up_proj.weight", 2, inter, width, 0) &&
           LAYER("mlp.down_proj.weight", 2, width, inter, 0) && LAYER("layer_scalar", 1, 1, 0, 0);
}

static bool declare_target_layer(StWriter *w, Err *err, const PairShape *s, const char *prefix,
                                 int64_t i) {
    const bool full = is_full(s, i), owner = i < s->layers - s->shared;
    const int64_t hd = full ? s->global_head_dim : s->head_dim;
    const int64_t kv =
        (full && s->k_eq_v && s->global_kv_heads ? s->global_kv_heads : s->kv_heads) * hd;
    const int64_t inter = !owner && s->wide ? 2 * s->inter : s->inter;
    if (!declare_block(w, err, prefix, i, s->hidden, inter, s->heads * hd, hd)) return false;
    if (owner && !(LAYER("self_attn.k_proj.weight", 2, kv, s->hidden, 0) &&
                   LAYER("self_attn.k_norm.weight", 1, hd, 0, 0)))
        return false;
    if (owner && !(full && s->k_eq_v) && !LAYER("self_attn.v_proj.weight", 2, kv, s->hidden, 0))
        return false;
    if (s->ple > 0 && !(LAYER("per_layer_input_gate.weight", 2, s->ple, s->hidden, 0) &&
                        LAYER("per_layer_projection.weight", 2, s->hidden, s->ple, 0) &&
                        LAYER("post_per_layer_input_norm.weight", 1, s->hidden, 0, 0)))
        return false;
    if (s->experts > 0 &&
        !(LAYER("router.proj.weight", 2, s->experts, s->hidden, 0) &&
          LAYER("router.scale", 1, s->hidden, 0, 0) &&
          LAYER("router.per_expert_scale", 1, s->experts, 0, 0) &&
          LAYER("experts.gate_up_proj", 3, s->experts, 2 * s->expert_inter, s->hidden) &&
          LAYER("experts.down_proj", 3, s->experts, s->hidden, s->expert_inter) &&
          LAYER("post_feedforward_layernorm_1.weight", 1, s->hidden, 0, 0) &&
          LAYER("post_feedforward_layernorm_2.weight", 1, s->hidden, 0, 0) &&
          LAYER("pre_feedforward_layernorm_2.weight", 1, s->hidden, 0, 0)))
        return false;
    return true;
}

static bool declare_target(StWriter *w, const PairShape *s, Err *err) {
    const char *prefix = "model.language_model.";
    bool ok =
        declare(w, err, "model.language_model.embed_tokens.weight", 2, s->vocab, s->hidden, 0) &&
        declare(w, err, "model.language_model.norm.weight", 1, s->hidden, 0, 0);
    if (s->ple > 0)
        ok = ok &&
             declare(w, err, "model.language_model.embed_tokens_per_layer.weight", 2, s->vocab,
                     s->layers * s->ple, 0) &&
             declare(w, err, "model.language_model.per_layer_model_projection.weight", 2,
                     s->layers * s->ple, s->hidden, 0) &&
             declare(w, err, "model.language_model.per_layer_projection_norm.weight", 1, s->ple, 0,
                     0);
    for (int64_t i = 0; ok && i < s->layers; i++) ok = declare_target_layer(w, err, s, prefix, i);
    return ok;
}

static bool declare_assistant(StWriter *w, const PairShape *s, Err *err) {
    const int64_t H = s->draft_hidden;
    bool ok = declare(w, err, "model.embed_tokens.weight", 2, s->vocab, H, 0) &&
              declare(w, err, "model.norm.weight", 1, H, 0, 0) &&
              declare(w, err, "pre_projection.weight", 2, H, 2 * s->hidden, 0) &&
              declare(w, err, "post_projection.weight", 2, s->hidden, H, 0);
    for (int64_t i = 0; ok && i < 4; i++) {
        const int64_t hd = i == 3 ? s->global_head_dim : s->head_dim;
        ok = declare_block(w, err, "model.", i, H, s->draft_inter, s->draft_heads * hd, hd);
    }
    if (ok && s->clusters > 0)
        ok = declare(w, err, "masked_embedding.centroids.weight", 2, s->clusters, H, 0) &&
             st_writer_declare(w, "masked_embedding.token_ordering", "I64", 1, &s->vocab, err);
    return ok;
}

// Gaussian values are drawn once and reused from a shifting start: generating billions anew would
// take longer than the bench, and an odd period keeps rows different.
enum { POOL = (1 << 22) + 1 };

static bf16 *gaussian_pool(uint64_t seed) {
    bf16 *pool = malloc((size_t)POOL * sizeof *pool);
    if (pool == NULL) return NULL;
#pragma omp parallel for num_threads(cores_used())
    for (int64_t i = 0; i < POOL; i++)
        pool[i] = bf16_from_f32(0.02f * rng_normal(seed, RNG_INIT, (uint64_t)i, 0));
    return pool;
}

static bool write_ordering(StWriter *w, int64_t vocab, uint64_t seed, Err *err) {
    int64_t *perm = malloc((size_t)vocab * sizeof *perm);
    if (perm == NULL)
        return err_set(err, ERR_FAILED, "out of memory for %lld ids", (long long)vocab);
    rng_permutation(seed, RNG_INIT, 1, perm, vocab);
    const bool ok = st_writer_data(w, perm, vocab * (int64_t)sizeof *perm, err);
    free(perm);
    return ok;
}

static bool write_tensor(StWriter *w, const StTensor *t, const bf16 *pool, int64_t *at, Err *err) {
    const bool vector = t->rank == 1;
    for (int64_t done = 0; done < t->count;) {
        int64_t n = POOL - *at;
        if (n > t->count - done) n = t->count - done;
        if (vector) { // norms and scalars: about one, or the residual stream would vanish
            const bf16 one = bf16_from_f32(1.0f + bf16_to_f32(pool[*at]));
            n = 1;
            if (!st_writer_data(w, &one, (int64_t)sizeof one, err)) return false;
        } else if (!st_writer_data(w, pool + *at, n * (int64_t)sizeof *pool, err)) {
            return false;
        }
        *at = (*at + n) % POOL;
        done += n;
    }
    return true;
}

static bool write_model(const char *dir, const PairShape *s, bool draft, uint64_t seed, Err *err) {
    char path[PATH_ROOM];
    StWriter *w = st_writer_open(path_join(path, dir, "model.safetensors"), err);
    bf16 *pool = w ? gaussian_pool(seed) : NULL;
    if (pool == NULL) {
        err_set(err, ERR_FAILED, "out of memory for %d random values", POOL);
        goto fail;
    }
    st_writer_metadata(w, "format", "pt");
    if (!(draft ? declare_assistant(w, s, err) : declare_target(w, s, err))) goto fail;
    if (!st_writer_begin(w, err)) goto fail;
    int64_t at = 0;
    for (int i = 0; i < st_writer_count(w); i++) {
        const StTensor *t = st_writer_order(w, i);
        const bool ok = strcmp(t->dtype, "I64") == 0 ? write_ordering(w, s->vocab, seed, err)
                                                     : write_tensor(w, t, pool, &at, err);
        if (!ok) goto fail;
    }
    free(pool);
    return st_writer_commit(w, err);
fail:
    free(pool);
    if (w) st_writer_drop(w);
    return err_wrap(err, "%s", dir);
}

bool synthetic_target_config(const char *dir, const PairShape *s, Err *err) {
    return dir_make(dir, err) && write_configs(dir, s, false, err);
}

bool synthetic_target(const char *dir, const PairShape *s, uint64_t seed, Err *err) {
    return synthetic_target_config(dir, s, err) && write_model(dir, s, false, seed, err);
}

bool synthetic_assistant(const char *dir, const PairShape *s, uint64_t seed, Err *err) {
    return dir_make(dir, err) && write_configs(dir, s, true, err) &&
           write_model(dir, s, true, seed, err);
}
