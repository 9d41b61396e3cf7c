// data/regenerate_turns.h - conversations answered turn by turn: each prompt holds what the target
// wrote before.
#ifndef DATA_REGENERATE_TURNS_H
#define DATA_REGENERATE_TURNS_H

#include "data/chain.h"
#include "data/regenerate.h"

// As regenerate(), over rounds: the first turns of all conversations are answered, then the second
// ones, and so on. A conversation ends where an answer does not end as its next turn expects, or
// without a token. join: turns that begin with all of the one before them share its sequence
// (training); else every turn is a sample of its own (measuring: only a last answer is measured).
// Finished rounds lie beside `out` until it is whole; those of another identity are refused
// (ERR_USAGE) unless opt->anew, which drops them.
MUST_CHECK bool regenerate_turns(Target *t, const Chain *chain, int64_t n,
                                 const RegenerateOptions *opt, bool join, const char *out,
                                 RegenerateCount *count, Err *err);

#endif
