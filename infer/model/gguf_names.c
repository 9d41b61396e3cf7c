// infer/model/gguf_names.c - names, shapes and Hugging Face keys of both dialects.
#include "infer/model/gguf_names.h"

#include <stdio.h>
#include <string.h>

#include "infer/base/utf8.h"

static const char *const ARCHITECTURES[] = {"gemma4-assistant", "gemma4_mtp"};

const char *gguf_architecture(GgufDialect d) {
    return ARCHITECTURES[d];
}

bool gguf_dialect(GgufDialect *d, const GgufFile *f, Err *err) {
    GgufText text;
    if (!gguf_text(f, "general.architecture", &text, err)) return false;
    for (int i = 0; i < 2; i++)
        if (text.size == strlen(ARCHITECTURES[i]) &&
            memcmp(text.at, ARCHITECTURES[i], text.size) == 0) {
            *d = (GgufDialect)i;
            return true;
        }
    char raw[64], name[64];
    snprintf(raw, sizeof raw, "%.*s", text.size > 60 ? 60 : (int)text.size, text.at);
    utf8_fit(name, sizeof name, raw);
    return err_set(err, ERR_INPUT, "%s: architecture %s, supported: %s, %s", gguf_path(f), name,
                   ARCHITECTURES[0], ARCHITECTURES[1]);
}

// cols: values of a row. rows 0: a vector.
static void add(GgufEntry **e, GgufRole role, int layer, const char *name, const char *key,
                int64_t cols, int64_t rows) {
    **e = (GgufEntry){
        .role = role, .layer = layer, .rank = rows == 0 ? 1 : 2, .dim = {cols, rows ? rows : 1}};
    CHECK(snprintf((*e)->name, sizeof(*e)->name, "%s.weight", name) <= GGUF_NAME_MAX);
    snprintf((*e)->key, sizeof(*e)->key, "%s", key);
    (*e)++;
}

static void add_layer(GgufEntry **e, const TextConfig *c, int i) {
    const int64_t H = c->hidden, hd = layer_head_dim(c, i), Q = c->heads * hd,
                  F = layer_inter(c, i);
    const struct {
        GgufRole role;
        const char *name, *key;
        int64_t cols, rows;
    } part[] = {
        {GGUF_VECTOR, "attn_norm", "input_layernorm.weight", H, 0},
        {GGUF_MATRIX, "attn_q", "self_attn.q_proj.weight", H, Q},
        {GGUF_VECTOR, "attn_q_norm", "self_attn.q_norm.weight", hd, 0},
        {GGUF_OUT, "attn_output", "self_attn.o_proj.weight", Q, H},
        {GGUF_VECTOR, "post_attention_norm", "post_attention_layernorm.weight", H, 0},
        {GGUF_VECTOR, "ffn_norm", "pre_feedforward_layernorm.weight", H, 0},
        {GGUF_MATRIX, "ffn_gate", "mlp.gate_proj.weight", H, F},
        {GGUF_MATRIX, "ffn_up", "mlp.up_proj.weight", H, F},
        {GGUF_DOWN, "ffn_down", "mlp.down_proj.weight", F, H},
        {GGUF_VECTOR, "post_ffw_norm", "post_feedforward_layernorm.weight", H, 0},
        {GGUF_VECTOR, "layer_output_scale", "layer_scalar", 1, 0},
    };
    for (size_t k = 0; k < sizeof part / sizeof *part; k++) {
        char name[64], key[96];
        snprintf(name, sizeof name, "blk.%d.%s", i, part[k].name);
        snprintf(key, sizeof key, "model.layers.%d.%s", i, part[k].key);
        add(e, part[k].role, i, name, key, part[k].cols, part[k].rows);
    }
}

int gguf_assistant_tensors(GgufDialect d, const AssistantConfig *c,
                           GgufEntry out[GGUF_ENTRIES_MAX]) {
    const int64_t H = c->text.hidden, B = c->backbone;
    const bool ik = d == GGUF_IK;
    GgufEntry *e = out;
    add(&e, GGUF_HEAD, -1, "token_embd", "model.embed_tokens.weight", H, c->text.vocab);
    for (int i = 0; i < c->text.layers; i++) add_layer(&e, &c->text, i);
    add(&e, GGUF_VECTOR, -1, "output_norm", "model.norm.weight", H, 0);
    add(&e, GGUF_MATRIX, -1, ik ? "mtp_post_proj" : "nextn.post_projection",
        "post_projection.weight", H, B);
    add(&e, GGUF_MATRIX, -1, ik ? "mtp_pre_proj" : "nextn.pre_projection", "pre_projection.weight",
        2 * B, H);
    if (!ik) add(&e, GGUF_VECTOR, -1, "rope_freqs", "", c->text.global_head_dim / 2, 0);
    return (int)(e - out);
}

void gguf_rope_factors(const AssistantConfig *c, float *out) {
    const RopeConfig *r = &c->text.rope[LAYER_FULL];
    const int64_t hd = c->text.global_head_dim, half = hd / 2;
    const int64_t turning = r->proportional ? (int64_t)(r->partial * (double)hd / 2) : half;
    for (int64_t i = 0; i < half; i++) out[i] = i < turning ? 1.0f : 1e30f;
}
