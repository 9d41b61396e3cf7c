// train/trainer_step.c - one optimiser step, from a batch on the host to new weights.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/watchdog.h"
#include "infer/base/world.h"
#include "train/trainer_parts.h"

static void load_sequence(Trainer *t, const CapturedSeq *s) {
    const void *const k[2] = {s->k[0], s->k[1]}, *const v[2] = {s->v[0], s->v[1]};
    features_begin(&t->pack);
    features_load(&t->pack, t->opt.dev, s->hidden, s->bare, k, v, s->sample.n);
}

static void pack_batch(Trainer *t, const Batch *b) {
    features_clear(&t->pack);
    for (int i = 0; i < b->nseq; i++) load_sequence(t, &b->seq[i]);
}

// Drafts of the present drafter over the whole text of sequence `slot` of the batch, which is
// sequence `seq` of the pack: how often decoding visits each anchor, and what its steps are worth.
static bool walk(Trainer *t, int slot, int seq, const Sample *s, Err *err) {
    const Assistant *a = t->opt.assistant;
    const int64_t anchors = s->n - s->prompt - 1, at = t->walk_end;
    t->walk[slot] = at;
    if (anchors <= 0) return true;
    t->walk_end += anchors;
    if (!simulator_drafts(t->simulator, a, &t->pack, seq, s->ids, s->n, s->prompt,
                          assistant_deployed_head(&a->cfg), t->drafts, NULL, err))
        return false;
    weighting_visits(&t->weighting, t->drafts, anchors, s->ids, s->n, s->prompt, t->visit + at,
                     t->worth + at * t->weighting.K);
    return true;
}

bool trainer_odds(void *trainer, int slot, const CapturedSeq *c, double *odds, Err *err) {
    Trainer *t = trainer;
    const Sample *s = &c->sample;
    const int64_t anchors = s->n - s->prompt - 1;
    features_clear(&t->pack);
    load_sequence(t, c);
    if (!walk(t, slot, 0, s, err)) return false;
    weighting_odds(t->visit + t->walk[slot], anchors > 0 ? anchors : 0, s->prompt, s->n,
                   t->opt.target->text.window, t->opt.settings->train.anchor_far, odds);
    return true;
}

static bool weigh_by_visit(Trainer *t, const Batch *b, Err *err) {
    memset(t->weight, 0, (size_t)(t->weighting.K * b->rows) * sizeof *t->weight);
    for (int i = 0; i < b->nseq; i++) {
        const Sample *s = &b->seq[i].sample;
        const int64_t anchors = s->n - s->prompt - 1;
        if (anchors <= 0) continue;
        if (t->walk[i] < 0 && !walk(t, i, i, s, err)) return false;
        weighting_place(&t->weighting, b, i, t->worth + t->walk[i] * t->weighting.K, anchors,
                        s->prompt, t->weight);
    }
    return true;
}

// "seq-3 (#12), seq-9 (#4) and 6 more"
static void name_samples(const Batch *b, char *out, size_t room) {
    size_t used = 0;
    int shown = 0;
    out[0] = '\0';
    for (; shown < b->nseq && used + 140 < room; shown++)
        used += (size_t)snprintf(out + used, room - used, "%s%s (#%lld)", shown ? ", " : "",
                                 b->seq[shown].sample.id, (long long)b->seq_index[shown]);
    if (shown < b->nseq) snprintf(out + used, room - used, " and %d more", b->nseq - shown);
}

// Says which step and which samples; an error that is already set is kept behind it.
static bool bad_step(const Trainer *t, const Batch *b, double loss, double norm, Err *err) {
    char names[600];
    name_samples(b, names, sizeof names);
    err_set(err, ERR_FAILED, "not finite: loss %g, gradient norm %g", loss, norm);
    return err_wrap(err, "step %lld, samples %s (the last good checkpoint is step %lld)",
                    (long long)t->state.step + 1, names, (long long)t->saved_step);
}

