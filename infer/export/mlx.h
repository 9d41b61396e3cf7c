// infer/export/mlx.h - safetensors as MLX runtimes publish them, floats or quantised (spec
// export-formats B, C).
#ifndef EXPORT_MLX_H
#define EXPORT_MLX_H

#include "infer/export/hf.h"
#include "infer/export/mlx_plan.h"

// Where the values come from: rows [first, first + n) of input i, seen as (product of the leading
// dims, last dim), in the input's dtype. Asked in ascending order within an input.
typedef struct {
    void *ctx;
    bool (*rows)(void *ctx, int i, int64_t first, int64_t n, void *out, Err *err);
} MlxSource;

// Every shard of the plan and model.safetensors.index.json, in out_dir: U32 words, metadata format
// = mlx. Holds one module at a time, and the scales of a shard. A float that is NaN or infinite is
// ERR_INPUT naming the tensor.
MUST_CHECK bool mlx_write_planned(const char *out_dir, const MlxInput *in, const MlxPlan *plan,
                                  const MlxSource *src, Err *err);
// The bytes that a shard's file will have.
MUST_CHECK bool mlx_shard_bytes(const MlxPlan *plan, int shard, int64_t *bytes, Err *err);

// An assistant: the stock's keys and shapes, token_ordering as I32, quantised as the recipe says.
// *rules receives the block for its config.json (mlx_rules_free).
MUST_CHECK bool mlx_write(const char *stock_dir, const char *out_dir, const HfSource *src,
                          const MlxRecipe *recipe, MlxRules *rules, Err *err);
// What it will hold, from the stock's names and shapes alone (mlx_plan_free).
MUST_CHECK bool mlx_assistant_plan(const char *stock_dir, const MlxRecipe *recipe, MlxPlan *plan,
                                   Err *err);
// The inputs of such an export from the tensors of a file: *in is the caller's to free.
MUST_CHECK bool mlx_assistant_inputs(const StFile *stock, bool ordered, MlxInput **in, int *n,
                                     Err *err);
// "kept in bf16: ..." where the plan left out what the recipe would have quantised.
void mlx_plan_tell(const MlxPlan *plan, const char *what);

#endif
