// infer/export/gguf_mixed.c - modules of a mixture as tensors with a type of their own.
#include "infer/export/gguf_mixed.h"

#include <stdio.h>
#include <string.h>

static uint32_t file_type_of(GgmlType t) {
    static const struct {
        GgmlType type;
        uint32_t id;
    } IDS[] = {{GGML_BF16, 32},   {GGML_F16, 1},     {GGML_F32, 0},   {GGML_Q4_0, 2},
               {GGML_Q4_1, 3},    {GGML_Q5_0, 8},    {GGML_Q5_1, 9},  {GGML_Q8_0, 7},
               {GGML_Q6_K, 18},   {GGML_Q5_K, 17},   {GGML_Q4_K, 15}, {GGML_Q3_K, 12},
               {GGML_IQ4_NL, 25}, {GGML_IQ4_XS, 30}, {GGML_MXFP4, 38}};
    for (size_t i = 0; i < sizeof IDS / sizeof *IDS; i++)
        if (IDS[i].type == t) return IDS[i].id;
    return 7;
}

static GgmlType commonest(const GgufPin *pin, int n) {
    GgmlType best = GGML_Q8_0;
    int most = 0;
    for (int i = 0; i < n; i++) {
        int count = 0;
        for (int k = 0; k < n; k++) count += pin[k].type == pin[i].type;
        if (count > most) most = count, best = pin[i].type;
    }
    return best;
}

static const GgufEntry *matrix(const GgufEntry *e, int n, const char *key) {
    for (int i = 0; i < n; i++)
        if (strcmp(e[i].key, key) == 0 && e[i].role != GGUF_VECTOR) return &e[i];
    return NULL;
}

// Centroids may be named: they are measured, and left out of every GGUF file.
static bool is_left_out(const char *module) {
    return strcmp(module, "masked_embedding.centroids") == 0;
}

bool gguf_mix_of(GgufMix *out, GgufPin *pin, const Mix *mix, const AssistantConfig *c, Err *err) {
    GgufEntry e[GGUF_ENTRIES_MAX];
    const int n = gguf_assistant_tensors(GGUF_UNIVERSAL, c, e);
    int pins = 0;
    if (mix->format != MIX_GGUF || mix->target)
        return err_set(err, ERR_INPUT,
                       "a mixture for %s in %s, one for an assistant in gguf is needed",
                       mix->target ? "a target" : "an assistant", mix_format_name(mix->format));
    for (int i = 0; i < mix->n; i++) {
        const MixModule *m = &mix->module[i];
        if (is_left_out(m->module)) continue;
        snprintf(pin[pins].key, sizeof pin[pins].key, "%s.weight", m->module);
        pin[pins].type = m->type.type;
        const GgufEntry *t = matrix(e, n, pin[pins].key);
        if (t == NULL)
            return err_set(err, ERR_INPUT, "module %s is no matrix of the drafter", m->module);
        if (t->dim[0] % ggml_type(pin[pins].type)->block != 0)
            return err_set(err, ERR_INPUT, "module %s has rows of %lld values, %s has blocks of %d",
                           m->module, (long long)t->dim[0], ggml_type(pin[pins].type)->name,
                           ggml_type(pin[pins].type)->block);
        pins++;
    }
    *out = (GgufMix){.name = "mixed",
                     .file_type = file_type_of(commonest(pin, pins)),
                     .own = true,
                     .matrix = GGML_Q8_0,
                     .head = GGML_Q8_0,
                     .out = GGML_Q8_0,
                     .down = GGML_Q8_0,
                     .pin = pin,
                     .pins = pins};
    return true;
}
