// infer/model/assistant.h - the Gemma 4 assistant: one draft step of many anchors at once.
//
// THE assistant forward: training, the simulator and live decoding all call assistant_step().
// Notation (design 1): the target has consumed x_0..x_{T-1}; an anchor is (sequence, T); draft step
// j is fed token x_{T+j} and feature f_j, RoPE position T at every step, rows 0..T-1 visible
// (sliding: T-W+1..T-1). f_0 = hidden row T-1; f_{j+1} = post_projection(y_j).
#ifndef MODEL_ASSISTANT_H
#define MODEL_ASSISTANT_H

#include "infer/model/gemma4_config.h"
#include "infer/tensor/ops.h"

enum { ASSISTANT_LAYERS_MAX = 8 };

typedef struct {
    Tensor in_norm, q_proj, q_norm, o_proj, post_attn_norm, pre_ff_norm, gate, up, down,
        post_ff_norm;
} AssistantLayer;

// The same shape serves weights, f32 masters and gradients. Table rows are canonical token ids.
typedef struct {
    Tensor pre;       // (H, 2B)
    Tensor post;      // (B, H)
    Tensor norm;      // (1, H)
    Tensor table;     // (V, H): the head only
    Tensor centroids; // (C, H), data NULL without
    AssistantLayer layer[ASSISTANT_LAYERS_MAX];
} AssistantWeights;

// One entry per trainable tensor, in the order of the flat buffers; name is the HF key.
typedef struct {
    char name[96];
    Tensor *tensor; // into an AssistantWeights
    bool decay;     // matrices decay, norm weights do not
} AssistantParam;
enum { ASSISTANT_PARAMS_MAX = 16 * ASSISTANT_LAYERS_MAX };
int assistant_params(const AssistantConfig *c, AssistantWeights *w,
                     AssistantParam out[ASSISTANT_PARAMS_MAX]);
// Lays the tensors of one copy of all parameters into `flat` (contiguous, HF order), dtype as
// given. Returns the number of elements. flat NULL: only counts.
int64_t assistant_layout(const AssistantConfig *c, AssistantWeights *w, void *flat, DType dtype);

typedef struct {
    AssistantConfig cfg;
    Device *dev;
    DType dtype; // of weights and of what enters the GEMMs
    AssistantWeights w;
    float layer_scalar[ASSISTANT_LAYERS_MAX];
    Tensor ordering;     // I32 (C, V/C) token ids of each cluster, data NULL without
    Tensor cluster_of;   // I32 (1, V), its inverse
    Tensor inv_freq[2];  // by LayerKind
    Tensor target_table; // (V, B), borrowed from the target
    float target_scale;
    int pos_offset, window_extra;
    void *block; // owns the parameters
} Assistant;

typedef struct {
    const char *dir; // any artifact that weight_source.h opens
    DType dtype;
    Tensor target_table; // borrowed; must outlive the assistant
    float target_scale;
    int pos_offset, window_extra;
} AssistantOptions;

MUST_CHECK Assistant *assistant_open(Device *dev, const AssistantOptions *opt, Err *err);
void assistant_close(Assistant *a);
size_t assistant_bytes(const Assistant *a); // device memory it holds
// Reads parameters by HF key into `w` (its dtype); every key must be there with its shape.
MUST_CHECK bool assistant_read(const AssistantConfig *c, AssistantWeights *w, Device *dev,
                               const char *artifact, Err *err);

// The anchors of a call. Shapes: `rows` anchors in all; seg[kind] one segment per sequence over its
// shared K/V of that kind; T ascending inside a segment.
typedef struct {
    int64_t rows;
    const int32_t *T;      // host (rows)
    const AttnSeg *seg[2]; // by LayerKind; q0/nq alike in both
    int nseg;
} AnchorSet;

