// infer/decode/speculate.h - one sequence decoded live, with a record of every round: the audit's
// instrument, and what `generate` runs.
#ifndef DECODE_SPECULATE_H
#define DECODE_SPECULATE_H

#include "infer/decode/generate.h"

typedef struct {
    int k; // drafts a round; 0 = plain decoding through the same loop
    Head head;
    int64_t max_new_tokens; // >= 1
    double near_tie;        // 1e-3: what SpeculateResult.near_ties counts
    bool ignore_stop;       // go on to max_new_tokens
    DraftRule rule;         // of a target that samples
    double p_min;           // draft.h
    Sampler sampler;        // all 0: greedy
    uint64_t stream;        // randomness of this text
} SpeculateOptions;

typedef struct {
    int32_t *ids;       // prompt and answer; the stop token included
    int64_t n, first;   // first: index of the first generated token
    bool stopped;       // the answer ended by itself
    float first_margin; // of the target's two best logits at the first token
    DraftRound *round;
    int64_t rounds, near_ties;             // near_ties: rounds with a deciding gap below near_tie
    double target_s, drafter_s, prefill_s; // seconds in verification, in drafting, in the prefill
} SpeculateResult;

typedef struct {
    int k_max;                     // 0 = no drafter
    int64_t capacity;              // most positions, drafts beyond the text included
    int64_t chunk;                 // prompt rows a call: k_max + 1 .. the target's max_rows
    DType feature_dtype, kv_dtype; // kv_dtype: of the target's own cache
    bool sampled;                  // texts may be drawn
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
void speculate_count(Acceptance *sum, const SpeculateResult *r); // rounds_count() of the text
// Smallest gap among the choices that decided a round: drafts and verified positions up to and
// including the first rejection. Greedy.
double speculate_gap(const DraftRound *r);

#endif
