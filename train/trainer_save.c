// train/trainer_save.c - measuring on dev, checkpoints, resume, and the numbers of a step.
#include <math.h>

#include "train/checkpoint.h"
#include "train/trainer_parts.h"

bool trainer_measure(Trainer *t, bool *best, Err *err) {
    Optimizer *o = &t->optimizer;
    const bool average = o->ema.data != NULL && t->state.step > 0;
    double tau = 0.0;
    if (average) optimizer_publish(o, t->opt.dev, true);
    const bool ok = t->opt.measure.tau(t->opt.measure.ctx, t->opt.assistant, &tau, err);
    if (average) optimizer_publish(o, t->opt.dev, false);
    if (!ok) return err_wrap(err, "dev split at step %lld", (long long)t->state.step);
    TrainState *s = &t->state;
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

bool trainer_save(Trainer *t, Err *err) {
    if (t->world.rank != 0) return true;
    if (!write_checkpoint(t, err))
        return err_wrap(err, "checkpoint of step %lld", (long long)t->state.step);
    t->saved_step = t->state.step;
    ckpt_prune(t->root, t->opt.settings->train.keep, t->state.best_step);
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

bool trainer_resume(Trainer *t, bool *resumed, Err *err) {
    char dir[PATH_ROOM];
    int64_t step;
    *resumed = false;
    if (!ckpt_find(t->root, &step, err)) return false;
    if (step < 0) return true;
    ckpt_path(dir, t->root, step);
    if (!state_load(dir, &t->state, &t->optimizer, t->opt.dev, t->opt.identity, t->opt.machine,
                    err))
        return false;
    if (t->state.step != step || t->state.steps != t->plan.steps)
        return err_set(err, ERR_USAGE, "%s is step %lld of %lld, this run has %lld steps", dir,
                       (long long)t->state.step, (long long)t->state.steps,
                       (long long)t->plan.steps);
    t->weighting.seen = t->state.match_seen;
    for (int j = 0; j < DRAFT_MAX; j++) t->weighting.match[j] = t->state.match[j];
    t->saved_step = step;
    *resumed = true;
    if (!ckpt_point(t->root, "latest", step, err) || !restore_best(t, err)) return false;
    ckpt_prune(t->root, t->opt.settings->train.keep, t->state.best_step);
    return true;
}

bool trainer_log(Trainer *t, const StepReport *r, Err *err) {
    static const char *const plain[] = {
        "train/loss",   "train/lr",  "train/grad_norm", "train/anchors_per_s",
        "train/tokens", "train/fkl", "train/tv",        "train/route"};
    enum { PLAIN = 8 };
    const char *names[PLAIN + 2 * DRAFT_MAX + 1];
    static char step_names[2 * DRAFT_MAX][24];
    double values[PLAIN + 2 * DRAFT_MAX + 1];
    const double numbers[PLAIN] = {
        r->stats.loss,           r->lr,        r->norm,     (double)r->rows / t->step_s,
        (double)t->state.tokens, r->stats.fkl, r->stats.tv, r->stats.route};
    int n = 0;
    for (; n < PLAIN; n++) names[n] = plain[n], values[n] = numbers[n];
    for (int j = 0; j < t->weighting.K; j++) {
        if (r->stats.step_rows[j] == 0) continue;
        snprintf(step_names[2 * j], sizeof step_names[0], "train/loss_%d", j + 1);
        snprintf(step_names[2 * j + 1], sizeof step_names[0], "train/match_%d", j + 1);
        names[n] = step_names[2 * j], values[n++] = r->stats.step_loss[j];
        names[n] = step_names[2 * j + 1], values[n++] = r->stats.step_match[j];
    }
    if (t->state.dev_tau >= 0) names[n] = "dev/tau", values[n++] = t->state.dev_tau;
    return metrics_scalars(t->metrics, t->state.step, names, values, n, err);
}
