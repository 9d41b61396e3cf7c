// infer/export/mlx_recipe.c - recipes by name, and by a table of modules that was measured.
#include "infer/export/mlx_recipe.h"

#include <stdio.h>
#include <string.h>

#include "infer/base/json.h"

enum { METADATA_LIMIT = 16 << 20, BITS_KEPT = 16 };

// "q4" and the float modes; false: no such name.
static bool scheme_named(MlxScheme *s, const char *name, int64_t group) {
    if (mlx_mode_named(name, &s->mode) && s->mode != MLX_AFFINE) {
        *s = mlx_scheme(s->mode);
        return true;
    }
    if (name[0] != 'q' || name[1] < '2' || name[1] > '8' || name[1] == '7' || name[2] != '\0')
        return false;
    *s = mlx_scheme(MLX_AFFINE);
    s->bits = name[1] - '0';
    s->group = (int)group;
    return true;
}

bool mlx_recipe_known(const char *name) {
    MlxScheme ignored;
    return strcmp(name, "bf16") == 0 || scheme_named(&ignored, name, 64);
}

bool mlx_recipe_named(MlxRecipe *r, const char *name, int64_t group, Err *err) {
    *r = (MlxRecipe){0};
    snprintf(r->name, sizeof r->name, "%s", name);
    if (strcmp(name, "bf16") == 0) return true;
    if (!scheme_named(&r->root, name, group))
        return err_set(err, ERR_USAGE,
                       "MLX has no \"%.32s\": bf16, q2, q3, q4, q5, q6, q8, mxfp4, mxfp8, nvfp4",
                       name);
    r->quantise = true;
    return mlx_scheme_check(&r->root, err);
}

static bool add_module(MlxRecipe *r, const char *module, const json_t *entry, Err *err) {
    int64_t bits = -1;
    MlxScheme s = {0};
    if (!json_is_object(entry) || strlen(module) >= MLX_PATH_ROOM)
        return err_set(err, ERR_INPUT, "per_layer: \"%.64s\" is no object, or its name too long",
                       module);
    if (!json_get_i64(entry, "bits", &bits, err)) return err_wrap(err, "per_layer: \"%s\"", module);
    if (bits != BITS_KEPT && !mlx_scheme_read(&s, entry, err))
        return err_wrap(err, "per_layer: \"%s\"", module);
    mlx_rules_add(&r->own, module, bits == BITS_KEPT, &s);
    if (bits != BITS_KEPT && (!r->quantise || s.bits < r->root.bits)) r->root = s;
    r->quantise = r->quantise || bits != BITS_KEPT;
    return true;
}

bool mlx_recipe_file(MlxRecipe *r, const char *path, Err *err) {
    const char *module;
    json_t *entry;
    *r = (MlxRecipe){.name = "mixed"};
    if ((r->metadata = json_read_file(path, METADATA_LIMIT, err)) == NULL) return false;
    const json_t *list = json_object_get(r->metadata, "per_layer");
    if (list == NULL) // older files
        list = json_object_get(json_object_get(r->metadata, "optimization"), "per_layer");
    bool ok = json_is_object(list) && json_object_size(list) > 0;
    if (!ok) err_set(err, ERR_INPUT, "no table \"per_layer\" of modules");
    json_object_foreach((json_t *)list, module, entry) ok = ok && add_module(r, module, entry, err);
    if (ok && !r->quantise) ok = err_set(err, ERR_INPUT, "per_layer quantises nothing");
    if (ok) return true;
    mlx_recipe_free(r);
    return err_wrap(err, "%s", path);
}

void mlx_recipe_free(MlxRecipe *r) {
    mlx_rules_free(&r->own);
    json_decref(r->metadata);
    r->metadata = NULL;
}
