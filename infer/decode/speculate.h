// infer/decode/speculate.h - live speculative decoding, greedy: draft k, verify k + 1, keep what
// agrees.
#ifndef DECODE_SPECULATE_H
#define DECODE_SPECULATE_H

#include "infer/decode/acceptance.h"
#include "infer/model/features.h"

typedef struct {
    int k; // drafts a round; 0 = plain decoding through the same loop
    Head head;
    int64_t max_new_tokens; // >= 1
    double near_tie;        // 1e-3: what SpeculateResult.near_ties counts
    bool ignore_stop;       // go on to max_new_tokens
} SpeculateOptions;

typedef struct {
    int64_t T;    // rows consumed when the round began
    int accepted; // drafts that agreed, past the end of the text too
    int32_t draft[DRAFT_MAX];
    float margin[DRAFT_MAX];            // of the drafter's two best logits
    float verify_margin[DRAFT_MAX + 1]; // of the target's two best logits at each verified position
} SpeculateRound;

typedef struct {
    int32_t *ids;       // prompt and answer; the stop token included
    int64_t n, first;   // first: index of the first generated token
    bool stopped;       // the answer ended by itself
    float first_margin; // of the target's two best logits at the first token
    SpeculateRound *round;
    int64_t rounds, near_ties;             // near_ties: rounds with a deciding gap below near_tie
    double target_s, drafter_s, prefill_s; // seconds in verification, in drafting, in the prefill
} SpeculateResult;

typedef struct {
    int k_max;                     // 0 = no drafter
    int64_t capacity;              // most positions, drafts beyond the text included
    int64_t chunk;                 // prompt rows a call: k_max + 1 .. the target's max_rows
    DType feature_dtype, kv_dtype; // kv_dtype: of the target's own cache
} SpeculatorOptions;

typedef struct Speculator Speculator; // one sequence at a time
// Borrows both models; a may be NULL when k_max = 0.
MUST_CHECK Speculator *speculator_open(Target *t, const Assistant *a, const SpeculatorOptions *opt,
                                       Err *err);
// Memory that it takes beside the models.
size_t speculator_bytes(Target *t, const Assistant *a, const SpeculatorOptions *opt);
void speculator_close(Speculator *s);
MUST_CHECK bool speculate(Speculator *s, const SpeculateOptions *opt, const int32_t *prompt,
                          int64_t n, SpeculateResult *out, Err *err);
void speculate_result_free(SpeculateResult *r);
// The count of a finished text, through acceptance_round().
void speculate_count(Acceptance *sum, const SpeculateResult *r, int k);
// Smallest gap among the choices that decided a round: drafts and verified positions up to and
// including the first rejection.
double speculate_gap(const SpeculateRound *r, int k);

#endif
