// data/measure_parts.h - what the rollout of captured sequences and the counting of their rounds
// share.
#ifndef DATA_MEASURE_PARTS_H
#define DATA_MEASURE_PARTS_H

#include "data/measure.h"

enum { HEADS = 2 };

struct Measurer {
    Device *dev;
    MeasureOptions opt;
    SeqSource src;
    Simulator *sim[MEASURE_DRAFTERS_MAX];
    int sims;
    void *block; // of the pack
    FeaturePack pack;
    // The group being packed
    int n;
    int64_t index[PACK_SEQS_MAX], anchors;
    CapturedSeq seq[PACK_SEQS_MAX];
    SimulateJob job[PACK_SEQS_MAX], dense[PACK_SEQS_MAX];
    int32_t *drafts[HEADS];   // (room, K): never more anchors than rows
    DraftScores score[HEADS]; // (room, K) where wanted
    double *keep, *visit;     // (room, K) and (room)
    int8_t *offered;          // (room)
};

static inline int64_t measure_anchors(const Sample *s) {
    return s->n - s->prompt - 1 > 0 ? s->n - s->prompt - 1 : 0;
}

// Counts one finished job into out, and adds it to pool (NULL: not wanted).
void measure_count(const Measurer *m, const SimulateJob *job, const Sample *s, Measured *out,
                   MeasuredPool *pool);

#endif
