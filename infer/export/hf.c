// infer/export/hf.c - mirrors safetensors files tensor by tensor.
#include "infer/export/hf.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/fp.h"
#include "infer/base/json.h"

enum { HEADER_LIMIT = 100000000, INDEX_LIMIT = 64 << 20 };

static bool file_list_add(char ***list, int *n, const char *name, Err *err) {
    for (int i = 0; i < *n; i++)
        if (strcmp((*list)[i], name) == 0) return true;
    char **grown = realloc(*list, (size_t)(*n + 1) * sizeof *grown);
    if (grown != NULL) *list = grown;
    if (grown == NULL || (grown[*n] = strdup(name)) == NULL)
        return err_set(err, ERR_FAILED, "out of memory");
    (*n)++;
    return true;
}

char **hf_weight_files(const char *dir, int *n, Err *err) {
    char path[PATH_ROOM];
    char **list = NULL;
    *n = 0;
    if (file_exists(path_join(path, dir, "model.safetensors")))
        return file_list_add(&list, n, "model.safetensors", err) ? list : NULL;
    json_t *index =
        json_read_file(path_join(path, dir, "model.safetensors.index.json"), INDEX_LIMIT, err);
    if (index == NULL) return NULL;
    json_t *map = json_object_get(index, "weight_map"), *file;
    const char *key;
    bool ok = json_is_object(map) && json_object_size(map) > 0;
    if (!ok) err_set(err, ERR_INPUT, "%s: no weight_map", path);
    json_object_foreach(map, key, file) {
        if (!ok) break;
        const char *name = json_string_value(file);
        ok = name != NULL && strchr(name, '/') == NULL;
        if (!ok) err_set(err, ERR_INPUT, "%s: weight_map of '%s' is not a file name", path, key);
        ok = ok && file_list_add(&list, n, name, err);
    }
    json_decref(index);
    if (ok) return list;
    dir_list_free(list, *n);
    return NULL;
}

bool hf_store_f32(const StTensor *t, const float *x, void *out, Err *err) {
    if (strcmp(t->dtype, "F32") == 0) {
        memcpy(out, x, (size_t)t->bytes);
    } else if (strcmp(t->dtype, "BF16") == 0) {
        for (int64_t i = 0; i < t->count; i++) ((bf16 *)out)[i] = bf16_from_f32(x[i]);
    } else {
        return err_set(err, ERR_INPUT, "%s: dtype %s, a trained tensor is written as BF16 or F32",
                       t->name, t->dtype);
    }
    return true;
}

static bool same_shape(const StTensor *a, const StTensor *b) {
    bool same = a->rank == b->rank;
    for (int i = 0; same && i < a->rank; i++) same = a->dim[i] == b->dim[i];
    return same;
}

static bool fetch_from_file(void *ctx, const StTensor *t, void *out, bool *have, Err *err) {
    StFile *f = ctx;
    const StTensor *mine = st_find(f, t->name);
    if (mine == NULL)
        return err_set(err, ERR_INPUT, "%s: tensor %s is missing", st_path(f), t->name);
    if (!same_shape(mine, t))
        return err_set(err, ERR_INPUT, "%s: %s has another shape than the stock assistant's",
                       st_path(f), t->name);
    *have = true;
    if (strcmp(mine->dtype, t->dtype) == 0) return st_read(f, mine, out, err);
    float *x = malloc((size_t)t->count * sizeof *x);
    if (x == NULL) return err_set(err, ERR_FAILED, "%s: out of memory", t->name);
    const bool ok = st_read_f32(f, mine, x, err) && hf_store_f32(t, x, out, err);
    free(x);
    return ok;
}

HfSource hf_source_file(StFile *drafter) {
    return (HfSource){drafter, fetch_from_file};
}

// The first 8 + N bytes of a file that st_open() has accepted.
static char *read_header(const char *path, size_t *size, Err *err) {
    uint64_t n = 0;
    char *header = NULL;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || pread(fd, &n, sizeof n, 0) != (ssize_t)sizeof n || n > HEADER_LIMIT) {
        err_set(err, ERR_INPUT, "%s: cannot read the header", path);
    } else if ((header = malloc(8 + n)) == NULL) {
        err_set(err, ERR_FAILED, "%s: out of memory", path);
    } else if (pread(fd, header, 8 + n, 0) != (ssize_t)(8 + n)) {
        err_set(err, ERR_INPUT, "%s: the header is cut short", path);
        free(header);
        header = NULL;
    }
    if (fd >= 0) close(fd);
    *size = 8 + n;
    return header;
}

static int by_offset(const void *a, const void *b) {
    const StTensor *x = *(const StTensor *const *)a, *y = *(const StTensor *const *)b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static bool mirror_tensors(const StFile *stock, OutFile *out, const HfSource *src, Err *err) {
    const int n = st_count(stock);
    const StTensor **order = malloc((size_t)(n + 1) * sizeof *order);
    if (order == NULL) return err_set(err, ERR_FAILED, "out of memory");
    for (int i = 0; i < n; i++) order[i] = st_at(stock, i);
    qsort(order, (size_t)n, sizeof *order, by_offset);
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        void *data = malloc((size_t)order[i]->bytes + 1);
        bool have = false;
        ok = data != NULL || err_set(err, ERR_FAILED, "%s: out of memory", order[i]->name);
        ok = ok && src->fetch(src->ctx, order[i], data, &have, err);
        if (ok && !have) ok = st_read(stock, order[i], data, err);
        if (ok) out_write(out, data, (size_t)order[i]->bytes);
        free(data);
    }
    free(order);
    return ok;
}

static bool mirror_file(const char *stock_dir, const char *name, const char *out_dir,
                        const HfSource *src, Err *err) {
    char from[PATH_ROOM], to[PATH_ROOM];
    OutFile out = {.fd = -1};
    size_t size = 0;
    char *header = NULL;
    bool ok = false;
    StFile *stock = st_open(path_join(from, stock_dir, name), err);
    if (stock == NULL) return false;
    if ((header = read_header(from, &size, err)) == NULL) goto fail;
    if (!out_open(&out, path_join(to, out_dir, name), err)) goto fail;
    out_write(&out, header, size);
    ok = mirror_tensors(stock, &out, src, err) && out_commit(&out, err);
fail:
    out_drop(&out);
    free(header);
    st_close(stock);
    return ok;
}

bool hf_mirror(const char *stock_dir, const char *out_dir, const HfSource *src, Err *err) {
    char from[PATH_ROOM], to[PATH_ROOM];
    int n = 0;
    char **files = hf_weight_files(stock_dir, &n, err);
    bool ok = files != NULL;
    for (int i = 0; ok && i < n; i++) ok = mirror_file(stock_dir, files[i], out_dir, src, err);
    dir_list_free(files, n);
    const char *index = "model.safetensors.index.json";
    if (ok && file_exists(path_join(from, stock_dir, index)))
        ok = file_copy(from, path_join(to, out_dir, index), err);
    return ok;
}
