// data/prepare.h - conversations to token samples, split by a hash of the prompt.
#ifndef DATA_PREPARE_H
#define DATA_PREPARE_H

#include "data/token_sample.h"
#include "data/workspace.h"
#include "infer/text/chat.h"

// Every item read is in one of these: in = out + skipped + failed.
typedef struct {
    int64_t in, out;
    int64_t too_long, in_eval, duplicate, over_limit; // skipped
    int64_t failed;                                   // no conversation, or refused by the template
    int64_t answers; // given by the data and not used: the target answers itself
    json_t *unused;  // chat_unused.h -> number of conversations it was found in
} PrepareCount;

typedef struct {
    struct {
        Sample *sample;
        int64_t n, room, tokens;
    } split[SPLIT_COUNT];
    PrepareCount train, eval; // train: what train and dev were made from
    json_t *rejected;         // [{"where", "id", "why"}]: everything skipped or failed
} Prepared;

typedef struct {
    const Tokenizer *tokenizer;
    ChatTemplate chat_template;
} PrepareTools;

bool ends_with_answer(const json_t *messages); // the last one is the model's
// One item. A final assistant turn becomes the answer when keep_answer, else it is dropped. *hash
// is that of the prompt's ids. false: the item is refused, err says why.
MUST_CHECK bool prepare_item(Sample *out, uint64_t *hash, const CorpusLine *line,
                             const char *source, const PrepareTools *tools, bool keep_answer,
                             Err *err);
// All of data.train and data.eval, in the order in which later stages read them. An input without a
// line, and inputs that leave nothing, are ERR_INPUT.
MUST_CHECK bool prepare_all(Prepared *p, const Settings *s, const PrepareTools *tools, Err *err);
void prepared_free(Prepared *p);
json_t *prepared_json(const Prepared *p); // the counts, new reference

#endif
