// train/trainer.h - the training loop: batches -> rollout -> all-reduce -> clip -> AdamW, with
// measuring, checkpoints and an exact resume.
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include <jansson.h>

#include "data/batch.h"
#include "infer/base/memory.h"
#include "infer/base/settings.h"
#include "infer/model/assistant.h"
#include "train/source_means.h"
#include "train/train_state.h"

// Simulated tokens per target step of `a` on the dev split, deployed head: tau[k] of
// k = 1..eval.select_k; by source at select_k: tokens over rounds.
typedef struct {
    void *ctx;
    bool (*tau)(void *ctx, const Assistant *a, double tau[DRAFT_MAX + 1], SourceMeans *by,
                Err *err);
} DevMeasure;

// Everything is borrowed and must outlive the trainer.
typedef struct {
    Device *dev;
    Assistant *assistant; // trained in place
    const TargetConfig *target;
    const Settings *settings; // train.*, eval.select_k, output_dir, model.assistant_path
    const SeqSource *source;
    DevMeasure measure;
    const json_t *identity;             // field -> value: what a resume must find unchanged
    const json_t *machine;              // noted beside it
    size_t target_bytes, measure_bytes; // held beside the trainer: for the plan
    size_t kept_bytes;                  // by the source, in host memory
    MemoryPlan memory;                  // the program itself
} TrainerOptions;

// What a run will take, known before anything is allocated. Bytes.
typedef struct {
    int64_t sequences, tokens;    // of the source
    int64_t per_epoch, steps;     // optimiser steps
    int64_t all_rows, all_tokens; // of all steps: anchors, packed tokens
    int64_t max_rows, max_tokens; // of the largest step
    size_t target, kernels, weights, optimizer, features, rollout, simulator, measure, kept;
    size_t batch;      // host memory of the largest step
    size_t saving;     // while a checkpoint is written
    size_t checkpoint; // one, on disk
} TrainPlan;
void trainer_plan_memory(const TrainPlan *p, MemoryPlan *m); // adds the parts

typedef struct {
    int64_t steps, best_step;
    double stock_tau, best_tau;
    int64_t anchors, tokens;
} TrainResult;

typedef struct Trainer Trainer;
MUST_CHECK bool trainer_plan(const TrainerOptions *opt, TrainPlan *plan, Err *err);
void trainer_plan_print(FILE *out, const TrainPlan *plan, const TrainerOptions *opt);
// Allocates by the plan. Nothing on disk is touched.
MUST_CHECK Trainer *trainer_open(const TrainerOptions *opt, Err *err);
// About how long trainer_run will take: a few steps are taken (the drafter changes, nothing on disk
// does) and the dev split is measured once.
MUST_CHECK bool trainer_trial(Trainer *t, double *seconds, Err *err);
// Continues from OUTPUT/ckpt when a checkpoint is there, else measures the stock drafter, saves
// step 0 and starts. Returns with every step done; ERR_STOPPED after a signal (checkpoint written);
// ERR_FAILED for a loss that is not finite, naming step and samples, with earlier checkpoints
// intact.
MUST_CHECK bool trainer_run(Trainer *t, TrainResult *out, Err *err);
void trainer_close(Trainer *t);

#endif
