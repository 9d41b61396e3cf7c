// infer/tensor/ops.h - the only door to arithmetic. Every operator has a CPU body
// (infer/tensor/cpu), and a CUDA twin of the same name and arguments where a GPU is built in.
//
// Rules. Arguments: device, outputs, inputs, scalars. Operators return void: wrong shapes are bugs
// and stop by CHECK; device failures are sticky (device.h). Tensors marked (any) may be F32 or
// BF16, independently; arithmetic and accumulation are f32 (sums over rows of a parameter in fixed
// order). Every *_back ADDS into its gradients (suffix: d + name); the opener of a step zeroes
// them. Index tensors are I32, one row. Nothing here allocates while running except device-private
// scratch.
#ifndef TENSOR_OPS_H
#define TENSOR_OPS_H

#include "infer/tensor/device.h"

// One sequence's keys and values, and the query rows that look at them.
typedef struct {
    Tensor k, v; // (any) (rows, kv_heads * hd); row i is absolute position first + i
    int64_t first;
    int64_t q0, nq; // rows q0 .. q0+nq-1 of q
} AttnSeg;

// Query row r sees absolute rows max(0, end[r] - span) .. end[r]-1; end never decreases inside a
// segment. span = ATTN_ALL for full attention. A query that sees nothing yields zeros.
typedef struct {
    const AttnSeg *seg; // host memory
    int nseg;
    Tensor end;              // I32 (1, q.rows), device memory
    const int32_t *end_host; // the same values in host memory
    int64_t span;
    int heads, kv_heads, hd;
} AttnArgs;
#define ATTN_ALL INT64_MAX

typedef enum { LOSS_FKL, LOSS_CE_ARGMAX, LOSS_CE_LABEL, LOSS_TV, LOSS_HYBRID } LossKind;
enum { LOSS_STATS = 1, LOSS_GRAD = 2, LOSS_LSE = 4 }; // parts of op_loss_tile, op_head_tile

// What the student rows of a vocabulary tile are compared with.
typedef struct {
    Tensor p, psum; // of op_prob_tile, same tile. Where a tile is cut into parts, the first brings
                    // the psum of all; data NULL: an earlier part has
    Tensor trow;    // I32 (1, rows): the teacher row of each student row
    Tensor
        target; // I32 token ids: (1, teacher rows) for CE_ARGMAX, else (1, rows); data NULL: none
    Tensor weight; // F32 (1, rows), LOSS_GRAD only
    LossKind kind;
    float mix, temp;
    unsigned parts;
} LossArgs;

// What op_head_tile forms, by parts.
typedef struct {
    Tensor lse, best, id; // LOSS_LSE: as op_lse_tile has them
    Tensor stat, g;       // LOSS_STATS, LOSS_GRAD: as op_loss_tile has them; lse is read
    Tensor z;             // F32 (rows, columns of the tile): room for logits, see head_room
} HeadOut;

