// eval/sweep.h - one drafter over the captured evaluation set: counts per prompt for every draft
// length and both heads, from one pass.
#ifndef EVAL_SWEEP_H
#define EVAL_SWEEP_H

#include "data/measure.h"
#include "eval/stats.h"
#include "infer/base/hash.h"

typedef struct {
    char name[32];   // "stock", "trained"
    char path[1024]; // the drafter's folder
    Sha256 sha;    // of its model.safetensors: which weights were measured; empty for sharded ones
    char dtype[8]; // of what entered its GEMMs
    Head deployed; // by its config.json
    bool has[2];   // heads measured
    int K;
    int64_t n;         // prompts, by id ascending; several samples of one prompt are one entry
    int64_t sequences; // captured texts
    Measured *prompt;
} Sweep;

// Measures the deployed head and, where that is the centroid one, the dense head beside it.
MUST_CHECK bool sweep_run(Sweep *out, const char *name, const char *path, const Assistant *a,
                          const TargetConfig *tc, const SeqSource *src, int K, Err *err);
// Memory that sweep_run takes beside the models.
size_t sweep_bytes(const Assistant *a, const TargetConfig *tc, const SeqSource *src, int K);
void sweep_free(Sweep *s);

// A part of what was measured: prompts of one category or source, rounds of one part of the text.
typedef struct {
    const char *category, *source; // NULL: any
    bool by_part;
    TextPart part;
} SweepSlice;
static const SweepSlice SWEEP_WHOLE = {0};
bool slice_has(const SweepSlice *s, const Measured *m); // the prompt counts in it
StepCount slice_count(const SweepSlice *s, const Measured *m, Head h, int k);

typedef struct {
    int64_t resamples;
    double confidence;
    uint64_t seed;
} Resampling;

// Intervals of every sweep, head and draft length k = 1..K from the same resamples of the prompts
// of the slice. Sweeps hold the same prompts (checked: ERR_INPUT names the first that differs).
typedef struct {
    Interval tau[2][2][DRAFT_MAX + 1]; // [sweep][head][k]
    Interval gain[2][DRAFT_MAX + 1];   // [head][k]: sweep 1 over sweep 0
} SweepIntervals;
MUST_CHECK bool sweep_intervals(SweepIntervals *out, const Sweep *sweep, int n,
                                const SweepSlice *slice, const Resampling *how, Err *err);

#endif
