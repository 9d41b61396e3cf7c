// infer/export/mlx.c - one safetensors file in the reference writer's order, and the index MLX
// writes.
#include "infer/export/mlx.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"

static bool is_ordering(const StTensor *t) {
    return strcmp(t->name, "masked_embedding.token_ordering") == 0;
}

// I64 -> I32 in place; an id that does not fit would name another token.
static bool narrow(const StTensor *t, void *data, int64_t *bytes, Err *err) {
    if (strcmp(t->dtype, "I32") == 0) return true;
    if (strcmp(t->dtype, "I64") != 0)
        return err_set(err, ERR_INPUT, "%s: dtype %s, expected I64 or I32", t->name, t->dtype);
    const char *from = data;
    char *to = data;
    for (int64_t i = 0; i < t->count; i++) {
        int64_t id;
        memcpy(&id, from + i * 8, 8);
        if (id < 0 || id > INT32_MAX)
            return err_set(err, ERR_INPUT, "%s[%lld]: %lld is no token id", t->name, (long long)i,
                           (long long)id);
        const int32_t small = (int32_t)id;
        memcpy(to + i * 4, &small, 4);
    }
    *bytes = t->count * 4;
    return true;
}

static bool declare_all(const StFile *stock, StWriter *w, Err *err) {
    for (int i = 0; i < st_count(stock); i++) {
        const StTensor *t = st_at(stock, i);
        if (!st_writer_declare(w, t->name, is_ordering(t) ? "I32" : t->dtype, t->rank, t->dim, err))
            return false;
    }
    st_writer_metadata(w, "format", "mlx");
    return st_writer_begin(w, err);
}

static bool write_tensor(const StFile *stock, const char *name, StWriter *w, const HfSource *src,
                         int64_t *total, Err *err) {
    const StTensor *t = st_find(stock, name);
    void *data = malloc((size_t)t->bytes + 1);
    int64_t bytes = t->bytes;
    bool have = false;
    bool ok = data != NULL || err_set(err, ERR_FAILED, "%s: out of memory", name);
    ok = ok && src->fetch(src->ctx, t, data, &have, err);
    if (ok && !have) ok = st_read(stock, t, data, err);
    if (ok && is_ordering(t)) ok = narrow(t, data, &bytes, err);
    ok = ok && st_writer_data(w, data, bytes, err);
    *total += bytes;
    free(data);
    return ok;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// {"metadata": {"total_size": n}, "weight_map": {name: file, ...}}, names ascending, indent 4.
static bool write_index(const StFile *stock, const char *out_dir, int64_t total, Err *err) {
    char path[PATH_ROOM];
    const int n = st_count(stock);
    const char **names = malloc((size_t)(n + 1) * sizeof *names);
    json_t *map = json_object();
    if (names == NULL || map == NULL) {
        free(names);
        json_decref(map);
        return err_set(err, ERR_FAILED, "out of memory");
    }
    for (int i = 0; i < n; i++) names[i] = st_at(stock, i)->name;
    qsort(names, (size_t)n, sizeof *names, by_name);
    for (int i = 0; i < n; i++)
        json_object_set_new(map, names[i], json_string("model.safetensors"));
    free(names);
    json_t *index =
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    char *text = index ? json_dumps(index, JSON_INDENT(4)) : NULL;
    json_decref(index);
    if (text == NULL) return err_set(err, ERR_FAILED, "out of memory");
    const bool ok = file_write(path_join(path, out_dir, "model.safetensors.index.json"), text,
                               strlen(text), err);
    free(text);
    return ok;
}

bool mlx_write(const char *stock_dir, const char *out_dir, const HfSource *src, Err *err) {
    char path[PATH_ROOM];
    int64_t total = 0;
    StFile *stock = st_open(stock_dir, err);
    StWriter *w = NULL;
    if (stock == NULL) return false;
    bool ok = (w = st_writer_open(path_join(path, out_dir, "model.safetensors"), err)) != NULL;
    ok = ok && declare_all(stock, w, err);
    for (int i = 0; ok && i < st_writer_count(w); i++)
        ok = write_tensor(stock, st_writer_order(w, i)->name, w, src, &total, err);
    if (ok)
        ok = st_writer_commit(w, err);
    else
        st_writer_drop(w);
    ok = ok && write_index(stock, out_dir, total, err);
    st_close(stock);
    return ok;
}
