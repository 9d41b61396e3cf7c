// infer/format/safetensors_header.c - the header: every rule is checked before a value is used, in
// the order of the reference reader.
#include <stdlib.h>
#include <string.h>

#include "infer/base/checked.h"
#include "infer/format/safetensors_types.h"

// The integers of a JSON array; at most `most`, none negative.
static bool read_integers(const json_t *array, int most, int64_t *out, int *n, const char *name,
                          const char *what, Err *err) {
    if (!json_is_array(array))
        return err_set(err, ERR_INPUT, "tensor %s: %s is not an array", name, what);
    const size_t size = json_array_size(array);
    if (size > (size_t)most)
        return err_set(err, ERR_INPUT, "tensor %s: %s has %zu entries, at most %d are allowed",
                       name, what, size, most);
    for (size_t i = 0; i < size; i++) {
        const json_t *v = json_array_get(array, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return err_set(err, ERR_INPUT, "tensor %s: %s[%zu] is not a natural number", name, what,
                           i);
        out[i] = json_integer_value(v);
    }
    *n = (int)size;
    return true;
}

static StTensor *add_tensor(StFile *f, Err *err) {
    if (f->n == f->room) {
        const int room = f->room == 0 ? 64 : 2 * f->room;
        StTensor *grown = realloc(f->tensor, (size_t)room * sizeof *grown);
        if (grown == NULL) {
            err_set(err, ERR_FAILED, "out of memory for %d tensors", room);
            return NULL;
        }
        f->tensor = grown;
        f->room = room;
    }
    return memset(&f->tensor[f->n], 0, sizeof *f->tensor);
}

// One entry of the header; offset and bytes hold data_offsets as written until check_layout.
static bool read_entry(StFile *f, int shard, const char *name, const json_t *value, Err *err) {
    const char *problem = st_name_problem(name, strlen(name));
    if (problem != NULL) return err_set(err, ERR_INPUT, "tensor name \"%.64s\" %s", name, problem);
    if (!json_is_object(value)) return err_set(err, ERR_INPUT, "tensor %s: not an object", name);
    const json_t *dtype = json_object_get(value, "dtype"), *shape = json_object_get(value, "shape"),
                 *offsets = json_object_get(value, "data_offsets");
    if (dtype == NULL || shape == NULL || offsets == NULL || json_object_size(value) != 3)
        return err_set(err, ERR_INPUT, "tensor %s: needs exactly dtype, shape and data_offsets",
                       name);
    if (!json_is_string(dtype))
        return err_set(err, ERR_INPUT, "tensor %s: dtype is not a string", name);
    const char *type = json_string_value(dtype);
    if (st_dtype_rank(type) < 0)
        return err_set(err, ERR_INPUT, "tensor %s: unknown dtype %.32s", name, type);
    StTensor *t = add_tensor(f, err);
    if (t == NULL) return false;
    int64_t range[2];
    int n = 0;
    if (!read_integers(shape, ST_RANK_MAX, t->dim, &t->rank, name, "shape", err)) return false;
    if (!read_integers(offsets, 2, range, &n, name, "data_offsets", err)) return false;
    if (n != 2) return err_set(err, ERR_INPUT, "tensor %s: data_offsets needs two numbers", name);
    strcpy(t->dtype, type); // a known dtype fits
    t->file = shard;
    t->offset = range[0];
    t->bytes = range[1];
    if ((t->name = strdup(name)) == NULL) return err_set(err, ERR_FAILED, "out of memory");
    f->n++;
    return true;
}

static bool check_metadata(const json_t *metadata, Err *err) {
    const char *key;
    json_t *value;
    if (!json_is_object(metadata)) return err_set(err, ERR_INPUT, "__metadata__ is not an object");
    json_object_foreach((json_t *)metadata, key, value) if (!json_is_string(value)) return err_set(
        err, ERR_INPUT, "__metadata__.%.64s is not a string", key);
    return true;
}

static int compare_offsets(const void *a, const void *b) {
    const StTensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

// Tensors first.. of one shard: no holes, no overlap, sizes as shape and dtype say, nothing behind.
static bool check_layout(StFile *f, int first, int64_t data_start, int64_t file_size, Err *err) {
    if (f->n > first)
        qsort(f->tensor + first, (size_t)(f->n - first), sizeof *f->tensor, compare_offsets);
    int64_t at = 0;
    for (int i = first; i < f->n; i++) {
        StTensor *t = &f->tensor[i];
        const int64_t begin = t->offset, end = t->bytes;
        if (begin != at || end < begin)
            return err_set(
                err, ERR_INPUT,
                "tensor %s: data_offsets [%lld, %lld], but the previous tensor ends at %lld",
                t->name, (long long)begin, (long long)end, (long long)at);
        if (!st_size(t, err)) return false;
        if (t->bytes != end - begin)
            return err_set(err, ERR_INPUT,
                           "tensor %s: data_offsets span %lld bytes, dtype and shape need %lld",
                           t->name, (long long)(end - begin), (long long)t->bytes);
        if (!add_fits(begin, data_start, &t->offset))
            return err_set(err, ERR_INPUT, "tensor %s: offset overflows", t->name);
        at = end;
    }
    int64_t need = 0;
    if (!add_fits(at, data_start, &need) || need != file_size)
        return err_set(err, ERR_INPUT, "header describes %lld bytes of data, the file holds %lld",
                       (long long)at, (long long)(file_size - data_start));
    return true;
}

static bool read_header(StFile *f, int shard, char **text, int64_t *length, Err *err) {
    const StShard *s = &f->shard[shard];
    unsigned char prefix[8];
    if (s->size < 8)
        return err_set(err, ERR_INPUT, "%lld bytes, a header needs at least 8", (long long)s->size);
    if (!st_read_at(s, prefix, 8, 0, err)) return false;
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | prefix[i];
    if (n > ST_HEADER_MAX)
        return err_set(err, ERR_INPUT, "header of %llu bytes, at most %d are allowed",
                       (unsigned long long)n, ST_HEADER_MAX);
    *length = (int64_t)n;
    if (*length > s->size - 8)
        return err_set(err, ERR_INPUT, "header of %lld bytes in a file of %lld", (long long)*length,
                       (long long)s->size);
    if ((*text = malloc((size_t)n + 1)) == NULL) return err_set(err, ERR_FAILED, "out of memory");
    if (!st_read_at(s, *text, *length, 8, err)) return false;
    if (n == 0 || (*text)[0] != '{')
        return err_set(err, ERR_INPUT, "the header does not begin with {");
    return true;
}

bool st_read_header(StFile *f, int shard, Err *err) {
    char *text = NULL;
    json_t *root = NULL, *value;
    const char *key;
    int64_t length = 0;
    const int first = f->n;
    if (!read_header(f, shard, &text, &length, err)) goto fail;
    if ((root = json_read_text(text, (size_t)length, err)) == NULL) goto fail;
    if (!json_is_object(root)) {
        err_set(err, ERR_INPUT, "the header is not a JSON object");
        goto fail;
    }
    json_object_foreach(root, key, value) {
        if (strcmp(key, "__metadata__") != 0) {
            if (!read_entry(f, shard, key, value, err)) goto fail;
        } else {
            if (!check_metadata(value, err)) goto fail;
            if (shard == 0) f->metadata = json_incref(value);
        }
    }
    if (!check_layout(f, first, 8 + length, f->shard[shard].size, err)) goto fail;
    json_decref(root);
    free(text);
    return true;
fail:
    err_wrap(err, "%s", f->shard[shard].path);
    json_decref(root);
    free(text);
    return false;
}
