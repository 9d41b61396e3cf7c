// eval/count/quantmatrix.h - tau by draft length of every artifact of a drafter, beside its size
// and beside the drafter before it was quantised.
#ifndef EVAL_QUANTMATRIX_H
#define EVAL_QUANTMATRIX_H

#include <stdio.h>

#include <jansson.h>

#include "eval/count/sweep.h"
#include "infer/model/weight_source.h"

typedef struct {
    const Sweep *sweep;
    const ArtifactInfo *artifact; // (n), of each sweep
    int n;
    const SweepIntervals *intervals;
    int select_k;
} QuantMatrix;

// {"kind": "quantmatrix", "reference": name, "rule", "select_k", "draft_tokens": [1..K], "prompts",
//  "artifacts": [{"name", "path", "format", "stored", "bits_per_weight", "bytes",
//  "head", "sha256", "tau", "tau_ci", "change", "change_ci"}, ..]}, arrays by draft length. Of the
// first rule; change: tau / tau of the reference with the same head (where it has none: the one it
// deploys) - 1, paired. The reference is the first artifact of 16 bits or more behind the stock
// drafter (sweep 0), else that one.
json_t *quantmatrix_json(const QuantMatrix *m); // new reference
void quantmatrix_markdown(FILE *out, const json_t *matrix);

#endif
