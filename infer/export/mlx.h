// infer/export/mlx.h - assistant weights as MLX runtimes publish them (spec export-formats B).
#ifndef EXPORT_MLX_H
#define EXPORT_MLX_H

#include "infer/export/hf.h"

// model.safetensors and its index in out_dir: the stock's keys and shapes, floats as they are,
// token_ordering as I32, metadata format = mlx.
MUST_CHECK bool mlx_write(const char *stock_dir, const char *out_dir, const HfSource *src,
                          Err *err);

#endif
