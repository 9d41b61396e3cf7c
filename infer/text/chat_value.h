// infer/text/chat_value.h - JSON values as the published templates see them: Jinja over Python.
//
// A NULL value is Jinja's "undefined": false, printed as nothing. Case mapping is one scalar to one
// scalar (Python's differs for a few letters such as U+00DF, U+0130 and a final sigma).
#ifndef TEXT_CHAT_VALUE_H
#define TEXT_CHAT_VALUE_H

#include <jansson.h>

#include "infer/base/err.h"

// Growing bytes; zero-initialise, free(text).
typedef struct {
    char *text;
    size_t size, room;
} Bytes;
void bytes_add(Bytes *b, const char *text, size_t size);

bool value_is_string(const json_t *v);  // a marked long integer is none (chat_json.h)
bool value_is_integer(const json_t *v); // a marked one included
bool value_true(const json_t *v);
const json_t *value_get(const json_t *v,
                        const char *key);             // undefined unless v is an object with key
bool value_equals(const json_t *v, const char *text); // a string of exactly this text
void value_str(Bytes *out, const json_t *v);          // str(v)
void value_upper(Bytes *out, const json_t *v);        // str(v).upper()
// What a Jinja loop over v goes through, as a new array: items, keys, characters; NULL when v
// cannot be looped over.
json_t *value_items(const json_t *v);
void strip(const char **text, size_t *size); // str.strip(): Python's white space off both ends

// Members of an object by lower-cased key, ties as they stand (the filter dictsort).
typedef struct {
    const char *key; // borrowed from the object
    size_t size;
    const json_t *value;
    Bytes folded;
    size_t place;
} Member;
typedef struct {
    Member *item;
    size_t n;
} Members;
Members members_sorted(const json_t *object);
void members_free(Members *m);

#endif
