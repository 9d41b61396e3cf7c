// infer/format/safetensors.c - opening files and sharded folders, finding tensors, reading their
// data.
#include "infer/format/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "infer/base/watchdog.h"
#include "infer/format/safetensors_types.h"

enum { INDEX_LIMIT = 100000000, CONVERT_BYTES = 1 << 18 };

bool st_read_at(const StShard *s, void *out, int64_t size, int64_t offset, Err *err) {
    char *p = out;
    while (size > 0) {
        const ssize_t got = pread(s->fd, p, (size_t)size, offset);
        watchdog_beat();
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return err_errno(err, "%s: reading at byte %lld", s->path, (long long)offset);
        if (got == 0)
            return err_set(err, ERR_INPUT, "%s: ends at byte %lld, had %lld bytes when opened",
                           s->path, (long long)offset, (long long)s->size);
        p += got;
        size -= got;
        offset += got;
    }
    return true;
}

static bool open_shard(StFile *f, const char *path, Err *err) {
    StShard *grown = realloc(f->shard, (size_t)(f->nshard + 1) * sizeof *grown);
    if (grown == NULL) return err_set(err, ERR_FAILED, "out of memory");
    f->shard = grown;
    StShard *s = &f->shard[f->nshard];
    if (strlen(path) >= sizeof s->path)
        return err_set(err, ERR_INPUT, "%.64s...: path too long", path);
    strcpy(s->path, path);
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) return err_errno(err, "%s", path);
    f->nshard++;
    struct stat st;
    if (fstat(s->fd, &st) != 0) return err_errno(err, "%s", path);
    if (!S_ISREG(st.st_mode)) return err_set(err, ERR_INPUT, "%s: not a regular file", path);
    s->size = st.st_size;
    return st_read_header(f, f->nshard - 1, err);
}

// A shard is a plain file name beside its index: never a way out of the folder.
static bool shard_name_ok(const char *name) {
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL && strlen(name) < 256;
}

static int shard_number(const StFile *f, const char *path) {
    for (int i = 0; i < f->nshard; i++)
        if (strcmp(f->shard[i].path, path) == 0) return i;
    return -1;
}

static bool open_index(StFile *f, const char *dir, const char *index, Err *err) {
    const char *name;
    json_t *file, *root = json_read_file(index, INDEX_LIMIT, err);
    if (root == NULL) return false;
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0) {
        err_set(err, ERR_INPUT, "%s: no weight_map", index);
        goto fail;
    }
    json_object_foreach(map, name, file) {
        char path[PATH_ROOM];
        if (!json_is_string(file) || !shard_name_ok(json_string_value(file))) {
            err_set(err, ERR_INPUT, "%s: weight_map of %.64s is not a file name", index, name);
            goto fail;
        }
        path_join(path, dir, json_string_value(file));
        if (shard_number(f, path) < 0 && !open_shard(f, path, err)) goto fail;
    }
    json_decref(root);
    return true;
fail:
    json_decref(root);
    return false;
}

// weight_map and shards must tell the same story, or tensors would be taken from the wrong file.
static bool check_index(const StFile *f, const char *dir, const char *index, Err *err) {
    const char *name;
    json_t *file, *root = json_read_file(index, INDEX_LIMIT, err);
    if (root == NULL) return false;
    json_object_foreach(json_object_get(root, "weight_map"), name, file) {
        char path[PATH_ROOM];
        const StTensor *t = st_find(f, name);
        path_join(path, dir, json_string_value(file));
        if (t == NULL || strcmp(f->shard[t->file].path, path) != 0) {
            err_set(err, ERR_INPUT, "%s: tensor %.256s is not in %s", index, name,
                    json_string_value(file));
            json_decref(root);
            return false;
        }
    }
    json_decref(root);
    return true;
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(StTensor *const *)a)->name, (*(StTensor *const *)b)->name);
}

static bool sort_names(StFile *f, Err *err) {
    if ((f->by_name = malloc((size_t)(f->n + 1) * sizeof *f->by_name)) == NULL)
        return err_set(err, ERR_FAILED, "out of memory");
    for (int i = 0; i < f->n; i++) f->by_name[i] = &f->tensor[i];
    qsort(f->by_name, (size_t)f->n, sizeof *f->by_name, compare_names);
    for (int i = 1; i < f->n; i++) {
        const StTensor *a = f->by_name[i - 1], *b = f->by_name[i];
        if (strcmp(a->name, b->name) == 0)
            return err_set(err, ERR_INPUT, "tensor %s is in %s and in %s", a->name,
                           f->shard[a->file].path, f->shard[b->file].path);
    }
    return true;
}

