// infer/model/weight_source.c - finds the reader of an artifact and asks it.
#include "infer/model/weight_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/assistant.h"

struct WeightSource {
    const SourceKind *kind;
    void *ctx;
};

// The last one takes everything: what it cannot open, it says why.
static const SourceKind *const KINDS[] = {
    &source_gguf,
    &source_mlx,
    &source_safetensors,
};
enum { KIND_COUNT = sizeof KINDS / sizeof *KINDS };

static const SourceKind *kind_of(const char *path) {
    for (int i = 0; i < KIND_COUNT - 1; i++)
        if (KINDS[i]->recognises(path)) return KINDS[i];
    return KINDS[KIND_COUNT - 1];
}

WeightSource *weight_source_open(const char *path, Err *err) {
    WeightSource *s = calloc(1, sizeof *s);
    CHECK_MEMORY(s);
    s->kind = kind_of(path);
    if ((s->ctx = s->kind->open(path, err)) != NULL) return s;
    free(s);
    return NULL;
}

void weight_source_close(WeightSource *s) {
    if (s == NULL) return;
    s->kind->close(s->ctx);
    free(s);
}

bool weight_source_find(const WeightSource *s, const char *key, SourceTensor *out) {
    *out = (SourceTensor){0};
    CHECK(snprintf(out->key, sizeof out->key, "%s", key) < (int)sizeof out->key);
    return s->kind->find(s->ctx, key, out);
}

bool weight_source_read(const WeightSource *s, const SourceTensor *t, DType dtype, void *out,
                        Err *err) {
    CHECK(dtype == DT_F32 || dtype == DT_BF16);
    return s->kind->read(s->ctx, t, dtype, out, err);
}

bool weight_source_read_ints(const WeightSource *s, const SourceTensor *t, int64_t *out, Err *err) {
    return s->kind->read_ints(s->ctx, t, out, err);
}

bool weight_source_is(const char *path) {
    const size_t n = strlen(path), m = strlen(".safetensors");
    if (dir_exists(path)) return true;
    return file_exists(path) &&
           (kind_of(path)->own_config || (n > m && strcmp(path + n - m, ".safetensors") == 0));
}

char *weight_source_file(char out[PATH_ROOM], const char *path) {
    if (dir_exists(path)) return path_join(out, path, "model.safetensors");
    CHECK(snprintf(out, PATH_ROOM, "%s", path) < PATH_ROOM);
    return out;
}

bool weight_source_config(AssistantConfig *c, const char *path, Err *err) {
    return kind_of(path)->config(path, c, err);
}

bool weight_source_whole(const char *path) {
    char config[PATH_ROOM];
    return kind_of(path)->own_config || file_exists(path_join(config, path, "config.json"));
}

void weight_source_info(const WeightSource *s, const AssistantConfig *c, ArtifactInfo *out) {
    AssistantWeights w;
    AssistantParam p[ASSISTANT_PARAMS_MAX];
    int64_t bytes = 0, count = 0;
    *out = (ArtifactInfo){0};
    s->kind->info(s->ctx, out);
    assistant_layout(c, &w, NULL, DT_F32);
    const int n = assistant_params(c, &w, p);
    for (int i = 0; i < n; i++) {
        SourceTensor t;
        if (!weight_source_find(s, p[i].name, &t)) continue;
        bytes += t.bytes;
        count += t.count;
    }
    out->bits_per_weight = count > 0 ? 8.0 * (double)bytes / (double)count : 0.0;
}
