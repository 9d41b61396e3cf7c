// train/trainer.c - the plan, the memory and the loop of a training run.
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/cli.h"
#include "infer/base/file.h"
#include "infer/base/world.h"
#include "train/checkpoint.h"
#include "train/trainer_parts.h"

OptimizerOptions trainer_optimizer_options(const Settings *s) {
    return (OptimizerOptions){.beta1 = (float)s->train.beta1,
                              .beta2 = (float)s->train.beta2,
                              .eps = (float)s->train.eps,
                              .decay = (float)s->train.weight_decay,
                              .clip = s->train.clip,
                              .ema = s->train.ema};
}

static bool loss_kind(const char *name, LossKind *out, Err *err) {
    static const char *const names[] = {"fkl", "ce_argmax", "ce_label", "tv", "hybrid"};
    static const LossKind kinds[] = {LOSS_FKL, LOSS_CE_ARGMAX, LOSS_CE_LABEL, LOSS_TV, LOSS_HYBRID};
    for (int i = 0; i < 5; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = kinds[i];
            return true;
        }
    return err_set(err, ERR_USAGE, "train.loss: '%s' is unknown", name);
}

static bool rollout_options(const TrainerOptions *opt, const TrainPlan *plan, RolloutOptions *out,
                            Err *err) {
    const Settings *s = opt->settings;
    *out = (RolloutOptions){.K = (int)s->train.k,
                            .hybrid_kl = (float)s->train.hybrid_kl,
                            .temperature = (float)s->train.temperature,
                            .route = (float)s->train.route,
                            .route_detached = s->train.route_detached,
                            .detach_feature = s->train.detach_feature,
                            .max_rows = plan->max_rows,
                            .max_tokens = plan->max_tokens,
                            .tile = s->train.tile,
                            .max_seqs = (int)s->train.batch_sequences};
    if (s->train.route > 0 && !opt->assistant->cfg.ordered)
        return err_set(err, ERR_USAGE, "train.route: %g, but the assistant has no centroid head",
                       s->train.route);
    return loss_kind(s->train.loss, &out->loss, err);
}

static bool wants_visits(const Settings *s) {
    const bool draws = s->train.anchors > 0 && strcmp(s->train.anchor_choice, "visit") == 0;
    return draws || strcmp(s->train.step_weights, "visit") == 0;
}

// trainer NULL: for the plan, nothing is drawn.
static Batches *open_batches(const TrainerOptions *opt, Trainer *trainer, Err *err) {
    const Settings *s = opt->settings;
    if (s->train.batch_sequences > PACK_SEQS_MAX) {
        err_set(err, ERR_USAGE, "train.batch_sequences: %lld, at most %d",
                (long long)s->train.batch_sequences, PACK_SEQS_MAX);
        return NULL;
    }
    BatchOptions batch = {.sequences = s->train.batch_sequences,
                          .rank = world_rank(),
                          .ranks = world_size(),
                          .anchors = s->train.anchors,
                          .K = (int)s->train.k,
                          .seed = (uint64_t)s->train.seed};
    if (trainer != NULL && strcmp(s->train.anchor_choice, "visit") == 0)
        batch.odds = (AnchorOdds){trainer, trainer_odds};
    return batches_open(opt->source, &batch, err);
}

static int64_t simulator_rows(const Settings *s, const TrainPlan *p) {
    return p->max_rows < s->train.tile ? p->max_rows : s->train.tile;
}

// Of a token: drafts, visit, worth.
static size_t visit_bytes(const Settings *s) {
    return sizeof(double) + (size_t)s->train.k * (sizeof(double) + sizeof(int32_t));
}

// Writing a checkpoint: the largest tensor as F32 and as the file has it, in bf16 mostly.
static size_t saving_bytes(Assistant *a) {
    AssistantParam param[ASSISTANT_PARAMS_MAX];
    const int n = assistant_params(&a->cfg, &a->w, param);
    int64_t most = 0;
    for (int i = 0; i < n; i++)
        if (tensor_count(*param[i].tensor) > most) most = tensor_count(*param[i].tensor);
    return (size_t)most * 6;
}

