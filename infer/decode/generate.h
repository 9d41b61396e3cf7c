// infer/decode/generate.h - text from the target, alone or with a drafter: many sequences at once,
// slots refilled as they end. Greedy ties go to the lowest id; suppressed ids (model/suppress.h)
// are never chosen.
//
// A step is one target call. It carries the next token of every answer under way with its drafts
// behind it, and in the rows left over pieces of the prompts that wait. Randomness goes by seed,
// stream and position, so that an answer depends on neither slot nor neighbours; with DRAFT_BEST
// and DRAFT_STRICT not on the drafter either, nor does a greedy one.
#ifndef DECODE_GENERATE_H
#define DECODE_GENERATE_H

#include "infer/decode/draft.h"
#include "infer/text/tokenizer.h"

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
    bool stopped;       // false: cut at max_new_tokens or max_length
    double min_margin;  // smallest gap of the two best logits over its tokens (greedy)
    float first_margin; // that of the first token (greedy)
    const DraftRound *round;
    int64_t rounds; // 0 without keep_rounds; the first token belongs to none
} GenerateDone;

typedef struct {
    int64_t slots, max_new_tokens, max_length;
    int64_t prefill_rows; // of a call: at least slots * (draft.k + 1)
    Sampler sampler;
    DType kv_dtype;
    DraftOptions draft;
    bool keep_rounds, ignore_stop;
} GenerateOptions;

typedef bool GenerateNext(void *ctx, GenerateJob *job);                      // false: no more jobs
typedef bool GenerateEnded(void *ctx, const GenerateDone *answer, Err *err); // false stops the run

// Calls ended in the order in which answers end.
MUST_CHECK bool generate_run(Target *t, const GenerateOptions *opt, GenerateNext *next,
                             GenerateEnded *ended, void *ctx, Err *err);
size_t generate_bytes(const TargetConfig *c, const GenerateOptions *opt); // beside both models

// The same with buffers that serve several runs, of which each may have other tokens, drafts (not
// more of them than at the opening), head, rule, p_min, sampler values and flags.
typedef struct Generator Generator;
MUST_CHECK Generator *generator_open(Target *t, const GenerateOptions *opt, Err *err);
void generator_close(Generator *g);
MUST_CHECK bool generator_run(Generator *g, const GenerateOptions *opt, GenerateNext *next,
                              GenerateEnded *ended, void *ctx, Err *err);
typedef struct {
    double prefill_s; // target calls that carried prompts only
    double target_s, drafter_s;
} GenerateTimes;
GenerateTimes generator_times(const Generator *g); // of the latest run

// The count of a finished text of n tokens, prompt included, through acceptance_round().
void rounds_count(Acceptance *sum, const DraftRound *round, int64_t rounds, int64_t n);

#endif
