// infer/model/target_merged.h - the merged target tensor by tensor, for those who write it into
// another container.
#ifndef MODEL_TARGET_MERGED_H
#define MODEL_TARGET_MERGED_H

#include "infer/format/safetensors.h"
#include "infer/model/gemma4_config.h"

typedef enum {
    MERGED_TEXT,
    MERGED_TOWER,  // vision, sound
    MERGED_UNUSED, // K/V projections of layers that share another's, a repeated head, tables that
                   // are computed from the configuration
} MergedKind;

typedef struct {
    const StTensor *tensor; // of the source files
    MergedKind kind;
    char name[256]; // canonical: "layers.3.mlp.up_proj.weight"; of a tower: the key
} MergedTensor;

typedef struct TargetMerged TargetMerged;

// Opens the files and finds every tensor and module: a repeated head that differs, or an adapter
// module that matches nothing, is ERR_INPUT. adapter "" or NULL: none.
MUST_CHECK TargetMerged *target_merged_open(const char *dir, const char *adapter, Err *err);
void target_merged_close(TargetMerged *m);
const TargetConfig *target_merged_config(const TargetMerged *m);
int target_merged_count(const TargetMerged *m);
const MergedTensor *target_merged_at(const TargetMerged *m, int i); // in file order
// Rows [first, first + n) of a tensor seen as (product of the leading dims, last dim), the adapter
// merged as target_open merges it: bytes in the tensor's dtype. Keeps one merged matrix.
MUST_CHECK bool target_merged_rows(TargetMerged *m, int i, int64_t first, int64_t n, void *out,
                                   Err *err);

#endif
