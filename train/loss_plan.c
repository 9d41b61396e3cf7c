// train/loss_plan.c - sizes of blocks and tiles, the order of the rows, device memory of a call.
#include "train/loss_plan.h"

#include <stdlib.h>
#include <string.h>

// Products gain little beyond 200 rows and nothing beyond 512. The whole vocabulary by 64 rows
// still beats tiles by 256, which form every logit twice; by 32 rows it no longer does.
enum { ROWS_MIN = 64, ROWS_MAX = 512, TILE_ROWS = 256, TILE_COLS_MIN = 64, PART_STEP = 1024 };

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// A device that keeps the students' logits to itself: the whole vocabulary of the teacher for a few
// hundred rows, all their students, and a quarter of the budget for columns of the gradient. A
// budget for fewer rows cuts the vocabulary as below.
static bool plan_without_room(HeadLoss *l, const Assistant *a, size_t budget, int64_t most) {
    const int64_t V = a->cfg.text.vocab,
                  fit = (int64_t)(budget / 4 * 3 / sizeof(float)) / V / 16 * 16;
    if (fit < ROWS_MIN && fit < l->opt.max_teachers) return false;
    l->teachers = least(fit, l->opt.max_teachers);
    l->students = least(l->teachers * l->opt.per_teacher, most);
    l->tile = V;
    const int64_t cols =
        (int64_t)(budget / 4 / dtype_size(a->dtype)) / l->students / PART_STEP * PART_STEP;
    l->part = least(cols < PART_STEP ? PART_STEP : cols, V);
    return true;
}

static void plan_sizes(HeadLoss *l, const Assistant *a) {
    const bool room = a->dev->ops->head_room;
    const size_t usual = room ? LOSS_HEAD_BYTES : 4 * LOSS_HEAD_BYTES,
                 budget = l->opt.head_bytes ? l->opt.head_bytes : usual;
    const int64_t V = a->cfg.text.vocab, student = a->dtype == DT_F32 ? 4 : 6;
    const int64_t most = least(l->opt.max_items, l->opt.per_teacher * l->opt.max_teachers);
    if (!room && plan_without_room(l, a, budget, most)) return;
    const int64_t fit = (int64_t)(budget / (size_t)(4 + student)) / V / 16 * 16;
    const bool whole = fit >= ROWS_MIN || fit >= most;
    const int64_t rows = whole ? least(fit, ROWS_MAX) : TILE_ROWS;
    l->teachers = least(rows, l->opt.max_teachers);
    l->students = least(rows, most);
    const int64_t cols =
        (int64_t)(budget / (size_t)(4 * l->teachers + student * l->students)) / 64 * 64;
    l->tile = whole ? V : least(cols < TILE_COLS_MIN ? TILE_COLS_MIN : cols, V);
    l->part = l->tile;
}

HeadLoss *head_loss_open(const Assistant *a, const TargetConfig *tc, const LossOptions *opt,
                         Err *err) {
    CHECK(opt->max_items > 0 && opt->max_teachers > 0 && opt->per_teacher > 0 &&
          opt->temperature > 0);
    if (opt->route != 0.0f && !a->cfg.ordered) {
        err_set(err, ERR_USAGE,
                "a routing loss of weight %g needs an assistant with a centroid head",
                (double)opt->route);
        return NULL;
    }
    HeadLoss *l = calloc(1, sizeof *l);
    CHECK(l != NULL);
    l->opt = *opt;
    l->suppress = tc->suppress;
    l->width = tc->text.hidden;
    plan_sizes(l, a);
    const size_t n = (size_t)opt->max_items, t = (size_t)opt->max_teachers + 1;
    l->sorted = malloc(n * sizeof *l->sorted);
    l->count = malloc(t * sizeof *l->count);
    l->y = malloc(n * sizeof *l->y);
    l->trow = malloc(n * sizeof *l->trow);
    l->label = malloc(n * sizeof *l->label);
    l->teacher = malloc(t * sizeof *l->teacher);
    l->best = malloc(2 * n * sizeof *l->best);
    l->weight = malloc(n * sizeof *l->weight);
    l->stat = malloc(4 * n * sizeof *l->stat);
    l->route = calloc(n, sizeof *l->route);
    l->never = malloc(t * sizeof *l->never);
    for (size_t i = 0; l->never && i < t; i++) l->never[i] = SUPPRESSED;
    if (l->sorted && l->count && l->y && l->trow && l->label && l->teacher && l->best &&
        l->weight && l->stat && l->route && l->never)
        return l;
    err_set(err, ERR_FAILED, "no memory for the loss of %lld rows", (long long)opt->max_items);
    head_loss_close(l);
    return NULL;
}

size_t head_loss_host_bytes(const LossOptions *opt) {
    const HeadLoss *l = NULL; // for the sizes of what open allocates
    const size_t item = sizeof *l->sorted + sizeof *l->y + sizeof *l->trow + sizeof *l->label +
                        2 * sizeof *l->best + sizeof *l->weight + 4 * sizeof *l->stat +
                        sizeof *l->route;
    return (size_t)opt->max_items * item +
           ((size_t)opt->max_teachers + 1) *
               (sizeof *l->count + sizeof *l->teacher + sizeof *l->never);
}

void head_loss_close(HeadLoss *l) {
    if (l == NULL) return;
    free(l->sorted);
    free(l->count);
    free(l->y);
    free(l->trow);
    free(l->label);
    free(l->teacher);
    free(l->best);
    free(l->weight);
    free(l->stat);
    free(l->route);
    free(l->never);
    free(l);
}

