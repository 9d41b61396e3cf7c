// infer/export/json_edit.h - one value changed in a JSON text, every other byte kept.
//
// Configurations travel from the stock assistant to the export as they are: null keys, spacing,
// spelling of numbers and order mean something to some reader.
#ifndef EXPORT_JSON_EDIT_H
#define EXPORT_JSON_EDIT_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "infer/base/err.h"

// The text of an object with member `key` of the outermost object set to value: its present value
// is replaced, or the member is added at the end in the style of the last one. Caller frees; `name`
// is for messages. A text whose value is already that comes back unchanged.
MUST_CHECK char *json_text_set(const char *name, const char *text, size_t size, const char *key,
                               int64_t value, Err *err);
// The same with a value of any type, indented as the text is.
MUST_CHECK char *json_text_put(const char *name, const char *text, size_t size, const char *key,
                               const json_t *value, Err *err);

#endif
