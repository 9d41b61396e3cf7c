// data/live_check.c - answers counted as they are decoded; the jackknife over prompts.
#include "data/live_check.h"

#include <math.h>
#include <string.h>

#include "infer/base/hash.h"

typedef struct {
    const Sample *prompt;
    int64_t n, samples, next; // next: of all n * samples answers
    StepCount *out;
} Live;

static bool next_answer(void *ctx, GenerateJob *job) {
    Live *l = ctx;
    if (l->next == l->n * l->samples) return false;
    const int64_t at = l->next % l->n, number = l->next / l->n;
    const Sample *p = &l->prompt[at];
    l->next++;
    *job = (GenerateJob){.user = &l->out[at],
                         .prompt = p->ids,
                         .n = p->prompt,
                         .stream = xxh3_64(p->id, strlen(p->id)) +
                                   (uint64_t)number * 0x9e3779b97f4a7c15u};
    return true;
}

// The first token is the prefill's and belongs to no round.
static bool answer_done(void *ctx, const GenerateDone *d, Err *err) {
    (void)ctx;
    (void)err;
    StepCount *out = d->user;
    out->rounds += (double)d->rounds;
    if (d->n > 0) out->tokens += (double)(d->n - 1);
    return true;
}

bool live_counts(Generator *g, const GenerateOptions *opt, const Sample *prompt, int64_t n,
                 int64_t samples, StepCount *out, Err *err) {
    CHECK(opt->keep_rounds);
    Live l = {.prompt = prompt, .n = n, .samples = samples, .out = out};
    return generator_run(g, opt, next_answer, answer_done, &l, err);
}

static StepCount sum_of(const StepCount *c, int64_t n) {
    StepCount sum = {0};
    for (int64_t i = 0; i < n; i++) {
        sum.rounds += c[i].rounds;
        sum.tokens += c[i].tokens;
    }
    return sum;
}

static StepCount without(StepCount all, StepCount one) {
    return (StepCount){.rounds = all.rounds - one.rounds, .tokens = all.tokens - one.tokens};
}

TauGap tau_gap(const StepCount *live, const StepCount *simulated, int64_t n) {
    CHECK(n >= 2);
    const StepCount a = sum_of(live, n), b = sum_of(simulated, n);
    TauGap gap = {.live = step_tau(a), .simulated = step_tau(b)};
    double mean = 0.0, square = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const double d = step_tau(without(a, live[i])) - step_tau(without(b, simulated[i])),
                     off = d - mean;
        mean += off / (double)(i + 1); // Welford's sums
        square += off * (d - mean);
    }
    gap.error = sqrt(square * (double)(n - 1) / (double)n);
    gap.z = gap.error > 0.0 ? (gap.live - gap.simulated) / gap.error : 0.0;
    return gap;
}
