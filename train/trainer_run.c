// train/trainer_run.c - the loop: step, measure, log, save, until done or told to stop.
#include <math.h>

#include "infer/base/cli.h"
#include "infer/base/world.h"
#include "train/checkpoint.h"
#include "train/trainer_parts.h"

static TrainState first_state(const Trainer *t) {
    return (TrainState){.steps = t->plan.steps, .best_step = -1, .dev_tau = -1.0};
}

static bool measures_at(const Trainer *t, int64_t step) {
    const int64_t every = t->opt.settings->train.dev_every;
    return step == t->plan.steps || (every > 0 && step % every == 0);
}

// A full disk costs a checkpoint, not the run: only the last save of a process has to succeed.
static bool save(Trainer *t, const TrainState *before, bool must, Err *err) {
    Err failed = {0};
    if (trainer_save(t, &failed)) return true;
    if (must || world_broken()) {
        if (err != NULL) *err = failed;
        return false;
    }
    if (failed.text[0] != '\0') log_warn("%s; training goes on", failed.text);
    // A best drafter that is not on disk is none.
    t->state.best_step = before->best_step;
    t->state.best_tau = before->best_tau;
    return true;
}

// Other ranks may have gone between a step and its measuring: it is caught up on.
static bool go_on(Trainer *t, Err *err) {
    const TrainState before = t->state;
    const bool last = before.step == t->plan.steps;
    bool best = false;
    log_info("continuing behind step %lld of %lld", (long long)t->state.step,
             (long long)t->plan.steps);
    if (before.dev_tau >= 0 || !measures_at(t, before.step)) return true;
    if (!trainer_measure(t, &best, err) || !trainer_log(t, NULL, err)) return false;
    return (!best && !last) || save(t, &before, last, err);
}

static bool begin(Trainer *t, Err *err) {
    const Settings *s = t->opt.settings;
    bool resumed = false, best = false;
    t->state = first_state(t);
    if (!trainer_resume(t, &resumed, err)) return false;
    if (world_rank() == 0) t->metrics = metrics_open(s->output_dir, t->state.step, err);
    if (!world_agree(world_rank() > 0 || t->metrics != NULL, err)) return false;
    if (resumed) return go_on(t, err);
    const int64_t room = disk_free_bytes(s->output_dir);
    const double need = (double)t->plan.checkpoint * (double)(s->train.keep + 4);
    if (world_rank() == 0 && room >= 0 && (double)room < need)
        log_warn("%s: %.0f MiB free, checkpoints may take %.0f", s->output_dir,
                 (double)room / 1048576.0, need / 1048576.0);
    if (!trainer_measure(t, &best, err) || !trainer_save(t, err)) return false;
    log_info("stock drafter: tau(%lld) = %.3f on the dev split", (long long)s->eval.select_k,
             t->state.stock_tau);
    return trainer_log(t, NULL, err);
}

static void show(Trainer *t, Progress *p, const StepReport *r) {
    char note[200];
    const TrainState *s = &t->state;
    const int k = (int)t->opt.settings->eval.select_k;
    snprintf(note, sizeof note,
             "loss %.4f, %.0f anchors/s, %.2f M tokens, tau(%d) %.3f (stock %.3f)", r->stats.loss,
             (double)r->rows / t->step_s, (double)s->tokens * 1e-6, k, s->best_tau, s->stock_tau);
    progress_at(p, s->step, note);
}

// After a step: measures and saves when due. *stop: a signal asked for the end.
static bool after_step(Trainer *t, const StepReport *r, bool *stop, Err *err) {
    const Settings *s = t->opt.settings;
    const TrainState before = t->state;
    const int64_t step = t->state.step;
    const bool last = step == t->plan.steps;
    bool best = false;
    Err ignored = {0};
    if (measures_at(t, step) && !trainer_measure(t, &best, err)) return false;
    if (!trainer_log(t, r, &ignored) && before.step <= 1) log_warn("%s", ignored.text);
    if (!world_any(stop_requested(), stop, err)) return false;
    if (!last && !best && !*stop && step % s->train.save_every != 0) return true;
    if (!trainer_same_weights(t, err)) return false;
    return save(t, &before, last || *stop, err);
}

static void summary(const Trainer *t, const TrainState *s) {
    const long long k = (long long)t->opt.settings->eval.select_k;
    if (s->best_step == 0)
        log_warn("no checkpoint beats the stock drafter: tau(%lld) stays %.3f, best is the stock",
                 k, s->stock_tau);
    else
        log_info("best: step %lld, tau(%lld) = %.3f on the dev split (stock %.3f)",
                 (long long)s->best_step, k, s->best_tau, s->stock_tau);
}

// The first step makes kernels and reads cold files: it does not count.
bool trainer_trial(Trainer *t, double *seconds, Err *err) {
    enum { STEPS = 4 };
    StepReport report;
    SourceMeans by = {0};
    double spent = 0, tau[DRAFT_MAX + 1];
    int64_t rows = 0;
    t->state = first_state(t);
    for (int i = 0; i < STEPS && i < t->plan.steps; i++) {
        if (!trainer_step(t, &report, err)) return false;
        if (i == 0 && t->plan.steps > 1) continue;
        spent += t->step_s;
        rows += report.rows;
    }
    const double from = now_s();
    if (!t->opt.measure.tau(t->opt.measure.ctx, t->opt.assistant, tau, &by, err)) return false;
    const int64_t every = t->opt.settings->train.dev_every,
                  measures = 1 + (every > 0 ? (t->plan.steps + every - 1) / every : 1);
    *seconds = (double)measures * (now_s() - from);
    if (rows > 0) *seconds += spent * (double)t->plan.all_rows / (double)rows;
    return true;
}

// Other ranks are gone or stuck. What rank 0 holds is the state behind the last whole step: it is
// saved, and the job ends as one that was stopped.
static void rescue(Trainer *t, Err *err) {
    Err failed = {0};
    if (!world_broken() || world_rank() > 0 || err == NULL) return;
    if (t->state.step != t->saved_step && !trainer_save_alone(t, &failed)) {
        err_wrap(err, "not saved (%s)", failed.text);
        return;
    }
    if (err->code == ERR_FAILED) err->code = ERR_STOPPED;
    err_wrap(err, "saved at step %lld of %lld, where the same command continues",
             (long long)t->state.step, (long long)t->plan.steps);
}

bool trainer_run(Trainer *t, TrainResult *out, Err *err) {
    Progress progress;
    StepReport report;
    bool stop = false;
    if (!begin(t, err)) return false;
    progress_start(&progress, "train", "step", t->plan.steps);
    progress_at(&progress, t->state.step, "");
    while (t->state.step < t->plan.steps && !stop) {
        if (!trainer_step(t, &report, err) || !after_step(t, &report, &stop, err)) {
            progress_end(&progress, t->state.step, "failed");
            rescue(t, err);
            return false;
        }
        show(t, &progress, &report);
    }
    progress_end(&progress, t->state.step, "");
    if (t->state.step < t->plan.steps) {
        err_set(err, ERR_STOPPED,
                "stopped by a signal at step %lld of %lld; the same command continues there",
                (long long)t->state.step, (long long)t->plan.steps);
        return world_agree(false, err);
    }
    summary(t, &t->state);
    *out = (TrainResult){.steps = t->state.step,
                         .best_step = t->state.best_step,
                         .stock_tau = t->state.stock_tau,
                         .best_tau = t->state.best_tau,
                         .anchors = t->state.anchors,
                         .tokens = t->state.tokens};
    return true;
}
