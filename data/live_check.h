// data/live_check.h - live decoding beside the simulator: the same number twice, from rounds that
// were decoded and from text that the target sampled alone.
#ifndef DATA_LIVE_CHECK_H
#define DATA_LIVE_CHECK_H

#include "data/measure.h"
#include "infer/decode/generate.h"

// Answers by the target to each of n prompts, `samples` of them, through rounds: adds to out (n).
// opt->sampler.seed tells runs apart; opt->keep_rounds must be set.
MUST_CHECK bool live_counts(Generator *g, const GenerateOptions *opt, const Sample *prompt,
                            int64_t n, int64_t samples, StepCount *out, Err *err);

// Tokens a round of both, and z = (live - simulated) / error. error: of the difference, by a
// jackknife that leaves out one prompt in both: answers to one prompt are alike, prompts are not.
// z is 0 where the error is.
typedef struct {
    double live, simulated, error, z;
} TauGap;
TauGap tau_gap(const StepCount *live, const StepCount *simulated, int64_t n); // n >= 2 prompts

#endif
