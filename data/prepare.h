// data/prepare.h - data.train and data.eval to token samples: split by a hash of the prompt, mixed
// by weight, with every item accounted for.
#ifndef DATA_PREPARE_H
#define DATA_PREPARE_H

#include "data/inputs.h"
#include "data/prepare_item.h"
#include "data/spool.h"
#include "data/workspace.h"

// Every item read is in one of these: in = out + skipped + failed.
typedef struct {
    int64_t in, out;
    int64_t too_long, in_eval, duplicate, over_limit, media, too_few; // skipped
    int64_t failed; // no conversation, or refused by the template
} PrepareCount;

// What became of one source.
typedef struct {
    PrepareCount items;
    int64_t samples, tokens; // lines written, ids in them (prompts alone where answers are to come)
    int64_t left_out;        // turns of items taken that would be too long
    int64_t members;         // of archives, not read
} SourceCount;

typedef enum { INPUT_TRAIN, INPUT_EVAL, INPUT_COUNT } Input; // train: train and dev
const char *input_name(Input input);

// An item put aside.
typedef struct {
    int64_t at; // in the spool: where, id, lines; each ends with a newline
    int32_t size, samples, tokens, source;
} Entry;

// Side files: {"where", "id", "why"} of everything that was left out.
typedef struct {
    OutFile file[INPUT_COUNT][2]; // [..][1]: failed, else skipped
    int64_t lines[INPUT_COUNT][2];
    char first[512]; // the first reason of all, with its place
    bool written;    // files are open
} Rejects;

// What is given and no model will see.
typedef struct {
    json_t *kinds;   // chat_unused.h -> number of items it was found in
    int64_t answers; // recorded, not used: the target answers itself
} Unused;

typedef struct {
    Sources sources[INPUT_COUNT];
    SourceCount *count[INPUT_COUNT]; // by source
    Unused unused[INPUT_COUNT];
    struct {
        Entry *entry; // in the order in which later stages read them
        int64_t n, room, samples, tokens;
    } split[SPLIT_COUNT];
    Spool *spool;
    Rejects rejects;
} Prepared;

// All of data.train and data.eval. dir: where side files are begun; NULL: nothing is written beside
// the spool. A source without an item, and inputs that leave nothing, are ERR_INPUT.
MUST_CHECK bool prepare_all(Prepared *p, const Settings *s, const PrepareTools *tools,
                            const char *dir, Err *err);
void prepared_free(Prepared *p);
// The lines of a split, in order.
typedef bool PreparedLine(void *ctx, const char *line, size_t size, Err *err);
MUST_CHECK bool prepared_lines(Prepared *p, Split split, PreparedLine *each, void *ctx, Err *err);
MUST_CHECK bool prepared_save(Prepared *p, Split split, const char *path, Err *err); // atomic
MUST_CHECK bool prepared_commit_rejects(Prepared *p, Err *err);

PrepareCount prepared_sum(const Prepared *p, Input input);
int64_t prepare_skipped(const PrepareCount *c);
// Stops where the counts do not add up: per source, in the side files, in the splits.
void prepared_check(const Prepared *p);
json_t *prepared_json(const Prepared *p);  // the counts, new reference
void prepared_table(const json_t *result); // of prepared_json, on stdout

// Of prepare_unused.c: looks at the first `turns` of an item that is taken, as prompts or with
// their answers.
void unused_look(Unused *u, Dialogue *d, int64_t turns, bool answers);
void unused_tell(const Unused *u, Input input); // as warnings

// Of prepare_show.c: the first n lines of the splits as text, by kinds of tokens.
MUST_CHECK bool prepared_show(Prepared *p, const Tokenizer *tok, int64_t n, Err *err);

// Of prepare_pick.c: which entries of a split are taken, by weight of their source, in a seeded
// order; limit 0 = all. The others are counted as over_limit.
MUST_CHECK bool prepare_pick(Prepared *p, Split split, int64_t limit, uint64_t seed, Err *err);
// Shares of `limit` by weight, none above what there is; limit 0: as many as keep the weights.
void prepare_quota(int64_t *quota, const double *weight, const int64_t *there, int n,
                   int64_t limit);
// Of prepare_rejects.c
MUST_CHECK bool rejects_open(Rejects *r, const char *dir, Err *err);
void rejects_add(Rejects *r, Input input, bool failed, const char *where, const char *id,
                 const char *why);
void rejects_drop(Rejects *r);

#endif
