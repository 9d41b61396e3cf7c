// data/regenerate.h - answers by the target itself, resumable, in the order of the prompts.
//
// Answers are made in groups of a fixed number of jobs. A finished group is appended to a journal;
// the numbers inside a group depend on nothing outside it, so that the final file has the same
// bytes however often the work was interrupted.
#ifndef DATA_REGENERATE_H
#define DATA_REGENERATE_H

#include "data/token_sample.h"
#include "infer/decode/generate.h"

typedef struct {
    GenerateOptions generate;
    int64_t samples;            // answers per prompt
    int64_t group;              // jobs of a group
    const Tokenizer *tokenizer; // of the target: marks calls and thoughts in the answers
    const char *identity;       // what the answers depend on; a journal of another one is refused
    bool anew;                  // unless this is set: then it is dropped
    const char *what;           // of the progress line: "regenerate train"
} RegenerateOptions;

typedef struct {
    int64_t prompts, answers, tokens; // tokens: of the answers
    int64_t stopped, cut,
        empty;              // ended by themselves; cut at a limit (kept); without a token (dropped)
    int64_t given, resumed; // answers of the data, kept; answers taken from the journal
    double seconds;
    Acceptance drafts; // over the answers made now
    int64_t made;      // tokens of those
} RegenerateCount;

// max_length, or less where no prompt and its answer can be as long: what a slot of the cache must
// hold. Answers are the same.
int64_t regenerate_capacity(const GenerateOptions *opt, int64_t longest_prompt);

// Prompts whose answer is given already (prompt < n) are passed through. out: path of the final
// file, written atomically; out + ".journal" holds finished groups meanwhile. A stop request ends
// with ERR_STOPPED and the journal in place.
MUST_CHECK bool regenerate(Target *t, const Sample *prompt, int64_t n, const RegenerateOptions *opt,
                           const char *out, RegenerateCount *count, Err *err);
void regenerate_account(RegenerateCount *c, const Sample *s); // one answer more
// "greedy" or "T=0.7,top_k=64,top_p=0.95"
void sampler_name(char out[64], const Sampler *s);

#endif
