// tests/infer/decode/plain_walk.h - the walk over first rejections as it is said in words: what the
// expected walk has to be on greedy text.
#ifndef TESTS_INFER_DECODE_PLAIN_WALK_H
#define TESTS_INFER_DECODE_PLAIN_WALK_H

#include <string.h>

#include "infer/decode/acceptance.h"

// visit (anchors; NULL: not wanted) is set to 1 where a round begins; text left of anchor a:
// anchors - a.
static inline void acceptance_walk(Acceptance *sum, const int32_t *L, int64_t anchors, int k,
                                   uint8_t *visit) {
    if (visit != NULL && anchors > 0) memset(visit, 0, (size_t)anchors);
    for (int64_t a = 0; a < anchors;) {
        const int accepted = L[a] < k ? L[a] : k;
        if (visit != NULL) visit[a] = 1;
        acceptance_round(sum, accepted, k, k, anchors - a);
        a += accepted + 1;
    }
}

#endif
