// infer/decode/generate_parts.h - what the loop of generation and the choice of tokens share.
#ifndef DECODE_GENERATE_PARTS_H
#define DECODE_GENERATE_PARTS_H

#include "infer/decode/generate.h"

typedef struct {
    bool busy;
    GenerateJob job;
    int64_t fed;  // prompt tokens consumed so far
    int64_t room; // most tokens of the answer
    int32_t *ids; // (max_new_tokens of the opening)
    int64_t n;
    double min_margin;
    float first_margin;
    int32_t hidden_row; // of the last consumed token's state
    DraftRound now;
    DraftRound *round; // (round_room)
    int64_t rounds, round_room;
} Slot;

// A slot that chooses in this step, behind each of `count` rows of hidden.
typedef struct {
    int slot;
    int lane; // of the drafts, -1 for a prompt's end
    int32_t row, count;
} Chooser;

// What one chooser got: accepted drafts and the token behind them.
typedef struct {
    int accepted;
    int32_t id[DRAFT_MAX + 1];
    float margin[DRAFT_MAX + 1]; // greedy
} Choice;

struct Generator {
    Target *target;
    Device *dev;
    GenerateOptions opt, opened; // of this run, of the opening
    int64_t rows;                // of hidden: slots * (k + 1)
    KvCache *kv;
    Drafts *drafts; // NULL: no drafter
    void *block;
    Tensor hidden, best, id, logits;
    int64_t logit_rows;
    Slot *slot;
    // One step: pieces and their tokens, who wants drafts, who chooses.
    TargetPiece *piece;
    int32_t *tokens; // (prefill_rows)
    DraftLane *lane; // (slots)
    Chooser *chooser;
    int lanes, choosers;
    int32_t *id_host;   // (rows, 2)
    float *best_host;   // (rows, 2)
    float *logits_host; // (logit_rows, V): rows tile .. tile_end-1 of hidden
    int64_t tile, tile_end;
    Dist dist, residual;
    bool exhausted; // no more jobs
    GenerateTimes times;
};

// Brings what target_step found behind the rows that are wanted to the host, once a step; greedy.
MUST_CHECK bool choose_begin(Generator *g, int64_t rows, Err *err);
MUST_CHECK bool choose(Generator *g, const Chooser *c, Choice *out, Err *err);

#endif
