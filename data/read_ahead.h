// data/read_ahead.h - sequences read on a thread of their own before they are asked for. Private to
// the batches.
#ifndef DATA_READ_AHEAD_H
#define DATA_READ_AHEAD_H

#include "data/batch.h"
#include "infer/base/worker.h"

// Zero-initialise. After read_ahead_begin, until the first read_ahead_take or read_ahead_drop, all
// of it is the thread's.
typedef struct {
    SeqSource src;
    int64_t index[PACK_SEQS_MAX]; // (n) wanted, in order; -1: taken
    int n;
    CapturedSeq seq[PACK_SEQS_MAX]; // (read)
    int read;                       // less than n: number `read` failed, err says why
    Err err;
    Worker worker;
} ReadAhead;

// index (n), n up to PACK_SEQS_MAX: copied. What was read before and not taken is dropped.
void read_ahead_begin(ReadAhead *a, const SeqSource *src, const int64_t *index, int n);
// Sequence i: waits where it must, reads what nobody read ahead. An error is that of reading i.
MUST_CHECK bool read_ahead_take(ReadAhead *a, const SeqSource *src, int64_t i, CapturedSeq *out,
                                Err *err);
void read_ahead_drop(ReadAhead *a);

#endif
