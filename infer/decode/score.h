// infer/decode/score.h - text that the target sampled: how likely each draft stands, by every rule.
//
// The target's distribution p behind a position comes from the pack's hidden row and its head, once
// for all draft steps and both heads; the drafter's q from the kept states of its steps. Both are
// warped by sampling.h as in live decoding. Positions are worked through in blocks, so that no
// (rows, V) matrix is formed for all rows.
#ifndef DECODE_SCORE_H
#define DECODE_SCORE_H

#include "infer/decode/simulate.h"

// Anchors of one call: anchor[r] of job[of[r]] at T[r]; seq ascending, T consecutive inside one.
typedef struct {
    const SimulateJob *job;
    const int32_t *of, *T;
    const int64_t *anchor;
    int64_t rows;
} ScoreCall;

typedef struct Scorer Scorer;
MUST_CHECK Scorer *scorer_open(const Assistant *a, const SimulatorOptions *opt, Err *err);
void scorer_close(Scorer *s);
// Memory it takes; c: of the target (opt->target may be NULL here).
size_t scorer_bytes(const Assistant *a, const TargetConfig *c, const SimulatorOptions *opt);
// Keeps the states y (rows, H) of one step; the steps of a call come before its scorer_run.
void scorer_keep(Scorer *s, int step, Tensor y);
// Fills drawn, keep and alpha of the jobs' scores. best (K, rows): the target's best token for
// every draft, -1 past the end of the text; NULL: not wanted. Adds to *impossible the texts' tokens
// that p leaves nothing.
MUST_CHECK bool scorer_run(Scorer *s, const Assistant *a, const FeaturePack *pack,
                           const ScoreCall *call, int32_t *best, int64_t *impossible, Err *err);

#endif
