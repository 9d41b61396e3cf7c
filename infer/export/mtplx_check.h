// infer/export/mtplx_check.h - what MTPLX asks of a pair bundle before it runs it (spec
// export-formats D3), asked of a folder that was just written or given.
#ifndef EXPORT_MTPLX_CHECK_H
#define EXPORT_MTPLX_CHECK_H

#include <stddef.h>

#include "infer/base/err.h"

// The marker parses and each half is a complete MLX model: configuration, weights that its index
// names, every quantised module with its rule and tensors, and in the assistant's half exactly the
// tensors of an assistant. What is not so is ERR_INPUT.
MUST_CHECK bool mtplx_check_bundle(const char *dir, Err *err);
// Whether MTPLX takes the pair: it knows the dense 31B target with its assistant. why: "" or the
// first thing that is different. ERR_INPUT: a configuration that cannot be read.
MUST_CHECK bool mtplx_runnable(const char *dir, char *why, size_t room, Err *err);

#endif
