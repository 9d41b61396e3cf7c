// infer/model/weights.h - names of tensors in people's files, and a LoRA adapter's deltas.
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "infer/format/safetensors.h"
#include "infer/model/gemma4_config.h"

// The canonical name of a key: prefixes that tools write are stripped (model.language_model.,
// language_model.model., base_model.model., ...), so that "layers.3.mlp.up_proj.weight" is found
// whatever the source. false: not part of the text model (towers; to be skipped aloud).
bool weight_canonical(const char *key, char out[256]);

typedef struct Adapter Adapter;
// A PEFT directory (adapter_config.json, adapter_model.safetensors). Unsupported kinds (DoRA,
// modules_to_save, bias) are refused by name. NULL path or "": an empty adapter.
MUST_CHECK Adapter *adapter_open(const char *dir, Err *err);
void adapter_close(Adapter *a);
// w (out, in) f32 += scale * B A where the adapter has the module (canonical name without .weight).
MUST_CHECK bool adapter_merge(const Adapter *a, const char *module, float *w, int64_t out, int64_t in,
                              bool *merged, Err *err);
// After loading: a module of the adapter that matched nothing is an error naming it.
MUST_CHECK bool adapter_all_used(const Adapter *a, Err *err);

#endif
