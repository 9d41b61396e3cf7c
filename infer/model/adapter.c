// infer/model/adapter.c - a PEFT LoRA folder: which modules, which scale, W + scale * B A.
#include <math.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/model/adapter_parts.h"

enum { CONFIG_LIMIT = 16 << 20, NAME_ROOM = 257, RANK_MAX = 1 << 16, SPAN = 512 };

// Settings that change what a module computes and that we do not follow: refused unless off.
static bool refuse_unsupported(const json_t *config, Err *err) {
    static const char *const OFF[] = {"use_dora",
                                      "modules_to_save",
                                      "lora_bias",
                                      "layer_replication",
                                      "use_qalora",
                                      "alora_invocation_tokens",
                                      "trainable_token_indices"};
    const char *type = "LORA", *bias = "none";
    if (!json_get_str(config, "peft_type", &type, err) || !json_get_str(config, "bias", &bias, err))
        return false;
    if (strcmp(type, "LORA") != 0)
        return err_set(err, ERR_INPUT, "peft_type is %.64s, supported: LORA", type);
    if (strcmp(bias, "none") != 0)
        return err_set(err, ERR_INPUT, "bias is %.64s, supported: none", bias);
    for (size_t i = 0; i < sizeof OFF / sizeof *OFF; i++) {
        const json_t *v = json_object_get(config, OFF[i]);
        const bool off = v == NULL || json_is_null(v) || json_is_false(v) ||
                         (json_is_array(v) && json_array_size(v) == 0) ||
                         (json_is_object(v) && json_object_size(v) == 0);
        if (!off)
            return err_set(err, ERR_INPUT,
                           "%s is set: not supported, merge the adapter with its own tool", OFF[i]);
    }
    bool turned = false;
    if (!json_get_bool(config, "fan_in_fan_out", &turned, err)) return false;
    if (turned) // PEFT itself sets it aside for linear layers
        log_warn("adapter: fan_in_fan_out is true but every module is a linear layer, ignored");
    return true;
}

// Python's spelling of a pattern in POSIX's: \d and (?: are all that adapters use beyond the
// common.
static bool posix_pattern(const char *pattern, char out[1024]) {
    size_t n = 0;
    n += (size_t)snprintf(out, 1024, "^(.*\\.)?(");
    for (const char *p = pattern; *p != '\0'; p++) {
        if (n + 16 > 1024) return false;
        if (p[0] == '\\' && p[1] == 'd') {
            n += (size_t)snprintf(out + n, 1024 - n, "[0-9]");
            p++;
        } else if (p[0] == '(' && p[1] == '?' && p[2] == ':') {
            out[n++] = '(';
            p += 2;
        } else {
            out[n++] = *p;
            if (*p == '\\' && p[1] != '\0') out[n++] = *++p;
        }
    }
    strcpy(out + n, ")$");
    return true;
}

// The first key of the object that matches the end of the module's name, as PEFT looks it up.
static bool pattern_value(const json_t *config, const char *field, const char *module, double *out,
                          Err *err) {
    const json_t *map = json_object_get(config, field);
    const char *key;
    json_t *value;
    if (map == NULL || json_is_null(map)) return true;
    if (!json_is_object(map)) return err_set(err, ERR_INPUT, "%s is not an object", field);
    json_object_foreach((json_t *)map, key, value) {
        char pattern[1024];
        regex_t regex;
        if (!posix_pattern(key, pattern) || regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB) != 0)
            return err_set(err, ERR_INPUT, "%s: pattern \"%.64s\" is not understood", field, key);
        const bool match = regexec(&regex, module, 0, NULL, 0) == 0;
        regfree(&regex);
        if (!match) continue;
        if (!json_is_number(value))
            return err_set(err, ERR_INPUT, "%s: \"%.64s\" is not a number", field, key);
        *out = json_number_value(value);
        return true;
    }
    return true;
}

bool adapter_scale(const json_t *config, const char *name, double *scale, double *rank, Err *err) {
    double alpha = 8.0; // PEFT's defaults
    bool root = false;
    *rank = 8.0;
    if (!json_get_f64(config, "r", rank, err) || !json_get_f64(config, "lora_alpha", &alpha, err) ||
        !json_get_bool(config, "use_rslora", &root, err) ||
        !pattern_value(config, "rank_pattern", name, rank, err) ||
        !pattern_value(config, "alpha_pattern", name, &alpha, err))
        return false;
    if (!(*rank >= 1.0 && *rank <= RANK_MAX) || *rank != floor(*rank))
        return err_set(err, ERR_INPUT, "module %s: rank %g, must be 1 to %d", name, *rank,
                       RANK_MAX);
    if (!isfinite(alpha))
        return err_set(err, ERR_INPUT, "module %s: lora_alpha is %g", name, alpha);
    *scale = root ? alpha / sqrt(*rank) : alpha / *rank;
    return true;
}

char adapter_split_key(const char *key, char module[NAME_ROOM]) {
    static const char *const ENDS[] = {".weight", ".default.weight"};
    const char *at = strstr(key, ".lora_");
    if (at == NULL || (at[6] != 'A' && at[6] != 'B')) return 0;
    for (int i = 0; i < 2; i++)
        if (strcmp(at + 7, ENDS[i]) == 0) {
            memcpy(module, key, (size_t)(at - key));
            module[at - key] = '\0';
            return at[6];
        }
    return 0;
}

