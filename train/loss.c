// train/loss.c - passes over the vocabulary for one block of rows after the other.
#include "train/loss.h"

#include "infer/base/watchdog.h"
#include "train/loss_plan.h"

typedef struct {
    const HeadLoss *l;
    const Assistant *a;
    Device *dev;
    LossRoom r;
    AssistantWeights *g; // NULL: loss only
} Run;

static Tensor shaped(Tensor room, int64_t rows, int64_t cols) {
    return tensor_of(room.data, room.dtype, rows, cols);
}

// Teacher logits of a tile; its probabilities once their sums are known.
static Tensor teacher_tile(const Run *c, const LossBlock *b, int64_t v0, int64_t cols,
                           unsigned pass) {
    const LossRoom *r = &c->r;
    const LossOptions *o = &c->l->opt;
    const Tensor tz = shaped(r->tz, b->nt, cols), lse = tensor_rows(r->tlse, 0, b->nt);
    float cap = o->softcap;
    op_matmul_nt(c->dev, tz, tensor_rows(r->hidden, 0, b->nt),
                 tensor_rows(c->a->target_table, v0, cols), 0.0f);
    if (suppress_any(&c->l->suppress, v0,
                     cols)) { // the cap first: it would lift what is suppressed
        op_softcap(c->dev, tz, cap);
        suppress_columns(c->dev, &c->l->suppress, tz, r->never, v0);
        cap = 0.0f;
    }
    if (pass & LOSS_LSE) {
        const bool argmax = o->kind == LOSS_CE_ARGMAX;
        const Tensor best = argmax ? tensor_rows(r->tbest, 0, b->nt) : NO_TENSOR,
                     id = argmax ? tensor_rows(r->tid, 0, b->nt) : NO_TENSOR;
        op_lse_tile(c->dev, lse, best, id, tz, cap, o->temperature, v0);
        if (argmax) op_copy(c->dev, shaped(r->targ, b->nt, 1), tensor_cols(id, 0, 1));
    }
    if (pass & (LOSS_STATS | LOSS_GRAD))
        op_prob_tile(c->dev, tz, tensor_rows(r->psum, 0, b->nt), tz, lse,
                     pass & LOSS_LSE ? 0.0f : cap, o->temperature);
    if ((pass & LOSS_STATS) && o->route != 0.0f) {
        const Tensor mass = tensor_rows(r->mass, 0, b->nt);
        if (v0 == 0) op_zero(c->dev, mass);
        op_cluster_mass(c->dev, mass, tz, c->a->cluster_of, v0);
    }
    return tz;
}

// Even pieces of the block's items, none larger than the room for student logits.
static int64_t piece_size(const HeadLoss *l, int64_t items) {
    const int64_t pieces = (items + l->students - 1) / l->students;
    return (items + pieces - 1) / pieces;
}

static int64_t piece_at(int64_t at, int64_t size, int64_t items) {
    return at + size < items ? size : items - at;
}

// Items s0 .. s0+n-1 of the block against teacher probabilities p of tokens from v0 on.
static void student_part(const Run *c, const LossBlock *b, int64_t s0, int64_t n, Tensor p,
                         Tensor psum, int64_t v0, unsigned parts) {
    const LossRoom *r = &c->r;
    const LossOptions *o = &c->l->opt;
    const int64_t i0 = b->i0 + s0;
    const Tensor table = tensor_rows(c->a->w.table, v0, p.cols), y = tensor_rows(r->yc, s0, n);
    const Tensor gz = parts & LOSS_GRAD ? shaped(r->gz, n, p.cols) : NO_TENSOR;
    const HeadOut out = {.lse = tensor_rows(r->slse, s0, n),
                         .best = tensor_rows(r->best, i0, n),
                         .id = tensor_rows(r->id, i0, n),
                         .stat = tensor_rows(r->stat, i0, n),
                         .g = gz,
                         .z = r->sz.data ? shaped(r->sz, n, p.cols) : NO_TENSOR};
    const LossArgs args = {.p = p,
                           .psum = psum,
                           .trow = tensor_cols(r->trow, i0, n),
                           .target = o->kind == LOSS_CE_ARGMAX  ? tensor_cols(r->targ, 0, b->nt)
                                     : o->kind == LOSS_CE_LABEL ? tensor_cols(r->label, i0, n)
                                                                : NO_TENSOR,
                           .weight = tensor_cols(r->weight, i0, n),
                           .kind = o->kind,
                           .mix = o->mix,
                           .temp = o->temperature,
                           .parts = parts};
    op_head_tile(c->dev, &out, y, table, &args, v0);
    if (!(parts & LOSS_GRAD)) return;
    if (c->g->table.data != NULL)
        op_matmul_tn(c->dev, tensor_rows(c->g->table, v0, p.cols), gz, y, 1.0f);
    op_matmul_nn(c->dev, tensor_rows(r->dyc, s0, n), gz, table, v0 > 0 ? 1.0f : 0.0f);
}

static bool signs_first(const LossOptions *o) { // the gradient needs a sum over the vocabulary
    return o->kind == LOSS_TV || o->kind == LOSS_HYBRID;
}

