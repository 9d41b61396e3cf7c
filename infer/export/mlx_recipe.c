// infer/export/mlx_recipe.c - recipes by name, and by a table of modules that was measured.
#include "infer/export/mlx_recipe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"

enum { BITS_KEPT = 16 };

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

bool mlx_recipe_mix(MlxRecipe *r, const Mix *mix, const char *prefix, Err *err) {
    *r = (MlxRecipe){.name = "mixed", .mix = mix};
    if (mix->format != MIX_MLX)
        return err_set(err, ERR_INPUT, "the mixture is for %s, MLX is to be written",
                       mix_format_name(mix->format));
    for (int i = 0; i < mix->n; i++) {
        const MixModule *m = &mix->module[i];
        const MlxScheme *s = &m->type.mlx;
        const bool keep = mix_type_plain(&m->type);
        char module[MLX_PATH_ROOM];
        snprintf(module, sizeof module, "%s%s", prefix, m->module);
        mlx_rules_add(&r->own, module, keep, s);
        if (keep) continue;
        if (!r->quantise || s->bits < r->root.bits) r->root = *s;
        r->quantise = true;
    }
    if (r->quantise) return true;
    mlx_recipe_free(r);
    return err_set(err, ERR_INPUT, "the mixture quantises nothing");
}

static json_t *per_layer(const MlxRecipe *r) {
    json_t *list = json_object();
    for (int i = 0; i < r->own.n; i++) {
        const MlxRule *rule = &r->own.rule[i];
        const MixModule *m = &r->mix->module[i];
        json_t *o =
            rule->keep ? json_pack("{s:i}", "bits", BITS_KEPT) : mlx_scheme_json(&rule->scheme);
        if (!isnan(m->kl)) json_object_set_new(o, "kl", json_real(m->kl));
        if (!isnan(m->lost)) json_object_set_new(o, "lost_tokens", json_real(m->lost));
        json_object_set_new(list, rule->module, o);
    }
    return list;
}

bool mlx_recipe_metadata(const MlxRecipe *r, const char *dir, const char *base, Err *err) {
    char path[PATH_ROOM], method[64];
    const Mix *m = r->mix;
    CHECK(m != NULL);
    snprintf(method, sizeof method, "%s_mixed_precision", m->method);
    json_t *o = json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:i, s:i, s:f, s:o}", "method", method,
                          "base_model", base, "reference", m->reference, "target_bpw",
                          m->target_bpw, "achieved_bpw", m->achieved_bpw, "bits_per_weight",
                          m->bits_per_weight, "n_high_bits", m->high, "n_low_bits", m->low,
                          "threshold", 0.0, "per_layer", per_layer(r));
    CHECK_MEMORY(o);
    const bool ok = json_write_file(path_join(path, dir, "optiq_metadata.json"), o, err);
    json_decref(o);
    return ok;
}

void mlx_recipe_free(MlxRecipe *r) {
    mlx_rules_free(&r->own);
}

void mlx_rules_put(const MlxRules *rules, json_t *members) {
    if (!rules->present) return;
    json_object_set_new(members, "quantization", mlx_rules_json(rules));
    json_object_set_new(members, "quantization_config", mlx_rules_json(rules));
}

static int scheme_words(const MlxScheme *s, char *out, size_t room) {
    if (s->mode == MLX_AFFINE)
        return snprintf(out, room, "affine, %d bits, groups of %d", s->bits, s->group);
    return snprintf(out, room, "%s, groups of %d", mlx_mode_name(s->mode), s->group);
}

void mlx_rules_text(const MlxRules *rules, char out[256]) {
    int at = 0, kept = 0, other = 0;
    if (!rules->present) {
        snprintf(out, 256, "bf16");
        return;
    }
    for (int i = 0; i < rules->n; i++) {
        kept += rules->rule[i].keep;
        other += !rules->rule[i].keep && !mlx_scheme_same(&rules->rule[i].scheme, &rules->root);
    }
    at += scheme_words(&rules->root, out, 256);
    if (other > 0) at += snprintf(out + at, 256 - (size_t)at, "; %d modules wider", other);
    if (kept > 3) at += snprintf(out + at, 256 - (size_t)at, "; %d modules as they were", kept);
    for (int i = 0, n = 0; kept <= 3 && i < rules->n && at < 200; i++)
        if (rules->rule[i].keep)
            at += snprintf(out + at, 256 - (size_t)at, "%s%.40s",
                           n++ == 0 ? "; as they were: " : ", ", rules->rule[i].module);
}