static bool refuse_key(const char *key, Err *err) {
    static const char *const KNOWN[][2] = {{"lora_magnitude_vector", "DoRA"},
                                           {"lora_embedding_", "LoRA of an embedding"},
                                           {"modules_to_save", "modules_to_save"},
                                           {"trainable_tokens", "trainable tokens"},
                                           {".bias", "a trained bias"}};
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (strstr(key, KNOWN[i][0]) != NULL)
            return err_set(err, ERR_INPUT, "tensor %s: %s is not supported", key, KNOWN[i][1]);
    return err_set(err, ERR_INPUT, "tensor %s is neither lora_A nor lora_B of a module", key);
}

AdapterModule *adapter_find(const Adapter *a, const char *name) {
    for (int i = 0; i < a->n; i++)
        if (strcmp(a->module[i].name, name) == 0) return &a->module[i];
    return NULL;
}

static bool add_key(Adapter *a, const StTensor *t, int *towers, Err *err) {
    char module[NAME_ROOM], name[256];
    const char side = adapter_split_key(t->name, module);
    if (side == 0) return refuse_key(t->name, err);
    if (weight_tower(module) != NULL) {
        ++*towers;
        return true;
    }
    if (!weight_canonical(module, name))
        return err_set(err, ERR_INPUT, "module %s is no part of a Gemma 4 model", module);
    if (t->rank != 2)
        return err_set(err, ERR_INPUT, "tensor %s has rank %d, a matrix is needed", t->name,
                       t->rank);
    AdapterModule *m = adapter_find(a, name);
    if (m == NULL) {
        m = &a->module[a->n++];
        *m = (AdapterModule){0};
        strcpy(m->name, name);
    }
    const StTensor **slot = side == 'A' ? &m->a : &m->b;
    if (*slot != NULL)
        return err_set(err, ERR_INPUT, "%s and %s are the same tensor", (*slot)->name, t->name);
    *slot = t;
    return true;
}

static bool finish_module(const Adapter *a, AdapterModule *m, Err *err) {
    char spelled[NAME_ROOM];
    double rank = 0;
    if (m->a == NULL || m->b == NULL)
        return err_set(err, ERR_INPUT, "module %s has no lora_%c", m->name,
                       m->a == NULL ? 'A' : 'B');
    adapter_split_key(m->a->name, spelled);
    const char *name = strncmp(spelled, "base_model.model.", 17) == 0 ? spelled + 17 : spelled;
    if (adapter_is_experts(m->name)) return true; // its rank hangs on the parameter it changes
    if (!adapter_scale(a->config, name, &m->scale, &rank, err)) return false;
    if (m->a->dim[0] != (int64_t)rank || m->b->dim[1] != (int64_t)rank)
        return err_set(
            err, ERR_INPUT,
            "module %s: lora_A is [%lld, %lld], lora_B [%lld, %lld], the configured rank is %g",
            m->name, (long long)m->a->dim[0], (long long)m->a->dim[1], (long long)m->b->dim[0],
            (long long)m->b->dim[1], rank);
    return true;
}

static bool read_adapter(Adapter *a, Err *err) {
    char path[PATH_ROOM];
    if ((a->config = json_read_file(path_join(path, a->dir, "adapter_config.json"), CONFIG_LIMIT,
                                    err)) == NULL)
        return false;
    if (!json_is_object(a->config))
        return err_set(err, ERR_INPUT, "adapter_config.json is not a JSON object");
    if (!refuse_unsupported(a->config, err)) return false;
    if ((a->file = st_open(path_join(path, a->dir, "adapter_model.safetensors"), err)) == NULL)
        return false;
    a->module = calloc((size_t)st_count(a->file) + 1, sizeof *a->module);
    if (a->module == NULL) return err_set(err, ERR_FAILED, "out of memory");
    int towers = 0;
    for (int i = 0; i < st_count(a->file); i++)
        if (!add_key(a, st_at(a->file, i), &towers, err)) return false;
    for (int i = 0; i < a->n; i++)
        if (!finish_module(a, &a->module[i], err)) return false;
    if (towers > 0)
        log_warn("adapter %s: %d tensors of vision or audio modules skipped (text only)", a->dir,
                 towers);
    if (a->n == 0) return err_set(err, ERR_INPUT, "no module of the text model");
    return true;
}

Adapter *adapter_open(const char *dir, Err *err) {
    Adapter *a = calloc(1, sizeof *a);
    if (a != NULL) a->pair = calloc(1, sizeof *a->pair);
    if (a == NULL || a->pair == NULL) {
        err_set(err, ERR_FAILED, "out of memory");
        free(a);
        return NULL;
    }
    if (dir == NULL || dir[0] == '\0') return a;
    if (strlen(dir) >= sizeof a->dir - 64) {
        err_set(err, ERR_INPUT, "path too long");
        goto fail;
    }
    strcpy(a->dir, dir);
    if (read_adapter(a, err)) return a;
fail:
    err_wrap(err, "adapter %s", dir);
    adapter_close(a);
    return NULL;
}

void adapter_close(Adapter *a) {
    if (a == NULL) return;
    json_decref(a->config);
    st_close(a->file);
    if (a->pair != NULL) {
        free(a->pair->a);
        free(a->pair->b);
    }
    free(a->pair);
    free(a->module);
    free(a);
}

int adapter_modules(const Adapter *a) {
    return a->n;
}

bool adapter_all_used(const Adapter *a, Err *err) {
    for (int i = 0; i < a->n; i++)
        if (!a->module[i].used)
            return err_set(err, ERR_INPUT, "adapter %s: module %s has no weight in the model",
                           a->dir, a->module[i].name);
    return true;
}
