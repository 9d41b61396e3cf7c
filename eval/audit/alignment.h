// eval/audit/alignment.h - which wiring a drafter file fits: the same text drafted under the
// program's own wiring and under every wrong one that was met in the field.
//
// A wiring differs in what the first draft step is given (spec gemma4.md 4): feature row, newest
// visible K/V row, RoPE position, width of the window, hidden before or after the final norm, order
// of the two inputs, scale of the embedding. None needs a forward of its own: rows of the feature
// pack are moved, anchors are renamed, and a copy of the assistant has other constants.
#ifndef EVAL_ALIGNMENT_H
#define EVAL_ALIGNMENT_H

#include <stdio.h>

#include <jansson.h>

#include "infer/model/features.h"

enum { ALIGN_STEPS = 3 };

typedef enum {
    ALIGN_RIGHT, // as deployed: what model.pos_offset and model.window_extra say
    ALIGN_POSITION_BEFORE,
    ALIGN_POSITION_AFTER,
    ALIGN_PRE_NORM,
    ALIGN_FEATURE_BEFORE, // hidden of row T-2
    ALIGN_FEATURE_AFTER,  // hidden of row T
    ALIGN_ROW_T,          // K/V of the bonus visible: K/V shifted by +1
    ALIGN_ROW_MISSING,    // row T-1 not visible: K/V shifted by -1
    ALIGN_SAME_ROW,       // feature and K/V of the token's own row: no shift between them
    ALIGN_SWAPPED,
    ALIGN_UNSCALED,
    ALIGN_WINDOW_WIDE,
    ALIGN_WINDOW_NARROW,
    ALIGN_WIRINGS
} AlignWiring;
const char *align_key(AlignWiring w); // "row_t": the name in JSON

// A text that the target generated; sequence 0 of the pack, all n rows captured.
typedef struct {
    const FeaturePack *pack;
    Tensor pre_norm; // (n, B): hidden before the final norm
    const int32_t *ids;
    int64_t n, first;
    const int32_t *want; // host (n - first - 1, ALIGN_STEPS): drafts that match; NULL: the text
} AlignText;

typedef struct Alignment Alignment;
// Borrows the assistant; texts of up to `room` tokens.
MUST_CHECK Alignment *alignment_open(const Assistant *a, const TargetConfig *tc, int64_t room,
                                     Err *err);
void alignment_close(Alignment *al);
MUST_CHECK bool alignment_add(Alignment *al, const AlignText *text, Err *err); // one prompt

typedef struct {
    double share[ALIGN_STEPS]; // of anchors whose draft of that step matches
    double mean;               // over all steps
    double gain, p;            // mean - that of the right wiring; one-sided, paired over prompts
    double differs;            // share of drafts that are not the right wiring's
    bool better;               // more than noise, and more than official drafters show
} AlignShare;
AlignShare alignment_share(const Alignment *al, AlignWiring w);
int64_t alignment_prompts(const Alignment *al);
// The wrong wiring that fits best among the better ones; ALIGN_RIGHT: none.
AlignWiring alignment_misfit(const Alignment *al);
MUST_CHECK bool alignment_gate(const Alignment *al, Err *err); // ERR_GATE naming it, both shares
json_t *alignment_json(const Alignment *al);                   // new reference
void alignment_markdown(FILE *out, const json_t *alignment);

#endif
