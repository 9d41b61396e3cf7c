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

// The merged target on its device. dtype: of weights, GEMM inputs and of the K/V cache.
typedef struct {
    Device *dev;
    Target *target;
    DType dtype;
} OpenTarget;
MUST_CHECK bool open_target(OpenTarget *o, const Settings *s, int64_t max_rows, Err *err);
void close_target(OpenTarget *o);

// tokenizer.json of the target's folder; refused when it has not the vocabulary of config.json.
MUST_CHECK Tokenizer *open_tokenizer(const char *target_dir, int64_t vocab, Err *err);

#endif
