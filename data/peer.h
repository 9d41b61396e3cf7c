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

// Runs the job with bench.python.
MUST_CHECK bool peer_run(const Settings *s, const PeerJob *job, RunTime *out, Err *err);
// "   peer 10.0 ms: 2.00x (best 9.0 ms: 2.10x)" beside our own time, and where our memory is known
// ", memory 1.0 of 2.5 GiB".
void peer_print(RunTime peer, RunTime ours);

enum { PEER_ABSENT = 77 }; // a script's exit status: what it would measure is not installed
// bench.python with the arguments as they are; reads n numbers of the JSON object it prints.
// ERR_USAGE: PEER_ABSENT.
MUST_CHECK bool peer_call(const Settings *s, const char *arguments, const char *const *field, int n,
                          double *out, Err *err);

#endif
