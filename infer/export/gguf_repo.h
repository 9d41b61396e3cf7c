// infer/export/gguf_repo.h - the GGUF files of a drafter's folder, made from a pair.
#ifndef EXPORT_GGUF_REPO_H
#define EXPORT_GGUF_REPO_H

#include "infer/export/gguf_export.h"

// "all", or one type of gguf_mix_named. ERR_USAGE.
MUST_CHECK bool gguf_option(const char *option, GgufMix mix[GGUF_MIXES_MAX], int *n, Err *err);

typedef struct {
    const char *stock_dir, *target_dir;
    const char *name, *base_model; // as in GgufJob
    HfSource weights;
    const GgufImportance *importance; // NULL = none
} GgufRepoInputs;

// One file for each mix into dir, which is there. The pair must fit, its vocabulary included.
MUST_CHECK bool gguf_repo_files(const GgufRepoInputs *in, GgufDialect d, const GgufMix *mix, int n,
                                const char *dir, Err *err);
// What gguf_export_bytes says of those files.
MUST_CHECK bool gguf_repo_bytes(const GgufRepoInputs *in, GgufDialect d, const GgufMix *mix, int n,
                                int64_t *bytes, Err *err);

#endif
