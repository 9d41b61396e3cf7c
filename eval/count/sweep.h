// eval/count/sweep.h - drafters over the captured evaluation set: counts per prompt for every draft
// length, rule and both heads, from one pass of each.
#ifndef EVAL_SWEEP_H
#define EVAL_SWEEP_H

#include "data/measure.h"
#include "eval/count/stats.h"
#include "infer/base/hash.h"

typedef struct {
    char name[64];   // "stock", "trained", or the folder's
    char path[1024]; // the drafter's artifact
    Sha256 sha;      // of its file of weights: which ones were measured; empty for sharded ones
    char dtype[8];   // of what entered its GEMMs
    Head deployed;   // by its config.json
    bool has[2];     // heads measured
    int K, rules;
    AcceptRule rule[RULE_COUNT]; // counted; the first is what the tables are about
    int p_mins;
    double p_min[P_MIN_MAX];
    int64_t n;         // prompts, by id ascending; several samples of one prompt are one entry
    int64_t sequences; // captured texts
    Measured *prompt;
    MeasuredPool *pool;
} Sweep;

typedef struct {
    int K;
    Sampler sampler;      // of the captured text; temperature 0: greedy, or not the target's own
    const Target *target; // NULL for greedy text
    int p_mins;
    double p_min[P_MIN_MAX];
} SweepOptions;

typedef struct {
    const char *name, *path;
    const Assistant *assistant;
} SweepDrafter;

// Measures n drafters in one reading of the source: the deployed head and, where that is the
// centroid one, the dense head beside it.
MUST_CHECK bool sweep_run(Sweep *out, const SweepDrafter *d, int n, const TargetConfig *tc,
                          const SeqSource *src, const SweepOptions *opt, Err *err);
// Memory that sweep_run takes beside the models.
size_t sweep_bytes(const SweepDrafter *d, int n, const TargetConfig *tc, const SeqSource *src,
                   const SweepOptions *opt);
void sweep_free(Sweep *s);
// "greedy": the deployed head; "greedy_dense": the dense one beside a centroid head. NULL where the
// head was not measured.
const char *sweep_key(char out[32], const Sweep *s, AcceptRule rule, Head h);

// A part of what was measured: prompts of one category or source, rounds of one part of the text
// (first rule only).
typedef struct {
    const char *category, *source; // NULL: any
    bool by_part;
    TextPart part;
} SweepSlice;
static const SweepSlice SWEEP_WHOLE = {0};
bool slice_has(const SweepSlice *s, const Measured *m); // the prompt counts in it
StepCount slice_count(const SweepSlice *s, const Measured *m, AcceptRule rule, Head h, int k);

typedef struct {
    int64_t resamples;
    double confidence;
    uint64_t seed;
} Resampling;

// Intervals of every sweep, rule (the first `rules` of them), head and draft length k = 1..K from
// the same resamples of the prompts of the slice. Sweeps hold the same prompts, rules and K
// (checked: ERR_INPUT names the first that differs).
typedef struct SweepIntervals SweepIntervals;
MUST_CHECK SweepIntervals *sweep_intervals(const Sweep *sweep, int n, int rules,
                                           const SweepSlice *slice, const Resampling *how,
                                           Err *err);
void sweep_intervals_free(SweepIntervals *s);
// d: sweep, r: number of the rule.
Interval sweep_tau(const SweepIntervals *s, int d, int r, Head h, int k);
// Over sweep 0: what both deploy beside each other, or the same head.
Interval sweep_gain(const SweepIntervals *s, int d, int r, Head h, int k);
// The head of the base beside head h of a drafter.
Head sweep_beside(Head deployed, Head base, Head h);
typedef struct {
    int d; // sweep
    Head h;
} SweepCell;
Interval sweep_gain_over(const SweepIntervals *s, SweepCell a, SweepCell base, int r, int k);
Power sweep_power(const SweepIntervals *s, int d, int r, Head h, int k); // of a gain of 1 % at 80 %

#endif
