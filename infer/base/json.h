// infer/base/json.h - jansson with our errors: duplicate keys refused, every refusal names the
// file.
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>

#include "infer/base/err.h"

MUST_CHECK json_t *json_read_file(const char *path, int64_t limit, Err *err); // new reference
MUST_CHECK json_t *json_read_text(const char *text, size_t size, Err *err);   // new reference
// json_dumps with reals as short as they can be and still read back as the same double: 0.1, not
// 0.10000000000000001. Caller frees; NULL: out of memory.
MUST_CHECK char *json_text(const json_t *value, size_t flags);
// The same indented onto stdout, with a newline.
MUST_CHECK bool json_print(const json_t *value, Err *err);
// Indented, keys in insertion order, trailing newline, atomic.
MUST_CHECK bool json_write_file(const char *path, const json_t *value, Err *err);
// Optional members: absent or null leaves *out alone and returns true; a wrong type is ERR_INPUT
// naming the key.
MUST_CHECK bool json_get_i64(const json_t *o, const char *key, int64_t *out, Err *err);
MUST_CHECK bool json_get_f64(const json_t *o, const char *key, double *out, Err *err);
MUST_CHECK bool json_get_bool(const json_t *o, const char *key, bool *out, Err *err);
MUST_CHECK bool json_get_str(const json_t *o, const char *key, const char **out,
                             Err *err); // borrowed

#endif
