// data/synthetic.h - pairs of real shapes with random weights, written as people's repositories
// are: what `bench` runs on, and what tests use where no real weights are at hand. Only speed and
// memory of such a pair mean anything.
#ifndef DATA_SYNTHETIC_H
#define DATA_SYNTHETIC_H

#include <stdint.h>

#include "infer/base/err.h"

typedef struct {
    const char *name; // e2b, e4b, 12b, 26b, 31b, demo
    int64_t hidden, inter, layers, period, heads, kv_heads, global_kv_heads; // 0: null
    int64_t head_dim, global_head_dim, shared, ple, window, vocab;
    int64_t experts, top_experts, expert_inter; // 0: no MoE
    bool k_eq_v, wide, unified;
    int64_t draft_hidden, draft_inter, draft_heads, clusters,
        cluster_topk; // clusters 0: dense head
} PairShape;

const PairShape *pair_shape(const char *name); // NULL: no such shape
// Writes dir/config.json, generation_config.json and model.safetensors (bf16), N(0, 0.02) matrices,
// norms about 1. The same seed gives the same bytes.
MUST_CHECK bool synthetic_target(const char *dir, const PairShape *shape, uint64_t seed, Err *err);
MUST_CHECK bool synthetic_target_config(const char *dir, const PairShape *shape,
                                        Err *err); // no weights
MUST_CHECK bool synthetic_assistant(const char *dir, const PairShape *shape, uint64_t seed,
                                    Err *err);

#endif
