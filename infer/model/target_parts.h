// infer/model/target_parts.h - what the files of the target share: its weights and the buffers of a
// forward call. Private to target*.c.
#ifndef MODEL_TARGET_PARTS_H
#define MODEL_TARGET_PARTS_H

#include "infer/model/suppress.h"
#include "infer/model/target.h"
#include "infer/model/weights.h"

enum { VOCAB_TILE = 4096 };

// Vectors are F32, matrices (out, in) of the model's dtype. Data NULL where the layer has none.
typedef struct {
    Tensor in_norm, q_norm, k_norm, post_attn_norm, pre_ff_norm, post_ff_norm, ple_norm;
    Tensor qkv; // rows: q, then k, then v; k alone on k_eq_v layers, q alone where K/V is shared
    Tensor o;
    Tensor gate_up; // rows: gate, then up
    Tensor down;
    Tensor ple_gate, ple_proj;
    // mixture of experts: (1, B) (1, E) (E, B), and every expert's matrices below each other
    Tensor router_scale, expert_scale, router, experts_gate_up, experts_down;
    Tensor dense_norm, experts_in_norm, experts_norm; // post_ff_1, pre_ff_2, post_ff_2
    float scalar;
} TargetLayer;

typedef struct {
    Tensor embed; // (V, B)
    Tensor norm;
    Tensor ple_table; // (Vp, L * P), in the dtype of the file
    Tensor ple_model; // (L * P, B)
    Tensor ple_norm;
    Tensor inv_freq[2]; // by LayerKind
    TargetLayer layer[LAYERS_MAX];
} TargetWeights;

// Room for max_rows rows of the widest layer; a layer uses the front of a buffer.
typedef struct {
    Tensor ids, pos, end; // I32 (1, max_rows)
    Tensor cs[2];         // F32, by LayerKind
    Tensor x;             // F32, the residual stream
    Tensor in;            // what enters a GEMM
    Tensor qkv, q, k, v, o;
    Tensor proj; // F32, what a GEMM gives back to the stream
    Tensor gate_up, mid;
    Tensor ple, ple_in; // F32 (rows, L * P)
    Tensor ple_gate, ple_mid;
    Tensor dense, mixed;          // F32 (rows, B), what the dense MLP and the experts give
    Tensor router, choice, share; // F32 (rows, E), I32 and F32 (rows, k)
    Tensor logits;                // F32 (rows, VOCAB_TILE)
    Tensor never; // F32 (rows, 1): suppress_columns; absent where nothing is suppressed
} TargetActs;

struct Target {
    TargetConfig cfg;
    Device *dev;
    DType dtype;
    int64_t max_rows;
    float embed_scale, ple_scale;
    TargetWeights w;
    TargetActs acts;
    void *weight_block, *act_block;
    size_t bytes;                            // of both
    int32_t *pos_host, *end_host, *row_host; // (max_rows)
    AttnSeg *seg;                            // (max_rows)
};

// Rows of q, k and v in TargetLayer.qkv.
typedef struct {
    int64_t q, k, v;
} QkvRows;
QkvRows target_qkv_rows(const TextConfig *c, int layer);

// The files a target is read from. Zero-initialise; closing a half-open one is fine.
typedef struct {
    StFile *file;
    WeightMap *map;
    Adapter *adapter;
} TargetSource;
MUST_CHECK bool target_source_open(TargetSource *s, const char *dir, const char *adapter, Err *err);
void target_source_close(TargetSource *s);

// Takes every weight from the arena; ple: dtype of the per-layer table. A counting arena prices.
void target_weights_take(const TextConfig *c, DType dtype, DType ple, TargetWeights *w,
                         Arena *arena);
// Fills them, the adapter merged. max_rows 0: the embedding table alone.
MUST_CHECK bool target_weights_read(Target *t, const TargetSource *s, Err *err);
// Which weight a tensor of the file is: `module` in the adapter's words, and which of how many
// experts (experts 0: a matrix of its own).
typedef struct {
    char module[256];
    int64_t expert, experts;
} WeightPart;
// The adapter's module a tensor belongs to, marked as used; false = the tensor stays as it is.
bool target_merged_part(const TargetSource *s, const StTensor *t, WeightPart *part);
// Published files carry K/V projections of layers that share another layer's: nothing reads them.
// Marks them and the adapter's modules of them as used, and says so.
void target_pass_over_shared_kv(const TextConfig *c, const TargetSource *s);
// lm_head.weight may repeat the tied table; another head would change every logit.
MUST_CHECK bool target_check_head(const TextConfig *c, const TargetSource *s, Err *err);
bool weight_part_adapted(const Adapter *a, const WeightPart *p, const StTensor *t);
// Expert e of a tensor of rank 3 as a tensor of the file, rank 2.
StTensor expert_slice(const StTensor *t, int64_t e);
// A weight matrix of the file, rank 2, plus its adapter module if there is one: f32 values, rounded
// once to the file's dtype. Serves loading and export, so that both give the same numbers.
MUST_CHECK bool merged_matrix(const StFile *f, const StTensor *t, const Adapter *a,
                              const WeightPart *p, float *out, Err *err);

#endif
