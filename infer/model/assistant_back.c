// infer/model/assistant_back.c - assistant_step.c read backwards; keys, values and the target's
// embedding are constants.
#include "infer/model/assistant.h"

#include "infer/base/watchdog.h"
#include "infer/model/assistant_parts.h"

// Scratch of one step's backward. Gradients that enter products have the assistant's dtype.
typedef struct {
    Tensor dx;           // F32 (rows, H): gradient of the residual stream
    Tensor dh;           // F32 (rows, H): gradient of a branch
    Tensor dh_in, df_in; // dh and df as the products want them; data NULL when F32
    Tensor dm, dab;      // (rows, F), (rows, 2 F)
    Tensor do_, dqr, dq; // (rows, Q)
} Back;

static Back take_back(const Assistant *a, int64_t rows, Arena *arena) {
    const TextConfig *t = &a->cfg.text;
    const int64_t F = layer_inter(t, 0);
    int64_t Q = 0;
    for (int i = 0; i < t->layers; i++)
        if (t->heads * layer_head_dim(t, i) > Q) Q = t->heads * layer_head_dim(t, i);
    Back b = {.dx = tensor_take(arena, DT_F32, rows, t->hidden),
              .dh = tensor_take(arena, DT_F32, rows, t->hidden)};
    if (a->dtype != DT_F32) {
        b.dh_in = tensor_take(arena, a->dtype, rows, t->hidden);
        b.df_in = tensor_take(arena, a->dtype, rows, a->cfg.backbone);
    }
    b.dm = tensor_take(arena, a->dtype, rows, F);
    b.dab = tensor_take(arena, a->dtype, rows, 2 * F);
    b.do_ = tensor_take(arena, a->dtype, rows, Q);
    b.dqr = tensor_take(arena, DT_F32, rows, Q);
    b.dq = tensor_take(arena, a->dtype, rows, Q);
    return b;
}

size_t assistant_back_bytes(const Assistant *a, int64_t rows) {
    Arena count;
    arena_open(&count, NULL, 0);
    take_back(a, rows, &count);
    return count.peak;
}

static Tensor as_input(Device *dev, Tensor room, Tensor x) {
    if (room.data == NULL) return x;
    op_copy(dev, room, x);
    return room;
}

static Tensor narrowed(Tensor t, int64_t cols) {
    return tensor_of(t.data, t.dtype, t.rows, cols);
}

// x2 = s (x1 + N_post(down geglu(gate_up N_pre(x1)))): b->dx holds the gradient of x2, then that of
// x1.
static void ff_back(const Assistant *a, int i, const LayerActs *l, AssistantLayer *g,
                    const Back *b) {
    Device *dev = a->dev;
    const AssistantLayer *w = &a->w.layer[i];
    if (a->layer_scalar[i] != 1.0f) op_axpby(dev, b->dx, b->dx, a->layer_scalar[i], 0.0f);
    op_zero(dev, b->dh);
    op_norm_back(dev, b->dh, g->post_ff_norm, NO_TENSOR, b->dx, l->down, l->rstd_pf,
                 w->post_ff_norm, 1.0f);
    const Tensor ddown = as_input(dev, b->dh_in, b->dh);
    op_matmul_tn(dev, g->down, ddown, l->m, 1.0f);
    op_matmul_nn(dev, b->dm, ddown, w->down, 0.0f);
    op_zero(dev, b->dab);
    op_geglu_back(dev, tensor_cols(b->dab, 0, b->dm.cols),
                  tensor_cols(b->dab, b->dm.cols, b->dm.cols), b->dm, l->a, l->b);
    op_matmul_tn(dev, gate_and_up(g), b->dab, l->n_ff, 1.0f);
    op_matmul_nn(dev, b->dh, b->dab, gate_and_up(w), 0.0f);
    op_norm_back(dev, b->dx, g->pre_ff_norm, NO_TENSOR, b->dh, l->x1, l->rstd_ff, w->pre_ff_norm,
                 1.0f);
}

// x1 = x + N_pa(o_proj attention(R(N_q(q_proj N_in(x))))): b->dx holds the gradient of x1, then of
// x.
static void attn_back(const Assistant *a, const AnchorPlan *plan, int i, const LayerActs *l,
                      AssistantLayer *g, const Back *b) {
    Device *dev = a->dev;
    const AssistantLayer *w = &a->w.layer[i];
    const int kind = a->cfg.text.kind[i];
    const Tensor do_ = narrowed(b->do_, l->q.cols), dqr = narrowed(b->dqr, l->q.cols),
                 dq = narrowed(b->dq, l->q.cols);
    op_zero(dev, b->dh);
    op_norm_back(dev, b->dh, g->post_attn_norm, NO_TENSOR, b->dx, l->proj, l->rstd_pa,
                 w->post_attn_norm, 1.0f);
    const Tensor dproj = as_input(dev, b->dh_in, b->dh);
    op_matmul_tn(dev, g->o_proj, dproj, l->o, 1.0f);
    op_matmul_nn(dev, do_, dproj, w->o_proj, 0.0f);
    op_zero(dev, dqr);
    op_attention_back(dev, dqr, do_, l->o, l->qr, l->lse, &plan->attn[kind]);
    op_zero(dev, dq);
    op_head_norm_back(dev, dq, g->q_norm, dqr, l->q, l->rstd_q, w->q_norm, plan->cs[kind],
                      plan->attn[kind].hd);
    op_matmul_tn(dev, g->q_proj, dq, l->n_in, 1.0f);
    op_matmul_nn(dev, b->dh, dq, w->q_proj, 0.0f);
    op_norm_back(dev, b->dx, g->in_norm, NO_TENSOR, b->dh, l->x, l->rstd_in, w->in_norm, 1.0f);
}

void assistant_step_back(const Assistant *a, const AnchorPlan *plan, StepActs *s, Tensor dy,
                         Tensor df, AssistantWeights *g, Tensor dfeature, Arena *scratch) {
    Device *dev = a->dev;
    const int64_t B = a->cfg.backbone;
    const size_t mark = arena_mark(scratch);
    const Back b = take_back(a, dy.rows, scratch);
    watchdog_beat();
    if (df.data != NULL) {
        const Tensor d = as_input(dev, b.df_in, df);
        op_matmul_tn(dev, g->post, d, s->y, 1.0f);
        op_matmul_nn(dev, dy, d, a->w.post, 1.0f);
    }
    op_zero(dev, b.dx);
    op_norm_back(dev, b.dx, g->norm, NO_TENSOR, dy, s->x_out, s->rstd_out, a->w.norm, 1.0f);
    for (int i = (int)a->cfg.text.layers - 1; i >= 0; i--) {
        ff_back(a, i, &s->layer[i], &g->layer[i], &b);
        attn_back(a, plan, i, &s->layer[i], &g->layer[i], &b);
    }
    const Tensor dpre = as_input(dev, b.dh_in, b.dx);
    op_matmul_tn(dev, g->pre, dpre, s->z, 1.0f);
    if (dfeature.data != NULL) op_matmul_nn(dev, dfeature, dpre, tensor_cols(a->w.pre, B, B), 1.0f);
    arena_reset(scratch, mark);
}
