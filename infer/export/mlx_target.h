// infer/export/mlx_target.h - the merged target as mlx-lm saves one: text only, its keys, quantised
// as a recipe says (spec export-formats C6).
#ifndef EXPORT_MLX_TARGET_H
#define EXPORT_MLX_TARGET_H

#include "infer/export/mlx_plan.h"
#include "infer/model/target_merged.h"

// "language_model.model." where config.json nests the text model, else "model.".
MUST_CHECK bool mlx_target_prefix(const char *dir, const char **prefix, Err *err);

// A tensor of the export and the rows of the source it is made of: all of them, or the upper or
// lower half of every expert's.
typedef struct {
    int source;
    int64_t rows, skip; // of every matrix: taken, and passed over before them; rows 0: all
} MlxTargetPart;

// Inputs of the export from names and shapes: *in and *part (the same count) are the caller's to
// free.
MUST_CHECK bool mlx_target_inputs(const TargetMerged *m, const char *prefix, MlxInput **in,
                                  MlxTargetPart **part, int *n, Err *err);
// What mlx_target_write will hold (mlx_plan_free); reads headers alone.
MUST_CHECK bool mlx_target_plan(const char *dir, const char *adapter, const MlxRecipe *recipe,
                                int64_t shard_bytes, MlxPlan *plan, Err *err);
// Weights, index, configuration and tokenizer into out_dir, which is there. One module at a time;
// shards of shard_bytes. encoding: for the card.
MUST_CHECK bool mlx_target_write(const char *dir, const char *adapter, const char *out_dir,
                                 const MlxRecipe *recipe, int64_t shard_bytes, char encoding[256],
                                 Err *err);

#endif
