// infer/model/target_export.c - the merged target as it is served: the source's files with the
// adapter's modules added into their weights; everything else byte for byte.
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/model/target_parts.h"

enum { COPY_BYTES = 1 << 23 };

bool target_merged_part(const TargetSource *s, const StTensor *t, WeightPart *part) {
    *part = (WeightPart){0};
    if (!weight_canonical(t->name, part->module)) return false;
    const size_t n = strlen(part->module), tail = strlen(".weight");
    if (t->rank == 3) {
        const StTensor one = expert_slice(t, 0);
        part->experts = t->dim[0];
        return part->experts > 0 && weight_part_adapted(s->adapter, part, &one);
    }
    if (t->rank != 2 || n < tail || strcmp(part->module + n - tail, ".weight") != 0) return false;
    part->module[n - tail] = '\0';
    return weight_part_adapted(s->adapter, part, t);
}

static bool write_raw(OutFile *out, const StFile *f, const StTensor *t, void *buffer, Err *err) {
    for (int64_t at = 0; at < t->bytes; at += COPY_BYTES) {
        const int64_t n = t->bytes - at < COPY_BYTES ? t->bytes - at : COPY_BYTES;
        if (!st_read_part(f, t, at, n, buffer, err)) return false;
        out_write(out, buffer, (size_t)n);
    }
    return true;
}

static bool write_merged(OutFile *out, const TargetSource *s, const StTensor *t,
                         const WeightPart *part, Err *err) {
    float *w = malloc((size_t)t->count * sizeof *w);
    if (w == NULL) return err_set(err, ERR_FAILED, "out of memory for %s", t->name);
    const bool ok = merged_matrix(s->file, t, s->adapter, part, w, err);
    if (ok && strcmp(t->dtype, "BF16") == 0) // narrowed in place: the values are bf16 already
        for (int64_t i = 0; i < t->count; i++) {
            const bf16 h = bf16_from_f32(w[i]);
            memcpy((char *)w + 2 * i, &h, sizeof h);
        }
    if (ok) out_write(out, w, (size_t)t->bytes);
    free(w);
    return ok;
}

static bool write_experts(OutFile *out, const TargetSource *s, const StTensor *t, WeightPart *part,
                          Err *err) {
    for (; part->expert < part->experts; part->expert++) {
        const StTensor one = expert_slice(t, part->expert);
        if (!write_merged(out, s, &one, part, err)) return false;
    }
    return true;
}

// The header stays as it is: names, dtypes, shapes and order do not change.
static bool write_header(OutFile *out, const char *path, int64_t size, Err *err) {
    FILE *f = fopen(path, "rb");
    char *text = malloc((size_t)size);
    const bool ok = f != NULL && text != NULL && fread(text, 1, (size_t)size, f) == (size_t)size;
    if (ok)
        out_write(out, text, (size_t)size);
    else
        err_set(err, ERR_FAILED, "%s: its header of %lld bytes could not be read again", path,
                (long long)size);
    if (f != NULL) fclose(f);
    free(text);
    return ok;
}

static bool write_tensors(OutFile *out, const TargetSource *s, int shard, Err *err) {
    WeightPart part;
    void *buffer = malloc(COPY_BYTES);
    bool ok = buffer != NULL;
    if (!ok) err_set(err, ERR_FAILED, "out of memory");
    for (int i = 0; ok && i < st_count(s->file); i++) {
        const StTensor *t = st_at(s->file, i);
        if (t->file != shard) continue;
        if (!target_merged_part(s, t, &part))
            ok = write_raw(out, s->file, t, buffer, err);
        else
            ok = part.experts > 0 ? write_experts(out, s, t, &part, err)
                                  : write_merged(out, s, t, &part, err);
        if (ok && out->error != 0)
            ok = err_set(err, ERR_FAILED, "%s: %s", out->path, strerror(out->error));
    }
    free(buffer);
    return ok;
}

static bool export_shard(const TargetSource *s, int shard, const char *out_dir, Err *err) {
    const char *from = st_shard_path(s->file, shard);
    char to[PATH_ROOM];
    WeightPart part;
    path_join(to, out_dir, path_base(from));
    int merged = 0;
    int64_t start = INT64_MAX;
    for (int i = 0; i < st_count(s->file); i++) {
        const StTensor *t = st_at(s->file, i);
        if (t->file != shard) continue;
        merged += target_merged_part(s, t, &part);
        if (t->offset < start) start = t->offset;
    }
    if (merged == 0) return file_copy(from, to, err);
    OutFile out = {.fd = -1};
    if (!out_open(&out, to, err)) return false;
    if (write_header(&out, from, start, err) && write_tensors(&out, s, shard, err))
        return out_commit(&out, err);
    out_drop(&out);
    return false;
}

static bool ends_with(const char *s, const char *tail) {
    const size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

// Config, tokenizer, template, index: every small file that belongs to a model folder.
static bool copy_companions(const char *dir, const char *out_dir, Err *err) {
    static const char *const KINDS[] = {".json", ".jinja", ".model", ".txt"};
    int n = 0;
    char **names = dir_list(dir, &n, err);
    if (names == NULL) return false;
    bool ok = true;
    for (int i = 0; ok && i < n; i++)
        for (size_t k = 0; ok && k < sizeof KINDS / sizeof *KINDS; k++) {
            char from[PATH_ROOM], to[PATH_ROOM];
            if (!ends_with(names[i], KINDS[k]) || !file_exists(path_join(from, dir, names[i])))
                continue;
            ok = file_copy(from, path_join(to, out_dir, names[i]), err);
        }
    dir_list_free(names, n);
    return ok;
}

static bool export_all(const TextConfig *c, const TargetSource *s, const char *dir,
                       const char *out_dir, Err *err) {
    WeightPart part;
    for (int i = 0; i < st_count(s->file); i++) target_merged_part(s, st_at(s->file, i), &part);
    target_pass_over_shared_kv(c, s);
    if (!adapter_all_used(s->adapter, err)) return false; // before anything is written
    if (!dir_make(out_dir, err) || !copy_companions(dir, out_dir, err)) return false;
    for (int i = 0; i < st_shards(s->file); i++)
        if (!export_shard(s, i, out_dir, err)) return false;
    return dir_sync(out_dir, err);
}

bool target_export(const char *dir, const char *adapter, const char *out_dir, Err *err) {
    TargetConfig config;
    TargetSource s = {0};
    const bool ok = target_config_load(&config, dir, err) &&
                    target_source_open(&s, dir, adapter, err) &&
                    export_all(&config.text, &s, dir, out_dir, err);
    target_source_close(&s);
    return ok;
}
