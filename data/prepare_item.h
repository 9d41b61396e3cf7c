// data/prepare_item.h - one row as what is written of it: given answers, or prompts to be answered.
#ifndef DATA_PREPARE_ITEM_H
#define DATA_PREPARE_ITEM_H

#include "data/chain.h"
#include "data/dialogue.h"
#include "infer/base/settings.h"

PrepareTools prepare_tools(const Settings *s, const Tokenizer *tokenizer, ChatTemplate chat);

typedef struct {
    Chain *chain;
    int64_t n, room;
    int64_t left_out; // turns, as too long
} Item;
void item_free(Item *i);

// Hashes of the prompts of all turns, in order (the last one names the item), appended.
typedef struct {
    uint64_t *at;
    int64_t n, room;
} Hashes;
MUST_CHECK bool item_hashes(Hashes *h, Dialogue *d, Err *err);
// Answers as recorded; turns that can share a sequence do, a turn without an answer is a prompt.
// Names, category and source are those of `like`.
MUST_CHECK bool item_given(Item *out, Dialogue *d, const Sample *like, Err *err);
// The first turn's prompt, and what is asked when it has been answered.
MUST_CHECK bool item_open(Item *out, Dialogue *d, const Sample *like, Err *err);

// The last turn alone: its prompt, with the answer when it is recorded and keep_answer. What cannot
// be used, too long among it, is ERR_INPUT. *hash: of the prompt.
MUST_CHECK bool prepare_item(Sample *out, uint64_t *hash, const CorpusLine *line,
                             const char *source, const PrepareTools *tools, bool keep_answer,
                             Err *err);

#endif
