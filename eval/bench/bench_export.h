// eval/bench/bench_export.h - how long the weights of all GGUF files of an assistant take to
// encode, beside ggml's own quantiser on the same tensors.
#ifndef EVAL_BENCH_EXPORT_H
#define EVAL_BENCH_EXPORT_H

#include "data/synthetic.h"
#include "infer/base/settings.h"

// Random weights of that shape, every mix that export.to=gguf:all writes, no importance. The bytes
// are encoded and dropped: neither side reads or writes files while it is timed. With bench.peers
// the same tensors go through bench.peer_quantise; what it lacks is said and skipped.
MUST_CHECK bool bench_export(const Settings *s, const PairShape *shape, Err *err);

#endif