StFile *st_open(const char *file_or_dir, Err *err) {
    char path[PATH_ROOM];
    StFile *f = calloc(1, sizeof *f);
    if (f == NULL) {
        err_set(err, ERR_FAILED, "out of memory");
        return NULL;
    }
    if (strlen(file_or_dir) >= sizeof f->path - 64) {
        err_set(err, ERR_INPUT, "%.64s...: path too long", file_or_dir);
        goto fail;
    }
    strcpy(f->path, file_or_dir);
    bool sharded = false;
    if (!dir_exists(file_or_dir)) {
        if (!open_shard(f, file_or_dir, err)) goto fail;
    } else {
        path_join(path, file_or_dir, "model.safetensors");
        sharded = !file_exists(path);
        if (sharded) path_join(path, file_or_dir, "model.safetensors.index.json");
        if (sharded && !file_exists(path)) {
            err_set(err, ERR_INPUT,
                    "%s: neither model.safetensors nor model.safetensors.index.json", file_or_dir);
            goto fail;
        }
        if (!(sharded ? open_index(f, file_or_dir, path, err) : open_shard(f, path, err)))
            goto fail;
    }
    if (!sort_names(f, err)) goto fail;
    if (sharded && !check_index(f, file_or_dir, path, err)) goto fail;
    return f;
fail:
    st_close(f);
    return NULL;
}

void st_close(StFile *f) {
    if (f == NULL) return;
    for (int i = 0; i < f->nshard; i++) close(f->shard[i].fd);
    for (int i = 0; i < f->n; i++) free((char *)f->tensor[i].name);
    json_decref(f->metadata);
    free(f->shard);
    free(f->tensor);
    free(f->by_name);
    free(f);
}

int st_count(const StFile *f) {
    return f->n;
}
const char *st_path(const StFile *f) {
    return f->path;
}
int st_shards(const StFile *f) {
    return f->nshard;
}

const char *st_shard_path(const StFile *f, int i) {
    CHECK(i >= 0 && i < f->nshard);
    return f->shard[i].path;
}

const StTensor *st_at(const StFile *f, int i) {
    CHECK(i >= 0 && i < f->n);
    return &f->tensor[i];
}

const StTensor *st_find(const StFile *f, const char *name) {
    int low = 0, high = f->n;
    while (low < high) {
        const int mid = low + (high - low) / 2;
        const StTensor *t = f->by_name[mid];
        const int c = strcmp(name, t->name);
        if (c == 0) return t;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

const char *st_metadata(const StFile *f, const char *key) {
    return json_string_value(json_object_get(f->metadata, key));
}

bool st_metadata_at(const StFile *f, int i, const char **key, const char **value) {
    void *it = json_object_iter(f->metadata);
    for (; it != NULL && i > 0; i--) it = json_object_iter_next(f->metadata, it);
    if (it == NULL) return false;
    *key = json_object_iter_key(it);
    *value = json_string_value(json_object_iter_value(it));
    return true;
}

bool st_read_part(const StFile *f, const StTensor *t, int64_t first, int64_t size, void *out,
                  Err *err) {
    CHECK(first >= 0 && size >= 0 && first <= t->bytes && size <= t->bytes - first);
    if (st_read_at(&f->shard[t->file], out, size, t->offset + first, err)) return true;
    return err_wrap(err, "tensor %s", t->name);
}

bool st_read(const StFile *f, const StTensor *t, void *out, Err *err) {
    return st_read_part(f, t, 0, t->bytes, out, err);
}

static void widen(float *out, const void *in, int64_t n, char kind) {
    const uint16_t *half = in;
    const double *wide = in;
    if (kind == 'B')
        for (int64_t i = 0; i < n; i++) out[i] = bf16_to_f32((bf16){half[i]});
    else if (kind == 'H')
        for (int64_t i = 0; i < n; i++) out[i] = f16_to_f32((f16){half[i]});
    else
        for (int64_t i = 0; i < n; i++) out[i] = (float)wide[i];
}

bool st_read_f32(const StFile *f, const StTensor *t, float *out, Err *err) {
    if (strcmp(t->dtype, "F32") == 0) return st_read(f, t, out, err);
    const char kind = strcmp(t->dtype, "BF16") == 0  ? 'B'
                      : strcmp(t->dtype, "F16") == 0 ? 'H'
                      : strcmp(t->dtype, "F64") == 0 ? 'D'
                                                     : 0;
    if (kind == 0)
        return err_set(err, ERR_INPUT, "%s: tensor %s has dtype %s, a float type is needed",
                       f->path, t->name, t->dtype);
    const int64_t width = kind == 'D' ? 8 : 2, most = CONVERT_BYTES / width;
    void *chunk = malloc(CONVERT_BYTES);
    if (chunk == NULL) return err_set(err, ERR_FAILED, "out of memory");
    bool ok = true;
    for (int64_t at = 0; ok && at < t->count; at += most) {
        const int64_t n = t->count - at < most ? t->count - at : most;
        ok = st_read_part(f, t, at * width, n * width, chunk, err);
        if (ok) widen(out + at, chunk, n, kind);
    }
    free(chunk);
    return ok;
}
