// tests/infer/text/tokenizer_made.h - small tokenizer.json texts for tests.
#ifndef TESTS_TOKENIZER_MADE_H
#define TESTS_TOKENIZER_MADE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/testing.h"

enum { JSON_ROOM = 1 << 16 };

#define ADDED(id, text)                                                                            \
    "{\"id\":" id ",\"content\":\"" text "\",\"single_word\":false,\"lstrip\":false,"              \
    "\"rstrip\":false,\"normalized\":false,\"special\":true}"

// A tokenizer.json in the scheme: 256 byte pieces (ids 0..255), then the pieces given, separated by
// blanks, then the added tokens. merges and added are JSON lists.
static inline char *spell(const char *pieces, const char *merges, const char *added) {
    char *out = malloc(JSON_ROOM);
    size_t n = (size_t)snprintf(
        out, JSON_ROOM,
        "{\"version\":\"1.0\",\"added_tokens\":%s,"
        "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" "
        "\"},\"content\":\"\u2581\"},"
        "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},"
        "\"behavior\":\"MergedWithPrevious\",\"invert\":false},"
        "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":"
        "{\"String\":\"\u2581\"},\"content\":\" "
        "\"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]},"
        "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"ignore_merges\":false,\"vocab\":{",
        added);
    for (int b = 0; b < 256; b++)
        n += (size_t)snprintf(out + n, JSON_ROOM - n, "%s\"<0x%02X>\":%d", b ? "," : "", b, b);
    char *copy = strdup(pieces), *rest = copy;
    int id = 256;
    for (char *piece; (piece = strsep(&rest, " ")) != NULL; id++)
        n += (size_t)snprintf(out + n, JSON_ROOM - n, ",\"%s\":%d", piece, id);
    free(copy);
    n += (size_t)snprintf(out + n, JSON_ROOM - n, "},\"merges\":%s}}", merges);
    assert_true(n < JSON_ROOM);
    return out;
}

#endif
