// infer/text/tokenizer_scheme.h - is a tokenizer.json of Gemma 4's scheme? Refuses others by name.
#ifndef TEXT_TOKENIZER_SCHEME_H
#define TEXT_TOKENIZER_SCHEME_H

#include <jansson.h>

#include "infer/base/err.h"

// top, model: objects of the members of the file and of its model, without vocab and merges.
MUST_CHECK bool scheme_check(const json_t *top, const json_t *model, Err *err);

#endif
