// infer/decode/draws.h - the same few tokens drawn many times, and whether two ways of drawing them
// have one distribution: two-sample chi-square on the live decoder.
#ifndef DECODE_DRAWS_H
#define DECODE_DRAWS_H

#include "infer/decode/generate.h"

enum {
    DRAWS_TOKENS = 3, // of an answer: the prefill's, then those of the first round
    DRAWS_MOST = 2,   // drafts that a round may have: it covers the answer
    DRAWS_TABLES = 3  // second token, third, both together
};

typedef struct {
    int64_t n;
    int32_t (*token)[DRAWS_TOKENS]; // (n); -1 behind the end of an answer
    int64_t drafted, accepted;
} Draws;

// n answers to one prompt with the sampler, seed included, and the drafts of opt, whose
// max_new_tokens is DRAWS_TOKENS.
MUST_CHECK bool draws_make(Target *t, const GenerateOptions *opt, const int32_t *prompt, int64_t n,
                           int64_t draws, Draws *out, Err *err);
void draws_free(Draws *d);

typedef struct {
    double chi2[DRAWS_TABLES], p[DRAWS_TABLES];
    int cells[DRAWS_TABLES];
    double least; // the smallest p times the number of tables, at most 1
} DrawsTest;
// Two samples of the same size. Outcomes with fewer than 20 draws in both together are pooled.
DrawsTest draws_compare(const Draws *a, const Draws *b);
// The total variation between the two that is as good as always found at p < 1e-6.
double draws_finds(int64_t draws);

#endif
