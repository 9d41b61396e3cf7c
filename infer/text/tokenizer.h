// infer/text/tokenizer.h - tokenizer.json of Gemma 4: BPE by merge rank over Unicode scalars,
// spaces as U+2581, byte fallback; exact ids.
//
// A Tokenizer is immutable after loading and may be shared between threads. Text is UTF-8; invalid
// bytes are read as U+FFFD.
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "infer/base/err.h"
#include "infer/base/hash.h"

typedef struct Tokenizer Tokenizer;

// path: tokenizer.json, or the same compressed (.zst, .gz). Refuses what is not Gemma 4's scheme.
MUST_CHECK Tokenizer *tokenizer_load(const char *path, Err *err);
void tokenizer_free(Tokenizer *t);
int32_t tokenizer_vocab(const Tokenizer *t);      // number of ids
const Sha256 *tokenizer_hash(const Tokenizer *t); // of the uncompressed file
// The same without making a tokenizer of it.
MUST_CHECK bool tokenizer_file_hash(Sha256 *out, const char *path, Err *err);
// Bytes of text that one token stands for at most.
size_t tokenizer_longest(const Tokenizer *t);
// The id of an exact piece or added token; -1 = none.
int32_t tokenizer_id(const Tokenizer *t, const char *piece);

// The piece of an id, not 0-terminated; borrowed.
const char *tokenizer_piece(const Tokenizer *t, int32_t id, size_t *size);
size_t tokenizer_merges(const Tokenizer *t);
// The ids of the two halves of every merge by rank; pair: [tokenizer_merges].
void tokenizer_merge_pairs(const Tokenizer *t, int32_t (*pair)[2]);

// A growing list of ids; zero-initialise, free with ids_free.
typedef struct {
    int32_t *id;
    size_t n, room;
} Ids;
void ids_push(Ids *ids, int32_t id);
void ids_free(Ids *ids);

// Appends the ids of text. special: occurrences of the added tokens become their ids; without it
// they stay text (user content is always encoded so).
void tokenizer_encode(const Tokenizer *t, const char *text, size_t size, bool special, Ids *out);
// The longest added token that text begins with: its id, and its bytes in *length; -1 = none.
int32_t tokenizer_added(const Tokenizer *t, const char *text, size_t size, size_t *length);
// Bytes that id covers when it is the first token of text; text: valid UTF-8 at the place where the
// token was found. A scalar spelled in byte pieces counts one byte a piece.
size_t tokenizer_span(const Tokenizer *t, int32_t id, const char *text, size_t size);
// UTF-8 text of ids, 0-terminated, caller frees; *size without the 0. skip_special drops
// added tokens.
char *tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                       size_t *size);
bool tokenizer_is_special(const Tokenizer *t, int32_t id);

#endif
