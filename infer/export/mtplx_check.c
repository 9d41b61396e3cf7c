// infer/export/mtplx_check.c - completeness of both halves, their weights, and the configurations
// that MTPLX knows.
#include "infer/export/mtplx_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"
#include "infer/export/hf.h"
#include "infer/format/mlx_model.h"
#include "infer/model/assistant.h"

enum { CONFIG_LIMIT = 16 << 20 };

static bool check_files(const char *half, Err *err) {
    char path[PATH_ROOM];
    int n = 0;
    int64_t size = 0;
    static const char *const NEEDED[] = {"config.json", "generation_config.json", "tokenizer.json"};
    for (size_t i = 0; i < sizeof NEEDED / sizeof *NEEDED; i++)
        if (!file_exists(path_join(path, half, NEEDED[i])))
            return err_set(err, ERR_INPUT, "%s: missing", path);
    char **files = hf_weight_files(half, &n, err);
    bool ok = files != NULL;
    for (int i = 0; ok && i < n; i++) {
        if (!file_exists(path_join(path, half, files[i])))
            ok = err_set(err, ERR_INPUT, "%s: the index names it, it is not there", path);
        ok = ok && file_size(path, &size, err) &&
             (size > 0 || err_set(err, ERR_INPUT, "%s: empty", path));
    }
    dir_list_free(files, n);
    return ok;
}

static bool check_half(const char *half, Err *err) {
    if (!dir_exists(half)) return err_set(err, ERR_INPUT, "%s: no such folder", half);
    if (!check_files(half, err)) return false;
    MlxModel *m = mlx_model_open(half, err);
    mlx_model_close(m);
    return m != NULL;
}

static bool has(const MlxModel *m, const char *name, int *found, Err *err) {
    *found += 1;
    return mlx_model_find(m, name) != NULL || err_set(err, ERR_INPUT, "no tensor %s", name);
}

// MLX loads strictly: a tensor too few or too many is refused.
static bool check_keys(const MlxModel *m, const AssistantConfig *c, Err *err) {
    AssistantWeights w;
    AssistantParam p[ASSISTANT_PARAMS_MAX];
    int found = 0;
    assistant_layout(c, &w, NULL, DT_BF16);
    const int n = assistant_params(c, &w, p);
    for (int i = 0; i < n; i++)
        if (!has(m, p[i].name, &found, err)) return false;
    for (int i = 0; i < c->text.layers; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%d.layer_scalar", i);
        if (!has(m, name, &found, err)) return false;
    }
    if (c->ordered && !has(m, "masked_embedding.token_ordering", &found, err)) return false;
    return found == mlx_model_count(m) ||
           err_set(err, ERR_INPUT, "%d tensors, an assistant of this configuration has %d",
                   mlx_model_count(m), found);
}

static bool check_assistant(const char *half, Err *err) {
    AssistantConfig c;
    if (!assistant_config_load(&c, half, err)) return false;
    MlxModel *m = mlx_model_open(half, err);
    if (m == NULL) return false;
    const bool ok = check_keys(m, &c, err) || err_wrap(err, "%s", half);
    mlx_model_close(m);
    return ok;
}

bool mtplx_check_bundle(const char *dir, Err *err) {
    char path[PATH_ROOM], target[PATH_ROOM], assistant[PATH_ROOM];
    json_t *marker = json_read_file(path_join(path, dir, "mtplx_pair.json"), CONFIG_LIMIT, err);
    if (marker == NULL) return false;
    const bool object = json_is_object(marker);
    json_decref(marker);
    if (!object) return err_set(err, ERR_INPUT, "%s: no JSON object", path);
    path_join(target, dir, "target");
    path_join(assistant, dir, "assistant");
    return check_half(target, err) && check_half(assistant, err) && check_assistant(assistant, err);
}

// One thing that MTPLX compares.
typedef struct {
    const char *key;
    int64_t want;
} Want;

static int64_t number_or(const json_t *o, const char *key, int64_t absent) {
    const json_t *v = json_object_get(o, key);
    return json_is_boolean(v)   ? json_is_true(v)
           : json_is_integer(v) ? json_integer_value(v)
                                : absent;
}

static bool differs(const json_t *o, const Want *want, size_t n, const char *whose, char *why,
                    size_t room) {
    for (size_t i = 0; i < n; i++) {
        const int64_t is = number_or(o, want[i].key, want[i].want == 0 ? 0 : -1);
        if (is == want[i].want) continue;
        snprintf(why, room, "%s: %s is %lld, MTPLX takes %lld", whose, want[i].key, (long long)is,
                 (long long)want[i].want);
        return true;
    }
    return false;
}

static bool layers_differ(const json_t *text, char *why, size_t room) {
    static const char *const KIND[] = {"sliding_attention", "sliding_attention",
                                       "sliding_attention", "full_attention"};
    const json_t *list = json_object_get(text, "layer_types");
    bool same = json_array_size(list) == 4;
    for (size_t i = 0; same && i < 4; i++) {
        const char *kind = json_string_value(json_array_get(list, i));
        same = kind != NULL && strcmp(kind, KIND[i]) == 0;
    }
    if (!same) snprintf(why, room, "assistant: layer_types are not three sliding and one full");
    return !same;
}

static bool type_differs(const json_t *o, const char *type, const char *architecture,
                         const char *whose, char *why, size_t room) {
    const char *is = json_string_value(json_object_get(o, "model_type")),
               *arch = json_string_value(json_array_get(json_object_get(o, "architectures"), 0));
    if ((is != NULL && strncmp(is, type, strlen(type)) == 0) ||
        (arch != NULL && strstr(arch, architecture) != NULL))
        return false;
    snprintf(why, room, "%s: model_type is %s", whose, is != NULL ? is : "absent");
    return true;
}

static const json_t *text_of(const json_t *config) {
    const json_t *text = json_object_get(config, "text_config");
    return json_is_object(text) ? text : config;
}

bool mtplx_runnable(const char *dir, char *why, size_t room, Err *err) {
    static const Want TARGET[] = {{"hidden_size", 5376},
                                  {"num_hidden_layers", 60},
                                  {"hidden_size_per_layer_input", 0},
                                  {"enable_moe_block", 0}};
    static const Want ROOT[] = {{"backbone_hidden_size", 5376}, {"use_ordered_embeddings", 0}};
    static const Want TEXT[] = {
        {"hidden_size", 1024}, {"num_hidden_layers", 4}, {"num_kv_shared_layers", 4}};
    char path[PATH_ROOM];
    why[0] = '\0';
    json_t *t = json_read_file(path_join(path, dir, "target/config.json"), CONFIG_LIMIT, err);
    json_t *a = t == NULL ? NULL
                          : json_read_file(path_join(path, dir, "assistant/config.json"),
                                           CONFIG_LIMIT, err);
    if (a != NULL)
        (void)(type_differs(t, "gemma4", "Gemma4", "target", why, room) ||
               differs(text_of(t), TARGET, 4, "target", why, room) ||
               type_differs(a, "gemma4_assistant", "Gemma4Assistant", "assistant", why, room) ||
               differs(a, ROOT, 2, "assistant", why, room) ||
               differs(text_of(a), TEXT, 3, "assistant", why, room) ||
               layers_differ(text_of(a), why, room));
    const bool ok = a != NULL;
    json_decref(t);
    json_decref(a);
    return ok;
}
