// infer/export/gguf_keys.c - general.*, quantize.* and the keys of both architectures.
#include "infer/export/gguf_keys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "infer/base/json.h"
#include "infer/model/source_gguf.h"

// "79M": two digits at least, as gguf-py rounds.
static void size_label(char out[32], int64_t n) {
    const double x = (double)n;
    const double scaled = n > 1000000000 ? x * 1e-9 : n > 1000000 ? x * 1e-6 : x * 1e-3;
    const char suffix = n > 1000000000 ? 'B' : n > 1000000 ? 'M' : 'K';
    const double whole = rint(scaled);
    const int digits = whole < 1 ? 0 : whole < 10 ? 1 : 2;
    snprintf(out, 32, "%.*f%c", 2 - digits, scaled, suffix);
}

static int64_t parameters(const AssistantConfig *c, GgufDialect d) {
    GgufEntry e[GGUF_ENTRIES_MAX];
    const int n = gguf_assistant_tensors(d, c, e);
    int64_t total = 0;
    for (int i = 0; i < n; i++) total += e[i].dim[0] * e[i].dim[1];
    return total;
}

static bool put_sampling(GgufWriter *w, const json_t *generation, Err *err) {
    static const struct {
        const char *from, *to;
        bool whole;
    } KEYS[] = {{"top_k", "top_k", true},
                {"top_p", "top_p", false},
                {"min_p", "min_p", false},
                {"xtc_probability", "xtc_probability", false},
                {"xtc_threshold", "xtc_threshold", false},
                {"temperature", "temp", false},
                {"penalty_last_n", "penalty_last_n", true},
                {"repetition_penalty", "penalty_repeat", false},
                {"mirostat", "mirostat", true},
                {"mirostat_tau", "mirostat_tau", false},
                {"mirostat_eta", "mirostat_eta", false}};
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        char key[64];
        const json_t *v = json_object_get(generation, KEYS[i].from);
        if (v == NULL || json_is_null(v)) continue;
        snprintf(key, sizeof key, "general.sampling.%s", KEYS[i].to);
        if (KEYS[i].whole ? !json_is_integer(v) : !json_is_number(v))
            return err_set(err, ERR_INPUT, "generation_config.json: %s is no number", KEYS[i].from);
        if (KEYS[i].whole)
            gguf_put_i32(w, key, (int32_t)json_integer_value(v));
        else
            gguf_put_f32(w, key, (float)json_number_value(v));
    }
    return true;
}

static void put_base_model(GgufWriter *w, const char *base) {
    char name[256];
    const char *slash = strchr(base, '/');
    if (base[0] == '\0') return;
    gguf_put_u32(w, "general.base_model.count", 1);
    gguf_put_string(w, "general.base_model.0.name", slash ? slash + 1 : base);
    if (slash == NULL) return;
    snprintf(name, sizeof name, "%.*s", slash - base > 200 ? 200 : (int)(slash - base), base);
    gguf_put_string(w, "general.base_model.0.organization", name);
}

static void put_texts(GgufWriter *w, const char *key, const char *const *text, int n) {
    gguf_put_array(w, key, GGUF_TEXT, n);
    for (int i = 0; i < n; i++) gguf_add_text(w, text[i], strlen(text[i]));
}

static bool put_general(GgufWriter *w, const GgufJob *job, const GgufTexts *t,
                        const AssistantConfig *c, const GgufMix *mix, Err *err) {
    static const char *const TAGS[] = {"gemma4", "gemma4_assistant", "speculative-decoding", "mtp",
                                       "drafter"};
    char label[32];
    size_label(label, parameters(c, job->dialect));
    gguf_put_string(w, "general.architecture", gguf_architecture(job->dialect));
    gguf_put_string(w, "general.type", "model");
    if (!put_sampling(w, t->generation, err)) return false;
    gguf_put_string(w, "general.name", job->name);
    gguf_put_string(w, "general.size_label", label);
    gguf_put_string(w, "general.license", "apache-2.0");
    gguf_put_string(w, "general.license.link", "https://www.apache.org/licenses/LICENSE-2.0");
    put_base_model(w, job->base_model);
    put_texts(w, "general.tags", TAGS, sizeof TAGS / sizeof *TAGS);
    gguf_put_u32(w, "general.file_type", mix->file_type);
    gguf_put_u32(w, "general.quantization_version", 2);
    if (mix->own) gguf_put_string(w, GGUF_MIX_KEY, mix->name);
    return true;
}

