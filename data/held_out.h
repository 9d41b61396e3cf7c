// data/held_out.h - how the text of the dev and eval splits is made: as the drafter's target is
// deployed. Acceptance is counted by the rules that such text allows.
#ifndef DATA_HELD_OUT_H
#define DATA_HELD_OUT_H

#include "data/shard.h"
#include "infer/base/settings.h"
#include "infer/decode/sampling.h"

// By regenerate.held_out and the sampler beside it; temperature 0: greedy.
Sampler held_out_sampler(const Settings *s);
// Refuses (ERR_INPUT) shards whose text was made in another way than the settings say.
MUST_CHECK bool held_out_check(const Settings *s, const ShardMeta *meta, const char *dir, Err *err);

#endif
