// infer/export/manifest.h - MANIFEST.json: the files of a finished folder with size and SHA-256.
#ifndef EXPORT_MANIFEST_H
#define EXPORT_MANIFEST_H

#include <stdint.h>

#include "infer/base/err.h"

#define MANIFEST_NAME "MANIFEST.json"

// Hashes every file in dir and writes the manifest, fsynced.
MUST_CHECK bool manifest_seal(const char *dir, int64_t step, Err *err);
// Every file it names is there with its size and hash; the first that is not is named (ERR_INPUT).
// *step receives the step it was sealed for.
MUST_CHECK bool manifest_verify(const char *dir, const char *const *required, int n, int64_t *step,
                                Err *err);

#endif
