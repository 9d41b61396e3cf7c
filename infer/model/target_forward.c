// infer/model/target_forward.c - the forward pass (spec gemma4.md 2), written once for every
// family.
//
// A row is one token of one sequence. Rows of all pieces go through the GEMMs together; attention
// sees one segment per piece. R rows in the call, B width, P per-layer width. Rows whose state
// nobody wants end in the last layer that owns K/V: later layers read its rows, not theirs.
#include <math.h>

#include "infer/model/target_parts.h"

#include "infer/base/watchdog.h"

typedef struct {
    Target *t;
    KvCache *kv;
    const TargetPiece *piece;
    int n;
    int64_t rows;  // that go through the layer at hand
    int cut_at;    // the layer where rows to skip end; the number of layers if there are none
    bool cut;      // they are gone
    Tensor ple[2]; // inputs of the layers before cut_at, and of those from there on for fewer rows
} Call;

static Tensor front(Tensor room, int64_t rows, int64_t cols) {
    return tensor_of(room.data, room.dtype, rows, cols);
}

static Tensor stream(const Call *c) {
    return front(c->t->acts.x, c->rows, c->t->cfg.text.hidden);
}

// The stream as a GEMM wants it.
static Tensor stream_input(const Call *c) {
    if (c->t->dtype == DT_F32) return stream(c);
    const Tensor in = front(c->t->acts.in, c->rows, c->t->cfg.text.hidden);
    op_copy(c->t->dev, in, stream(c));
    return in;
}

static Tensor normed(const Call *c, Tensor w) {
    const Tensor in = front(c->t->acts.in, c->rows, c->t->cfg.text.hidden);
    op_norm(c->t->dev, in, NO_TENSOR, NO_TENSOR, stream(c), w, (float)c->t->cfg.text.eps, 1.0f);
    return in;
}

// x = scale (x + RMSNorm(y w^T; norm)): how every block returns to the stream.
static void add_block(const Call *c, Tensor y, Tensor w, Tensor norm, float scale) {
    const Tensor proj = front(c->t->acts.proj, c->rows, c->t->cfg.text.hidden);
    op_matmul_nt(c->t->dev, proj, y, w, 0.0f);
    op_norm(c->t->dev, stream(c), NO_TENSOR, stream(c), proj, norm, (float)c->t->cfg.text.eps,
            scale);
}

// Positions and visible ends of the present rows, and their rotations.
static void upload_positions(const Call *c) {
    Target *t = c->t;
    const Tensor pos = front(t->acts.pos, 1, c->rows);
    dev_upload(t->dev, pos, t->pos_host);
    dev_upload(t->dev, front(t->acts.end, 1, c->rows), t->end_host);
    for (int k = 0; k < 2; k++)
        op_rope_table(t->dev, front(t->acts.cs[k], c->rows, t->acts.cs[k].cols), pos,
                      t->w.inv_freq[k]);
}

// Positions, visible ends and ids go to the device; room is made in the cache.
static void begin(const Call *c, const int32_t *ids) {
    Target *t = c->t;
    int64_t r = 0;
    for (int i = 0; i < c->n; i++) {
        const int64_t length = kv_length(c->kv, c->piece[i].slot);
        kv_reserve(c->kv, c->piece[i].slot, c->piece[i].count);
        for (int64_t k = 0; k < c->piece[i].count; k++, r++) {
            CHECK(ids[r] >= 0 && ids[r] < t->cfg.text.vocab, "(id %d of %lld)", ids[r],
                  (long long)t->cfg.text.vocab);
            t->pos_host[r] = (int32_t)(length + k);
            t->end_host[r] = (int32_t)(length + k + 1);
        }
    }
    dev_upload(t->dev, front(t->acts.ids, 1, c->rows), ids);
    upload_positions(c);
}

static int64_t rows_of(const Call *c, int i) {
    return c->piece[i].count - (c->cut ? c->piece[i].skip : 0);
}

static bool skips(const Call *c) {
    for (int i = 0; i < c->n; i++)
        if (c->piece[i].skip > 0) return true;
    return false;
}

