// infer/decode/score.h - text that the target sampled: how likely each draft stands, by every rule.
//
// The target's distribution p behind a position comes from the pack's hidden row and its head, once
// for all draft steps and both heads; the drafter's q from the states of its steps. Both are warped
// by sampling.h as in live decoding, and no (rows, V) matrix is formed for all rows: where top-k
// leaves few tokens, p of a whole call is kept and drafts are scored as they are made
// (scorer_ahead); else states are kept, and positions worked through in blocks behind the steps.
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
bool scorer_ahead(const Scorer *s);

// Ahead: p of all positions of the call. place (rows): where scorer_step finds that of each
// anchor's first draft. Adds to *impossible the texts' tokens that p leaves nothing.
MUST_CHECK bool scorer_begin(Scorer *s, const FeaturePack *pack, const ScoreCall *call,
                             int32_t *place, int64_t *impossible, Err *err);
// Ahead: one step of some of these anchors (place moves with them) from its states y (rows, H).
// Fills the jobs' scores, and best, id and lse (rows, 2; lse may be absent) as assistant_top2 does.
MUST_CHECK bool scorer_step(Scorer *s, const Assistant *a, const ScoreCall *call,
                            const int32_t *place, int step, Head head, Tensor y, Tensor best,
                            Tensor id, Tensor lse, Err *err);
// The target's best token for draft j of an anchor: position place + j.
int32_t scorer_best(const Scorer *s, int64_t position);

// Not ahead: keeps the states y (rows, H) of one step; the steps of a call come before its
// scorer_run.
void scorer_keep(Scorer *s, int step, Tensor y);
// Fills drawn, keep and alpha of the jobs' scores. best (K, rows): the target's best token for
// every draft, -1 past the end of the text; NULL: not wanted. Adds to *impossible the texts' tokens
// that p leaves nothing.
MUST_CHECK bool scorer_run(Scorer *s, const Assistant *a, const FeaturePack *pack,
                           const ScoreCall *call, int32_t *best, int64_t *impossible, Err *err);

#endif
