// train/trainer_ranks.c - what the ranks of a run tell each other in a step: numbers, and
// gradients.
#include <stdlib.h>
#include <string.h>

#include "infer/base/world.h"
#include "train/trainer_parts.h"

enum { SUMS = 6 + 5 * DRAFT_MAX };

static int put_steps(double *x, int n, const double *of) {
    memcpy(x + n, of, DRAFT_MAX * sizeof *of);
    return n + DRAFT_MAX;
}

static int take_steps(const double *x, int n, double *of) {
    memcpy(of, x + n, DRAFT_MAX * sizeof *of);
    return n + DRAFT_MAX;
}

static bool share_sources(SourceMeans *m, Err *err) {
    const int N = world_size();
    SourceMeans *all = malloc((size_t)N * sizeof *all);
    CHECK_MEMORY(all);
    const bool ok = world_gather(m, sizeof *m, all, err);
    if (ok) memset(m, 0, sizeof *m);
    for (int r = 0; r < N && ok; r++)
        for (int i = 0; i < all[r].n; i++)
            source_means_add(m, all[r].name[i], all[r].sum[i], all[r].weight[i]);
    free(all);
    return ok;
}

bool trainer_share(bool ok, StepReport *report, Err *err) {
    RolloutStats *st = &report->stats;
    if (world_size() > 1) {
        double x[SUMS] =
            {st->loss, st->fkl, st->tv, st->route, (double)report->rows, (double)report->tokens},
               rows[DRAFT_MAX];
        int n = 6;
        for (int j = 0; j < DRAFT_MAX; j++) rows[j] = (double)st->step_rows[j];
        n = put_steps(x, n, st->step_loss);
        n = put_steps(x, n, st->step_match);
        n = put_steps(x, n, st->step_keep);
        n = put_steps(x, n, st->step_reached);
        n = put_steps(x, n, rows);
        if (!world_sum(ok, x, n, err) || !share_sources(&report->loss, err)) return false;
        st->loss = x[0], st->fkl = x[1], st->tv = x[2], st->route = x[3];
        report->rows = (int64_t)x[4], report->tokens = (int64_t)x[5];
        n = take_steps(x, 6, st->step_loss);
        n = take_steps(x, n, st->step_match);
        n = take_steps(x, n, st->step_keep);
        n = take_steps(x, n, st->step_reached);
        take_steps(x, n, rows);
        for (int j = 0; j < DRAFT_MAX; j++) st->step_rows[j] = (int64_t)rows[j];
    }
    if (ok) rollout_means(st);
    return ok;
}

bool trainer_same_weights(Trainer *t, Err *err) {
    const int N = world_size();
    Optimizer *o = &t->optimizer;
    double mine = 0, *all;
    if (N == 1) return true;
    op_sumsq(t->opt.dev, o->sum, o->master);
    dev_download(t->opt.dev, &mine, o->sum);
    bool ok = dev_sync(t->opt.dev, err);
    CHECK_MEMORY(all = malloc((size_t)N * sizeof *all));
    ok = world_agree(ok, err) && world_gather(&mine, sizeof mine, all, err);
    for (int r = 1; r < N && ok; r++)
        if (all[r] != all[0])
            ok = err_set(err, ERR_FAILED,
                         "at step %lld the weights of rank %d are no longer those of rank 0 (sums "
                         "of squares %.17g and %.17g): a fault, or ranks on different machines",
                         (long long)t->state.step, r, all[r], all[0]);
    free(all);
    return world_agree(ok, err);
}

static bool of_head(const Trainer *t, const OptParam *p) {
    const AssistantWeights *w = &t->opt.assistant->w;
    return p->use == &w->table || p->use == &w->centroids;
}

// Neighbours in the flat buffer go as one piece, the padding between them along.
static bool start_part(Trainer *t, bool head, Err *err) {
    const Optimizer *o = &t->optimizer;
    int64_t from = 0, to = 0;
    bool ok = true;
    for (int i = 0; i <= o->n && ok; i++) {
        const OptParam *p = &o->param[i];
        const bool wanted = i < o->n && !p->frozen && of_head(t, p) == head;
        const bool joins = wanted && to > from && p->offset >= to && p->offset - to < 64;
        if (to > from && !joins)
            ok = all_reduce_start(t->reduce, tensor_cols(o->grad, from, to - from), err);
        if (!joins) from = wanted ? p->offset : 0;
        to = wanted ? p->offset + p->count : from;
    }
    return ok;
}

// The table's gradient is most of all, and complete before the way back through the steps.
void trainer_head_done(void *trainer) {
    Trainer *t = trainer;
    t->head_started = true;
    t->head_failed = (Err){0};
    (void)!start_part(t, true, &t->head_failed);
}

bool trainer_sum_gradients(Trainer *t, Err *err) {
    if (t->head_started && t->head_failed.code != ERR_NONE)
        return err_set(err, t->head_failed.code, "%s", t->head_failed.text);
    if (!t->head_started && !start_part(t, true, err)) return false;
    return start_part(t, false, err) && all_reduce_finish(t->reduce, err);
}