// What depends on the anchors only and serves every step: RoPE tables and visible ends. Borrows T
// and the segments of the set it was made from.
typedef struct {
    Tensor cs[2]; // F32 (rows, hd) by LayerKind
    Tensor end;   // I32 (1, rows)
    AttnArgs attn[2];
} AnchorPlan;
size_t anchor_plan_bytes(const Assistant *a, int64_t rows); // device arena bytes
void anchor_plan(const Assistant *a, const AnchorSet *set, AnchorPlan *plan, Arena *arena);

// Activations of one step. In training every step has its own (kept for backward); in inference all
// steps share one, and its layers share their buffers. Sizes come from assistant_acts_take over a
// counting arena. In training y and f are left to the caller: y of all steps may be one block, and
// f may be assistant_feature_slot() of the next step, which then needs no copy.
typedef struct {
    Tensor x, n_in, rstd_in, q, rstd_q, qr, o, lse, proj, rstd_pa, x1, n_ff, rstd_ff, a, b, m, down,
        rstd_pf;
} LayerActs;
typedef struct {
    Tensor z; // (rows, 2B): scaled token embedding, feature
    LayerActs layer[ASSISTANT_LAYERS_MAX];
    Tensor x_out, rstd_out; // input of the final norm
    Tensor y;               // (rows, H) after the final norm
    Tensor f;               // (rows, B) post_projection(y): the next step's feature
} StepActs;
void assistant_acts_take(const Assistant *a, StepActs *s, int64_t rows, bool training,
                         Arena *arena);
Tensor assistant_feature_slot(const Assistant *a,
                              const StepActs *s); // the part of z a feature goes to

// One step: tokens I32 (1, rows) (device; < 0 = padding), feature (any) (rows, B) -> s->y, s->f.
// want_f false skips post_projection (the last step).
void assistant_step(const Assistant *a, const AnchorPlan *plan, Tensor tokens, Tensor feature,
                    StepActs *s, bool want_f);
// Backward of the same step. dy F32 (rows, H) and df F32 (rows, B; data NULL: none) are the
// gradients of s->y and s->f; on return dy holds the whole gradient of y, that through f included.
// Adds into g (all F32, laid out by assistant_layout); dfeature F32 (rows, B; data NULL: not
// wanted) receives += the gradient of the feature it was fed. scratch: arena space, released on
// return.
size_t assistant_back_bytes(const Assistant *a, int64_t rows);
void assistant_step_back(const Assistant *a, const AnchorPlan *plan, StepActs *s, Tensor dy,
                         Tensor df, AssistantWeights *g, Tensor dfeature, Arena *scratch);

// Heads. dense: z F32 (rows, V) is never formed whole; the two best of each row over vocabulary
// tiles.
typedef enum { HEAD_DENSE = 0, HEAD_CENTROID = 1 } Head;
// lse F32 (rows, 2): largest logit and sum e^(z - it) over what the head offers; data NULL: not
// wanted.
size_t assistant_head_bytes(const Assistant *a, int64_t rows); // scratch of the calls below
void assistant_top2(const Assistant *a, Head head, Tensor best, Tensor id, Tensor lse, Tensor y,
                    Arena *scratch);
// All logits that a head offers: z F32 (rows, assistant_logit_cols). dense: of token = column;
// centroid: of the chosen clusters' tokens, named by token I32 (same shape), in no order.
int64_t assistant_logit_cols(const Assistant *a, Head head);
void assistant_logits(const Assistant *a, Head head, Tensor z, Tensor token, Tensor y,
                      Arena *scratch);
// The two best of these logits, as assistant_top2 gives them.
void assistant_best(const Assistant *a, Tensor best, Tensor id, Tensor lse, Tensor z, Tensor token);
// The clusters that the centroid head chooses: idx I32 (rows, cluster_topk).
void assistant_clusters(const Assistant *a, Tensor idx, Tensor y, Arena *scratch);
Head assistant_deployed_head(const AssistantConfig *c); // centroid when use_ordered_embeddings

#endif