static bool fill_plan(const TrainerOptions *opt, const Batches *b, TrainPlan *p, Err *err) {
    const Settings *s = opt->settings;
    const AssistantConfig *c = &opt->assistant->cfg;
    const OptimizerOptions optimizer = trainer_optimizer_options(s);
    RolloutOptions rollout;
    *p = (TrainPlan){.sequences = opt->source->count, .per_epoch = batches_per_epoch(b)};
    for (int64_t i = 0; i < p->sequences; i++)
        p->tokens += opt->source->length(opt->source->ctx, i);
    p->steps =
        s->train.steps > 0 ? s->train.steps : (int64_t)ceil(s->train.epochs * (double)p->per_epoch);
    BatchTotals totals;
    if (!batches_totals(b, p->steps, &totals, err)) return false;
    p->all_rows = totals.all_rows;
    p->all_tokens = totals.all_tokens;
    p->max_rows = totals.max_rows > 0 ? totals.max_rows : 1;
    p->max_tokens = totals.max_tokens > 0 ? totals.max_tokens : 1;
    if (!rollout_options(opt, p, &rollout, err)) return false;
    const int64_t count = assistant_layout(c, &(AssistantWeights){0}, NULL, DT_F32);
    p->weights = assistant_bytes(opt->assistant);
    p->optimizer = optimizer_bytes(c, &optimizer);
    p->features = features_bytes(opt->target, p->max_tokens, DT_BF16);
    p->rollout = rollout_bytes(opt->assistant, opt->target, &rollout);
    if (wants_visits(s))
        p->simulator = simulator_bytes(opt->assistant, simulator_rows(s, p)) +
                       (size_t)p->max_tokens * visit_bytes(s);
    p->batch = (size_t)rollout_host_bytes(&rollout) + (size_t)batches_host_bytes(b, p->max_rows);
    p->target = opt->target_bytes;
    p->kernels = dev_scratch_bytes(opt->dev);
    p->measure = opt->measure_bytes;
    const int64_t seen = p->all_tokens < p->tokens ? p->all_tokens : p->tokens;
    p->kept = (size_t)batches_kept_bytes(b, seen, p->max_tokens) + opt->kept_bytes;
    p->saving = saving_bytes(opt->assistant);
    p->checkpoint = (size_t)count * (2 + 4 * (s->train.ema > 0 ? 4 : 3));
    return true;
}

bool trainer_plan(const TrainerOptions *opt, TrainPlan *plan, Err *err) {
    Batches *b = open_batches(opt, NULL, err);
    const bool ok = b != NULL && fill_plan(opt, b, plan, err);
    batches_close(b);
    return ok;
}

void trainer_plan_memory(const TrainPlan *p, MemoryPlan *m) {
    memory_add_tensors(m, "target", (int64_t)p->target);
    memory_add_tensors(m, "kernels", (int64_t)p->kernels);
    memory_add_tensors(m, "weights", (int64_t)p->weights);
    memory_add_tensors(m, "optimiser", (int64_t)p->optimizer);
    memory_add_tensors(m, "features", (int64_t)p->features);
    if (m->device > 0) {
        memory_add_tensors(m, "rollout", (int64_t)p->rollout);
        memory_add(m, "batches", (int64_t)p->batch);
    } else {
        memory_add(m, "rollout", (int64_t)(p->rollout + p->batch));
    }
    memory_add_tensors(m, "dev split", (int64_t)p->measure);
    memory_add(m, "sequences kept", (int64_t)p->kept);
    memory_add(m, "saving", (int64_t)p->saving);
    memory_add(m, "visits", (int64_t)p->simulator);
}

void trainer_plan_print(FILE *out, const TrainPlan *p, const TrainerOptions *opt) {
    const Settings *s = opt->settings;
    MemoryPlan memory = opt->memory;
    trainer_plan_memory(p, &memory);
    fprintf(out, "sequences       %lld (%lld tokens)\n", (long long)p->sequences,
            (long long)p->tokens);
    fprintf(out, "steps           %lld (%lld an epoch of %lld sequences each)\n",
            (long long)p->steps, (long long)p->per_epoch,
            (long long)s->train.batch_sequences * world_size());
    if (world_size() > 1)
        fprintf(out, "ranks           %d, %lld sequences of a step each; what follows is of one\n",
                world_size(), (long long)s->train.batch_sequences);
    fprintf(out, "all steps       %lld anchors x %lld draft steps, %lld tokens\n",
            (long long)p->all_rows, (long long)s->train.k, (long long)p->all_tokens);
    fprintf(out, "largest step    %lld anchors, %lld tokens\n", (long long)p->max_rows,
            (long long)p->max_tokens);
    fprintf(out, "memory          ");
    memory_print(out, &memory);
    fprintf(out, "\ndisk            %.1f MiB a checkpoint, up to %lld of them\n",
            (double)p->checkpoint / 1048576.0, (long long)s->train.keep + 4);
}

