// tests/infer/model/small_assistant.h - an assistant of odd sizes with random weights, made in
// memory, and random sequences for it to look at.
#ifndef TESTS_SMALL_ASSISTANT_H
#define TESTS_SMALL_ASSISTANT_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/assistant.h"
#include "infer/model/features.h"
#include "tests/testing.h"

enum { SMALL_B = 13, SMALL_V = 39, SMALL_W = 5 };

typedef struct {
    Assistant a;
    TargetConfig tc;
    Tensor flat; // the parameters, (1, n)
    FeaturePack pack;
    AttnSeg seg[2][PACK_SEQS_MAX];
} Small;

static inline void small_configs(Small *s) {
    TextConfig *t = &s->a.cfg.text;
    *t = (TextConfig){.vocab = SMALL_V,
                      .hidden = 11,
                      .inter = 15,
                      .layers = 3,
                      .heads = 4,
                      .head_dim = 6,
                      .global_head_dim = 10,
                      .kv_heads = 2,
                      .global_kv_heads = 1,
                      .kv_shared = 3,
                      .window = SMALL_W,
                      .eps = 1e-6,
                      .kind = {LAYER_SLIDING, LAYER_FULL, LAYER_SLIDING}};
    t->rope[LAYER_SLIDING] = (RopeConfig){.theta = 1e4, .partial = 1, .factor = 1};
    t->rope[LAYER_FULL] =
        (RopeConfig){.theta = 1e6, .partial = 0.4, .factor = 1, .proportional = 1};
    s->a.cfg.backbone = SMALL_B;
    s->a.cfg.ordered = 1;
    s->a.cfg.clusters = 13;
    s->a.cfg.cluster_topk = 4;
    s->tc.text = *t;
    s->tc.text.hidden = SMALL_B;
    s->tc.text.softcap = 30;
    s->tc.kv_source[LAYER_SLIDING] = 2;
    s->tc.kv_source[LAYER_FULL] = 1;
}

static inline void small_tables(Small *s) {
    Assistant *a = &s->a;
    int32_t order[SMALL_V], cluster[SMALL_V];
    float f[2][8];
    for (int i = 0; i < SMALL_V; i++)
        order[i] = i * 7 % SMALL_V, cluster[order[i]] = i / 3; // 7, 39 coprime
    a->ordering = tensor_view(test_ids(order, SMALL_V), 13, 3);
    a->cluster_of = test_ids(cluster, SMALL_V);
    for (int kind = 0; kind < 2; kind++) {
        const int64_t hd = kind == LAYER_FULL ? a->cfg.text.global_head_dim : a->cfg.text.head_dim;
        rope_frequencies(&a->cfg.text.rope[kind], hd, f[kind]);
        a->inv_freq[kind] = test_zeros(DT_F32, 1, hd / 2);
        memcpy(a->inv_freq[kind].data, f[kind], tensor_bytes(a->inv_freq[kind]));
    }
}

// rows[i] tokens in sequence i.
static inline void small_open(Small *s, int nseq, const int64_t *rows) {
    Env *env = test_env();
    *s = (Small){.a = {.dev = env->dev,
                       .dtype = DT_F32,
                       .target_scale = 1.3f,
                       .layer_scalar = {0.8f, 1, 1.25f}}};
    small_configs(s);
    small_tables(s);
    Assistant *a = &s->a;
    a->target_table = test_random(DT_F32, SMALL_V, SMALL_B);
    s->flat = test_random(DT_F32, 1, assistant_layout(&a->cfg, &a->w, NULL, DT_F32));
    assistant_layout(&a->cfg, &a->w, s->flat.data, DT_F32);
    AssistantParam p[ASSISTANT_PARAMS_MAX];
    const int n = assistant_params(&a->cfg, &a->w, p);
    // norms around 1, or 0.4 where a branch joins: a random network must not amplify rounding
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < tensor_count(*p[i].tensor); k++) {
            float *x = (float *)p[i].tensor->data + k;
            if (p[i].decay)
                *x /= sqrtf((float)p[i].tensor->cols);
            else
                *x = (strstr(p[i].name, ".post_") ? 0.4f : 1.0f) * (1.0f + 0.2f * *x);
        }
    int64_t room = 0;
    for (int i = 0; i < nseq; i++) room += rows[i];
    features_take(&s->pack, &s->tc, room, DT_F32, &env->arena);
    for (int i = 0; i < nseq; i++) {
        const Tensor h = test_random(DT_F32, rows[i], SMALL_B);
        const Tensor k0 = test_random(DT_F32, rows[i], s->pack.kv_width[0]);
        const Tensor k1 = test_random(DT_F32, rows[i], s->pack.kv_width[1]);
        const Tensor v0 = test_random(DT_F32, rows[i], s->pack.kv_width[0]);
        const Tensor v1 = test_random(DT_F32, rows[i], s->pack.kv_width[1]);
        op_axpby(env->dev, k0, k0, 0.3f, 0); // else attention is so sharp that rounding decides
        op_axpby(env->dev, k1, k1, 0.3f, 0);
        features_begin(&s->pack);
        features_load(&s->pack, env->dev, h.data, 0, (const void *[]){k0.data, k1.data},
                      (const void *[]){v0.data, v1.data}, rows[i]);
    }
}

// The same assistant with weights and target table in bf16.
static inline Assistant small_bf16(const Small *s) {
    Assistant b = s->a;
    b.dtype = DT_BF16;
    const Tensor flat = test_zeros(DT_BF16, 1, s->flat.cols);
    op_copy(b.dev, flat, s->flat);
    assistant_layout(&b.cfg, &b.w, flat.data, DT_BF16);
    b.target_table = test_zeros(DT_BF16, SMALL_V, SMALL_B);
    op_copy(b.dev, b.target_table, s->a.target_table);
    return b;
}

// `steps` draft steps in inference; token (steps, rows). y (steps * rows, H) in the assistant's
// dtype.
static inline Tensor small_draft(Small *s, const Assistant *a, const int32_t *T,
                                 const int32_t *seq_of, int64_t rows, const int32_t *token,
                                 int steps) {
    Env *env = test_env();
    const int64_t H = a->cfg.text.hidden;
    const Tensor y = test_zeros(a->dtype, steps * rows, H),
                 f0 = test_zeros(a->dtype, rows, SMALL_B);
    AnchorSet set;
    AnchorPlan plan;
    StepActs acts;
    features_anchors(&s->pack, env->dev, a, T, seq_of, rows, &set, s->seg[0], s->seg[1],
                     test_zeros(DT_I32, 1, rows), f0);
    anchor_plan(a, &set, &plan, &env->arena);
    assistant_acts_take(a, &acts, rows, false, &env->arena);
    for (int j = 0; j < steps; j++) {
        assistant_step(a, &plan, test_ids(token + j * rows, rows), j ? acts.f : f0, &acts, true);
        memcpy((char *)y.data + (size_t)(j * rows * H) * dtype_size(a->dtype), acts.y.data,
               tensor_bytes(acts.y));
    }
    return y;
}

#endif
