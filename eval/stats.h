// eval/stats.h - percentile bootstrap over prompts, paired for several drafters on the same
// prompts.
//
// A prompt is the unit that is drawn; tau of a resample is pooled: sum of tokens / sum of rounds.
// All drafters and draft lengths of one call share the resamples, so that differences are paired.
#ifndef EVAL_STATS_H
#define EVAL_STATS_H

#include <stdint.h>

#include "infer/base/err.h"

enum { STATS_FEW_PROMPTS = 30 }; // below this an interval is not to be trusted

typedef struct {
    double lo, hi;
} Interval;

// tokens, rounds: (series, prompts). A series is one drafter at one draft length (and head, and
// rule).
typedef struct {
    int64_t prompts, series;
    const double *tokens, *rounds;
    int64_t resamples;
    double confidence; // 0.95
    uint64_t seed;
} BootstrapInput;

typedef struct Bootstrap Bootstrap;
MUST_CHECK Bootstrap *bootstrap_run(const BootstrapInput *in, Err *err);
void bootstrap_free(Bootstrap *b);
Interval bootstrap_tau(const Bootstrap *b, int64_t series);
// Of tau[series] / tau[base] - 1.
Interval bootstrap_gain(const Bootstrap *b, int64_t series, int64_t base);

// The q-quantile of sorted v[0..n-1], linear between order statistics.
double sorted_quantile(const double *v, int64_t n, double q);

#endif
