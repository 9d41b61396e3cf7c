// data/corpus.h - objects of JSON out of people's files, streamed through libarchive with limits.
#ifndef DATA_CORPUS_H
#define DATA_CORPUS_H

#include <jansson.h>

#include "infer/base/err.h"

// One object with where it came from: "file.jsonl:17", "a.tar.zst(b.jsonl):17", or, where a member
// of an archive is one object as a whole, "a.tar(000001.json)".
typedef struct {
    json_t *value; // an object; borrowed until the next corpus_next; NULL: CORPUS_BAD
    char where[512];
    int64_t line;  // in its member; 0: the member is the object
    bool media;    // its group of members in the archive holds images, sound or video, too
    bool too_long; // CORPUS_BAD because it is more than is read
} CorpusLine;

typedef enum {
    CORPUS_END = 0,
    CORPUS_LINE = 1,
    CORPUS_BAD = -1,    // not an object, or too long: err says why; reading can go on
    CORPUS_BROKEN = -2, // the file cannot be read any further
} CorpusStep;

typedef struct Corpus Corpus;
// One object a line: .jsonl, plain or .gz, .zst, .xz, or members of a .tar or .zip named .jsonl,
// .ndjson or nothing. A member named .json is one object; members that share the name up to its
// first dot are a group, as WebDataset has it. Members of other names and what is no regular file
// are skipped, packs inside of packs refused; nothing is ever extracted. Limits: 16 MiB an object
// (see also CHAT_JSON_COST), 256 GiB in all, 1000 : 1 after the first 64 MiB. A truncated stream is
// an error.
MUST_CHECK Corpus *corpus_open(const char *path, Err *err);
CorpusStep corpus_next(Corpus *c, CorpusLine *out, Err *err);
int64_t corpus_skipped(const Corpus *c); // members, folders apart
void corpus_close(Corpus *c);

#endif
