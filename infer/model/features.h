// infer/model/features.h - what the assistant receives from the target: hidden states after the
// final norm and the shared K/V of both kinds, packed on one token axis for several sequences.
//
// Capture fills host rows and shards hold them; training, the simulator and live decoding load them
// into a FeaturePack. All of them round to the pack's dtype, so all see the same numbers.
#ifndef MODEL_FEATURES_H
#define MODEL_FEATURES_H

#include "infer/model/assistant.h"
#include "infer/model/target.h"

enum { PACK_SEQS_MAX = 256 };

typedef struct {
    DType dtype;                // BF16 in production, F32 in golden tests
    int64_t room, rows;         // token rows
    int64_t width, kv_width[2]; // B; kv_heads * hd by LayerKind
    Tensor hidden;              // (room, B)
    Tensor k[2], v[2];          // (room, kv_width[kind])
    int nseq;
    int64_t start[PACK_SEQS_MAX + 1]; // sequence s owns rows start[s] .. start[s+1]-1
    int64_t bare[PACK_SEQS_MAX];      // of these, so many in front have no hidden state
} FeaturePack;

size_t features_bytes(const TargetConfig *c, int64_t room, DType dtype);
void features_take(FeaturePack *p, const TargetConfig *c, int64_t room, DType dtype, Arena *arena);
void features_clear(FeaturePack *p);
int features_begin(FeaturePack *p); // opens the next sequence, returns its number
// Appends n rows to the last sequence from the target: the shared K/V rows first .. first+n-1 of
// the cache slot and hidden (at most n, B), the states of the last of them. Rows before those, and
// all before them, have none: no anchor may begin behind them. A sequence whose first row is not
// row 0 is only for passing rows on (capture of a long one, chunk by chunk): anchors count from the
// first row held.
void features_append(FeaturePack *p, Device *dev, const Target *t, const KvCache *kv, int slot,
                     int64_t first, int64_t n, Tensor hidden);
// Appends n rows from host memory in the pack's dtype; hidden: of all but the first `bare` of them.
void features_load(FeaturePack *p, Device *dev, const void *hidden, int64_t bare,
                   const void *const k[2], const void *const v[2], int64_t n);
void features_rewind(FeaturePack *p, int64_t rows); // drop rows of the last sequence from `rows` on

// Anchors of a pack: T[i] of sequence seq_of[i] (both ascending). Fills set; seg arrays from the
// caller: PACK_SEQS_MAX each.
void features_set(const FeaturePack *p, const int32_t *T, const int32_t *seq_of, int64_t rows,
                  AnchorSet *set, AttnSeg *seg_sliding, AttnSeg *seg_full);
// The same, and feature0 (rows, B) = hidden row T-1 through a gather.
void features_anchors(const FeaturePack *p, Device *dev, const Assistant *a, const int32_t *T,
                      const int32_t *seq_of, int64_t rows, AnchorSet *set, AttnSeg *seg_sliding,
                      AttnSeg *seg_full, Tensor row_index /* I32 (1, rows) scratch */,
                      Tensor feature0);

#endif
