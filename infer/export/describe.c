// infer/export/describe.c - recognises artifacts by what is in them, not by their names.
#include "infer/export/describe.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/export/describe_gguf.h"
#include "infer/export/describe_mlx.h"
#include "infer/export/manifest.h"
#include "infer/format/gguf.h"
#include "infer/format/safetensors.h"
#include "infer/model/gemma4_config.h"

enum { JSON_LIMIT = 256 << 20 };

static void put_int(json_t *o, const char *key, int64_t x) {
    json_object_set_new(o, key, json_integer((json_int_t)x));
}

static json_t *of_kind(const char *kind, const char *path) {
    return json_pack("{s:s, s:s}", "kind", kind, "path", path);
}

static json_t *tensor_json(const StTensor *t) {
    json_t *shape = json_array();
    for (int i = 0; i < t->rank; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->dim[i]));
    return json_pack("{s:s, s:s, s:o, s:I}", "name", t->name, "dtype", t->dtype, "shape", shape,
                     "bytes", (json_int_t)t->bytes);
}

static bool put_tensors(json_t *o, const char *path, Err *err) {
    StFile *f = st_open(path, err);
    if (f == NULL) return false;
    json_t *list = json_array(), *dtypes = json_object();
    int64_t elements = 0, bytes = 0;
    for (int i = 0; i < st_count(f); i++) {
        const StTensor *t = st_at(f, i);
        json_array_append_new(list, tensor_json(t));
        put_int(dtypes, t->dtype, json_integer_value(json_object_get(dtypes, t->dtype)) + 1);
        elements += t->count;
        bytes += t->bytes;
    }
    const char *format = st_metadata(f, "format");
    if (format != NULL) json_object_set_new(o, "format", json_string(format));
    put_int(o, "tensor_count", st_count(f));
    put_int(o, "elements", elements);
    put_int(o, "data_bytes", bytes);
    json_object_set_new(o, "dtypes", dtypes);
    json_object_set_new(o, "tensors", list);
    st_close(f);
    return true;
}

static void put_text_config(json_t *o, const TextConfig *c) {
    int64_t full = 0;
    for (int64_t i = 0; i < c->layers; i++) full += c->kind[i] == LAYER_FULL;
    json_object_set_new(o, "model_type", json_string(c->model_type));
    put_int(o, "vocab", c->vocab);
    put_int(o, "hidden", c->hidden);
    put_int(o, "layers", c->layers);
    put_int(o, "full_layers", full);
    put_int(o, "heads", c->heads);
    put_int(o, "window", c->window);
}

static bool is_assistant(const char *dir) {
    char path[PATH_ROOM];
    json_t *c = json_read_file(path_join(path, dir, "config.json"), JSON_LIMIT, NULL);
    const char *type = json_string_value(json_object_get(c, "model_type"));
    const bool is = type != NULL && strstr(type, "assistant") != NULL;
    json_decref(c);
    return is;
}

static bool put_model(json_t *o, const char *dir, Err *err) {
    if (is_assistant(dir)) {
        AssistantConfig c;
        if (!assistant_config_load(&c, dir, err)) return false;
        put_text_config(o, &c.text);
        put_int(o, "backbone_hidden", c.backbone);
        json_object_set_new(o, "head", json_string(c.ordered ? "centroid" : "dense"));
        if (c.ordered)
            put_int(o, "centroids", c.clusters), put_int(o, "centroids_read", c.cluster_topk);
        put_int(o, "num_assistant_tokens", c.draft_tokens);
    } else {
        TargetConfig *c = malloc(sizeof *c); // large: every layer's kind
        if (c == NULL) return err_set(err, ERR_FAILED, "out of memory");
        const bool ok = target_config_load(c, dir, err);
        if (ok) put_text_config(o, &c->text);
        free(c);
        if (!ok) return false;
    }
    return describe_mlx(o, dir, err) && put_tensors(o, dir, err);
}

// A checkpoint of ours: its hashes are checked, its state told.
static bool put_checkpoint(json_t *o, const char *dir, Err *err) {
    char path[PATH_ROOM];
    int64_t step;
    const char *key;
    json_t *value;
    if (!manifest_verify(dir, NULL, 0, &step, err)) return false;
    json_object_set_new(o, "verified", json_true());
    json_t *state = json_read_file(path_join(path, dir, "state.json"), JSON_LIMIT, err);
    if (state == NULL) return false;
    json_object_foreach(state, key, value) json_object_set(o, key, value);
    json_decref(state);
    return put_model(o, dir, err);
}

static bool put_checkpoints(json_t *o, const char *dir, Err *err) {
    char path[PATH_ROOM];
    int n = 0;
    char **names = dir_list(dir, &n, err);
    if (names == NULL) return false;
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        char inner[PATH_ROOM];
        Err damage = {0};
        int64_t step = -1;
        path_join(path, dir, names[i]);
        if (!file_exists(path_join(inner, path, MANIFEST_NAME))) continue;
        const bool whole = manifest_verify(path, NULL, 0, &step, &damage);
        json_array_append_new(list,
                              json_pack("{s:s, s:I, s:s}", "name", names[i], "step",
                                        (json_int_t)step, "state", whole ? "whole" : damage.text));
    }
    dir_list_free(names, n);
    json_object_set_new(o, "checkpoints", list);
    return true;
}

