// infer/model/source_gguf.h - what a GGUF file says an assistant is.
#ifndef MODEL_SOURCE_GGUF_H
#define MODEL_SOURCE_GGUF_H

#include "infer/model/gguf_names.h"

// Names a mix that general.file_type does not.
#define GGUF_MIX_KEY "draftsmith.mix"
// "Q4_K_M" of a general.file_type; "?" = none that we know.
const char *gguf_file_type_name(int64_t file_type);

// Every key the arch demands, checked; the head is the dense one. Weights are not looked at but for
// the number of tokens and the pairs that turn (rope_freqs.weight).
MUST_CHECK bool gguf_assistant_config(AssistantConfig *c, GgufDialect *d, const GgufFile *f,
                                      Err *err);

#endif