typedef struct Ops {
    bool head_room; // op_head_tile wants out->z. Else the device forms logits where they are used,
                    // as often as they are, and data may be NULL
    // --- memory
    void (*zero)(Device *, Tensor x);
    void (*copy)(Device *, Tensor y, Tensor x); // (any) -> (any), converts; also I32 -> I32
    // --- products. C = A op B + beta C; beta is 0 or 1. (any) for all three.
    void (*matmul_nt)(Device *, Tensor c, Tensor a, Tensor b,
                      float beta); // C (m,n) = A (m,k) B (n,k)^T
    void (*matmul_nn)(Device *, Tensor c, Tensor a, Tensor b,
                      float beta); // C (m,n) = A (m,k) B (k,n)
    void (*matmul_tn)(Device *, Tensor c, Tensor a, Tensor b,
                      float beta); // C (m,n) = A (k,m)^T B (k,n)
    // --- rows of a table: y[r] = scale * table[ids[r]]; an id < 0 gives zeros
    void (*gather)(Device *, Tensor y, Tensor table, Tensor ids, float scale);
    // dtable[ids[r]] += scale * dy[r], rows in order, so that bits repeat; ids < 0 skipped
    void (*gather_back)(Device *, Tensor dtable, Tensor dy, Tensor ids, float scale);
    // --- RMSNorm: xhat = x * rstd, rstd = (mean(x^2) + eps)^-1/2 per row;
    //     y = scale * (res + xhat * w).  w.data NULL: w = 1. res.data NULL: 0. rstd F32 (1, rows),
    //     rstd.data NULL: not kept.
    void (*norm)(Device *, Tensor y, Tensor rstd, Tensor res, Tensor x, Tensor w, float eps,
                 float scale);
    //     dres += scale dy (if dres.data), dw += scale sum_r dy xhat (if dw.data), and
    //     dx += rstd (g - xhat mean(g xhat)) with g = scale dy w
    void (*norm_back)(Device *, Tensor dx, Tensor dw, Tensor dres, Tensor dy, Tensor x, Tensor rstd,
                      Tensor w, float scale);
    // --- per-head RMSNorm and RoPE of x (rows, heads * hd): y = R(xhat * w). cs F32 (rows, hd):
    // cos in
    //     columns 0..hd/2-1, sin in hd/2..hd-1; NeoX halves (i, i + hd/2). cs.data NULL: no
    //     rotation. rstd F32 (rows, heads), data NULL: not kept.
    void (*head_norm)(Device *, Tensor y, Tensor rstd, Tensor x, Tensor w, Tensor cs, float eps,
                      int hd);
    void (*head_norm_back)(Device *, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor rstd,
                           Tensor w, Tensor cs, int hd);
    //     cs[r] from positions and inverse frequencies inv (1, hd/2) F32: angle = (f32)pos * inv
    void (*rope_table)(Device *, Tensor cs, Tensor pos, Tensor inv);
    // --- attention, scale 1: o (rows, heads * hd) = softmax(q k^T) v; lse F32 (rows, heads) or
    // NULL data.
    //     Query head h reads kv head h / (heads / kv_heads).
    void (*attention)(Device *, Tensor o, Tensor lse, Tensor q, const AttnArgs *args);
    //     K and V are constants: dq += sum_p P_p (do.v_p - do.o) k_p
    void (*attention_back)(Device *, Tensor dq, Tensor do_, Tensor o, Tensor q, Tensor lse,
                           const AttnArgs *args);
    // --- GEGLU: m = gelu_tanh(a) * b
    void (*geglu)(Device *, Tensor m, Tensor a, Tensor b);
    void (*geglu_back)(Device *, Tensor da, Tensor db, Tensor dm, Tensor a, Tensor b);
    //     with its products: m = gelu_tanh(a) * b, [a b] = x w^T, w (2 m.cols, x.cols). (any) ab
    //     (rows, 2 m.cols): a and b are rounded to its type; keep: they stay there, rows = m.rows.
    //     Else it is room for what the device does not do in one piece: gated_room says how many
    //     rows for m (rows, cols), contiguous x (rows, k), and these types of x and w
    void (*gated)(Device *, Tensor m, Tensor ab, Tensor x, Tensor w, bool keep);
    int64_t (*gated_room)(Device *, int64_t rows, int64_t cols, int64_t k, DType x, DType w);
    // --- mixture of experts. route: w F32 (rows, k) = softmax(z[r, idx[r, :]]) * scale[idx], with
    // z F32
    //     (rows, E) the router's logits, idx I32 (rows, k) from topk, scale F32 (1, E)
    void (*route)(Device *, Tensor w, Tensor z, Tensor idx, Tensor scale);
    //     y F32 (rows, B) = sum over e in idx[r, :], by rising e, of w * down_e (gelu_tanh(gate) *
    //     up) with (gate, up) = gate_up_e x. x (any) (rows, B); gate_up (any) (E * 2I, B), an
    //     expert's gate rows first; down (any) (E * B, I). Rows that chose an expert go through it
    //     together.
    void (*experts)(Device *, Tensor y, Tensor x, Tensor idx, Tensor w, Tensor gate_up,
                    Tensor down);
    // --- y = alpha x + beta y
    void (*axpby)(Device *, Tensor y, Tensor x, float alpha, float beta);
    // --- z = cap * tanh(z / cap) in place; cap 0 = nothing
    void (*softcap)(Device *, Tensor z, float cap);
    // --- running best of a row over vocabulary tiles: ids and values of the two largest so far;
    // the
    //     lowest id wins a tie. begin: v0 == 0 starts anew. best F32 (rows, 2), id I32 (rows, 2).
    //     token_of.data NULL: column c means token v0 + c; else I32 (rows, cols) token ids.
    void (*top2)(Device *, Tensor best, Tensor id, Tensor z, Tensor token_of, int64_t v0);
    // --- the k largest columns of each row, best first, lowest column first on ties: idx I32
    // (rows, k)
    void (*topk)(Device *, Tensor idx, Tensor x, int k);
    // --- softmax of rows over vocabulary tiles v0 .. v0+cols-1, v0 == 0 starts anew. x = z / temp.
    //     First z = cap * tanh(z / cap) in place (F32), unless cap is 0. lse F32 (rows, 2) holds
    //     the running (max x, sum e^(x - max)); best and id as in top2, best.data NULL: not wanted.
    void (*lse_tile)(Device *, Tensor lse, Tensor best, Tensor id, Tensor z, float cap, float temp,
                     int64_t v0);
    //     With the finished lse: p F32 (rows, cols) = e^x / sum_v e^x, and psum F64 (rows, 2) =
    //     sums over this tile of p and of p ln p, data NULL: not wanted. x is of z capped as above;
    //     z stays as it is, unless p is z.
    void (*prob_tile)(Device *, Tensor p, Tensor psum, Tensor z, Tensor lse, float cap, float temp);
    // --- loss of student logits z over a vocabulary tile; q = softmax(z / temp), lse finished.
    //     LOSS_STATS: stat F64 (rows, 4) accumulates over tiles (v0 == 0 starts anew)
    //       0 sum p (ln p - ln q)   1 1/2 sum |p - q|   3 -ln q of the target
    //       2 sum q s with s = sign(q - p)/2, for TV and HYBRID only
    //     LOSS_GRAD: g (any) (rows, cols) = weight/temp * d loss / d (z/temp), overwriting g; g may
    //     be z
    //       FKL q - p; CE q - 1_target; TV q (s - stat2); HYBRID mix * FKL + (1 - mix) * TV
    //     Both in one call: the gradient reads stat 2 with this tile in it, so TV and HYBRID want
    //     the whole vocabulary in one tile, or LOSS_GRAD by itself after all tiles' LOSS_STATS.
    void (*loss_tile)(Device *, Tensor stat, Tensor g, Tensor z, Tensor lse, const LossArgs *args,
                      int64_t v0);
    // --- student logits z = y table^T of the vocabulary tile that begins at v0, and what
    //     args->parts wants of them: LOSS_LSE without a cap; args->p and on for the others only. In
    //     one call with others LOSS_LSE wants the whole vocabulary in the tile. y (any) (rows, H),
    //     table (any) (columns of the tile, H).
    void (*head_tile)(Device *, const HeadOut *out, Tensor y, Tensor table, const LossArgs *args,
                      int64_t v0);
    // --- teacher mass of clusters: mass F32 (teacher rows, C) += sum over the tile of p_v at
    // cluster_of[v];
    //     cluster_of I32 (1, V)
    void (*cluster_mass)(Device *, Tensor mass, Tensor p, Tensor cluster_of, int64_t v0);
    // --- cross-entropy of clusters: loss[r] = -sum_c P ln softmax(z)[r,c], P = mass[trow[r]];
    //     g (rows, C) = weight[r] (softmax(z) * sum P - P). loss F32 (1, rows). g.data NULL: loss
    //     only.
    void (*cluster_ce)(Device *, Tensor loss, Tensor g, Tensor z, Tensor mass, Tensor trow,
                       Tensor weight);
    // --- centroid head: logits of the tokens of the chosen clusters. ordering I32 (C, per): token
    // ids.
    //     z F32 (rows, k * per), token I32 (rows, k * per), for clusters idx I32 (rows, k)
    void (*cluster_logits)(Device *, Tensor z, Tensor token, Tensor y, Tensor table,
                           Tensor ordering, Tensor idx);
    // --- optimiser over flat F32 buffers; copy (BF16, data NULL: none) receives the new weights.
    //     g is scaled first; bias correction by step (1-based); decoupled decay.
    void (*adamw)(Device *, Tensor w, Tensor m, Tensor v, Tensor copy, Tensor g, float gscale,
                  float lr, float beta1, float beta2, float eps, float decay, int64_t step);
    // sum of squares in a fixed order, in double: out F64 (1, 1)
    void (*sumsq)(Device *, Tensor out, Tensor x);
} Ops;

