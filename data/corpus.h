// data/corpus.h - prompts and conversations from people's files, streamed through libarchive with
// limits.
#ifndef DATA_CORPUS_H
#define DATA_CORPUS_H

#include <jansson.h>

#include "infer/base/err.h"

// A line as JSON with where it came from ("file.jsonl:17", or "a.tar.zst(b.jsonl):17").
typedef struct {
    json_t *value; // an object; borrowed until the next corpus_next
    char where[512];
    int64_t line;
} CorpusLine;

typedef struct Corpus Corpus;
// .jsonl, plain or .gz, .zst, .xz, or in a .tar or .zip (its regular files, in order). Limits: 64
// MiB a line, 256 GiB in all, 1000 : 1 after the first 64 MiB. A truncated stream is an error.
MUST_CHECK Corpus *corpus_open(const char *path, Err *err);
// 1 = a line, 0 = the end, -1 = error (a line that is not a JSON object: ERR_INPUT with file:line).
int corpus_next(Corpus *c, CorpusLine *out, Err *err);
int64_t corpus_skipped(const Corpus *c); // members that are neither files nor folders
void corpus_close(Corpus *c);

#endif