// Rows whose state is wanted: their places among all.
static int64_t list_kept(const Call *c) {
    int64_t kept = 0;
    for (int64_t i = 0, first = 0; i < c->n; first += c->piece[i++].count)
        for (int64_t r = first + c->piece[i].skip; r < first + c->piece[i].count; r++)
            c->t->row_host[kept++] = (int32_t)r;
    return kept;
}

// ple (rows, layers P) = (RMSNorm per slice of (W x) B^-1/2 + table row) 2^-1/2, of layers `first`
// and following. The factor B^-1/2 in front of the norm is eps B inside it.
static void per_layer_inputs(const Call *c, Tensor ple, Tensor b, Tensor x, Tensor ids, int first) {
    Target *t = c->t;
    const TextConfig *cfg = &t->cfg.text;
    const int64_t from = first * cfg->ple;
    const Tensor slices = tensor_view(ple, tensor_count(ple) / cfg->ple, cfg->ple);
    op_gather(t->dev, ple, tensor_cols(t->w.ple_table, from, ple.cols), ids, t->ple_scale);
    op_matmul_nt(t->dev, b, x, tensor_rows(t->w.ple_model, from, ple.cols), 0.0f);
    op_norm(t->dev, slices, NO_TENSOR, slices, tensor_view(b, slices.rows, slices.cols),
            t->w.ple_norm, (float)(cfg->eps * (double)cfg->hidden), (float)M_SQRT1_2);
}

// What the stream of embeddings and the ids make of every layer's input, for the rows that it sees.
static void all_per_layer_inputs(Call *c, const int32_t *ids) {
    Target *t = c->t;
    TargetActs *a = &t->acts;
    const TextConfig *cfg = &t->cfg.text;
    const int64_t width = c->cut_at * cfg->ple, rest = cfg->layers * cfg->ple - width;
    c->ple[0] = front(a->ple, c->rows, width);
    if (width > 0)
        per_layer_inputs(c, c->ple[0], front(a->ple_in, c->rows, width), stream_input(c),
                         front(a->ids, 1, c->rows), 0);
    const int64_t kept = rest > 0 ? list_kept(c) : 0;
    if (kept == 0) return;
    c->ple[1] = tensor_of((float *)a->ple.data + c->rows * width, DT_F32, kept, rest);
    // positions are rotations by now: their buffer is free
    const Tensor x = front(a->in, kept, cfg->hidden), index = front(a->pos, 1, kept);
    dev_upload(t->dev, index, t->row_host);
    op_gather(t->dev, x, stream(c), index, 1.0f);
    for (int64_t r = 0; r < kept; r++) t->row_host[r] = ids[t->row_host[r]];
    dev_upload(t->dev, index, t->row_host);
    per_layer_inputs(c, c->ple[1], front(a->ple_in, kept, rest), x, index, c->cut_at);
}

static void swap(Tensor *a, Tensor *b) {
    const Tensor t = *a;
    *a = *b;
    *b = t;
}

// Only rows whose state is wanted stay: the stream moves to the front, through a buffer that is
// free between blocks.
static void cut_rows(Call *c) {
    Target *t = c->t;
    TargetActs *a = &t->acts;
    const Tensor x = stream(c);
    const int64_t kept = list_kept(c);
    for (int64_t i = 0; i < kept; i++) {
        t->pos_host[i] = t->pos_host[t->row_host[i]];
        t->end_host[i] = t->end_host[t->row_host[i]];
    }
    c->cut = true;
    c->rows = kept;
    if (kept == 0) return;
    const Tensor row = front(a->ids, 1, kept);
    dev_upload(t->dev, row, t->row_host);
    op_gather(t->dev, front(a->proj, kept, x.cols), x, row, 1.0f);
    swap(&a->x, &a->proj);
    upload_positions(c);
}

static Tensor rotation(const Call *c, int l) {
    const TextConfig *cfg = &c->t->cfg.text;
    return front(c->t->acts.cs[cfg->kind[l]], c->rows, layer_head_dim(cfg, l));
}