LossRoom loss_room_take(const HeadLoss *l, const Assistant *a, DType pack_dtype, int64_t n,
                        int64_t pack_rows, bool grad, Arena *arena) {
    const int64_t H = a->cfg.text.hidden, items = least(n, l->teachers * l->opt.per_teacher);
    LossRoom r = {0};
    r.y = tensor_take(arena, DT_I32, 1, n);
    r.trow = tensor_take(arena, DT_I32, 1, n);
    r.label = tensor_take(arena, DT_I32, 1, n);
    r.weight = tensor_take(arena, DT_F32, 1, n);
    r.teacher = tensor_take(arena, DT_I32, 1, least(n, pack_rows));
    r.stat = tensor_take(arena, DT_F64, n, 4);
    r.best = tensor_take(arena, DT_F32, n, 2);
    r.id = tensor_take(arena, DT_I32, n, 2);
    r.hidden = tensor_take(arena, pack_dtype, l->teachers, l->width);
    r.yc = tensor_take(arena, a->dtype, items, H);
    if (grad) r.dyc = tensor_take(arena, DT_F32, items, H);
    r.tlse = tensor_take(arena, DT_F32, l->teachers, 2);
    r.psum = tensor_take(arena, DT_F64, l->teachers, 2);
    r.slse = tensor_take(arena, DT_F32, items, 2);
    r.tz = tensor_take(arena, DT_F32, 1, l->teachers * l->tile);
    const bool room = a->dev->ops->head_room;
    if (room) r.sz = tensor_take(arena, DT_F32, 1, l->students * l->part);
    r.gz =
        room && a->dtype == DT_F32 ? r.sz : tensor_take(arena, a->dtype, 1, l->students * l->part);
    if (l->opt.kind == LOSS_CE_ARGMAX) {
        r.tbest = tensor_take(arena, DT_F32, l->teachers, 2);
        r.tid = tensor_take(arena, DT_I32, l->teachers, 2);
        r.targ = tensor_take(arena, DT_I32, 1, l->teachers);
    }
    if (l->opt.route != 0.0f) {
        r.route = tensor_take(arena, DT_F32, 1, n);
        r.route_weight = tensor_take(arena, DT_F32, 1, n);
        r.mass = tensor_take(arena, DT_F32, l->teachers, a->cfg.clusters);
        r.cz = tensor_take(arena, DT_F32, l->students, a->cfg.clusters);
        r.gc = tensor_take(arena, a->dtype, l->students, a->cfg.clusters);
    }
    if (l->suppress.n > 0) r.never = tensor_take(arena, DT_F32, l->teachers, 1);
    return r;
}

size_t head_loss_bytes(const Assistant *a, const TargetConfig *tc, const LossOptions *opt) {
    HeadLoss l = {.opt = *opt, .suppress = tc->suppress, .width = tc->text.hidden};
    Arena count;
    plan_sizes(&l, a);
    arena_open(&count, NULL, 0);
    loss_room_take(&l, a, DT_F32, opt->max_items, opt->max_teachers, true,
                   &count); // F32: the widest pack
    return count.peak;
}

void loss_sort(HeadLoss *l, LossItem *item, int64_t n, int64_t pack_rows) {
    CHECK(n <= l->opt.max_items && pack_rows <= l->opt.max_teachers);
    memset(l->count, 0, (size_t)(pack_rows + 1) * sizeof *l->count);
    for (int64_t i = 0; i < n; i++) {
        CHECK(item[i].teacher >= 0 && item[i].teacher < pack_rows, "(teacher row %d of %lld)",
              item[i].teacher, (long long)pack_rows);
        l->count[item[i].teacher + 1]++;
    }
    for (int64_t t = 0; t < pack_rows; t++) {
        CHECK(l->count[t + 1] <= l->opt.per_teacher, "(%lld student rows of one teacher row)",
              (long long)l->count[t + 1]);
        l->count[t + 1] += l->count[t];
    }
    for (int64_t i = 0; i < n; i++) l->sorted[l->count[item[i].teacher]++] = item[i];
    memcpy(item, l->sorted, (size_t)n * sizeof *item);
}

bool loss_next_block(HeadLoss *l, const LossItem *item, int64_t n, LossBlock *b) {
    *b = (LossBlock){.t0 = b->t0 + b->nt, .i0 = b->i0 + b->ni};
    int64_t i = b->i0;
    for (; i < n; i++) {
        const bool fresh = i == b->i0 || item[i].teacher != item[i - 1].teacher;
        if (fresh && b->nt == l->teachers) break;
        if (fresh) l->teacher[b->t0 + b->nt++] = item[i].teacher;
        l->trow[i] = (int32_t)(b->nt - 1);
    }
    b->ni = i - b->i0;
    return b->ni > 0;
}

void loss_upload(HeadLoss *l, Device *dev, const LossItem *item, int64_t n, const LossRoom *r) {
    LossBlock b = {0};
    while (loss_next_block(l, item, n, &b)) {
    }
    for (int64_t i = 0; i < n; i++) {
        l->y[i] = item[i].y;
        l->label[i] = item[i].label;
        l->weight[i] = item[i].weight;
    }
    dev_upload(dev, r->y, l->y);
    dev_upload(dev, r->trow, l->trow);
    dev_upload(dev, r->label, l->label);
    dev_upload(dev, r->weight, l->weight);
    dev_upload(dev, tensor_cols(r->teacher, 0, b.t0), l->teacher);
    if (r->never.data != NULL) dev_upload(dev, r->never, l->never);
    if (r->route_weight.data == NULL) return;
    for (int64_t i = 0; i < n; i++) l->weight[i] *= l->opt.route;
    dev_upload(dev, r->route_weight, l->weight);
}
