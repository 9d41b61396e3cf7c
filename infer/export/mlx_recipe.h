// infer/export/mlx_recipe.h - how an MLX export is quantised: a default, and modules of their own.
#ifndef EXPORT_MLX_RECIPE_H
#define EXPORT_MLX_RECIPE_H

#include <stdint.h>

#include "infer/format/mlx_rules.h"

// Codes for the scale as stored: less error, other bytes than mx.quantize. AUTO: at 8 bits, where
// it is worth it.
typedef enum { REQUANT_AUTO, REQUANT_NEVER, REQUANT_ALWAYS } Requant;

typedef struct {
    bool quantise; // false: floats stay as they are, all else is meaningless
    bool heads;    // table and centroids of an ordered head too: mlx-vlm cannot draft from them
    Requant requant;
    MlxScheme root;
    MlxRules own;     // modules with a scheme of their own, by their name in the export
    char name[24];    // "bf16", "q8", "mxfp4", "mixed"
    json_t *metadata; // of a mixed recipe: what goes out as optiq_metadata.json, NULL: nothing
} MlxRecipe;

// name: "bf16", "q2" to "q8", "mxfp4", "mxfp8", "nvfp4"; group: of affine modes. ERR_USAGE.
MUST_CHECK bool mlx_recipe_named(MlxRecipe *r, const char *name, int64_t group, Err *err);
// A mixed recipe from a file of the shape of optiq_metadata.json: {"per_layer": {module: {"bits",
// "group_size"[, "mode"]}}, ...}; bits 16: the module stays as it is. Modules that it does not name
// take its narrowest scheme.
MUST_CHECK bool mlx_recipe_file(MlxRecipe *r, const char *path, Err *err);
void mlx_recipe_free(MlxRecipe *r);
bool mlx_recipe_known(const char *name); // whether mlx_recipe_named takes it

#endif
