// infer/export/describe_gguf.h - GGUF files for describe().
#ifndef EXPORT_DESCRIBE_GGUF_H
#define EXPORT_DESCRIBE_GGUF_H

#include <jansson.h>

#include "infer/base/err.h"

// New reference; kind "gguf": architecture, mix, keys, tensors, and what assistant it is when it is
// one. Long values only by their type and size.
MUST_CHECK json_t *describe_gguf(const char *path, Err *err);
// kind "gguf folder": its GGUF files, one line each. NULL with err set: a broken one, or none.
MUST_CHECK json_t *describe_gguf_folder(const char *dir, Err *err);
bool has_gguf_files(const char *dir);

#endif
