// infer/decode/verify.h - which drafts stand when the target samples: rejection sampling, exact.
//
// A draft x drawn from q stands with probability min(1, p(x) / q(x)); where it falls, the token
// comes from norm(max(p - q, 0)) instead. The token is then distributed as p, whatever q is. Both
// are the distributions that are drawn from: warped, in double. Pure functions: randomness comes
// as uniforms in [0, 1).
#ifndef DECODE_VERIFY_H
#define DECODE_VERIFY_H

#include "infer/decode/sampling.h"

double verify_accept(const Dist *p, const Dist *q, int32_t draft); // min(1, p / q); q(draft) > 0
// Of one draft before the target's token is known: probability that it stands by rejection
// sampling, and that an independent draw from p is the same token.
double verify_overlap(const Dist *p, const Dist *q);  // sum of min(p, q)
double verify_equality(const Dist *p, const Dist *q); // sum of p q
// r = norm(max(p - q, 0)); p itself where rounding leaves nothing of it.
void verify_residual(Dist *r, const Dist *p, const Dist *q);

typedef struct {
    int k;                // drafts, 0 upwards
    const int32_t *draft; // (k)
    const Dist *q;        // (k): what each was drawn from
    const double *coin;   // (k): whether it stands
    const double *pick;   // (k + 1): the token behind that many accepted drafts
} VerifyRound;
// The target's distribution behind j accepted drafts; asked for j = 0, 1, .. until one falls.
typedef const Dist *VerifyTarget(void *ctx, int j);
// Number of drafts that stand; *next is the token behind them. -1: the target has no distribution
// there. r: room for the residual.
int verify_round(const VerifyRound *v, VerifyTarget *target, void *ctx, Dist *r, int32_t *next);

#endif