// Finished K and V of the new rows go behind the old ones: straight where there is one piece, else
// through a buffer, so that the norms see all rows at once.
static void store_kv(const Call *c, int l, Tensor k, Tensor v) {
    Target *t = c->t;
    const float eps = (float)t->cfg.text.eps;
    const int hd = (int)layer_head_dim(&t->cfg.text, l);
    KvView to = {front(t->acts.k, c->rows, k.cols), front(t->acts.v, c->rows, k.cols), 0};
    if (c->n == 1)
        to = kv_rows(c->kv, c->piece[0].slot, l, kv_length(c->kv, c->piece[0].slot), c->rows);
    op_head_norm(t->dev, to.k, NO_TENSOR, k, t->w.layer[l].k_norm, rotation(c, l), eps, hd);
    op_head_norm(t->dev, to.v, NO_TENSOR, v, NO_TENSOR, NO_TENSOR, eps, hd);
    int64_t r = 0;
    for (int i = 0; c->n > 1 && i < c->n; r += c->piece[i++].count) {
        const int slot = c->piece[i].slot;
        const KvView rows = kv_rows(c->kv, slot, l, kv_length(c->kv, slot), c->piece[i].count);
        op_copy(t->dev, rows.k, tensor_rows(to.k, r, c->piece[i].count));
        op_copy(t->dev, rows.v, tensor_rows(to.v, r, c->piece[i].count));
    }
}

static void attend(const Call *c, int l, Tensor o, Tensor q) {
    Target *t = c->t;
    const TextConfig *cfg = &t->cfg.text;
    int64_t r = 0;
    int nseg = 0;
    for (int i = 0; i < c->n; r += rows_of(c, i++)) {
        const KvView view = kv_view(c->kv, c->piece[i].slot, l);
        if (rows_of(c, i) == 0) continue;
        t->seg[nseg++] = (AttnSeg){view.k, view.v, view.first, r, rows_of(c, i)};
    }
    const AttnArgs args = {
        .seg = t->seg,
        .nseg = nseg,
        .end = front(t->acts.end, 1, c->rows),
        .end_host = t->end_host,
        .span = cfg->kind[l] == LAYER_FULL ? ATTN_ALL : cfg->window,
        .heads = (int)cfg->heads,
        .kv_heads = (int)layer_kv_heads(cfg, l),
        .hd = (int)layer_head_dim(cfg, l),
    };
    op_attention(t->dev, o, NO_TENSOR, q, &args);
}

// Q of the rows, raw, once K and V are stored; where rows are cut, Q only of those that go on.
static Tensor project(Call *c, int l, bool cut) {
    Target *t = c->t;
    const TargetLayer *w = &t->w.layer[l];
    const QkvRows n = target_qkv_rows(&t->cfg.text, l);
    const int64_t first = cut ? n.q : 0, width = n.q + n.k + n.v - first;
    const Tensor qkv = front(t->acts.qkv, c->rows, width);
    op_matmul_nt(t->dev, qkv, normed(c, w->in_norm), tensor_rows(w->qkv, first, width), 0.0f);
    if (n.k > 0) {
        const Tensor k = tensor_cols(qkv, n.q - first, n.k); // V of a k_eq_v layer is the raw K
        store_kv(c, l, k, n.v > 0 ? tensor_cols(qkv, n.q - first + n.k, n.v) : k);
    }
    if (!cut) return tensor_cols(qkv, 0, n.q);
    cut_rows(c);
    const Tensor q = front(t->acts.qkv, c->rows, n.q);
    if (c->rows > 0)
        op_matmul_nt(t->dev, q, normed(c, w->in_norm), tensor_rows(w->qkv, 0, n.q), 0.0f);
    return q;
}

static void attention_block(Call *c, int l, bool cut) {
    Target *t = c->t;
    const TargetLayer *w = &t->w.layer[l];
    const int64_t hd = layer_head_dim(&t->cfg.text, l);
    const Tensor raw = project(c, l, cut);
    if (c->rows == 0) return;
    const Tensor q = front(t->acts.q, c->rows, raw.cols), o = front(t->acts.o, c->rows, raw.cols);
    op_head_norm(t->dev, q, NO_TENSOR, raw, w->q_norm, rotation(c, l), (float)t->cfg.text.eps,
                 (int)hd);
    attend(c, l, o, q);
    add_block(c, o, w->o, w->post_attn_norm, 1.0f);
}

