// eval/quant/calibration.h - captured sequences that quantisation is calibrated on: some of a split
// that is not the evaluation's, as many of every category as there are.
#ifndef EVAL_CALIBRATION_H
#define EVAL_CALIBRATION_H

#include "data/batch.h"
#include "data/workspace.h"
#include "infer/decode/sampling.h"

typedef struct {
    char dir[PATH_ROOM];
    ShardSet *shards;
    int64_t *index; // of the chosen sequences in the shards, ascending
    int64_t n, tokens;
    int categories;
    char manifest[65]; // SHA-256 of the split's manifest.json
    Sampler sampler;   // that drew the text; temperature 0: taken as greedy
    SeqSource source;  // of the chosen ones
} Calibration;

// eval.calibrate_on and eval.calibrate_sequences. Sequences without a draft round are left out. t:
// identified; shards of another target are refused.
MUST_CHECK bool calibration_open(Calibration *c, const Settings *s, const OpenTarget *t, Err *err);
void calibration_close(Calibration *c);
// Which of count items to take so that every class has as many as there are or `want` leave room
// for: classes take turns, each from its first item on. chosen: ascending; returns their number.
int64_t balanced_choice(const char (*category)[64], const int64_t *usable, int64_t count,
                        int64_t want, int64_t *chosen, int *categories);

#endif
