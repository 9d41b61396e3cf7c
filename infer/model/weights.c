// infer/model/weights.c - canonical names of tensors, whatever tool wrote the file.
#include "infer/model/weights.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"

static const char *const TOWERS[] = {"vision_tower", "audio_tower",     "embed_vision",
                                     "embed_audio",  "vision_embedder", "audio_embedder",
                                     "vision_model", "audio_model",     "multi_modal_projector"};
static const char *const PREFIXES[] = {"base_model.", "model.", "language_model."};
static const char *const TEXT_PARTS[] = {"layers",
                                         "embed_tokens",
                                         "norm",
                                         "embed_tokens_per_layer",
                                         "per_layer_model_projection",
                                         "per_layer_projection_norm",
                                         "lm_head"};
enum { TOWER_COUNT = sizeof TOWERS / sizeof *TOWERS, CANONICAL_ROOM = 256 };

static bool starts_with(const char *s, const char *prefix) {
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static const char *strip_prefixes(const char *key) {
    for (size_t i = 0; i < sizeof PREFIXES / sizeof *PREFIXES; i++)
        if (starts_with(key, PREFIXES[i])) return strip_prefixes(key + strlen(PREFIXES[i]));
    return key;
}

// A part as it stands in front of a tensor's name, or alone: an adapter names modules.
static bool begins_with_part(const char *key, const char *part) {
    const size_t n = strlen(part);
    return strncmp(key, part, n) == 0 && (key[n] == '.' || key[n] == '\0');
}

const char *weight_tower(const char *key) {
    key = strip_prefixes(key);
    for (int i = 0; i < TOWER_COUNT; i++)
        if (begins_with_part(key, TOWERS[i])) return TOWERS[i];
    return NULL;
}

bool weight_canonical(const char *key, char out[256]) {
    key = strip_prefixes(key);
    if (strlen(key) >= CANONICAL_ROOM) return false;
    for (size_t i = 0; i < sizeof TEXT_PARTS / sizeof *TEXT_PARTS; i++)
        if (begins_with_part(key, TEXT_PARTS[i])) {
            strcpy(out, key);
            return true;
        }
    return false;
}

typedef struct {
    char name[CANONICAL_ROOM];
    const StTensor *tensor;
    bool used;
} Entry;

struct WeightMap {
    const StFile *file;
    Entry *entry; // by name
    int n;
};

static int compare_entries(const void *a, const void *b) {
    return strcmp(((const Entry *)a)->name, ((const Entry *)b)->name);
}

static void tell_skipped(const StFile *f, const int count[TOWER_COUNT]) {
    for (int i = 0; i < TOWER_COUNT; i++)
        if (count[i] > 0)
            log_info("%s: %d tensors of %s skipped (text only)", st_path(f), count[i], TOWERS[i]);
}

static bool fill_map(WeightMap *m, const StFile *f, Err *err) {
    int skipped[TOWER_COUNT] = {0};
    for (int i = 0; i < st_count(f); i++) {
        const StTensor *t = st_at(f, i);
        const char *tower = weight_tower(t->name);
        if (tower != NULL) {
            for (int k = 0; k < TOWER_COUNT; k++) skipped[k] += tower == TOWERS[k];
            continue;
        }
        Entry *e = &m->entry[m->n];
        if (!weight_canonical(t->name, e->name))
            return err_set(err, ERR_INPUT, "%s: tensor %s is no part of a Gemma 4 model",
                           st_path(f), t->name);
        e->tensor = t;
        m->n++;
    }
    tell_skipped(f, skipped);
    qsort(m->entry, (size_t)m->n, sizeof *m->entry, compare_entries);
    for (int i = 1; i < m->n; i++)
        if (compare_entries(&m->entry[i - 1], &m->entry[i]) == 0)
            return err_set(err, ERR_INPUT, "%s: %s and %s are the same tensor", st_path(f),
                           m->entry[i - 1].tensor->name, m->entry[i].tensor->name);
    return true;
}

WeightMap *weight_map_open(const StFile *f, Err *err) {
    WeightMap *m = calloc(1, sizeof *m);
    if (m != NULL) m->entry = calloc((size_t)st_count(f) + 1, sizeof *m->entry);
    if (m == NULL || m->entry == NULL) {
        err_set(err, ERR_FAILED, "out of memory");
        goto fail;
    }
    m->file = f;
    if (!fill_map(m, f, err)) goto fail;
    return m;
fail:
    weight_map_close(m);
    return NULL;
}

void weight_map_close(WeightMap *m) {
    if (m == NULL) return;
    free(m->entry);
    free(m);
}

const StTensor *weight_map_find(WeightMap *m, const char *canonical) {
    Entry key = {0};
    if (strlen(canonical) >= sizeof key.name) return NULL;
    strcpy(key.name, canonical);
    Entry *e = bsearch(&key, m->entry, (size_t)m->n, sizeof *m->entry, compare_entries);
    if (e == NULL) return NULL;
    e->used = true;
    return e->tensor;
}

bool weight_map_all_used(const WeightMap *m, Err *err) {
    for (int i = 0; i < m->n; i++)
        if (!m->entry[i].used)
            return err_set(err, ERR_INPUT,
                           "%s: tensor %s is no part of the model config.json describes",
                           st_path(m->file), m->entry[i].tensor->name);
    return true;
}
