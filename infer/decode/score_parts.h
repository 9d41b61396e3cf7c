// infer/decode/score_parts.h - what the sizes and the scoring of sampled text share: the scorer.
// Private to score*.c.
#ifndef DECODE_SCORE_PARTS_H
#define DECODE_SCORE_PARTS_H

#include "infer/decode/score.h"
#include "infer/decode/verify.h"

// Hidden row `row` of the pack decides token x_{at} of a job; anchors T0 .. T1 of the call, of
// which the first is row r0, may draft it.
typedef struct {
    int32_t row, job, at, T0, T1;
    int64_t r0;
} Position;

// Draft `step` of the call's row `r`, met by position `p` of the block.
typedef struct {
    int32_t r, step, p;
} Item;

typedef struct {
    Dist q;
    float *all; // (V), -infinity where a head offers nothing
} Worker;

// Device tensors; room for `tile` positions and `items` drafts.
typedef struct {
    Tensor y;            // (K * max_anchors, H): states of all steps; absent where `ahead`
    Tensor hidden, some; // (tile, B), (items, H; absent where `ahead`)
    Tensor z, index;     // (1, z_room), I32 (1, items or tile)
    Tensor token;        // I32 (1, items of the centroid head * its columns)
} ScoreRoom;

struct Scorer {
    Device *dev;
    SimulatorOptions opt;
    bool ahead;                // p of a whole call is kept
    int64_t V, tile, items[2]; // positions at once; drafts at once, by head
    void *block;
    Arena arena;
    size_t fixed;
    ScoreRoom room;
    Position *pos; // (positions)
    Item *item;    // (K * tile); none where `ahead`
    int32_t *index, *token;
    int32_t *id; // (items, 2): the two best of a block of drafts
    float *z;
    Dist *p;        // (positions where `ahead`, else tile)
    int32_t *top;   // the same
    Worker *worker; // (threads)
};

static inline int64_t score_least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
// The most positions that a call can have.
static inline int64_t score_positions(const SimulatorOptions *o) {
    return o->max_anchors + (o->K - 1) * score_least(o->max_anchors, PACK_SEQS_MAX);
}

#endif
