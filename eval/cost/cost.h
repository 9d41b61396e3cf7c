// eval/cost/cost.h - what a round of speculative decoding costs on a device: one target call by the
// number of rows it verifies, one drafter step.
//
// Times are milliseconds of one sequence (batch 1), greedy choices. Indices are widths (rows of a
// target call: 1 = plain decoding, k + 1 verifies k drafts) or draft lengths k; entry 0 of such an
// array is unused. 0 = not known.
#ifndef EVAL_COST_H
#define EVAL_COST_H

#include <stdio.h>

#include <jansson.h>

#include "infer/decode/draft.h"

typedef struct {
    char device[160], source[512], dtype[16]; // source: "measured" or the file
    int64_t context;                          // rows in the cache; 0: not said
    int64_t repetitions;                      // 0: not measured by us
    int widths, lengths;                      // entries by width, by k
    double target_ms[DRAFT_MAX + 2];          // by width; all 0 where only ratios are known
    double target_spread_ms[DRAFT_MAX + 2];   // between the quartiles of the repetitions
    double drafter_ms[2];                     // by Head: one more drafter step of a round
    double drafter_round_ms[2]; // by Head: what a round's drafts take beside their steps
    double drafts_ms[2][DRAFT_MAX + 1],
        drafts_spread_ms[2][DRAFT_MAX + 1]; // all k drafts, measured
    double round_ratio[DRAFT_MAX + 1]; // by k: round / plain step, drafts included, as published
} CostTable;

// What a mean round is made of.
typedef struct {
    double tokens;                  // tau: tokens a round, bonus in
    double steps;                   // drafter steps, those whose draft p-min withheld included
    double verified[DRAFT_MAX + 1]; // [i]: share of the rounds that verify i drafts; sum 1
} RoundMix;
RoundMix round_constant(int k, double tau); // k drafts in every round

const char *cost_head_name(Head head); // "dense", "centroid"
// A round in plain decoding steps: (drafts + sum of verified[i] * target_ms[i + 1]) / target_ms[1].
// Drafts: drafts_ms of as many steps as the rounds ran where it was measured, else drafter_round_ms
// where a step runs + steps * drafter_ms. Published ratios: the sum of verified[i] *
// round_ratio[i], where no step was withheld. NaN where the table lacks what the round needs.
double cost_round(const CostTable *c, Head head, const RoundMix *mix);
int cost_limit(const CostTable *c, Head head); // largest k whose round has a cost; 0: none

typedef struct {
    int K;               // widths 1 .. K + 1, at most DRAFT_MAX drafts
    int64_t context;     // rows in the cache when a round begins, >= 1
    int64_t chunk;       // most rows of a target call, K + 1 at least
    int64_t repetitions; // of every time, 3 .. 64; the median counts
    double seconds;      // after five repetitions others are begun in this time only; 0: all
    DType kv_dtype, feature_dtype;
    const int32_t *ids; // (context): the text; NULL: any ids, drawn
} CostOptions;

// Times both models as live decoding runs them: a drafter call of k steps, then the target call
// that verifies them, for every k and head in turn, so that each finds the caches as in decoding.
// One unmeasured turn comes first. drafter_ms is the difference of K drafts and 1 draft over K - 1,
// drafter_round_ms the rest of 1 draft (below 0 where the projection that the last step saves is
// more than the set-up); K = 1: all of it is the step.
MUST_CHECK bool cost_measure(CostTable *out, Target *t, const Assistant *a, const CostOptions *opt,
                             Err *err);
size_t cost_bytes(Target *t, const Assistant *a, const CostOptions *opt); // beside both models
// Rows of a measurement: `wanted`, or fewer where the model allows fewer. positions: most of a
// sequence.
int64_t cost_context(int64_t wanted, int64_t positions, int K);

// {"device": text, "target_ms": [by width 1..], "drafter_ms": {"dense": x, "centroid": y}} or
// {"device", "round_ratio": [by k 1..]}; null: not known. Optional: "context", "dtype" and whatever
// cost_json() writes; an object with "cost" (acceptance.json) is read from there. Anything else is
// ERR_INPUT naming file, field, what it is and what was expected.
MUST_CHECK bool cost_load(CostTable *out, const char *path, Err *err);
MUST_CHECK bool cost_from_json(CostTable *out, const json_t *o, const char *file, Err *err);
json_t *cost_json(const CostTable *c); // new reference
// Widths, drafter times and the tokens a round must yield to pay, by k.
void cost_markdown(FILE *out, const CostTable *c);

#endif
