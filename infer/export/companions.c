// infer/export/companions.c - carries small files along, changing what must be changed.
#include "infer/export/companions.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"
#include "infer/export/json_edit.h"

enum { CONFIG_LIMIT = 16 << 20 };

static char *edited(const char *name, char *text, const json_t *members, Err *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)members, key, value) {
        if (text == NULL) break;
        char *next = json_text_put(name, text, strlen(text), key, value, err);
        free(text);
        text = next;
    }
    return text;
}

bool carry_json(const char *from_dir, const char *dir, const char *name, const json_t *members,
                Err *err) {
    char from[PATH_ROOM], to[PATH_ROOM];
    size_t size;
    path_join(to, dir, name);
    if (!file_exists(path_join(from, from_dir, name)))
        return json_object_size(members) == 0 || json_write_file(to, members, err);
    if (json_object_size(members) == 0) return file_copy(from, to, err);
    char *text = edited(from, file_read(from, CONFIG_LIMIT, &size, err), members, err);
    const bool ok = text != NULL && file_write(to, text, strlen(text), err);
    free(text);
    return ok;
}

// Sets in `flat` what `text` says by layer only; false: nothing was missing.
static bool flat_keys(json_t *flat, const json_t *text, const TextConfig *c) {
    if (!json_is_object(json_object_get(text, "per_layer_config"))) return false;
    if (json_object_get(text, "global_head_dim") == NULL)
        json_object_set_new(flat, "global_head_dim", json_integer((json_int_t)c->global_head_dim));
    if (json_object_get(text, "num_global_key_value_heads") == NULL)
        json_object_set_new(flat, "num_global_key_value_heads",
                            c->k_eq_v ? json_integer((json_int_t)c->global_kv_heads) : json_null());
    return json_object_size(flat) > 0;
}

bool carry_config(const char *from_dir, const char *dir, const TextConfig *text, json_t *members,
                  Err *err) {
    char path[PATH_ROOM];
    json_t *config = json_read_file(path_join(path, from_dir, "config.json"), CONFIG_LIMIT, err);
    if (config == NULL) return false;
    json_t *inner = json_object_get(config, "text_config"), *flat = json_object();
    if (!json_is_object(inner)) {
        flat_keys(flat, config, text);
        json_object_update(members, flat);
    } else if (flat_keys(flat, inner, text)) {
        json_object_update(inner, flat);
        json_object_set(members, "text_config", inner);
    }
    json_decref(flat);
    json_decref(config);
    return carry_json(from_dir, dir, "config.json", members, err);
}

bool carry_tokenizer(const char *from_dir, const char *dir, Err *err) {
    static const char *const NAMES[] = {"tokenizer.json",          "tokenizer_config.json",
                                        "special_tokens_map.json", "added_tokens.json",
                                        "chat_template.jinja",     "chat_template.json"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (!carry_json(from_dir, dir, NAMES[i], NULL, err)) return false;
    return true;
}

bool carry_generation(const char *from_dir, const char *dir, int64_t k, Err *err) {
    static const char NAME[] = "generation_config.json";
    char path[PATH_ROOM];
    json_t *members = json_object(), *is = NULL;
    if (file_exists(path_join(path, from_dir, NAME)) &&
        (is = json_read_file(path, CONFIG_LIMIT, err)) == NULL) {
        json_decref(members);
        return false;
    }
    if (!json_is_number(json_object_get(is, "temperature")))
        json_object_set_new(members, "temperature", json_real(1.0));
    if (!json_is_number(json_object_get(is, "top_p")))
        json_object_set_new(members, "top_p", json_real(0.95));
    if (!json_is_number(json_object_get(is, "top_k")))
        json_object_set_new(members, "top_k", json_integer(64));
    if (k > 0) json_object_set_new(members, "num_assistant_tokens", json_integer((json_int_t)k));
    const bool ok = carry_json(from_dir, dir, NAME, members, err);
    json_decref(members);
    json_decref(is);
    return ok;
}