// One call where there is room for the logits of all columns. Else a device forms them as often as
// they are wanted, and only the gradient has a limit.
static void student_tile(const Run *c, const LossBlock *b, int64_t s0, int64_t n, Tensor p,
                         int64_t v0, unsigned pass) {
    const Tensor psum = tensor_rows(c->r.psum, 0, b->nt);
    const int64_t part = c->l->part;
    if (part >= p.cols) {
        student_part(c, b, s0, n, p, psum, v0, pass);
        return;
    }
    if (pass & LOSS_LSE) student_part(c, b, s0, n, p, psum, v0, LOSS_LSE);
    pass &= LOSS_STATS | LOSS_GRAD;
    if ((pass & LOSS_STATS) && (pass == LOSS_STATS || signs_first(&c->l->opt))) {
        student_part(c, b, s0, n, p, psum, v0, LOSS_STATS);
        pass &= LOSS_GRAD;
    }
    for (int64_t v = 0; pass && v < p.cols; v += part)
        student_part(c, b, s0, n, tensor_cols(p, v, piece_at(v, part, p.cols)),
                     v == 0 ? psum : NO_TENSOR, v0 + v, pass);
}

static void vocabulary_pass(const Run *c, const LossBlock *b, unsigned pass) {
    const int64_t V = c->a->cfg.text.vocab, size = piece_size(c->l, b->ni);
    for (int64_t v0 = 0; v0 < V; v0 += c->l->tile) {
        watchdog_beat();
        const Tensor tz = teacher_tile(c, b, v0, piece_at(v0, c->l->tile, V), pass);
        for (int64_t s = 0; s < b->ni; s += size)
            student_tile(c, b, s, piece_at(s, size, b->ni), tz, v0, pass);
    }
}

// Cross-entropy of the clusters against the teacher's mass in them.
static void route_pass(const Run *c, const LossBlock *b) {
    const LossRoom *r = &c->r;
    const Assistant *a = c->a;
    const int64_t size = piece_size(c->l, b->ni), C = a->cfg.clusters;
    for (int64_t s = 0; s < b->ni; s += size) {
        const int64_t n = piece_at(s, size, b->ni), i = b->i0 + s;
        const Tensor y = tensor_rows(r->yc, s, n), z = shaped(r->cz, n, C);
        const Tensor gc = c->g ? shaped(r->gc, n, C) : NO_TENSOR;
        op_matmul_nt(c->dev, z, y, a->w.centroids, 0.0f);
        op_cluster_ce(c->dev, tensor_cols(r->route, i, n), gc, z, tensor_rows(r->mass, 0, b->nt),
                      tensor_cols(r->trow, i, n), tensor_cols(r->route_weight, i, n));
        if (c->g == NULL) continue;
        if (c->g->centroids.data != NULL) op_matmul_tn(c->dev, c->g->centroids, gc, y, 1.0f);
        if (!c->l->opt.route_detached)
            op_matmul_nn(c->dev, tensor_rows(r->dyc, s, n), gc, a->w.centroids, 1.0f);
    }
}

static void run_block(const Run *c, const LossBlock *b, const FeaturePack *pack, Tensor y,
                      Tensor dy) {
    const Tensor ids = tensor_cols(c->r.y, b->i0, b->ni);
    const unsigned grad = c->g ? LOSS_GRAD : 0;
    op_gather(c->dev, tensor_rows(c->r.hidden, 0, b->nt), pack->hidden,
              tensor_cols(c->r.teacher, b->t0, b->nt), 1.0f);
    op_gather(c->dev, tensor_rows(c->r.yc, 0, b->ni), y, ids, 1.0f);
    if (c->l->tile >= c->a->cfg.text.vocab) {
        vocabulary_pass(c, b, LOSS_LSE | LOSS_STATS | grad);
    } else {
        const bool apart = grad && signs_first(&c->l->opt);
        vocabulary_pass(c, b, LOSS_LSE);
        vocabulary_pass(c, b, LOSS_STATS | (apart ? 0 : grad));
        if (apart) vocabulary_pass(c, b, grad);
    }
    if (c->l->opt.route != 0.0f) route_pass(c, b);
    if (c->g) op_gather_back(c->dev, dy, tensor_rows(c->r.dyc, 0, b->ni), ids, 1.0f);
}

static void download_results(HeadLoss *l, Device *dev, const LossRoom *r, LossItem *item,
                             int64_t n) {
    const LossOptions *o = &l->opt;
    dev_download(dev, l->stat, r->stat);
    dev_download(dev, l->best, r->id);
    if (o->route != 0.0f) dev_download(dev, l->route, r->route);
    for (int64_t i = 0; i < n; i++) {
        const double *s = l->stat + 4 * i;
        const double main = o->kind == LOSS_FKL      ? s[0]
                            : o->kind == LOSS_TV     ? s[1]
                            : o->kind == LOSS_HYBRID ? o->mix * s[0] + (1 - o->mix) * s[1]
                                                     : s[3];
        item[i].loss = (float)(main + o->route * l->route[i]);
        item[i].fkl = (float)s[0];
        item[i].tv = (float)s[1];
        item[i].route = l->route[i];
        item[i].best = l->best[2 * i];
    }
}

void head_loss_run(HeadLoss *l, const Assistant *a, const FeaturePack *pack, LossItem *item,
                   int64_t n, Tensor y, Tensor dy, AssistantWeights *g, Arena *arena) {
    if (n == 0) return;
    const size_t mark = arena_mark(arena);
    loss_sort(l, item, n, pack->rows);
    Run c = {.l = l, .a = a, .dev = a->dev, .g = g};
    c.r = loss_room_take(l, a, pack->dtype, n, pack->rows, g != NULL, arena);
    loss_upload(l, a->dev, item, n, &c.r);
    LossBlock b = {0};
    while (loss_next_block(l, item, n, &b)) run_block(&c, &b, pack, y, dy);
    download_results(l, a->dev, &c.r, item, n);
    arena_reset(arena, mark);
}
