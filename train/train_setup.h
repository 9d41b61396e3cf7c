// train/train_setup.h - what `train` works on: pair, captured splits, measuring, and the run's
// identity.
#ifndef TRAIN_TRAIN_SETUP_H
#define TRAIN_TRAIN_SETUP_H

#include "data/capture.h"
#include "data/measure.h"
#include "data/workspace.h"
#include "train/trainer.h"

typedef struct {
    const Settings *s;
    OpenTarget model;
    Assistant *assistant;
    ShardSet *shards[SPLIT_COUNT]; // train (NULL when streamed), dev; eval stays NULL
    Stream *stream;
    SeqSource train, dev;
    SeqSource own_dev; // of the dev split what this rank measures
    Measurer *measurer;
    size_t measure_bytes;            // of the measurer
    AcceptRule dev_rule[RULE_COUNT]; // the first is the one that chooses the checkpoint
    Measured *measured;              // (dev.count)
    json_t *identity, *machine;
    MemoryPlan memory; // before anything large is opened
} TrainSetup;

// What tells whether the run is done already: t->identity, from files and the dev split; a shard of
// another target is refused by name. No weights are loaded.
MUST_CHECK bool train_setup_identify(TrainSetup *t, const Settings *s, Err *err);
// Then everything else that is there before training.
MUST_CHECK bool train_setup_open(TrainSetup *t, Err *err);
void train_setup_close(TrainSetup *t); // after either, whatever it returned
// Options over what is open; borrows t.
TrainerOptions train_setup_options(TrainSetup *t);

#endif
