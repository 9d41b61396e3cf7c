// data/measure.h - the simulator over captured sequences: counts per sequence for every draft
// length.
//
// Used by the trainer (choice of the best checkpoint on the dev split) and by eval: one code, one
// number.
#ifndef DATA_MEASURE_H
#define DATA_MEASURE_H

#include "data/batch.h"
#include "infer/decode/simulate.h"

typedef struct {
    int K;               // largest draft length
    bool head[2];        // by Head: which to measure; both cost one pass
    int64_t max_anchors; // anchors of one call
    int64_t pack_tokens; // tokens loaded at once (a longer sequence gets what it needs)
} MeasureOptions;

// What the model writes, told apart: agents are made of structured output.
typedef enum {
    PART_TEXT,
    PART_THOUGHT,
    PART_STRUCTURED, // calls, the stop before a response, string delimiters, brackets of channels
    PART_COUNT
} TextPart;
const char *part_name(TextPart part); // "text", "thought", "structured"

typedef struct {
    int64_t rounds, tokens;
} StepCount;

// Counts of one sequence. k[head][i] for draft length i = 0..K; part: the same rounds, each in the
// part of the first token that it has to match.
typedef struct {
    char id[128], category[64], source[128];
    int64_t tokens;                  // generated after the first
    int64_t part_tokens[PART_COUNT]; // of these, by their own kind
    Acceptance k[2][DRAFT_MAX + 1];
    StepCount part[2][DRAFT_MAX + 1][PART_COUNT];
    AnchorReach all[2];
} Measured;
// Adds the counts of another sequence; names stay.
void measured_add(Measured *sum, const Measured *more);

typedef struct Measurer Measurer; // buffers; memory, host and device, priced by measurer_bytes
size_t measurer_bytes(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                      const MeasureOptions *opt);
MUST_CHECK Measurer *measurer_open(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                                   const MeasureOptions *opt, Err *err);
void measurer_close(Measurer *m);
// Measures the weights that `a` (of the same configuration) has now. out (src->count), in the order
// of the source.
MUST_CHECK bool measurer_run(Measurer *m, const Assistant *a, Measured *out, Err *err);
// The same for one sequence, with what it was counted from: drafts and margins (n - prompt - 1, K)
// and first rejections L of one head. margin may be NULL. The audit compares live rounds with
// these.
MUST_CHECK bool measurer_lengths(Measurer *m, const Assistant *a, const CapturedSeq *c, Head head,
                                 int32_t *L, int32_t *drafts, float *margin, Err *err);

// Pools sequences: the counts of one head and draft length.
Acceptance measured_pool(const Measured *m, int64_t n, Head head, int k);
AnchorReach measured_reach(const Measured *m, int64_t n, Head head);

#endif