static bool open_weighting(Trainer *t, Err *err) {
    const Settings *s = t->opt.settings;
    const int K = (int)s->train.k;
    const size_t rows = (size_t)t->plan.max_rows, tokens = (size_t)t->plan.max_tokens;
    t->weighting =
        (Weighting){.K = K, .decay = s->train.step_decay, .smooth = s->train.reach_smooth};
    if (!weighting_kind(s->train.step_weights, &t->weighting.kind, err)) return false;
    t->weight = calloc(rows * (size_t)K + 1, sizeof *t->weight);
    if (t->weight == NULL) return err_set(err, ERR_FAILED, "out of memory");
    if (!wants_visits(s)) return true;
    t->simulator = simulator_open(t->opt.assistant, simulator_rows(s, &t->plan), K, err);
    if (t->simulator == NULL) return false;
    t->drafts = calloc(tokens * (size_t)K + 1, sizeof *t->drafts);
    t->visit = calloc(tokens + 1, sizeof *t->visit);
    t->worth = calloc(tokens * (size_t)K + 1, sizeof *t->worth);
    if (t->drafts == NULL || t->visit == NULL || t->worth == NULL)
        return err_set(err, ERR_FAILED, "out of memory");
    return true;
}

static bool open_memory(Trainer *t, Err *err) {
    const TrainerOptions *opt = &t->opt;
    const Settings *s = opt->settings;
    const OptimizerOptions optimizer = trainer_optimizer_options(s);
    RolloutOptions rollout;
    Arena model, step;
    const size_t step_bytes = t->plan.features + t->plan.rollout + ARENA_ALIGN;
    if (!rollout_options(opt, &t->plan, &rollout, err)) return false;
    rollout.head_done = trainer_head_done;
    rollout.head_ctx = t;
    if ((t->model_block = dev_alloc(opt->dev, t->plan.optimizer, err)) == NULL) return false;
    arena_open(&model, t->model_block, t->plan.optimizer);
    if (!optimizer_open(&t->optimizer, opt->assistant, &optimizer, s->train.freeze.item,
                        s->train.freeze.n, &model, err))
        return false;
    if ((t->step_block = dev_alloc(opt->dev, step_bytes, err)) == NULL) return false;
    arena_open(&step, t->step_block, step_bytes);
    features_take(&t->pack, opt->target, t->plan.max_tokens, DT_BF16, &step);
    t->rollout = rollout_open(opt->assistant, opt->target, (float)opt->target->text.softcap,
                              &rollout, &step, err);
    return t->rollout != NULL && open_weighting(t, err);
}

Trainer *trainer_open(const TrainerOptions *opt, Err *err) {
    const Settings *s = opt->settings;
    Trainer *t = calloc(1, sizeof *t);
    if (t == NULL) {
        err_set(err, ERR_FAILED, "out of memory");
        return NULL;
    }
    t->opt = *opt;
    t->saved_step = -1;
    path_join(t->root, s->output_dir, "ckpt");
    if ((t->batches = open_batches(opt, t, err)) == NULL) goto fail;
    if (!fill_plan(opt, t->batches, &t->plan, err) || !open_memory(t, err)) goto fail;
    t->schedule = (Schedule){.lr = s->train.lr,
                             .lr_end = s->train.lr_end,
                             .steps = t->plan.steps,
                             .warmup = (int64_t)ceil(s->train.warmup * (double)t->plan.steps)};
    if (!schedule_kind(s->train.schedule, &t->schedule.kind, err)) goto fail;
    if ((t->reduce = all_reduce_open(opt->dev, err)) == NULL) goto fail;
    return t;
fail:
    trainer_close(t);
    return NULL;
}

void trainer_close(Trainer *t) {
    if (t == NULL) return;
    metrics_close(t->metrics);
    all_reduce_close(t->reduce);
    simulator_close(t->simulator);
    rollout_close(t->rollout);
    dev_free(t->opt.dev, t->step_block);
    dev_free(t->opt.dev, t->model_block);
    batches_close(t->batches);
    free(t->weight);
    free(t->drafts);
    free(t->visit);
    free(t->worth);
    free(t);
}
