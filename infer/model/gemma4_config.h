// infer/model/gemma4_config.h - config.json of every Gemma 4 target and assistant, as plain
// numbers.
//
// Read from text_config when present, else from the top level; flat keys and per_layer_config
// alike; defaults by model_type (gemma4_text, gemma4_unified_text), see spec gemma4.md 1 and
// reference/README.
#ifndef MODEL_GEMMA4_CONFIG_H
#define MODEL_GEMMA4_CONFIG_H

#include <stdint.h>

#include <jansson.h>

#include "infer/base/err.h"
#include "infer/base/hash.h"

enum { LAYERS_MAX = 256, STOP_MAX = 16, SUPPRESS_MAX = 64, HEAD_DIM_MAX = 1024 };

typedef enum { LAYER_SLIDING = 0, LAYER_FULL = 1 } LayerKind;

typedef struct {
    double theta;   // base of the frequencies
    double partial; // share of pairs that rotate: 1, or 0.25 for "proportional"
    double factor;  // divides the frequencies
    int proportional;
} RopeConfig;

typedef struct {
    char model_type[64]; // as in the file, top level
    int64_t vocab, hidden, inter, layers, heads, head_dim, global_head_dim, kv_heads,
        global_kv_heads;
    int k_eq_v;             // full layers have no v_proj
    int64_t kv_shared;      // the last kv_shared layers own no K/V
    int double_wide;        // doubles inter in shared layers
    int64_t ple, ple_vocab; // per-layer embedding width, 0 = none
    int64_t window;
    double eps, softcap; // softcap 0 = none
    LayerKind kind[LAYERS_MAX];
    RopeConfig rope[2]; // by LayerKind
    int moe;
    int64_t experts, top_experts, expert_inter;
    int64_t max_positions;
    int64_t bos, pad;
    int tied;
} TextConfig;

// suppress_tokens of generation_config.json: what applies them stands in suppress.h.
typedef struct {
    int64_t id[SUPPRESS_MAX]; // below the vocabulary
    int n;
} Suppress;

typedef struct {
    TextConfig text;
    int kv_source[2];       // by LayerKind: the last layer of that kind that owns K/V
    int64_t stop[STOP_MAX]; // of generation_config.json, else of config.json
    int nstop;
    Suppress suppress;
    double temperature, top_p; // generation_config.json; 0 when absent
    int64_t top_k;
    double embed_scale_f32, embed_scale_bf16;
    Sha256 hash; // of config.json's bytes
} TargetConfig;

typedef struct {
    TextConfig text;                // hidden = H
    int64_t backbone;               // B
    int ordered;                    // centroid head
    int64_t clusters, cluster_topk; // meaningful when ordered
    int64_t draft_tokens;           // num_assistant_tokens of generation_config.json, 0 = absent
    Sha256 hash;
} AssistantConfig;

// dir holds config.json and, optionally, generation_config.json.
MUST_CHECK bool target_config_load(TargetConfig *c, const char *dir, Err *err);
MUST_CHECK bool assistant_config_load(AssistantConfig *c, const char *dir, Err *err);
// The pair must agree: backbone width, vocabulary, kv heads, head sizes, window, rope. Names both
// values.
MUST_CHECK bool pair_check(const TargetConfig *t, const AssistantConfig *a, Err *err);

int64_t layer_head_dim(const TextConfig *c, int layer);
int64_t layer_kv_heads(const TextConfig *c, int layer);
int64_t layer_inter(const TextConfig *c, int layer); // doubled where the rule says
int layer_owns_kv(const TextConfig *c, int layer);
int layer_kv_source(const TextConfig *c, int layer); // the layer whose K/V it reads
// Inverse frequencies f[0 .. hd/2-1], float32 as the reference computes them.
void rope_frequencies(const RopeConfig *r, int64_t hd, float *f);

#endif
