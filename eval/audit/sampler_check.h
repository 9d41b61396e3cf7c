// eval/audit/sampler_check.h - sampling with drafts on the given pair: the rule enumerated, and the
// live decoder's tokens with every rule beside those without a drafter.
#ifndef EVAL_SAMPLER_CHECK_H
#define EVAL_SAMPLER_CHECK_H

#include <stdio.h>

#include <jansson.h>

#include "infer/decode/draws.h"

typedef struct {
    Target *target;
    const Assistant *assistant;
    DType kv_dtype, feature_dtype;
    int64_t rows;    // of a target call
    Sampler sampler; // temperature > 0; its seed is not used: the check has its own
    const char *id;  // of the text that the prompt begins
    const int32_t *prompt;
    int64_t n;
    int64_t draws; // answers of a set
} SamplerJob;

// {"passed", "enumeration", "draws"} as a new reference; NULL: decoding failed.
MUST_CHECK json_t *sampler_check(const SamplerJob *job, Err *err);
// Appends the comparison of one rule's draws with those without a drafter.
void sampler_compare(json_t *rules, const char *rule, const Draws *plain, const Draws *drafted);
MUST_CHECK bool sampler_gate(const json_t *check, Err *err); // ERR_GATE naming rule and figure
void sampler_markdown(FILE *out, const json_t *check);

#endif