// op_x(dev, ...) calls the body of the device at hand.
#define op_zero(dev, ...) ((dev)->ops->zero((dev), __VA_ARGS__))
#define op_copy(dev, ...) ((dev)->ops->copy((dev), __VA_ARGS__))
#define op_matmul_nt(dev, ...) ((dev)->ops->matmul_nt((dev), __VA_ARGS__))
#define op_matmul_nn(dev, ...) ((dev)->ops->matmul_nn((dev), __VA_ARGS__))
#define op_matmul_tn(dev, ...) ((dev)->ops->matmul_tn((dev), __VA_ARGS__))
#define op_gather(dev, ...) ((dev)->ops->gather((dev), __VA_ARGS__))
#define op_gather_back(dev, ...) ((dev)->ops->gather_back((dev), __VA_ARGS__))
#define op_norm(dev, ...) ((dev)->ops->norm((dev), __VA_ARGS__))
#define op_norm_back(dev, ...) ((dev)->ops->norm_back((dev), __VA_ARGS__))
#define op_head_norm(dev, ...) ((dev)->ops->head_norm((dev), __VA_ARGS__))
#define op_head_norm_back(dev, ...) ((dev)->ops->head_norm_back((dev), __VA_ARGS__))
#define op_rope_table(dev, ...) ((dev)->ops->rope_table((dev), __VA_ARGS__))
#define op_attention(dev, ...) ((dev)->ops->attention((dev), __VA_ARGS__))
#define op_attention_back(dev, ...) ((dev)->ops->attention_back((dev), __VA_ARGS__))
#define op_geglu(dev, ...) ((dev)->ops->geglu((dev), __VA_ARGS__))
#define op_geglu_back(dev, ...) ((dev)->ops->geglu_back((dev), __VA_ARGS__))
#define op_gated(dev, ...) ((dev)->ops->gated((dev), __VA_ARGS__))
#define op_gated_room(dev, ...) ((dev)->ops->gated_room((dev), __VA_ARGS__))
#define op_route(dev, ...) ((dev)->ops->route((dev), __VA_ARGS__))
#define op_experts(dev, ...) ((dev)->ops->experts((dev), __VA_ARGS__))
#define op_axpby(dev, ...) ((dev)->ops->axpby((dev), __VA_ARGS__))
#define op_softcap(dev, ...) ((dev)->ops->softcap((dev), __VA_ARGS__))
#define op_top2(dev, ...) ((dev)->ops->top2((dev), __VA_ARGS__))
#define op_topk(dev, ...) ((dev)->ops->topk((dev), __VA_ARGS__))
#define op_lse_tile(dev, ...) ((dev)->ops->lse_tile((dev), __VA_ARGS__))
#define op_prob_tile(dev, ...) ((dev)->ops->prob_tile((dev), __VA_ARGS__))
#define op_loss_tile(dev, ...) ((dev)->ops->loss_tile((dev), __VA_ARGS__))
#define op_head_tile(dev, ...) ((dev)->ops->head_tile((dev), __VA_ARGS__))
#define op_cluster_mass(dev, ...) ((dev)->ops->cluster_mass((dev), __VA_ARGS__))
#define op_cluster_ce(dev, ...) ((dev)->ops->cluster_ce((dev), __VA_ARGS__))
#define op_cluster_logits(dev, ...) ((dev)->ops->cluster_logits((dev), __VA_ARGS__))
#define op_adamw(dev, ...) ((dev)->ops->adamw((dev), __VA_ARGS__))
#define op_sumsq(dev, ...) ((dev)->ops->sumsq((dev), __VA_ARGS__))

extern const Ops cpu_ops;

static const Tensor NO_TENSOR = {0};

#endif
