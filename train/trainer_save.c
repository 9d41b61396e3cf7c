// train/trainer_save.c - measuring on dev, checkpoints, resume, and the numbers of a step.
#include <stdlib.h>
#include <string.h>

#include "infer/base/world.h"
#include "train/checkpoint.h"
#include "train/trainer_parts.h"

bool trainer_measure(Trainer *t, bool *best, Err *err) {
    Optimizer *o = &t->optimizer;
    const bool average = o->ema.data != NULL && t->state.step > 0;
    if (average) optimizer_publish(o, t->opt.dev, true);
    memset(&t->dev, 0, sizeof t->dev);
    const bool ok =
        t->opt.measure.tau(t->opt.measure.ctx, t->opt.assistant, t->dev_tau, &t->dev, err);
    if (average) optimizer_publish(o, t->opt.dev, false);
    if (!ok) return err_wrap(err, "dev split at step %lld", (long long)t->state.step);
    TrainState *s = &t->state;
    const double tau = t->dev_tau[t->opt.settings->eval.select_k];
    s->dev_tau = tau;
    if (s->step == 0) s->stock_tau = tau;
    *best = s->best_step < 0 || tau > s->best_tau;
    if (*best) s->best_step = s->step, s->best_tau = tau;
    return true;
}

static bool write_checkpoint(Trainer *t, Err *err) {
    char tmp[PATH_ROOM];
    const int64_t step = t->state.step;
    if (!ckpt_begin(t->root, step, tmp, err)) return false;
    if (!state_save(tmp, t->opt.settings->model.assistant_path, &t->state, &t->optimizer,
                    t->opt.dev, t->opt.identity, t->opt.machine, err)) {
        ckpt_abort(t->root, step);
        return false;
    }
    if (!ckpt_commit(t->root, step, err)) return false;
    return t->state.best_step != step || ckpt_point(t->root, "best", step, err);
}

bool trainer_save_alone(Trainer *t, Err *err) {
    if (!write_checkpoint(t, err))
        return err_wrap(err, "checkpoint of step %lld", (long long)t->state.step);
    t->saved_step = t->state.step;
    ckpt_prune(t->root, t->opt.settings->train.keep, t->state.best_step);
    return true;
}

bool trainer_save(Trainer *t, Err *err) {
    const bool ok = world_rank() > 0 || trainer_save_alone(t, err);
    if (!world_agree(ok, err)) return false;
    t->saved_step = t->state.step;
    return true;
}

// The best of the checkpoint that is resumed, unless its folder is gone; then what `best` points
// at.
static bool restore_best(Trainer *t, Err *err) {
    char dir[PATH_ROOM];
    TrainState *s = &t->state;
    if (!dir_exists(ckpt_path(dir, t->root, s->best_step))) {
        const int64_t pointed = ckpt_pointed(t->root, "best");
        TrainState other = {.best_step = -1};
        const bool known =
            pointed >= 0 && state_peek(ckpt_path(dir, t->root, pointed), &other, NULL);
        s->best_step = known ? other.best_step : s->step;
        s->best_tau = known ? other.best_tau : s->best_tau;
    }
    return ckpt_point(t->root, "best", s->best_step, err);
}

// Every rank reads the same files.
static bool load_step(Trainer *t, int64_t step, Err *err) {
    char dir[PATH_ROOM];
    ckpt_path(dir, t->root, step);
    if (!state_load(dir, &t->state, &t->optimizer, t->opt.dev, t->opt.identity, t->opt.machine,
                    err))
        return false;
    if (t->state.step == step && t->state.steps == t->plan.steps) return true;
    return err_set(err, ERR_USAGE, "%s is step %lld of %lld, this run has %lld steps", dir,
                   (long long)t->state.step, (long long)t->state.steps, (long long)t->plan.steps);
}

bool trainer_resume(Trainer *t, bool *resumed, Err *err) {
    const bool first = world_rank() == 0;
    int64_t step = -1;
    *resumed = false;
    if (!world_agree(!first || ckpt_find(t->root, &step, err), err)) return false;
    if (!world_share(&step, sizeof step, err)) return false;
    if (step < 0) return true;
    if (!world_agree(load_step(t, step, err), err)) return false;
    t->weighting.seen = t->state.match_seen;
    for (int j = 0; j < DRAFT_MAX; j++) t->weighting.match[j] = t->state.match[j];
    t->saved_step = step;
    *resumed = true;
    const bool ok = !first || (ckpt_point(t->root, "latest", step, err) && restore_best(t, err));
    if (!world_agree(ok, err) || !world_share(&t->state, sizeof t->state, err)) return false;
    if (first) ckpt_prune(t->root, t->opt.settings->train.keep, t->state.best_step);
    return true;
}

// Names and values of a line.
typedef struct {
    const char *name[256];
    double value[256];
    int n;
    char steps[2 * DRAFT_MAX][24], by_k[DRAFT_MAX + 1][16], sources[2][SOURCE_MEANS][160];
} Line;

static void put(Line *l, const char *name, double value) {
    l->name[l->n] = name;
    l->value[l->n++] = value;
}

static void put_sources(Line *l, const SourceMeans *m, const char *prefix, int room) {
    l->n += source_means_list(m, prefix, l->sources[room], l->name + l->n, l->value + l->n);
}

static void put_step(Line *l, const Trainer *t, const StepReport *r) {
    put(l, "train/loss", r->stats.loss);
    put(l, "train/lr", r->lr);
    put(l, "train/grad_norm", r->norm);
    put(l, "train/anchors_per_s", (double)r->rows / t->step_s);
    put(l, "train/tokens", (double)t->state.tokens);
    put(l, "train/fkl", r->stats.fkl);
    put(l, "train/tv", r->stats.tv);
    put(l, "train/route", r->stats.route);
    for (int j = 0; j < t->weighting.K; j++) {
        char *loss = l->steps[2 * j], *match = l->steps[2 * j + 1];
        if (r->stats.step_rows[j] == 0) continue;
        snprintf(loss, sizeof l->steps[0], "train/loss_%d", j + 1);
        snprintf(match, sizeof l->steps[0], "train/match_%d", j + 1);
        put(l, loss, r->stats.step_loss[j]);
        put(l, match, r->stats.step_match[j]);
    }
    put_sources(l, &r->loss, "train/loss", 0);
}

bool trainer_log(Trainer *t, const StepReport *r, Err *err) {
    if (world_rank() > 0) return true;
    Line *l = calloc(1, sizeof *l);
    CHECK_MEMORY(l);
    if (r != NULL) put_step(l, t, r);
    if (t->state.dev_tau >= 0) {
        put(l, "dev/tau", t->state.dev_tau);
        for (int k = 1; k <= (int)t->opt.settings->eval.select_k; k++) {
            snprintf(l->by_k[k], sizeof l->by_k[k], "dev/tau_%d", k);
            put(l, l->by_k[k], t->dev_tau[k]);
        }
        put_sources(l, &t->dev, "dev/tau", 1);
    }
    const bool ok = metrics_scalars(t->metrics, t->state.step, l->name, l->value, l->n, err);
    free(l);
    return ok;
}
