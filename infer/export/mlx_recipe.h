// infer/export/mlx_recipe.h - how an MLX export is quantised: a default, and modules of their own.
#ifndef EXPORT_MLX_RECIPE_H
#define EXPORT_MLX_RECIPE_H

#include <stdint.h>

#include "infer/export/mix.h"
#include "infer/format/mlx_rules.h"

// Codes for the scale as stored: less error, other bytes than mx.quantize. AUTO: at 8 bits, where
// it is worth it.
typedef enum { REQUANT_AUTO, REQUANT_NEVER, REQUANT_ALWAYS } Requant;

typedef struct {
    bool quantise; // false: floats stay as they are, all else is meaningless
    bool heads;    // table and centroids of an ordered head too: mlx-vlm cannot draft from them
    Requant requant;
    MlxScheme root;
    MlxRules own;   // modules with a scheme of their own, by their name in the export
    char name[24];  // "bf16", "q8", "mxfp4", "mixed"
    const Mix *mix; // of a mixed recipe, borrowed
} MlxRecipe;

// name: "bf16", "q2" to "q8", "mxfp4", "mxfp8", "nvfp4"; group: of affine modes. ERR_USAGE.
MUST_CHECK bool mlx_recipe_named(MlxRecipe *r, const char *name, int64_t group, Err *err);
// A mixed recipe; modules that the mixture does not name take its narrowest scheme. prefix: what
// the export puts in front of its names. ERR_INPUT: it is for another format, or keeps everything.
MUST_CHECK bool mlx_recipe_mix(MlxRecipe *r, const Mix *mix, const char *prefix, Err *err);
// optiq_metadata.json of a mixed recipe in dir. base: the model it was made from.
MUST_CHECK bool mlx_recipe_metadata(const MlxRecipe *r, const char *dir, const char *base,
                                    Err *err);
void mlx_recipe_free(MlxRecipe *r);
// What a model's rules come to, for people: "bf16", or "affine, 4 bits, groups of 64; as they were:
// model.embed_tokens".
void mlx_rules_text(const MlxRules *rules, char out[256]);
// Sets "quantization" and its copy "quantization_config" in members; nothing where there is none.
void mlx_rules_put(const MlxRules *rules, json_t *members);
bool mlx_recipe_known(const char *name); // whether mlx_recipe_named takes it

#endif
