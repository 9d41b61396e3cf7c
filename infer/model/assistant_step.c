// infer/model/assistant_step.c - one draft step of all anchors, and what it keeps for backward.
#include "infer/model/assistant.h"

#include "infer/base/watchdog.h"
#include "infer/model/assistant_parts.h"

// I32 (1, n) on the device = host + offset, in pieces so that no host buffer is needed.
static void upload_shifted(Device *dev, Tensor dst, const int32_t *host, int offset) {
    int32_t piece[1024];
    for (int64_t at = 0; at < dst.cols; at += 1024) {
        const int64_t n = dst.cols - at < 1024 ? dst.cols - at : 1024;
        for (int64_t i = 0; i < n; i++) piece[i] = host[at + i] + offset;
        dev_upload(dev, tensor_cols(dst, at, n), piece);
    }
}

// The first layer of a kind, -1 without: all layers of a kind have the same heads.
static int layer_of_kind(const TextConfig *t, int kind) {
    for (int i = 0; i < t->layers; i++)
        if ((int)t->kind[i] == kind) return i;
    return -1;
}

static void take_plan(const Assistant *a, AnchorPlan *plan, int64_t rows, Arena *arena) {
    *plan = (AnchorPlan){.end = tensor_take(arena, DT_I32, 1, rows)};
    for (int kind = 0; kind < 2; kind++) {
        const int i = layer_of_kind(&a->cfg.text, kind);
        if (i >= 0)
            plan->cs[kind] = tensor_take(arena, DT_F32, rows, layer_head_dim(&a->cfg.text, i));
    }
}

size_t anchor_plan_bytes(const Assistant *a, int64_t rows) {
    Arena count;
    AnchorPlan plan;
    arena_open(&count, NULL, 0);
    take_plan(a, &plan, rows, &count);
    tensor_take(&count, DT_I32, 1, rows);
    return count.peak;
}

void anchor_plan(const Assistant *a, const AnchorSet *set, AnchorPlan *plan, Arena *arena) {
    const TextConfig *t = &a->cfg.text;
    take_plan(a, plan, set->rows, arena);
    const Tensor pos = tensor_take(arena, DT_I32, 1, set->rows);
    dev_upload(a->dev, plan->end, set->T);
    upload_shifted(a->dev, pos, set->T, a->pos_offset);
    for (int kind = 0; kind < 2; kind++) {
        const int i = layer_of_kind(t, kind);
        if (i < 0) continue;
        op_rope_table(a->dev, plan->cs[kind], pos, a->inv_freq[kind]);
        plan->attn[kind] = (AttnArgs){
            .seg = set->seg[kind],
            .nseg = set->nseg,
            .end = plan->end,
            .end_host = set->T,
            .span = kind == LAYER_FULL ? ATTN_ALL : t->window - 1 + a->window_extra,
            .heads = (int)t->heads,
            .kv_heads = (int)layer_kv_heads(t, i),
            .hd = (int)layer_head_dim(t, i),
        };
    }
}

// Buffers of one layer with Q query columns and F MLP columns. What enters a product, and what is
// wide, has the assistant's dtype; the residual stream and H-wide results are F32.
static LayerActs take_layer(const Assistant *a, int64_t rows, int64_t Q, int64_t F, bool keep,
                            Arena *arena) {
    const int64_t H = a->cfg.text.hidden;
    LayerActs l = {0};
    l.x = tensor_take(arena, DT_F32, rows, H);
    l.x1 = tensor_take(arena, DT_F32, rows, H);
    l.n_in = tensor_take(arena, a->dtype, rows, H);
    l.q = tensor_take(arena, a->dtype, rows, Q);
    l.qr = tensor_take(arena, a->dtype, rows, Q);
    l.o = tensor_take(arena, a->dtype, rows, Q);
    l.proj = tensor_take(arena, DT_F32, rows, H);
    const int64_t room = keep ? rows : op_gated_room(a->dev, rows, F, H, a->dtype, a->dtype);
    const Tensor ab = tensor_take(arena, a->dtype, room, 2 * F);
    l.a = tensor_cols(ab, 0, F); // without keep: room
    l.b = tensor_cols(ab, F, F);
    l.m = tensor_take(arena, a->dtype, rows, F);
    l.n_ff = keep ? tensor_take(arena, a->dtype, rows, H) : l.n_in;
    l.down = keep ? tensor_take(arena, DT_F32, rows, H) : l.proj;
    if (!keep) return l;
    l.rstd_in = tensor_take(arena, DT_F32, 1, rows);
    l.rstd_q = tensor_take(arena, DT_F32, rows, a->cfg.text.heads);
    l.lse = tensor_take(arena, DT_F32, rows, a->cfg.text.heads);
    l.rstd_pa = tensor_take(arena, DT_F32, 1, rows);
    l.rstd_ff = tensor_take(arena, DT_F32, 1, rows);
    l.rstd_pf = tensor_take(arena, DT_F32, 1, rows);
    return l;
}

