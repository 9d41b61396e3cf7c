// infer/export/describe.h - an artifact as a JSON object: the source of both outputs of `inspect`.
#ifndef EXPORT_DESCRIBE_H
#define EXPORT_DESCRIBE_H

#include <jansson.h>

#include "infer/base/err.h"

// New reference; "kind" first. Knows: safetensors file, GGUF file or folder of them, model folder
// (quantised MLX ones are checked), checkpoint folder (hashes checked), MTPLX bundle (checked),
// folder of checkpoints, folder of shards, acceptance.json, tokenizer.json, stage and other JSON
// objects of a run. Anything else is ERR_INPUT.
MUST_CHECK json_t *describe(const char *path, Err *err);

#endif
