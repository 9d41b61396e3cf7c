// eval/count/stats.h - percentile bootstrap over prompts, paired for several drafters on the same
// prompts.
//
// A prompt is the unit that is drawn; tau of a resample is pooled: sum of tokens / sum of rounds.
// All drafters and draft lengths of one call share the resamples, so that differences are paired.
#ifndef EVAL_STATS_H
#define EVAL_STATS_H

#include <stddef.h>
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

// How large a comparison has to be. se: standard deviation over the resamples of the gain
// tau[series] / tau[base] - 1. prompts: how many such prompts show a true gain of `effect`, in
// other words give an interval that excludes 0, with a chance of `power`:
//     n ((z_a + z_b) se / effect)^2, rounded up,
// n the prompts at hand, z_a the normal quantile of the two-sided confidence (1.96 at 95 %), z_b
// that of the power (0.84 at 80 %): the gain is taken as normal, its error as falling with
// sqrt(prompts). 0: nothing varies, or nothing was measured.
typedef struct {
    double se, prompts;
} Power;
Power stats_power(const Bootstrap *b, int64_t series, int64_t base, double effect, double power);
// A sentence on reading `comparisons` intervals of this confidence side by side: one for each draft
// length.
void stats_multiplicity(char *out, size_t size, int comparisons, double confidence);
double normal_quantile(double p); // of N(0, 1), 0 < p < 1

// The q-quantile of sorted v[0..n-1], linear between order statistics.
double sorted_quantile(const double *v, int64_t n, double q);

#endif
