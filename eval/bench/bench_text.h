// eval/bench/bench_text.h - encoding speed on one thread beside Hugging Face's tokenizers on the
// same text.
#ifndef EVAL_BENCH_TEXT_H
#define EVAL_BENCH_TEXT_H

#include "infer/base/settings.h"

// The text: every string of the JSON lines of bench.text, repeated up to 10 MB; the tokenizer:
// bench.tokenizer,
// "" = the target's. With bench.peers the same file goes through bench.peer_tokenizer.
MUST_CHECK bool bench_text(const Settings *s, Err *err);

#endif
