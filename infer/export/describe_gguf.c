// infer/export/describe_gguf.c - keys and tensors of GGUF files as JSON.
#include "infer/export/describe_gguf.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/utf8.h"
#include "infer/model/source_gguf.h"

enum { TEXT_SHOWN = 256, ELEMENTS_SHOWN = 64 };

static void put_int(json_t *o, const char *key, int64_t x) {
    json_object_set_new(o, key, json_integer((json_int_t)x));
}

static json_t *text_json(GgufText t) {
    if (t.size > TEXT_SHOWN || !utf8_valid(t.at, t.size) || memchr(t.at, 0, t.size) != NULL)
        return json_pack("{s:s, s:I}", "type", "text", "bytes", (json_int_t)t.size);
    return json_stringn(t.at, t.size);
}

// Element i; texts come in order from the cursor.
static json_t *element_json(const GgufFile *f, const GgufValue *v, int64_t i, GgufCursor *cursor) {
    GgufText text;
    int64_t x;
    double y;
    if (gguf_text_next(f, v, cursor, &text)) return text_json(text);
    if (v->kind == GGUF_BOOL && gguf_int_at(f, v, i, &x)) return json_boolean(x != 0);
    if (gguf_int_at(f, v, i, &x)) return json_integer((json_int_t)x);
    json_t *real = gguf_real_at(f, v, i, &y) ? json_real(y) : NULL;
    return real != NULL ? real : json_null(); // NaN, infinities, u64 beyond what JSON is given
}

static json_t *value_json(const GgufFile *f, const GgufValue *v) {
    GgufCursor cursor = {0};
    if (!v->array) return element_json(f, v, 0, &cursor);
    if (v->count > ELEMENTS_SHOWN)
        return json_pack("{s:s, s:I}", "type", gguf_kind_name(v->kind), "count",
                         (json_int_t)v->count);
    json_t *list = json_array();
    for (int64_t i = 0; i < v->count; i++)
        json_array_append_new(list, element_json(f, v, i, &cursor));
    return list;
}

static json_t *keys_json(const GgufFile *f) {
    json_t *o = json_object();
    for (int i = 0; i < gguf_values(f); i++)
        json_object_set_new(o, gguf_value_at(f, i)->key, value_json(f, gguf_value_at(f, i)));
    return o;
}

static void put_tensors(json_t *o, const GgufFile *f) {
    json_t *list = json_array(), *types = json_object();
    int64_t elements = 0, bytes = 0;
    for (int i = 0; i < gguf_count(f); i++) {
        const GgufTensor *t = gguf_at(f, i);
        json_t *shape = json_array(); // slowest first, as everywhere else
        for (int k = t->rank; k-- > 0;)
            json_array_append_new(shape, json_integer((json_int_t)t->dim[k]));
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:I}", "name", t->name, "dtype",
                                              t->type->name, "shape", shape, "bytes",
                                              (json_int_t)t->bytes));
        put_int(types, t->type->name,
                json_integer_value(json_object_get(types, t->type->name)) + 1);
        elements += t->count;
        bytes += t->bytes;
    }
    put_int(o, "tensor_count", gguf_count(f));
    put_int(o, "elements", elements);
    put_int(o, "data_bytes", bytes);
    put_int(o, "section_bytes", gguf_data_bytes(f)); // with the padding
    json_object_set_new(o, "dtypes", types);
    json_object_set_new(o, "tensors", list);
}

// "Q4_K_M", or the name of a mix of our own.
static void put_mix(json_t *o, const GgufFile *f) {
    GgufText own;
    int64_t type;
    if (gguf_text(f, GGUF_MIX_KEY, &own, NULL))
        json_object_set_new(o, "mix", text_json(own));
    else if (gguf_int(f, "general.file_type", 0, INT32_MAX, &type, NULL))
        json_object_set_new(o, "mix", json_string(gguf_file_type_name(type)));
}

static bool put_assistant(json_t *o, const GgufFile *f, Err *err) {
    AssistantConfig c;
    GgufDialect d;
    if (!gguf_dialect(&d, f, NULL)) return true; // some other model
    if (!gguf_assistant_config(&c, &d, f, err)) return false;
    put_int(o, "vocab", c.text.vocab);
    put_int(o, "hidden", c.text.hidden);
    put_int(o, "layers", c.text.layers);
    put_int(o, "heads", c.text.heads);
    put_int(o, "window", c.text.window);
    put_int(o, "backbone_hidden", c.backbone);
    json_object_set_new(o, "head", json_string("dense"));
    return true;
}

json_t *describe_gguf(const char *path, Err *err) {
    GgufFile *f = gguf_open(path, err);
    if (f == NULL) return NULL;
    GgufText arch;
    json_t *o = json_pack("{s:s, s:s}", "kind", "gguf", "path", path);
    if (gguf_text(f, "general.architecture", &arch, NULL))
        json_object_set_new(o, "architecture", text_json(arch));
    put_mix(o, f);
    const bool ok = put_assistant(o, f, err);
    json_object_set_new(o, "keys", keys_json(f));
    put_tensors(o, f);
    gguf_close(f);
    if (ok) return o;
    json_decref(o);
    return NULL;
}

static bool is_gguf_name(const char *name) {
    const size_t n = strlen(name);
    return n > 5 && strcmp(name + n - 5, ".gguf") == 0;
}

bool has_gguf_files(const char *dir) {
    int n = 0;
    bool any = false;
    char **names = dir_list(dir, &n, NULL);
    for (int i = 0; names != NULL && i < n; i++) any |= is_gguf_name(names[i]);
    if (names != NULL) dir_list_free(names, n);
    return any;
}

json_t *describe_gguf_folder(const char *dir, Err *err) {
    static const char *const KEPT[] = {"architecture", "mix", "tensor_count", "section_bytes"};
    char path[PATH_ROOM];
    int n = 0;
    char **names = dir_list(dir, &n, err);
    if (names == NULL) return NULL;
    json_t *files = json_array();
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        if (!is_gguf_name(names[i])) continue;
        json_t *one = describe_gguf(path_join(path, dir, names[i]), err);
        ok = one != NULL;
        json_t *row = json_pack("{s:s}", "name", names[i]);
        for (size_t k = 0; ok && k < sizeof KEPT / sizeof *KEPT; k++)
            if (json_object_get(one, KEPT[k]) != NULL)
                json_object_set(row, KEPT[k], json_object_get(one, KEPT[k]));
        json_array_append_new(files, row);
        json_decref(one);
    }
    dir_list_free(names, n);
    if (ok) return json_pack("{s:s, s:s, s:o}", "kind", "gguf folder", "path", dir, "files", files);
    json_decref(files);
    return NULL;
}
