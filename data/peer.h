// data/peer.h - a PyTorch program that does the same job, run beside ours in the same bench.
#ifndef DATA_PEER_H
#define DATA_PEER_H

#include "infer/base/settings.h"
#include "infer/tensor/tensor.h"

// Runs bench.peer_path/script with bench.python at the given shape and reads `field` of the JSON
// object it prints. extra: more arguments, or "".
MUST_CHECK bool peer_run(const Settings *s, const char *script, const char *extra,
                         const char *shape, DType dtype, int64_t batch, int64_t seq,
                         const char *field, double *out, Err *err);

// The general form: bench.python with the arguments as they are.
MUST_CHECK bool peer_call(const Settings *s, const char *arguments, const char *field, double *out,
                          Err *err);

#endif
