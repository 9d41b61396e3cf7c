// infer/text/tokenizer_scan.h - a pull reader of JSON for the two large tables of tokenizer.json.
//
// Half a million merges as jansson values cost seconds and hundreds of megabytes; here a string is
// read into one scratch buffer and nothing is kept. Small members go to jansson through scan_skip.
#ifndef TEXT_TOKENIZER_SCAN_H
#define TEXT_TOKENIZER_SCAN_H

#include <stddef.h>
#include <stdint.h>

#include "infer/base/err.h"

typedef struct {
    const char *begin, *at, *end; // the text, borrowed; not 0-terminated
    char *string;                 // the last string read, owned; valid until the next one
    size_t size, room;
} Scan;

void scan_open(Scan *s, const char *text, size_t size);
void scan_close(Scan *s);

char scan_peek(Scan *s);                                // next significant byte, 0 at the end
MUST_CHECK bool scan_expect(Scan *s, char c, Err *err); // consumes c
// Steps inside an array or object whose opening bracket was consumed: *more is false when `close`
// was consumed, else a value (or key) follows. first: true before the first step, cleared by it.
MUST_CHECK bool scan_step(Scan *s, char close, bool *first, bool *more, Err *err);
MUST_CHECK bool scan_string(Scan *s, Err *err); // into s->string, checked UTF-8, escapes resolved
MUST_CHECK bool scan_key(Scan *s, Err *err);    // a string and the colon behind it
MUST_CHECK bool scan_index(Scan *s, int32_t limit, int32_t *out, Err *err); // integer in 0..limit-1
// Passes over any value; [*from, *to) is its text. Checks only brackets and strings' ends.
MUST_CHECK bool scan_skip(Scan *s, const char **from, const char **to, Err *err);

#endif
