// eval/audit/audit_pair.h - the pair that an audit looks at, with everything its checks need: live
// decoder, simulator, and a capture of one text at a time.
#ifndef EVAL_AUDIT_PAIR_H
#define EVAL_AUDIT_PAIR_H

#include "data/drafter.h"
#include "data/prepare.h"
#include "infer/decode/simulate.h"
#include "infer/decode/speculate.h"

typedef struct {
    const Settings *s;
    int K;
    int64_t capacity;
    int64_t rows; // of one target call
    OpenTarget open;
    Assistant *drafter;
    Head head; // the deployed one
    Tokenizer *tok;
    PrepareTools tools;
    Speculator *spec;
    Simulator *sim;
    KvCache *kv; // of the capture, beside the live decoder's
    void *block;
    FeaturePack pack;
    Tensor hidden, before; // (rows, B) of a call: after, before the final norm
    Tensor pre_norm;       // (capacity, B)
    Tensor best, id;       // (rows, 2)
    float *gap;            // host (capacity)
    float *best_host;      // host (rows, 2)
} AuditPair;

// The drafter in folder dir on the target of the settings. On an error: audit_pair_close.
MUST_CHECK bool audit_pair_open(AuditPair *p, const Settings *s, const char *dir, Err *err);
void audit_pair_close(AuditPair *p);
// What a capture of this text holds, into p->pack.
MUST_CHECK bool audit_pair_capture(AuditPair *p, const int32_t *ids, int64_t n, Err *err);
// The same text again for p->pre_norm, and p->gap: of the target's two best logits behind each row.
MUST_CHECK bool audit_pair_look(AuditPair *p, const int32_t *ids, int64_t n, Err *err);

#endif
