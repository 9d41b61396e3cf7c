// infer/model/gguf_names.h - the tensors of an assistant in a GGUF file: one table for the exporter
// and for the reader.
#ifndef MODEL_GGUF_NAMES_H
#define MODEL_GGUF_NAMES_H

#include "infer/format/gguf.h"
#include "infer/model/assistant.h"

// universal: arch gemma4-assistant, which llama.cpp and, since #1995, ik_llama.cpp load. ik: arch
// gemma4_mtp, for ik_llama.cpp of before.
typedef enum { GGUF_UNIVERSAL, GGUF_IK } GgufDialect;
const char *gguf_architecture(GgufDialect d);
// The dialect of a file; another architecture is ERR_INPUT naming it.
MUST_CHECK bool gguf_dialect(GgufDialect *d, const GgufFile *f, Err *err);

// What quantisation mixes tell apart. Vectors are always F32.
typedef enum { GGUF_VECTOR, GGUF_HEAD, GGUF_MATRIX, GGUF_DOWN, GGUF_OUT } GgufRole;

typedef struct {
    char name[GGUF_NAME_MAX + 1]; // "blk.0.attn_q.weight"
    char key[96];                 // the Hugging Face key, "" = made here: rope_freqs.weight
    GgufRole role;
    int layer; // -1: of no layer
    int rank;
    int64_t dim[2]; // fastest first
} GgufEntry;
enum { GGUF_ENTRIES_MAX = 16 * ASSISTANT_LAYERS_MAX };

// In the order they are written. Centroids and their ordering are not among them: no runtime reads
// them, and some do not load a file that holds them.
int gguf_assistant_tensors(GgufDialect d, const AssistantConfig *c,
                           GgufEntry out[GGUF_ENTRIES_MAX]);
// The values of rope_freqs.weight: 1 for a pair of the full layers that turns, 1e30 for one that
// does not. out: [global_head_dim / 2].
void gguf_rope_factors(const AssistantConfig *c, float *out);

#endif
