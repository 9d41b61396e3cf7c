// infer/export/mlx_plan.h - what an MLX export holds: every tensor with its dtype, shape and shard,
// from names and shapes alone.
#ifndef EXPORT_MLX_PLAN_H
#define EXPORT_MLX_PLAN_H

#include "infer/export/mlx_recipe.h"
#include "infer/format/safetensors.h"

// A tensor that goes in, under the key it has in the export.
typedef struct {
    char name[MLX_PATH_ROOM];
    char dtype[12]; // as its rows are given
    int rank;
    int64_t dim[ST_RANK_MAX];
    bool head;  // table or centroids of an ordered head
    bool never; // a weight that MLX has no quantised module for
    bool fixed; // 8 bits in groups of 64 whatever the recipe says: the router of experts
} MlxInput;

typedef enum { MLX_PLAIN, MLX_WORDS, MLX_SCALES, MLX_BIASES } MlxPart;

typedef struct {
    char name[MLX_PATH_ROOM + 8];
    char dtype[12];
    int rank;
    int64_t dim[ST_RANK_MAX];
    int64_t bytes;
    MlxPart part;
    int input, shard;
} MlxOutput;

typedef struct {
    MlxOutput *out;
    int n;
    MlxScheme *scheme; // by input, of those that are quantised
    bool *quantised;   // by input
    MlxRules rules;    // the block of config.json; present: something is quantised
    int shards;
    int64_t bytes;             // of all tensors
    int64_t elements;          // of all inputs
    int64_t weights;           // of the quantised ones
    double bits;               // width of a quantised weight, the mean
    int kept_heads;            // modules of an ordered head that stay as they are
    int kept_rows;             // modules whose rows are no multiple of the group
    char unfit[MLX_PATH_ROOM]; // the first of those
} MlxPlan;

#define MLX_SHARD_BYTES (INT64_C(5) << 30) // as MLX tools split

// inputs in the order of the shards. A module of the recipe that names no input is ERR_INPUT.
MUST_CHECK bool mlx_plan_make(MlxPlan *p, const MlxInput *in, int n, const MlxRecipe *r,
                              int64_t shard_bytes, Err *err);
void mlx_plan_free(MlxPlan *p);
// "model.safetensors", or "model-00001-of-00003.safetensors".
const char *mlx_shard_name(const MlxPlan *p, int shard, char out[64]);

#endif
