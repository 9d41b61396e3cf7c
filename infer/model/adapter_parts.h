// infer/model/adapter_parts.h - what reading an adapter and merging it share. Private to
// adapter*.c.
#ifndef MODEL_ADAPTER_PARTS_H
#define MODEL_ADAPTER_PARTS_H

#include <jansson.h>

#include "infer/base/file.h"
#include "infer/model/weights.h"

typedef struct {
    char name[256];        // canonical
    const StTensor *a, *b; // (r, in), (out, r); experts: r counts every expert's
    double scale;          // experts: known once the parameter is, see adapter_merge_expert
    bool used;
} AdapterModule;

// The pair of the module merged last: experts come one by one and share theirs.
typedef struct {
    const AdapterModule *of; // NULL: none
    float *a, *b;
} AdapterPair;

struct Adapter {
    char dir[PATH_ROOM];
    json_t *config;
    StFile *file;
    AdapterModule *module;
    int n;
    AdapterPair *pair;
};

// lora_alpha / r of a module, or of a parameter of the experts; name as the adapter's keys spell
// it.
MUST_CHECK bool adapter_scale(const json_t *config, const char *name, double *scale, double *rank,
                              Err *err);
// "X.lora_A.weight" or "X.lora_A.default.weight" -> X and 'A'; 0 = another kind of key.
char adapter_split_key(const char *key, char module[257]);
AdapterModule *adapter_find(const Adapter *a, const char *name);
// A module whose low-rank pair holds all experts' (PEFT's target_parameters).
bool adapter_is_experts(const char *module);

#endif