// A PEFT folder: its configuration and its tensors.
static bool put_adapter(json_t *o, const char *dir, Err *err) {
    char path[PATH_ROOM];
    json_t *c = json_read_file(path_join(path, dir, "adapter_config.json"), JSON_LIMIT, err);
    if (c == NULL) return false;
    static const char *const keys[] = {"base_model_name_or_path", "peft_type", "r", "lora_alpha",
                                       "target_modules"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (json_object_get(c, keys[i]) != NULL)
            json_object_set(o, keys[i], json_object_get(c, keys[i]));
    json_decref(c);
    return put_tensors(o, path_join(path, dir, "adapter_model.safetensors"), err);
}

static json_t *describe_dir(const char *path, Err *err) {
    char file[PATH_ROOM];
    json_t *o = NULL;
    bool ok = false;
    if (file_exists(path_join(file, path, MANIFEST_NAME))) {
        ok = put_checkpoint(o = of_kind("checkpoint", path), path, err);
    } else if (file_exists(path_join(file, path, "manifest.json"))) {
        json_t *manifest = json_read_file(file, JSON_LIMIT, err);
        if (manifest == NULL) return NULL;
        ok = json_object_update(o = of_kind("shards", path), manifest) == 0;
        json_decref(manifest);
    } else if (file_exists(path_join(file, path, "mtplx_pair.json"))) {
        ok = describe_bundle(o = of_kind("bundle", path), path, err);
    } else if (file_exists(path_join(file, path, "config.json"))) {
        ok = put_model(o = of_kind(is_assistant(path) ? "assistant" : "target", path), path, err);
    } else if (file_exists(path_join(file, path, "adapter_config.json"))) {
        ok = put_adapter(o = of_kind("adapter", path), path, err);
    } else if (dir_exists(path_join(file, path, "latest"))) {
        ok = put_checkpoints(o = of_kind("checkpoints", path), path, err);
    } else if (has_gguf_files(path)) {
        return describe_gguf_folder(path, err);
    } else {
        err_set(err, ERR_INPUT,
                "%s: neither a model, nor an adapter, nor checkpoints, nor shards, nor a bundle",
                path);
    }
    if (ok) return o;
    json_decref(o);
    return NULL;
}

static json_t *describe_tokenizer(const json_t *t, const char *path) {
    json_t *o = of_kind("tokenizer", path);
    const json_t *model = json_object_get(t, "model"), *merges = json_object_get(model, "merges");
    json_object_set(o, "model", json_object_get(model, "type"));
    put_int(o, "vocab", (int64_t)json_object_size(json_object_get(model, "vocab")));
    put_int(o, "merges", (int64_t)json_array_size(merges));
    put_int(o, "added_tokens", (int64_t)json_array_size(json_object_get(t, "added_tokens")));
    return o;
}

static json_t *describe_json(const char *path, Err *err) {
    json_t *t = json_read_file(path, JSON_LIMIT, err), *o = NULL;
    if (t == NULL) return NULL;
    if (!json_is_object(t)) {
        err_set(err, ERR_INPUT, "%s: not a JSON object", path);
    } else if (json_object_get(t, "model") && json_object_get(t, "added_tokens")) {
        o = describe_tokenizer(t, path);
    } else {
        const bool measured = json_object_get(t, "drafters") && json_object_get(t, "draft_tokens");
        const bool stage = json_object_get(t, "identity") && json_object_get(t, "result");
        o = of_kind(measured ? "acceptance" : stage ? "stage" : "json", path);
        json_object_update(o, t);
    }
    json_decref(t);
    return o;
}

// What certainly is no safetensors file, by its first bytes.
static bool may_be_tensors(const char *path, Err *err) {
    char head[9] = "";
    FILE *f = fopen(path, "rb");
    if (f == NULL) return err_errno(err, "%s", path);
    const size_t n = fread(head, 1, sizeof head, f);
    fclose(f);
    if (n >= 4 && memcmp(head, "\211HDF", 4) == 0)
        return err_set(err, ERR_INPUT,
                       "%s: a capture shard; inspect its folder, whose manifest has its size and "
                       "hash",
                       path);
    if (n == sizeof head && head[8] != '{')
        return err_set(err, ERR_INPUT, "%s: neither safetensors nor JSON (.json)", path);
    return true;
}

json_t *describe(const char *path, Err *err) {
    if (dir_exists(path)) return describe_dir(path, err);
    if (!file_exists(path)) {
        err_set(err, ERR_INPUT, "%s: no such file or folder", path);
        return NULL;
    }
    const size_t n = strlen(path);
    if (gguf_recognises(path)) return describe_gguf(path, err);
    if (n > 5 && strcmp(path + n - 5, ".json") == 0) return describe_json(path, err);
    json_t *o = of_kind("safetensors", path);
    if (may_be_tensors(path, err) && put_tensors(o, path, err)) return o;
    json_decref(o);
    return NULL;
}