static void put_importance(GgufWriter *w, const GgufImportance *m) {
    if (m == NULL) return;
    gguf_put_string(w, "quantize.imatrix.file", m->file);
    if (m->dataset[0] != '\0') gguf_put_string(w, "quantize.imatrix.dataset", m->dataset);
    gguf_put_u32(w, "quantize.imatrix.entries_count", (uint32_t)m->entries);
    gguf_put_u32(w, "quantize.imatrix.chunks_count", (uint32_t)m->chunks);
}

typedef struct {
    GgufWriter *w;
    const char *arch;
    char key[96];
} Arch;

static const char *key_of(Arch *a, const char *name) {
    snprintf(a->key, sizeof a->key, "%s.%s", a->arch, name);
    return a->key;
}

static void put_number(Arch *a, const char *name, int64_t x) {
    gguf_put_u32(a->w, key_of(a, name), (uint32_t)x); // a configuration bounds every number
}

static void put_kv_heads(Arch *a, GgufDialect d, const TextConfig *c) {
    // one number where full layers have no count of their own, as in E2B and E4B
    if (d == GGUF_UNIVERSAL && c->kv_heads == c->global_kv_heads) {
        put_number(a, "attention.head_count_kv", c->kv_heads);
        return;
    }
    gguf_put_array(a->w, key_of(a, "attention.head_count_kv"), GGUF_I32, c->layers);
    for (int i = 0; i < c->layers; i++) {
        const int32_t n = (int32_t)layer_kv_heads(c, i);
        gguf_add_number(a->w, &n);
    }
}

static void put_arch(GgufWriter *w, GgufDialect d, const AssistantConfig *a) {
    Arch k = {.w = w, .arch = gguf_architecture(d)};
    const TextConfig *c = &a->text;
    put_number(&k, "block_count", c->layers);
    put_number(&k, "context_length", c->max_positions);
    put_number(&k, "embedding_length", c->hidden);
    put_number(&k, "feed_forward_length", c->inter);
    put_number(&k, "attention.head_count", c->heads);
    put_kv_heads(&k, d, c);
    gguf_put_f32(w, key_of(&k, "rope.freq_base"), (float)c->rope[LAYER_FULL].theta);
    gguf_put_f32(w, key_of(&k, "rope.freq_base_swa"), (float)c->rope[LAYER_SLIDING].theta);
    gguf_put_f32(w, key_of(&k, "attention.layer_norm_rms_epsilon"), (float)c->eps);
    put_number(&k, "attention.key_length", c->global_head_dim);
    put_number(&k, "attention.value_length", c->global_head_dim);
    put_number(&k, "attention.key_length_swa", c->head_dim);
    put_number(&k, "attention.value_length_swa", c->head_dim);
    put_number(&k, "attention.sliding_window", c->window);
    gguf_put_array(w, key_of(&k, "attention.sliding_window_pattern"), GGUF_BOOL, c->layers);
    for (int i = 0; i < c->layers; i++) {
        const uint8_t sliding = c->kind[i] == LAYER_SLIDING;
        gguf_add_number(w, &sliding);
    }
    put_number(&k, "rope.dimension_count", c->global_head_dim);
    put_number(&k, "rope.dimension_count_swa", c->head_dim);
    if (d == GGUF_IK) {
        put_number(&k, "backbone_embedding_length", a->backbone);
        gguf_put_bool(w, key_of(&k, "use_ordered_embeddings"), false); // none are in the file
        put_number(&k, "centroid_count", 0);
        put_number(&k, "centroid_top_k", 0);
    } else {
        put_number(&k, "attention.shared_kv_layers", c->layers);
        put_number(&k, "embedding_length_per_layer_input", 0);
        put_number(&k, "embedding_length_out", a->backbone);
        put_number(&k, "nextn_predict_layers", c->layers);
    }
}

bool gguf_put_model(GgufWriter *w, const GgufJob *job, const GgufTexts *t,
                    const AssistantConfig *written, const GgufMix *mix, Err *err) {
    if (!put_general(w, job, t, written, mix, err)) return false;
    put_importance(w, job->importance);
    put_arch(w, job->dialect, written);
    return true;
}
