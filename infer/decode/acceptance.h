// infer/decode/acceptance.h - THE count of accepted lengths. Everything that prints a tau calls
// this.
//
// Text that the target generated is scored from first rejections: L[a] is how many drafts of the
// anchor with T = first + a match the text before the first mismatch (capped at K). A round at T
// emits min(L, k) + 1 tokens; the walk visits T -> T + min(L, k) + 1. Round 1 starts at T = prompt
// length, its bonus is the first generated token (given by the prefill, not counted); the last
// round is cut at the end of the text.
#ifndef DECODE_ACCEPTANCE_H
#define DECODE_ACCEPTANCE_H

#include <stdint.h>

enum { DRAFT_MAX = 16 };

// Counts of one draft length over any number of prompts; add them up to pool.
typedef struct {
    int64_t rounds, tokens;          // tokens: generated after the first
    int64_t drafted, accepted;       // k a round, past the end too; accepted drafts inside the text
    int64_t reached[DRAFT_MAX + 1];  // [i]: visited rounds with at least i accepted; [0] = rounds
    int64_t possible[DRAFT_MAX + 1]; // [i]: visited rounds in which i drafts had text to match
} Acceptance;

// drafts: (anchors, K) ids, anchor a has T = first + a; text: ids of the whole sequence, n of them;
// text[first] is the first generated token (first = prompt length). L (anchors) receives the
// lengths; anchors = n - first - 1 (every T whose bonus has at least one successor).
void acceptance_lengths(int32_t *L, const int32_t *drafts, int64_t anchors, int K,
                        const int32_t *text, int64_t n, int64_t first);
// The walk for one k. visit (anchors; NULL: not wanted) is set to 1 where a round begins.
// left text of anchor a = anchors - a.
void acceptance_walk(Acceptance *sum, const int32_t *L, int64_t anchors, int k, uint8_t *visit);
// Adds one live round with `accepted` drafts of k, `left` tokens of text left to match (>= 1
// counted).
void acceptance_round(Acceptance *sum, int accepted, int k, int64_t left);
void acceptance_merge(Acceptance *sum, const Acceptance *more);
double acceptance_tau(const Acceptance *a); // tokens / rounds, bonus in; 0 without rounds
double acceptance_u(const Acceptance *a,
                    int i); // reached[i] / possible[i]; 0 where none is possible

// Over all anchors instead of visited ones: share with L >= i among those with i successors.
typedef struct {
    int64_t anchors[DRAFT_MAX + 1], reached[DRAFT_MAX + 1];
} AnchorReach;
void acceptance_reach(AnchorReach *sum, const int32_t *L, int64_t anchors, int K);
void acceptance_reach_merge(AnchorReach *sum, const AnchorReach *more);
double acceptance_u_all(const AnchorReach *r, int i); // reached[i] / anchors[i]; 0 without anchors

#endif
