// infer/decode/draft.h - drafts for many sequences at once: every draft step is one assistant call.
//
// The assistant reads the target's own cache where it lies. Features and K/V are seen in
// feature_dtype: where the cache has another one, the shared layers' rows are copied in it (what
// capture stores is BF16, so BF16 drafts exactly what the simulator does).
#ifndef DECODE_DRAFT_H
#define DECODE_DRAFT_H

#include "infer/decode/acceptance.h"
#include "infer/decode/sampling.h"
#include "infer/model/assistant.h"
#include "infer/model/target.h"

// What is drafted and when a draft stands. A greedy target: always the first.
typedef enum {
    DRAFT_BEST,     // the drafter's best token; stands where the target's own choice, drawn as
                    // without a drafter, is the same: the text does not depend on the drafter
    DRAFT_STRICT,   // a token drawn from the drafter; stands likewise
    DRAFT_REJECTION // a token drawn from the drafter; rejection sampling (verify.h)
} DraftRule;

typedef struct {
    const Assistant *assistant; // NULL: no drafts
    int k;                      // most drafts a round
    Head head;
    DraftRule rule;
    double p_min; // a round's drafts end before one whose most probable token has less; 0 = never
    DType feature_dtype;
} DraftOptions;

// One round. Margins: gap of the two best logits, where they were looked at (0 elsewhere).
typedef struct {
    int64_t T;  // rows consumed when the round began
    int wanted; // drafts, were it not for p-min
    int drafted;
    int accepted; // drafts that stand, past the end of the text too
    int32_t draft[DRAFT_MAX];
    float margin[DRAFT_MAX];            // of the drafter
    float verify_margin[DRAFT_MAX + 1]; // of the target at each verified position
} DraftRound;

// A sequence that wants drafts: its cache slot holds rows 0 .. T-1.
typedef struct {
    int slot;
    int32_t bonus;      // x_T
    int32_t hidden_row; // of the state of row T-1
    uint64_t stream;    // randomness of the first draft: (stream, at), of the next (stream, at + 1)
    int64_t at;
    DraftRound *round; // T is given; wanted, drafted, draft and margin are filled
} DraftLane;

typedef struct Drafts Drafts;

// Room for `slots` lanes and opt->k drafts; capacity: of the cache, which is borrowed like both
// models. sampled: distributions may be wanted.
MUST_CHECK Drafts *drafts_open(Target *t, const KvCache *kv, const DraftOptions *opt, bool sampled,
                               int slots, int64_t capacity, Err *err);
void drafts_close(Drafts *d);
// Device memory; kv_dtype: of the cache.
size_t drafts_bytes(const TargetConfig *c, const DraftOptions *opt, bool sampled, int slots,
                    int64_t capacity, DType kv_dtype);
void drafts_clear(Drafts *d, int slot); // another sequence begins there
void drafts_keep(Drafts *d, int slot);  // after rows were added to the slot, or taken back
// hidden (any rows, B): states that the lanes' hidden_row point into. opt: k at most that of open.
MUST_CHECK bool drafts_make(Drafts *d, const DraftOptions *opt, const Sampler *s,
                            const DraftLane *lane, int n, Tensor hidden, Err *err);
// What the drafts of a lane were drawn from (drafted); until the next drafts_make.
const Dist *drafts_drawn_from(const Drafts *d, int lane);

#endif
