// infer/format/mlx_rules.c - the block read strictly, found by module, written as MLX tools do.
#include "infer/format/mlx_rules.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"

enum { CONFIG_LIMIT = 16 << 20 };

json_t *mlx_scheme_json(const MlxScheme *s) {
    json_t *o = json_pack("{s:i, s:i}", "group_size", s->group, "bits", s->bits);
    if (s->mode != MLX_AFFINE) json_object_set_new(o, "mode", json_string(mlx_mode_name(s->mode)));
    return o;
}

bool mlx_scheme_read(MlxScheme *s, const json_t *o, Err *err) {
    int64_t group = -1, bits = -1;
    const char *mode = "affine";
    if (!json_get_i64(o, "group_size", &group, err) || !json_get_i64(o, "bits", &bits, err) ||
        !json_get_str(o, "mode", &mode, err))
        return false;
    *s = (MlxScheme){0};
    if (!mlx_mode_named(mode, &s->mode))
        return err_set(err, ERR_INPUT, "mode \"%.32s\", known are affine, mxfp4, mxfp8 and nvfp4",
                       mode);
    if (group < 0 || bits < 0)
        return err_set(err, ERR_INPUT, "no \"%s\"", group < 0 ? "group_size" : "bits");
    s->group = group > INT32_MAX ? INT32_MAX : (int)group;
    s->bits = bits > INT32_MAX ? INT32_MAX : (int)bits;
    Err wrong = {0};
    return mlx_scheme_check(s, &wrong) || err_set(err, ERR_INPUT, "%.500s", wrong.text);
}

bool mlx_scheme_same(const MlxScheme *a, const MlxScheme *b) {
    return a->mode == b->mode && a->bits == b->bits && a->group == b->group;
}

const char *mlx_scheme_name(const MlxScheme *s, char out[16]) {
    if (s->mode == MLX_AFFINE) {
        snprintf(out, 16, "Q%d", s->bits);
        return out;
    }
    snprintf(out, 16, "%s", mlx_mode_name(s->mode));
    for (char *p = out; *p != '\0'; p++) *p = (char)toupper((unsigned char)*p);
    return out;
}

void mlx_rules_add(MlxRules *rules, const char *module, bool keep, const MlxScheme *scheme) {
    CHECK(strlen(module) < MLX_PATH_ROOM);
    if (rules->n == rules->room) {
        rules->room = rules->room == 0 ? 64 : 2 * rules->room;
        rules->rule = realloc(rules->rule, (size_t)rules->room * sizeof *rules->rule);
        CHECK_MEMORY(rules->rule);
    }
    MlxRule *r = &rules->rule[rules->n++];
    *r = (MlxRule){.keep = keep};
    if (!keep) r->scheme = *scheme;
    strcpy(r->module, module);
}

void mlx_rules_free(MlxRules *rules) {
    free(rules->rule);
    *rules = (MlxRules){0};
}

const MlxRule *mlx_rules_find(const MlxRules *rules, const char *module) {
    for (int i = 0; i < rules->n; i++)
        if (strcmp(rules->rule[i].module, module) == 0) return &rules->rule[i];
    return NULL;
}

static bool is_root_key(const char *key) {
    static const char *const KEYS[] = {"group_size",   "bits",         "mode",
                                       "quant_method", "linear_class", "quantization_mode"};
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++)
        if (strcmp(key, KEYS[i]) == 0) return true;
    return false;
}

static bool read_entry(MlxRules *rules, const char *key, const json_t *value, Err *err) {
    MlxScheme scheme = rules->root;
    if (strlen(key) >= MLX_PATH_ROOM)
        return err_set(err, ERR_INPUT, "quantization: a module's name of %zu bytes, at most %d",
                       strlen(key), MLX_PATH_ROOM - 1);
    if (!json_is_object(value) && !json_is_boolean(value))
        return err_set(err, ERR_INPUT,
                       "quantization: \"%s\" is neither an object nor true or false", key);
    if (json_is_object(value) && !mlx_scheme_read(&scheme, value, err))
        return err_wrap(err, "quantization: \"%s\"", key);
    mlx_rules_add(rules, key, json_is_false(value), &scheme);
    return true;
}

static bool read_block(MlxRules *rules, const json_t *block, Err *err) {
    const char *key;
    json_t *value;
    if (!json_is_object(block)) return err_set(err, ERR_INPUT, "quantization is no object");
    if (!mlx_scheme_read(&rules->root, block, err)) return err_wrap(err, "quantization");
    json_object_foreach((json_t *)block, key, value) {
        if (!is_root_key(key) && !read_entry(rules, key, value, err)) return false;
    }
    return true;
}

bool mlx_rules_read(MlxRules *rules, const json_t *config, Err *err) {
    const json_t *block = json_object_get(config, "quantization"),
                 *copy = json_object_get(config, "quantization_config");
    mlx_rules_free(rules);
    if (block == NULL || json_is_null(block)) return true;
    if (copy != NULL && !json_equal(block, copy))
        return err_set(err, ERR_INPUT, "quantization and quantization_config differ");
    if (!read_block(rules, block, err)) return false;
    rules->present = true;
    return true;
}

bool mlx_rules_load(MlxRules *rules, const char *dir, Err *err) {
    char path[PATH_ROOM];
    json_t *config = json_read_file(path_join(path, dir, "config.json"), CONFIG_LIMIT, err);
    if (config == NULL) return false;
    const bool ok = mlx_rules_read(rules, config, err) || err_wrap(err, "%s", path);
    json_decref(config);
    return ok;
}

json_t *mlx_rules_json(const MlxRules *rules) {
    json_t *block = json_pack("{s:i, s:i, s:s}", "group_size", rules->root.group, "bits",
                              rules->root.bits, "mode", mlx_mode_name(rules->root.mode));
    for (int i = 0; i < rules->n; i++)
        json_object_set_new(block, rules->rule[i].module,
                            rules->rule[i].keep ? json_false()
                                                : mlx_scheme_json(&rules->rule[i].scheme));
    return block;
}
