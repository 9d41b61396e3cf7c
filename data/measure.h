// data/measure.h - the simulator over captured sequences: counts per sequence for every draft
// length.
//
// Used by the trainer (choice of the best checkpoint on the dev split) and by eval: one code, one
// number.
#ifndef DATA_MEASURE_H
#define DATA_MEASURE_H

#include "data/batch.h"
#include "infer/decode/sampling.h"
#include "infer/decode/simulate.h"

enum { P_MIN_MAX = 12 };

typedef struct {
    int K;               // largest draft length
    bool head[2];        // by Head: which to measure, of a drafter that has it; one pass for both
    int64_t max_anchors; // anchors of one call
    int64_t pack_tokens; // tokens loaded at once (a longer sequence gets what it needs)
    // Temperature 0: the text is taken as greedy, RULE_GREEDY is counted. Else the text was drawn
    // with this sampler, and every other rule is counted, p and q warped by it; `target` gives p.
    Sampler sampler;
    const Target *target; // its head; NULL for greedy text, and where memory is priced
    int p_mins;           // p-min thresholds counted beside 0, each in (0, 1]
    double p_min[P_MIN_MAX];
    bool recall;  // of the clusters chosen by the centroid head
    bool reached; // quicker, where no pool, p-min and recall are asked for: simulate.h
} MeasureOptions;
// Rules that are counted, the first is the one the tables are about; returns their number.
int measure_rules(const Sampler *s, AcceptRule rule[RULE_COUNT]);

// Rounds told apart, each by where it begins: by what the first token is that it has to match
// (agents are made of structured output), and by the length of the context.
typedef enum {
    PART_TEXT,
    PART_THOUGHT,
    PART_STRUCTURED, // calls, the stop before a response, string delimiters, brackets of channels
    PART_KINDS,
    PART_CONTEXT_512 = PART_KINDS, // below 512 tokens
    PART_CONTEXT_2048,
    PART_CONTEXT_8192,
    PART_CONTEXT_32768,
    PART_CONTEXT_MORE,
    PART_COUNT
} TextPart;
// "text", "thought", "structured", "< 512", "512 - 2047", .. "32768 -"
const char *part_name(TextPart part);

typedef struct {
    double rounds, tokens;
} StepCount;
double step_tau(StepCount c); // tokens / rounds; 0 without rounds

// Counts of one sequence, or of the samples of one prompt. k[rule][head][i] for draft length
// i = 0..K; part: the same rounds of the first rule.
typedef struct {
    char id[128], category[64], source[128];
    int64_t tokens;                  // generated after the first
    int64_t part_tokens[PART_COUNT]; // of these, by their own kind, and by their position
    StepCount k[RULE_COUNT][2][DRAFT_MAX + 1];
    StepCount part[2][DRAFT_MAX + 1][PART_COUNT];
} Measured;
// Adds the counts of another sequence; names stay.
void measured_add(Measured *sum, const Measured *more);
StepCount measured_sum(const Measured *m, int64_t n, AcceptRule rule, Head head, int k);

// Counts of all sequences together.
//
// p_min: rounds, tokens and accepted are exact. What is drafted, verified and stepped is counted
// along the text: behind its first draft that falls, a live round goes on from that wrong draft,
// and ends there by other probabilities than along the text. (Without p-min there is no
// difference: a round drafts k.) Past the end of the text nothing is withheld.
typedef struct {
    Acceptance k[RULE_COUNT][2][DRAFT_MAX + 1];
    Acceptance p_min[RULE_COUNT][2][P_MIN_MAX][DRAFT_MAX + 1];
    AnchorReach all[RULE_COUNT][2];
    // Centroid head: anchors whose teacher's best token lies in the chosen clusters, by step 1..K;
    // ceiling: the walk of the best drafter with these clusters, whose draft stands wherever the
    // text's token is among them (by rejection: its q is p over what they hold).
    double anchors[DRAFT_MAX + 1], recalled[DRAFT_MAX + 1];
    Acceptance ceiling[DRAFT_MAX + 1];
    int64_t impossible; // simulator_impossible() of these texts
} MeasuredPool;

typedef struct Measurer Measurer; // buffers; memory, host and device, priced by measurer_bytes
size_t measurer_bytes(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                      const MeasureOptions *opt);
MUST_CHECK Measurer *measurer_open(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                                   const MeasureOptions *opt, Err *err);
void measurer_close(Measurer *m);
// Measures the weights that `a` (of the same configuration) has now. out (src->count), in the order
// of the source; pool: NULL where not wanted.
MUST_CHECK bool measurer_run(Measurer *m, const Assistant *a, Measured *out, MeasuredPool *pool,
                             Err *err);
// Several drafters in one reading of the source: task i is of the i-th drafter that has buffers,
// the first those of the opening, with the heads that the options name.
enum { MEASURE_DRAFTERS_MAX = 32 };
typedef struct {
    const Assistant *assistant;
    Measured *out;
    MeasuredPool *pool;
} MeasureTask;
MUST_CHECK bool measurer_add(Measurer *m, const Assistant *a, Err *err); // its buffers
// What measurer_add takes; c: of the target.
size_t measurer_more_bytes(const Assistant *a, const TargetConfig *c, const SeqSource *src,
                           const MeasureOptions *opt);
MUST_CHECK bool measurer_run_all(Measurer *m, const MeasureTask *task, int n, Err *err);
// The same for one sequence, with what it was counted from: drafts and margins (n - prompt - 1, K)
// and first rejections L of one head, all of them: not with options.reached. margin may be NULL.
// The audit compares live rounds with these.
MUST_CHECK bool measurer_lengths(Measurer *m, const Assistant *a, const CapturedSeq *c, Head head,
                                 int32_t *L, int32_t *drafts, float *margin, Err *err);

#endif
