// eval/audit/speed.h - what the tokens per step of all draft lengths cost: one sweep over captured
// text beside decoding live once per length.
#ifndef EVAL_SPEED_H
#define EVAL_SPEED_H

#include <stdio.h>

#include <jansson.h>

#include "data/token_sample.h"
#include "eval/audit/audit_pair.h"

typedef struct {
    char sampler[64]; // "greedy", "T=1,top_k=64,top_p=0.95"
    int K, sweeps;
    int64_t prompts, tokens, live_tokens; // generated: of the texts, of all live decoding
    double sweep_s; // capture, drafter pass, counts of every k and rule; median of `sweeps`
    double live_s;  // k = 1 .. K one after another, batch 1
} Speed;

// A text as capture takes it: ids[first..] were generated.
MUST_CHECK bool speed_text(Sample *out, const char *id, const SpeculateResult *r, Err *err);
// Times capture and sweep of the texts as eval does them, the deployed head alone; sampler: theirs.
MUST_CHECK bool speed_sweep(Speed *out, AuditPair *p, const Sample *text, int64_t n,
                            const Sampler *sampler, Err *err);
// The same prompts sampled: draws the texts, sweeps them, and decodes live by rejection sampling.
MUST_CHECK bool speed_sampled(Speed *out, AuditPair *p, const Sample *text, int64_t n,
                              const Sampler *sampler, Err *err);
json_t *speed_json(const Speed *s); // new reference: "sweep_s", "live_s", "ratio", ..
// A table of it, and of its member "sampled" where there is one.
void speed_markdown(FILE *out, const json_t *speed);

#endif