static Tensor narrowed(Tensor t, int64_t cols) {
    return tensor_of(t.data, t.dtype, t.rows, cols);
}

void assistant_acts_take(const Assistant *a, StepActs *s, int64_t rows, bool training,
                         Arena *arena) {
    const TextConfig *t = &a->cfg.text;
    *s = (StepActs){.z = tensor_take(arena, a->dtype, rows, 2 * a->cfg.backbone)};
    if (training) {
        for (int i = 0; i < t->layers; i++)
            s->layer[i] = take_layer(a, rows, t->heads * layer_head_dim(t, i), layer_inter(t, i),
                                     true, arena);
        s->x_out = tensor_take(arena, DT_F32, rows, t->hidden);
        s->rstd_out = tensor_take(arena, DT_F32, 1, rows);
        return;
    }
    int64_t Q = 0;
    for (int i = 0; i < t->layers; i++)
        if (t->heads * layer_head_dim(t, i) > Q) Q = t->heads * layer_head_dim(t, i);
    const LayerActs shared = take_layer(a, rows, Q, layer_inter(t, 0), false, arena);
    for (int i = 0; i < t->layers; i++) {
        LayerActs *l = &s->layer[i];
        *l = shared;
        CHECK(layer_inter(t, i) == l->m.cols);
        l->q = narrowed(l->q, t->heads * layer_head_dim(t, i));
        l->qr = narrowed(l->qr, l->q.cols);
        l->o = narrowed(l->o, l->q.cols);
    }
    s->x_out = shared.x;
    s->y = tensor_take(arena, a->dtype, rows, t->hidden);
    s->f = tensor_take(arena, a->dtype, rows, a->cfg.backbone);
}

Tensor assistant_feature_slot(const Assistant *a, const StepActs *s) {
    return tensor_cols(s->z, a->cfg.backbone, a->cfg.backbone);
}

// x -> out: the decoder layer whose keys and values are the target's.
static void layer_forward(const Assistant *a, const AnchorPlan *plan, int i, const LayerActs *l,
                          Tensor out) {
    Device *dev = a->dev;
    const AssistantLayer *w = &a->w.layer[i];
    const int kind = a->cfg.text.kind[i];
    const float eps = (float)a->cfg.text.eps;
    op_norm(dev, l->n_in, l->rstd_in, NO_TENSOR, l->x, w->in_norm, eps, 1.0f);
    op_matmul_nt(dev, l->q, l->n_in, w->q_proj, 0.0f);
    op_head_norm(dev, l->qr, l->rstd_q, l->q, w->q_norm, plan->cs[kind], eps, plan->attn[kind].hd);
    op_attention(dev, l->o, l->lse, l->qr, &plan->attn[kind]);
    op_matmul_nt(dev, l->proj, l->o, w->o_proj, 0.0f);
    op_norm(dev, l->x1, l->rstd_pa, l->x, l->proj, w->post_attn_norm, eps, 1.0f);
    op_norm(dev, l->n_ff, l->rstd_ff, NO_TENSOR, l->x1, w->pre_ff_norm, eps, 1.0f);
    const bool keep = l->lse.data != NULL; // for backward
    op_gated(dev, l->m, both_halves(l->a), l->n_ff, gate_and_up(w), keep);
    op_matmul_nt(dev, l->down, l->m, w->down, 0.0f);
    op_norm(dev, out, l->rstd_pf, l->x1, l->down, w->post_ff_norm, eps, a->layer_scalar[i]);
}

void assistant_step(const Assistant *a, const AnchorPlan *plan, Tensor tokens, Tensor feature,
                    StepActs *s, bool want_f) {
    Device *dev = a->dev;
    const int L = (int)a->cfg.text.layers;
    const Tensor slot = assistant_feature_slot(a, s);
    watchdog_beat();
    op_gather(dev, tensor_cols(s->z, 0, a->cfg.backbone), a->target_table, tokens, a->target_scale);
    if (feature.data != slot.data) op_copy(dev, slot, feature);
    op_matmul_nt(dev, s->layer[0].x, s->z, a->w.pre, 0.0f);
    for (int i = 0; i < L; i++)
        layer_forward(a, plan, i, &s->layer[i], i + 1 < L ? s->layer[i + 1].x : s->x_out);
    op_norm(dev, s->y, s->rstd_out, NO_TENSOR, s->x_out, a->w.norm, (float)a->cfg.text.eps, 1.0f);
    if (want_f) op_matmul_nt(dev, s->f, s->y, a->w.post, 0.0f);
}
