// infer/export/gguf_mixed.h - a mixture found by measurement (mix.h) as a mix of GGUF types.
#ifndef EXPORT_GGUF_MIXED_H
#define EXPORT_GGUF_MIXED_H

#include "infer/export/gguf_mix.h"
#include "infer/export/mix.h"

// What the mixture does not name is Q8_0; general.file_type is that of the type it names most
// often. pin: [mix->n], the caller's, borrowed by *out. ERR_INPUT: a mixture of another model or
// format, or a module that the drafter lacks.
MUST_CHECK bool gguf_mix_of(GgufMix *out, GgufPin *pin, const Mix *mix, const AssistantConfig *c,
                            Err *err);

#endif
