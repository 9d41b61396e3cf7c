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

// When a draft x of the drafter's distribution q stands where the target's is p.
typedef enum {
    RULE_GREEDY,    // both take their best token; text: the target's greedy one
    RULE_REJECTION, // x drawn from q stands with min(1, p(x) / q(x)): exact rejection sampling
    RULE_BEST,      // x is the drafter's best token, y drawn from p: stands where x = y
    RULE_STRICT,    // x drawn from q, y drawn from p: stands where x = y
    RULE_COUNT
} AcceptRule;
const char *rule_name(AcceptRule rule); // "greedy", "rejection", "best", "strict"

// Counts of one draft length over any number of prompts; add them up to pool. Expected values where
// the text was sampled, whole numbers where it is greedy or was decoded live.
typedef struct {
    double rounds, tokens;          // tokens: generated after the first
    double drafted, accepted;       // past the end of the text too; accepted drafts inside it
    double steps;                   // of the drafter: drafted, and those whose draft p-min withheld
    double verified[DRAFT_MAX + 1]; // [i]: rounds in which the target verified i drafts
    double reached[DRAFT_MAX + 1];  // [i]: visited rounds with at least i accepted; [0] = rounds
    double possible[DRAFT_MAX + 1]; // [i]: visited rounds in which i drafts, made or withheld, had
                                    // text to match
} Acceptance;

// What one drafter pass over a text says of every anchor. keep (anchors, K): probability that draft
// i + 1 stands, given the text and that those before it stand (greedy: 0 or 1). alpha (anchors, K):
// the same before the text's token is known, given the text before it; NULL: keep itself. offered
// (anchors): drafts that p-min lets through, NULL: all K. keep and alpha past the end of the text
// are not looked at.
typedef struct {
    const double *keep, *alpha;
    const int8_t *offered;
    int64_t anchors;
    int K;
} DraftOdds;

// drafts: (anchors, K) ids, anchor a has T = first + a; text: ids of the whole sequence, n of them;
// text[first] is the first generated token (first = prompt length). L (anchors) receives the
// lengths; anchors = n - first - 1 (every T whose bonus has at least one successor).
void acceptance_lengths(int32_t *L, const int32_t *drafts, int64_t anchors, int K,
                        const int32_t *text, int64_t n, int64_t first);
// 0 or 1 for every draft by itself: it is the text's token (not that those before it were).
void acceptance_keep(double *keep, const int32_t *drafts, int64_t anchors, int K,
                     const int32_t *text, int64_t n, int64_t first);
// The expected walk for one k, by dynamic programming over visits: an anchor that is visited with
// probability v passes v P(L = j) on to the anchor j + 1 further. visit (anchors) receives v.
// Where keep is 0 or 1 this is the walk itself.
void acceptance_expect(Acceptance *sum, const DraftOdds *o, int k, double *visit);
// Adds `weight` times the round that begins at one anchor.
void acceptance_expect_round(Acceptance *sum, const DraftOdds *o, int64_t anchor, int k,
                             double weight);
// Adds one live round: of k drafts `drafted` were made, the others withheld by p-min, `accepted`
// stood; `left` tokens of text (>= 1) were left to match.
void acceptance_round(Acceptance *sum, int accepted, int drafted, int k, int64_t left);
void acceptance_merge(Acceptance *sum, const Acceptance *more);
double acceptance_tau(const Acceptance *a); // tokens / rounds, bonus in; 0 without rounds
double acceptance_u(const Acceptance *a,
                    int i); // reached[i] / possible[i]; 0 where none is possible

// Over all anchors instead of visited ones; [i] over those with i successors. What other tools
// average is here too, to show why their numbers differ.
typedef struct {
    double anchors[DRAFT_MAX + 1];
    double reached[DRAFT_MAX + 1]; // sum of P(L >= i), its last factor alpha (less variance)
    double match[DRAFT_MAX + 1];   // sum of the odds of draft i by itself
    double alphas[DRAFT_MAX + 1];  // sum of the products of alpha up to i
} AnchorReach;
void acceptance_reach(AnchorReach *sum, const DraftOdds *o);
double acceptance_u_all(const AnchorReach *r, int i); // reached[i] / anchors[i]; 0 without anchors
// Tokens a round, bonus in, as other tools simulate them for draft length k; all of them biased.
double biased_uniform_anchors(const AnchorReach *r, int k);  // 1 + sum of u_all
double biased_product_of_means(const AnchorReach *r, int k); // 1 + sum of products of mean matches
double biased_uniform_alpha(const AnchorReach *r, int k);    // 1 + sum of mean products of alpha

#endif