// The experts start, like the dense MLP, from the stream, each behind a norm of its own; so does
// the router, whose norm has router.scale for a weight and B^-1/2 in front.
static void mixture_block(const Call *c, int l, Tensor mid, float scale) {
    Target *t = c->t;
    const TargetLayer *w = &t->w.layer[l];
    const TextConfig *cfg = &t->cfg.text;
    const float eps = (float)cfg->eps;
    const Tensor dense = front(t->acts.dense, c->rows, cfg->hidden),
                 mixed = front(t->acts.mixed, c->rows, cfg->hidden);
    const Tensor z = front(t->acts.router, c->rows, cfg->experts);
    const Tensor choice = front(t->acts.choice, c->rows, cfg->top_experts),
                 share = front(t->acts.share, c->rows, cfg->top_experts);
    op_matmul_nt(t->dev, dense, mid, w->down, 0.0f);
    op_norm(t->dev, dense, NO_TENSOR, NO_TENSOR, dense, w->dense_norm, eps, 1.0f);
    op_norm(t->dev, mixed, NO_TENSOR, NO_TENSOR, stream(c), w->router_scale, eps,
            (float)(1.0 / sqrt((double)cfg->hidden)));
    op_matmul_nt(t->dev, z, mixed, w->router, 0.0f);
    op_topk(t->dev, choice, z, (int)cfg->top_experts);
    op_route(t->dev, share, z, choice, w->expert_scale);
    op_experts(t->dev, mixed, normed(c, w->experts_in_norm), choice, share, w->experts_gate_up,
               w->experts_down);
    op_norm(t->dev, dense, NO_TENSOR, dense, mixed, w->experts_norm, eps, 1.0f);
    op_norm(t->dev, stream(c), NO_TENSOR, stream(c), dense, w->post_ff_norm, eps, scale);
}

static void mlp_block(const Call *c, int l, float scale) {
    Target *t = c->t;
    const TargetLayer *w = &t->w.layer[l];
    const int64_t inter = layer_inter(&t->cfg.text, l);
    const int64_t room =
        op_gated_room(t->dev, c->rows, inter, t->cfg.text.hidden, t->dtype, t->dtype);
    const Tensor gate_up = front(t->acts.gate_up, room, 2 * inter);
    const Tensor mid = front(t->acts.mid, c->rows, inter);
    op_gated(t->dev, mid, gate_up, normed(c, w->pre_ff_norm), w->gate_up, false);
    if (t->cfg.text.moe)
        mixture_block(c, l, mid, scale);
    else
        add_block(c, mid, w->down, w->post_ff_norm, scale);
}

static void per_layer_block(const Call *c, int l, float scale) {
    Target *t = c->t;
    const TargetLayer *w = &t->w.layer[l];
    const int64_t p = t->cfg.text.ple;
    const Tensor gate = front(t->acts.ple_gate, c->rows, p),
                 mid = front(t->acts.ple_mid, c->rows, p);
    const Tensor ple = tensor_cols(c->ple[c->cut], (c->cut ? l - c->cut_at : l) * p, p);
    op_matmul_nt(t->dev, gate, stream_input(c), w->ple_gate, 0.0f);
    op_geglu(t->dev, mid, gate, ple);
    add_block(c, mid, w->ple_proj, w->ple_norm, scale);
}

// layer_scalar multiplies the whole stream at the end of a layer: it is the scale of its last
// block.
static void layer_forward(Call *c, int l, bool cut) {
    const float scalar = c->t->w.layer[l].scalar;
    const bool ple = c->t->cfg.text.ple > 0;
    attention_block(c, l, cut);
    if (c->rows == 0) return;
    mlp_block(c, l, ple ? 1.0f : scalar);
    if (ple) per_layer_block(c, l, scalar);
}