static void loss_by_source(const Trainer *t, const Batch *b, SourceMeans *out) {
    double loss[PACK_SEQS_MAX] = {0}, weight[PACK_SEQS_MAX] = {0};
    memset(out, 0, sizeof *out);
    rollout_by_sequence(t->rollout, b, loss, weight);
    for (int i = 0; i < b->nseq; i++)
        source_means_add(out, b->seq[i].sample.source, loss[i], weight[i]);
}

// This rank's part of the step: its sequences in the pack, and what each draft step weighs.
static bool prepare(Trainer *t, Batch *b, Err *err) {
    t->walk_end = 0;
    for (int i = 0; i < PACK_SEQS_MAX; i++) t->walk[i] = -1;
    if (!batches_get(t->batches, t->state.step, b, err)) return false;
    if (t->state.step + 1 < t->plan.steps) batches_ahead(t->batches, t->state.step + 1);
    CHECK(b->rows <= t->plan.max_rows && b->tokens <= t->plan.max_tokens,
          "a step of %lld anchors, planned %lld", (long long)b->rows, (long long)t->plan.max_rows);
    pack_batch(t, b);
    if (t->weighting.kind == WEIGHTS_VISIT) return weigh_by_visit(t, b, err);
    weighting_fill(&t->weighting, b, t->weight);
    return true;
}

// Losses and gradients are divided by the weights of all ranks, so that they only have to be added.
static bool learn(Trainer *t, const Batch *b, double total, StepReport *report, Err *err) {
    RolloutStats *st = &report->stats;
    op_zero(t->opt.dev, t->optimizer.grad);
    memset(st, 0, sizeof *st);
    t->head_started = false;
    bool ok = rollout_part(t->rollout, t->opt.assistant, b, &t->pack, t->weight, total,
                           &t->optimizer.grads, st, err);
    if (!ok || !isfinite(st->loss)) ok = bad_step(t, b, st->loss, NAN, err);
    loss_by_source(t, b, &report->loss);
    report->rows = b->rows;
    report->tokens = b->tokens;
    return trainer_share(ok, report, err) && trainer_sum_gradients(t, err);
}

static void update(Trainer *t, const StepReport *report) {
    TrainState *s = &t->state;
    // A batch without a single supervised label has no gradient: moments and weights stay.
    if (report->stats.weight > 0)
        optimizer_step(&t->optimizer, t->opt.dev, report->norm, report->lr, s->step + 1);
    weighting_observe(&t->weighting, report->stats.step_keep, report->stats.step_reached);
    s->match_seen = t->weighting.seen;
    memcpy(s->match, t->weighting.match, sizeof s->match);
    s->step++;
    s->anchors += report->rows;
    s->tokens += report->tokens;
    s->dev_tau = -1.0;
}

// Nothing of the state moves before every rank has done its part: whatever fails until then leaves
// it that of the last whole step.
bool trainer_step(Trainer *t, StepReport *report, Err *err) {
    const double begin = now_s();
    Device *dev = t->opt.dev;
    Batch b = {0};
    watchdog_at("train", "step", t->state.step + 1);
    bool ok = prepare(t, &b, err);
    double total = ok ? rollout_weight(t->rollout, &b, t->weight) : 0.0;
    if (!world_sum(ok, &total, 1, err) || !learn(t, &b, total, report, err)) return false;
    optimizer_mask(&t->optimizer, dev);
    if (!optimizer_norm(&t->optimizer, dev, &report->norm, err) ||
        !world_share(&report->norm, sizeof report->norm,
                     err)) // machines may differ in the last bit
        return false;
    if (!isfinite(report->norm)) // on every rank
        return world_agree(bad_step(t, &b, report->stats.loss, report->norm, err), err);
    report->lr = schedule_lr(&t->schedule, t->state.step);
    update(t, report);
    ok = dev_sync(dev, err);
    t->step_s = now_s() - begin;
    return ok;
}
