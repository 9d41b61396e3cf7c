// infer/text/tokenizer_build.h - the steps that fill a Tokenizer while its file is read, in this
// order: pieces, added tokens, vocabulary index, index of added tokens, merges by rising rank,
// finish.
#ifndef TEXT_TOKENIZER_BUILD_H
#define TEXT_TOKENIZER_BUILD_H

#include <jansson.h>

#include "infer/text/tokenizer_table.h"

enum { TOKENIZER_FILE_LIMIT = 1 << 29 }; // bytes of a tokenizer.json, uncompressed

// id: 0..TOKENIZER_ID_LIMIT-1, must be free.
MUST_CHECK bool build_piece(Tokenizer *t, int32_t id, const char *text, size_t size, Err *err);
// list: the member added_tokens, its entries checked by scheme_check. Tokens that the vocabulary
// lacks become pieces; the others must carry the vocabulary's id.
MUST_CHECK bool build_added(Tokenizer *t, const json_t *list, Err *err);
// Hash table, one-scalar pieces, byte pieces; ids without a piece and pieces with two ids are
// refused.
MUST_CHECK bool build_vocab(Tokenizer *t, Err *err);
MUST_CHECK bool build_added_index(Tokenizer *t, Err *err);
// left and right: lengths of the halves, which lie one behind the other in `pair`.
MUST_CHECK bool build_merge(Tokenizer *t, const char *pair, size_t left, size_t right,
                            uint32_t rank, Err *err);
// After the last merge: where byte pieces merge, no cut is safe beside a scalar spelled in bytes.
void build_finish(Tokenizer *t);

#endif
