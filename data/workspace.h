// data/workspace.h - where the stages keep their files, and the models they open.
#ifndef DATA_WORKSPACE_H
#define DATA_WORKSPACE_H

#include "infer/base/file.h"
#include "infer/base/settings.h"
#include "infer/model/target.h"
#include "infer/text/tokenizer.h"

typedef enum { SPLIT_TRAIN, SPLIT_DEV, SPLIT_EVAL, SPLIT_COUNT } Split;
const char *split_name(Split split);
// OUTPUT_DIR/folder/SPLITsuffix, for instance runs/demo/regen/train.jsonl
char *split_path(char out[PATH_ROOM], const Settings *s, const char *folder, Split split,
                 const char *suffix);

// config.json of the target, with model.max_positions in the place of its own limit.
MUST_CHECK bool load_target_config(TargetConfig *c, const Settings *s, Err *err);

// The merged target on its device. dtype: of weights, GEMM inputs and of the K/V cache.
typedef struct {
    Device *dev;
    DType dtype;
    TargetConfig config;
    Sha256 fingerprint; // once identified
    Target *target;     // once loaded
} OpenTarget;
// Everything about the target that a finished stage is recognised by: no weights are loaded, nor
// read where OUTPUT_DIR/hashes.json remembers the files.
MUST_CHECK bool identify_target(OpenTarget *o, const Settings *s, Err *err);
// The weights of an identified target, unless they are there: the first call decides max_rows (see
// TargetOptions).
MUST_CHECK bool load_target(OpenTarget *o, const Settings *s, int64_t max_rows, Err *err);
// Without a fingerprint, for verbs that bind nothing to the target. On an error nothing is open.
MUST_CHECK bool open_target(OpenTarget *o, const Settings *s, int64_t max_rows, Err *err);
void close_target(OpenTarget *o);
// Refuses (ERR_INPUT) a sequence longer than the target's positions, model.max_positions in force.
MUST_CHECK bool check_positions(const OpenTarget *o, const char *id, int64_t tokens, Err *err);
// OUTPUT_DIR/hashes.json, see hash_cache.h
char *hash_cache_path(char out[PATH_ROOM], const Settings *s);

// tokenizer.json of the target's folder; refused when it has not the vocabulary of config.json.
MUST_CHECK Tokenizer *open_tokenizer(const char *target_dir, int64_t vocab, Err *err);

#endif
