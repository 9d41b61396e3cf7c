// infer/text/chat_json.h - JSON of conversations, integers of any length kept.
#ifndef TEXT_CHAT_JSON_H
#define TEXT_CHAT_JSON_H

#include <jansson.h>

#include "infer/base/err.h"

// Begins a string that stands for an integer beyond 64 bits, which jansson cannot hold; the digits
// follow. The chat renderer prints such a string as the bare number.
#define CHAT_BIG_INTEGER "\uFDD0"

// Memory that the values of a text will take, from above: millions of small ones fit into a line.
size_t chat_json_cost(const char *text, size_t size);
#define CHAT_JSON_COST ((size_t)96 << 20)

// New reference. Duplicate keys are refused; integers beyond 64 bits become strings as above;
// U+0000 may stand in a text. A text that costs more than CHAT_JSON_COST is refused unread.
MUST_CHECK json_t *chat_json_read(const char *text, size_t size, Err *err);

#endif
