// infer/export/describe_mlx.h - what `inspect` says of quantised MLX folders and of pair bundles.
#ifndef EXPORT_DESCRIBE_MLX_H
#define EXPORT_DESCRIBE_MLX_H

#include <jansson.h>

#include "infer/base/err.h"

// Adds to o, for a folder whose config.json has a block "quantization", how its modules are stored;
// the tensors are checked against it. Others: nothing.
MUST_CHECK bool describe_mlx(json_t *o, const char *dir, Err *err);
// Adds what an MTPLX bundle is: its marker, whether it passes MTPLX's checks, its halves' storage.
MUST_CHECK bool describe_bundle(json_t *o, const char *dir, Err *err);

#endif
