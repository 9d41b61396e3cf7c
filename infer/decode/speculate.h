// infer/decode/speculate.h - live speculative decoding, greedy: draft k, verify k + 1, keep what agrees.
#ifndef DECODE_SPECULATE_H
#define DECODE_SPECULATE_H

#include "infer/decode/acceptance.h"
#include "infer/model/features.h"

typedef struct {
    int k; // drafts a round; 0 = plain decoding through the same loop
    Head head;
    int64_t max_new_tokens; // >= 1
    DType feature_dtype;    // as the speculator was opened with
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
    int32_t *ids;     // prompt and answer; the stop token included
    int64_t n, first; // first: index of the first generated token
    bool stopped;     // the answer ended by itself
    float first_margin; // of the target's two best logits at the first token
    SpeculateRound *round;
    int64_t rounds, near_ties; // near_ties: rounds with a deciding gap below near_tie
    double target_s, drafter_s, prefill_s; // seconds in verification, in drafting, in the prefill
} SpeculateResult;

typedef struct Speculator Speculator;
// capacity: most positions, k_max + 1 drafts beyond the text included. chunk: prompt rows a call, at most
// the target's max_rows and at least k_max + 1. Borrows both models.
MUST_CHECK Speculator *speculator_open(Target *t, const Assistant *a /* NULL when k_max = 0 */,
                                       int k_max, int64_t capacity, int64_t chunk,
                                       DType feature_dtype, Err *err);
void speculator_close(Speculator *s);
MUST_CHECK bool speculate(Speculator *s, const SpeculateOptions *opt, const int32_t *prompt, int64_t n,
                          SpeculateResult *out, Err *err);
void speculate_result_free(SpeculateResult *r);
// The count of a finished text, through acceptance_round().
void speculate_count(Acceptance *sum, const SpeculateResult *r, int k);
// Smallest gap among the choices that decided a round: drafts and verified positions up to and
// including the first rejection.
double speculate_gap(const SpeculateRound *r, int k);

#endif
