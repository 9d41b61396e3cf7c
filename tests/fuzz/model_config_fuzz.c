// tests/fuzz/model_config_fuzz.c - any bytes as a model's config.json: refused with one line, or
// plain numbers that every derived size can be computed from.
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/model/gemma4_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *config_dir(const uint8_t *data, size_t size) {
    static char dir[] = "/tmp/draftsmith-fuzz-XXXXXX";
    static bool made;
    char path[PATH_ROOM];
    if (!made) {
        CHECK(mkdtemp(dir) != NULL);
        made = true;
    }
    FILE *f = fopen(path_join(path, dir, "config.json"), "wb"); // fsync would only slow this down
    CHECK(f != NULL && fwrite(data, 1, size, f) == size && fclose(f) == 0);
    return dir;
}

static void derive(const TextConfig *c) {
    float f[HEAD_DIM_MAX / 2];
    for (int l = 0; l < c->layers; l++) {
        CHECK(c->heads % layer_kv_heads(c, l) == 0 && layer_head_dim(c, l) % 2 == 0);
        CHECK(layer_inter(c, l) > 0 && layer_kv_source(c, l) <= l);
        rope_frequencies(&c->rope[c->kind[l]], layer_head_dim(c, l), f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Err err = {0};
    TargetConfig t;
    AssistantConfig a;
    const char *dir = config_dir(data, size);
    const bool target = target_config_load(&t, dir, &err);
    CHECK(target || (err.code == ERR_INPUT && err.text[0] != '\0'));
    if (target) derive(&t.text);
    err = (Err){0};
    const bool assistant = assistant_config_load(&a, dir, &err);
    CHECK(assistant || (err.code == ERR_INPUT && err.text[0] != '\0'));
    CHECK(!(target && assistant));
    if (assistant) derive(&a.text);
    return 0;
}
