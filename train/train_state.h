// train/train_state.h - everything a resume needs beside the configuration: the files of a
// checkpoint.
//
//   model.safetensors, config.json, generation_config.json   a drafter as it would be deployed: the
//                      weight average when one is kept, else the masters; in the stock's container
//   state.safetensors  f32 masters, moments and average of what is trained ("master/KEY", "m/KEY",
//   ...) state.json         step, horizon, best, weighting, identity of the run, machine
#ifndef TRAIN_TRAIN_STATE_H
#define TRAIN_TRAIN_STATE_H

#include <jansson.h>

#include "train/optimizer.h"
#include "train/weighting.h"

typedef struct {
    int64_t step;               // updates done
    int64_t steps;              // horizon
    int64_t anchors, tokens;    // seen so far
    int64_t best_step;          // -1: nothing measured yet
    double best_tau, stock_tau; // simulated on the dev split at select_k
    double dev_tau;             // of this step; -1 = not measured here
    int64_t match_seen;         // Weighting.seen and .match
    double match[DRAFT_MAX];
} TrainState;

// identity: object of field -> value; a resume demands the same. machine: noted, see state_load.
MUST_CHECK bool state_save(const char *dir, const char *stock_dir, const TrainState *s,
                           const Optimizer *o, Device *dev, const json_t *identity,
                           const json_t *machine, Err *err);
// Refuses (ERR_USAGE) when a field of `identity` differs, naming it with both values; a field of
// `machine` that differs is a warning: the run goes on, its bits are no longer those of one
// machine.
MUST_CHECK bool state_load(const char *dir, TrainState *s, Optimizer *o, Device *dev,
                           const json_t *identity, const json_t *machine, Err *err);
// state.json alone.
MUST_CHECK bool state_peek(const char *dir, TrainState *s, Err *err);

#endif
