// infer/decode/speculate.h - live speculative decoding, greedy: draft k, verify k + 1, keep what
// agrees.
#ifndef DECODE_SPECULATE_H
#define DECODE_SPECULATE_H

#include "infer/decode/acceptance.h"
#include "infer/model/features.h"

typedef struct {
    int k; // drafts a round; 0 = plain decoding through the same loop
    Head head;
    int64_t max_new_tokens;
    DType feature_dtype; // BF16: what the assistant is handed is rounded as in a shard
    double near_tie;     // 1e-3
} SpeculateOptions;

typedef struct {
    int64_t T; // rows consumed when the round began
    int accepted;
    int32_t draft[DRAFT_MAX];
    float margin[DRAFT_MAX];            // of the drafter's two best logits
    float verify_margin[DRAFT_MAX + 1]; // of the target's two best logits at each verified position
} SpeculateRound;

typedef struct {
    int32_t *ids;     // prompt and answer; the stop token included
    int64_t n, first; // first: index of the first generated token
    SpeculateRound *round;
    int64_t rounds;
    double target_s, drafter_s; // time spent in either
} SpeculateResult;

typedef struct Speculator Speculator;
MUST_CHECK Speculator *speculator_open(Target *t, const Assistant *a /* NULL when k = 0 */,
                                       int k_max, int64_t capacity, DType feature_dtype, Err *err);
void speculator_close(Speculator *s);
MUST_CHECK bool speculate(Speculator *s, const SpeculateOptions *opt, const int32_t *prompt,
                          int64_t n, SpeculateResult *out, Err *err);
void speculate_result_free(SpeculateResult *r);

#endif
