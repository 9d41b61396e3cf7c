// infer/decode/generate.h - text from the target alone: many sequences at once, slots refilled as
// they end. Greedy ties go to the lowest id; suppressed ids (model/suppress.h) are never chosen.
#ifndef DECODE_GENERATE_H
#define DECODE_GENERATE_H

#include "infer/model/target.h"
#include "infer/text/tokenizer.h"

typedef struct {
    double temperature; // 0 = greedy
    int64_t top_k;      // 0 = off
    double top_p;       // 1 = off
    uint64_t seed;
} Sampler;

typedef struct {
    void *user;            // of the caller
    const int32_t *prompt; // must live until done
    int64_t n;
    uint64_t stream; // randomness of this answer: a function of prompt id and sample number
} GenerateJob;

typedef struct {
    void *user;
    const int32_t *ids; // the answer, the stop token included
    int64_t n;
    bool stopped;      // false: cut at max_new_tokens or max_length
    double min_margin; // smallest gap of the two best logits over its tokens (greedy)
} GenerateDone;

typedef struct {
    int64_t slots, max_new_tokens, max_length, prefill_rows;
    Sampler sampler;
    DType kv_dtype;
} GenerateOptions;

// next: false when there are no more jobs. done: called in the order answers end; false stops the
// run.
MUST_CHECK bool generate_run(Target *t, const GenerateOptions *opt,
                             bool (*next)(void *, GenerateJob *),
                             bool (*done)(void *, const GenerateDone *, Err *), void *ctx,
                             Err *err);
size_t generate_bytes(const TextConfig *c, const GenerateOptions *opt); // beside the target

#endif
