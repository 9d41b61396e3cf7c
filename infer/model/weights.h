// infer/model/weights.h - names of tensors in people's files, and a LoRA adapter's deltas.
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "infer/format/safetensors.h"
#include "infer/model/gemma4_config.h"

// The canonical name of a key: prefixes that tools write are stripped (model.language_model.,
// language_model.model., base_model.model., ...), so that "layers.3.mlp.up_proj.weight" is found
// whatever the source. false: not part of the text model (towers; to be skipped aloud).
bool weight_canonical(const char *key, char out[256]);
// The name of the vision or audio part a key belongs to ("vision_tower"), NULL = none.
const char *weight_tower(const char *key);

// The text tensors of a file by canonical name. Tensors of towers are skipped with one line that
// counts them; two keys with one canonical name, or a key that is neither, are refused.
typedef struct WeightMap WeightMap;
MUST_CHECK WeightMap *weight_map_open(const StFile *f, Err *err); // f must outlive it
void weight_map_close(WeightMap *m);
const StTensor *weight_map_find(WeightMap *m,
                                const char *canonical);            // NULL = absent; marks it used
MUST_CHECK bool weight_map_all_used(const WeightMap *m, Err *err); // else names the first unused

typedef struct Adapter Adapter;
// A PEFT directory (adapter_config.json, adapter_model.safetensors). Unsupported kinds (DoRA,
// modules_to_save, bias) are refused by name. NULL path or "": an empty adapter.
MUST_CHECK Adapter *adapter_open(const char *dir, Err *err);
void adapter_close(Adapter *a);
int adapter_modules(const Adapter *a); // of the text model
// Whether it has the module (canonical name without .weight); marks it used.
bool adapter_has(const Adapter *a, const char *module);
// w (out, in) f32 += scale * B A where the adapter has the module (canonical name without .weight).
MUST_CHECK bool adapter_merge(const Adapter *a, const char *module, float *w, int64_t out,
                              int64_t in, bool *merged, Err *err);
// The same for one expert's matrix of a parameter that holds all experts' (canonical name, as
// layers.0.experts.down_proj): what PEFT trains through target_parameters.
bool adapter_has_expert(const Adapter *a, const char *parameter, int64_t out, int64_t in);
MUST_CHECK bool adapter_merge_expert(const Adapter *a, const char *parameter, int64_t expert,
                                     int64_t experts, float *w, int64_t out, int64_t in,
                                     bool *merged, Err *err);
// After loading: a module of the adapter that matched nothing is an error naming it.
MUST_CHECK bool adapter_all_used(const Adapter *a, Err *err);

#endif
