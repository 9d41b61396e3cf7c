// eval/audit/audit.h - live decoding beside the simulator: the same rounds, or a near tie that
// explains it.
#ifndef EVAL_AUDIT_H
#define EVAL_AUDIT_H

#include <stdio.h>

#include <jansson.h>

#include "infer/decode/speculate.h"

// A text that the target generated, with the simulator's view of it.
typedef struct {
    const char *id;
    const int32_t *ids;
    int64_t n, first;
    bool stopped; // ended by itself
    int K;
    const int32_t *L;    // (n - first - 1)
    const float *margin; // (n - first - 1, K): of the drafter's two best logits
} AuditText;

// Counts of one draft length. A round is compared as long as the live text is the text's own.
typedef struct {
    int k;
    int64_t texts, texts_equal, texts_near, texts_differ; // live text against the given one
    int64_t rounds, equal, near, mismatches; // near: unequal, and the deciding gap is a near tie
    int64_t near_rounds;                     // rounds with such a gap at all
} AuditRow;

typedef struct {
    double near_tie;
    AuditRow row[DRAFT_MAX + 1]; // by k
    int K;
    char first_mismatch[512]; // "" = none
} Audit;

void audit_start(Audit *a, int K, double near_tie);
// Compares one live decode with k drafts.
void audit_compare(Audit *a, const AuditText *text, const SpeculateResult *live, int k);
// Decodes the text's prompt live for k = 0..K and compares each.
MUST_CHECK bool audit_decode(Audit *a, Speculator *s, const AuditText *text, Head head, Err *err);
// No mismatch, and at most 0.5 % of the rounds unequal by a near tie (one is always allowed).
bool audit_passed(const Audit *a);
MUST_CHECK bool audit_gate(const Audit *a, Err *err); // ERR_GATE naming the first mismatch
json_t *audit_json(const Audit *a, const char *head); // new reference
void audit_markdown(FILE *out, const json_t *audit);
// What counts as a tie between logits that were computed with this dtype.
double audit_near_tie(DType dtype);

#endif
