// train/trainer_parts.h - what the files of the trainer share; nobody else includes it.
#ifndef TRAIN_TRAINER_PARTS_H
#define TRAIN_TRAINER_PARTS_H

#include "infer/base/log.h"
#include "infer/base/metrics.h"
#include "infer/decode/simulate.h"
#include "infer/model/features.h"
#include "infer/tensor/all_reduce.h"
#include "train/rollout.h"
#include "train/schedule.h"
#include "train/trainer.h"

struct Trainer {
    TrainerOptions opt;
    TrainPlan plan;
    Batches *batches;
    AllReduce *reduce;
    bool head_started; // of this step: the sum of the head's gradients over ranks
    Err head_failed;
    void *model_block, *step_block; // device memory of the two arenas
    Optimizer optimizer;
    FeaturePack pack;
    Rollout *rollout;
    Simulator *simulator; // visit weights only
    Weighting weighting;
    Schedule schedule;
    float *weight;               // (K, rows) of the step at hand
    int32_t *drafts;             // visit: (anchors, K) of one sequence
    double *visit, *worth;       // visit: (tokens), (tokens, K) of the batch at hand
    int64_t walk[PACK_SEQS_MAX]; // where each of its sequences begins in there, -1: not walked
    int64_t walk_end;
    TrainState state;
    Metrics *metrics;
    SourceMeans dev;               // tau of the last measuring
    double dev_tau[DRAFT_MAX + 1]; // the same by k = 1..select_k
    char root[PATH_ROOM];          // OUTPUT/ckpt
    int64_t saved_step;            // of the newest checkpoint on disk, -1 = none
    double step_s;                 // duration of the last step
};

// Numbers of one step, for the log.
typedef struct {
    RolloutStats stats;
    SourceMeans loss; // of the samples of the step
    double lr, norm;
    int64_t rows, tokens; // of all ranks
} StepReport;

OptimizerOptions trainer_optimizer_options(const Settings *s);
// One optimiser step: state.step -> state.step + 1.
MUST_CHECK bool trainer_step(Trainer *t, StepReport *report, Err *err);
// Numbers of this rank's part of a step become those of all; ok false on one rank is false on all.
MUST_CHECK bool trainer_share(bool ok, StepReport *report, Err *err);
void trainer_head_done(void *trainer); // RolloutOptions.head_done
MUST_CHECK bool trainer_sum_gradients(Trainer *t, Err *err);
// All ranks hold the same weights; refuses (on every rank) where one has drifted.
MUST_CHECK bool trainer_same_weights(Trainer *t, Err *err);
// Measures the present drafter; *best tells whether it is now the best one.
MUST_CHECK bool trainer_measure(Trainer *t, bool *best, Err *err);
// AnchorOdds of train.anchor_choice=visit: drafts of the present drafter over the whole sequence.
MUST_CHECK bool trainer_odds(void *trainer, int slot, const CapturedSeq *c, double *odds, Err *err);
// Writes a checkpoint of the present state: rank 0 does, all wait.
MUST_CHECK bool trainer_save(Trainer *t, Err *err);
// Rank 0, when the others are gone: the same without them.
MUST_CHECK bool trainer_save_alone(Trainer *t, Err *err);
MUST_CHECK bool trainer_resume(Trainer *t, bool *resumed, Err *err);
// One line of metrics: of a step, and of the dev split where it was measured behind it; report
// NULL: of the dev split alone.
MUST_CHECK bool trainer_log(Trainer *t, const StepReport *report, Err *err);

#endif