void target_forward(Target *t, KvCache *kv, const TargetPiece *piece, int n, const int32_t *ids,
                    Tensor hidden, Tensor *layers) {
    Call c = {.t = t, .kv = kv, .piece = piece, .n = n};
    int64_t wanted = 0;
    for (int i = 0; i < n; i++) {
        CHECK(piece[i].skip >= 0 && piece[i].skip <= piece[i].count);
        c.rows += piece[i].count;
        wanted += piece[i].count - piece[i].skip;
    }
    CHECK(n > 0 && c.rows <= t->max_rows, "(%lld rows, planned for %lld)", (long long)c.rows,
          (long long)t->max_rows);
    CHECK(hidden.rows == wanted && (layers == NULL || !skips(&c)));
    begin(&c, ids);
    op_gather(t->dev, stream(&c), t->w.embed, front(t->acts.ids, 1, c.rows), t->embed_scale);
    c.cut_at = (int)t->cfg.text.layers - (skips(&c) ? (int)t->cfg.text.kv_shared + 1 : 0);
    if (t->cfg.text.ple > 0) all_per_layer_inputs(&c, ids);
    for (int l = 0; l < t->cfg.text.layers && c.rows > 0; l++) {
        watchdog_beat();
        layer_forward(&c, l, l == c.cut_at);
        if (layers != NULL) op_copy(t->dev, layers[l], stream(&c));
    }
    if (c.rows > 0)
        op_norm(t->dev, hidden, NO_TENSOR, NO_TENSOR, stream(&c), t->w.norm, (float)t->cfg.text.eps,
                1.0f);
    for (int i = 0; i < n; i++) kv_commit(kv, piece[i].slot);
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// Rows first .. of hidden in the dtype of the head, at most max_rows.
static Tensor head_input(Target *t, Tensor hidden, int64_t first) {
    const Tensor h = tensor_rows(hidden, first, least(t->max_rows, hidden.rows - first));
    if (h.dtype == t->dtype) return h;
    const Tensor in = front(t->acts.in, h.rows, h.cols);
    op_copy(t->dev, in, h);
    return in;
}

void target_logits(Target *t, Tensor logits, Tensor hidden) {
    CHECK(t->max_rows > 0);
    for (int64_t r = 0; r < hidden.rows; r += t->max_rows) {
        const Tensor h = head_input(t, hidden, r), z = tensor_rows(logits, r, h.rows);
        op_matmul_nt(t->dev, z, h, t->w.embed, 0.0f);
        op_softcap(t->dev, z, (float)t->cfg.text.softcap);
    }
}

// The cap keeps the order, so it is applied to the two values only.
void target_top2(Target *t, Tensor best, Tensor id, Tensor hidden) {
    const int64_t vocab = t->cfg.text.vocab;
    CHECK(t->max_rows > 0);
    for (int64_t r = 0; r < hidden.rows; r += t->max_rows) {
        const Tensor h = head_input(t, hidden, r);
        for (int64_t v = 0; v < vocab; v += VOCAB_TILE) {
            const int64_t cols = least(VOCAB_TILE, vocab - v);
            const Tensor z = front(t->acts.logits, h.rows, cols);
            op_matmul_nt(t->dev, z, h, tensor_rows(t->w.embed, v, cols), 0.0f);
            suppress_columns(t->dev, &t->cfg.suppress, z, t->acts.never, v);
            op_top2(t->dev, tensor_rows(best, r, h.rows), tensor_rows(id, r, h.rows), z, NO_TENSOR,
                    v);
        }
    }
    op_softcap(t->dev, best, (float)t->cfg.text.softcap);
}

enum { SPAN_ROWS = 32 }; // beyond, products take longer than their launches

void target_step(Target *t, KvCache *kv, const TargetPiece *piece, int n, const int32_t *ids,
                 Tensor hidden, Tensor best, Tensor id) {
    int64_t rows = 0;
    for (int i = 0; i < n; i++) rows += piece[i].count;
    const bool span = rows <= SPAN_ROWS && hidden.rows == rows;
    if (span) dev_span_begin(t->dev);
    target_forward(t, kv, piece, n, ids, hidden, NULL);
    if (best.data != NULL && hidden.rows > 0) target_top2(t, best, id, hidden);
    if (span) dev_span_end(t->dev);
}
