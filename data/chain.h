// data/chain.h - a prompt whose conversation goes on: what is asked once the model has answered.
//
// On disk a sample (token_sample.h) with "follow": [{"drop", "answer", "ids"}, ...]. prepare writes
// chains where every turn is the target's to answer; regenerate asks them turn by turn.
#ifndef DATA_CHAIN_H
#define DATA_CHAIN_H

#include "data/token_sample.h"
#include "infer/text/tokenizer.h"

// The prompt of the next turn: that of the turn before it without its last `drop` ids (-1: without
// any), then, if `answer`, the visible text of what was generated, then ids. With `answer`, ids[0]
// is the stop that must have ended the answer; without, the recorded turn is part of ids, since a
// tool's response belongs to the recorded call.
typedef struct {
    int64_t drop;
    bool answer;
    int32_t *ids;
    int64_t n;
} Follow;

typedef struct {
    Sample sample;
    Follow *follow;
    int64_t follows;
} Chain;

void chain_free(Chain *c);
void chains_free(Chain *c, int64_t n);
json_t *chain_json(const Chain *c); // new reference; NULL: a text is not UTF-8
MUST_CHECK bool chain_read(Chain *c, const json_t *line, int32_t vocab, const char *where,
                           Err *err);
MUST_CHECK bool chains_load(const char *path, int32_t vocab, Chain **out, int64_t *n, Err *err);

// The open prompt behind an answer to the turn before it, named as that was. false: the
// conversation cannot go on, since the answer did not end as the next turn expects (*next is
// empty).
bool chain_next(Sample *next, const Follow *f, const Sample *answered, const Tokenizer *tok);
// Adds what `more` has behind `s` when it begins with all of it. false: it does not, s is as it
// was.
bool sample_extend(Sample *s, const Sample *more);

#endif
