// data/peer.h - a PyTorch program that does the same job, run beside ours in the same bench.
#ifndef DATA_PEER_H
#define DATA_PEER_H

#include "infer/base/settings.h"
#include "infer/tensor/tensor.h"

// Milliseconds of one pass over a batch. Other users of a machine only ever add to a time: the best
// passes tell what two programs can do, the means what they did.
typedef struct {
    double mean, best;
    double memory; // bytes at the most, 0 = unknown
} RunTime;

typedef struct {
    const char *script; // in bench.peer_path
    const char *unit;   // "batch": its JSON object has ms_per_batch and best_ms_per_batch
    const char *extra;  // more arguments, or ""
    const char *shape;
    DType dtype;
    int64_t batch, seq;
    const char *device; // "cpu" or "cuda"
} PeerJob;

// One pass of ours over a batch.
typedef bool PassFn(void *ctx, double *seconds, Err *err);

// bench.repeat passes of ours behind a first one that does not count. With bench.peers, where a
// machine slows down and recovers, both shall meet it: that often bench.peer_rounds times, and the
// job with bench.python after each. ours->memory is left to the caller; peer->mean 0: none ran.
MUST_CHECK bool peer_race(const Settings *s, const PeerJob *job, PassFn *pass, void *ctx,
                          RunTime *ours, RunTime *peer, Err *err);
// "   peer 10.0 ms: 2.00x (best 9.0 ms: 2.10x)" beside our own time, and where our memory is known
// ", memory 1.0 of 2.5 GiB". Nothing where none ran.
void peer_print(RunTime peer, RunTime ours);

enum { PEER_ABSENT = 77 }; // a script's exit status: what it would measure is not installed
// bench.python with the arguments as they are; reads n numbers of the JSON object it prints.
// ERR_USAGE: PEER_ABSENT.
MUST_CHECK bool peer_call(const Settings *s, const char *arguments, const char *const *field, int n,
                          double *out, Err *err);

#endif
