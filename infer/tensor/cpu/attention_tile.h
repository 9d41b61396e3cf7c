// infer/tensor/cpu/attention_tile.h - some query rows of some heads against the keys they see.
#ifndef CPU_ATTENTION_TILE_H
#define CPU_ATTENTION_TILE_H

#include "infer/tensor/ops.h"

// Queries r0 .. r0+nq-1, query heads h0 .. h0+nh-1, which all read kv head `kv`.
typedef struct {
    const AttnSeg *seg;
    int64_t r0, nq;
    int h0, nh, kv;
} AttnTile;

// First absolute row that query row r sees; it ends at a->end_host[r].
static inline int64_t attn_begin(const AttnArgs *a, const AttnSeg *seg, int64_t r) {
    const int64_t end = a->end_host[r];
    const int64_t from = a->span == ATTN_ALL || end < a->span ? 0 : end - a->span;
    return from < seg->first ? seg->first : from;
}

void attention_tile(Device *dev, Tensor o, Tensor lse, Tensor q, const AttnArgs *a,
                    const AttnTile *t);
void attention_tile_back(Device *dev, Tensor dq, Tensor do_, Tensor o, Tensor q, Tensor lse,
                         const AttnArgs *a, const AttnTile *t);

#endif
