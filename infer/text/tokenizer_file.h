// infer/text/tokenizer_file.h - a whole file in memory, uncompressed on the way.
#ifndef TEXT_TOKENIZER_FILE_H
#define TEXT_TOKENIZER_FILE_H

#include <stddef.h>

#include "infer/base/err.h"

// The bytes of a file that is plain, .gz, .zst or .xz (told by content, not by name) and a 0 behind
// them; caller frees. More than `limit` bytes, or a broken stream, is ERR_INPUT.
MUST_CHECK char *unpacked_read(const char *path, size_t limit, size_t *size, Err *err);

#endif
