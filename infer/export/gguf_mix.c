// infer/export/gguf_mix.c - llama-quantize's mixes for four layers and a tied head, as measured
// with llama.cpp b11434 (ggml 0.26.0).
#include "infer/export/gguf_mix.h"

#include <stdio.h>
#include <string.h>

#include "infer/model/source_gguf.h"

typedef struct {
    const char *name;
    uint32_t file_type;
    GgmlType matrix, head, out, down;
    bool down_some;
} Row;

// MXFP4 is what ik_llama.cpp writes under that name and what repositories of drafters ship (74.4
// MiB for E2B with the vocabulary, where Q8_0 has 95.3): MXFP4 matrices, the head at Q6_K; both
// engines read it. llama-quantize has no such mix: its MXFP4_MOE, of the same number, holds no
// MXFP4 where there are no experts, so that "all" would hold Q8_0 twice.
static const Row ROWS[] = {
    {"BF16", 32, GGML_BF16, GGML_BF16, GGML_BF16, GGML_BF16, false},
    {"F16", 1, GGML_F16, GGML_F16, GGML_F16, GGML_F16, false},
    {"Q8_0", 7, GGML_Q8_0, GGML_Q8_0, GGML_Q8_0, GGML_Q8_0, false},
    {"Q6_K", 18, GGML_Q6_K, GGML_Q6_K, GGML_Q6_K, GGML_Q6_K, false},
    {"Q5_K_M", 17, GGML_Q5_K, GGML_Q6_K, GGML_Q5_K, GGML_Q6_K, true},
    {"Q5_K_S", 16, GGML_Q5_K, GGML_Q6_K, GGML_Q5_K, GGML_Q5_K, false},
    {"Q4_K_M", 15, GGML_Q4_K, GGML_Q6_K, GGML_Q4_K, GGML_Q6_K, true},
    {"Q4_K_S", 14, GGML_Q4_K, GGML_Q6_K, GGML_Q4_K, GGML_Q4_K, false},
    {"IQ4_NL", 25, GGML_IQ4_NL, GGML_Q6_K, GGML_IQ4_NL, GGML_IQ4_NL, false},
    {"IQ4_XS", 30, GGML_IQ4_XS, GGML_Q6_K, GGML_IQ4_XS, GGML_IQ4_XS, false},
    {"MXFP4", 38, GGML_MXFP4, GGML_Q6_K, GGML_MXFP4, GGML_MXFP4, false},
    {"Q3_K_L", 13, GGML_Q3_K, GGML_Q6_K, GGML_Q5_K, GGML_Q5_K, false},
    {"Q3_K_M", 12, GGML_Q3_K, GGML_Q6_K, GGML_Q4_K, GGML_Q4_K, false},
    {"Q3_K_S", 11, GGML_Q3_K, GGML_Q6_K, GGML_Q3_K, GGML_Q3_K, false},
    {"MXFP4_MOE", 38, GGML_Q8_0, GGML_Q8_0, GGML_Q8_0, GGML_Q8_0, false},
};
enum { ROW_COUNT = sizeof ROWS / sizeof *ROWS };

int gguf_mix_all(const char *const **names) {
    static const char *const ALL[] = {"BF16",   "F16",    "Q8_0",   "Q6_K",   "Q5_K_M", "Q5_K_S",
                                      "Q4_K_M", "Q4_K_S", "IQ4_NL", "IQ4_XS", "MXFP4",  "Q3_K_L"};
    *names = ALL;
    return sizeof ALL / sizeof *ALL;
}

static bool unknown(const char *name, Err *err) {
    char list[256] = "";
    for (int i = 0, at = 0; i < ROW_COUNT; i++)
        at += snprintf(list + at, sizeof list - (size_t)at, "%s%s", i ? ", " : "", ROWS[i].name);
    return err_set(err, ERR_USAGE, "no GGUF type %.40s: all, %s (or one of them with -head4)", name,
                   list);
}

bool gguf_mix_named(GgufMix *m, const char *name, Err *err) {
    static const char HEAD4[] = "-head4";
    const size_t size = strlen(name), tail = sizeof HEAD4 - 1;
    const bool head4 = size > tail && strcmp(name + size - tail, HEAD4) == 0;
    const size_t n = head4 ? size - tail : size;
    for (int i = 0; i < ROW_COUNT; i++) {
        const Row *r = &ROWS[i];
        if (strlen(r->name) != n || memcmp(r->name, name, n) != 0) continue;
        *m = (GgufMix){.file_type = r->file_type,
                       .own = strcmp(name, gguf_file_type_name(r->file_type)) != 0,
                       .matrix = r->matrix,
                       .head = head4 ? GGML_Q4_K : r->head,
                       .out = r->out,
                       .down = r->down,
                       .down_some = r->down_some};
        snprintf(m->name, sizeof m->name, "%s", name);
        return true;
    }
    return unknown(name, err);
}

// llama-quantize counts the ffn_down tensors: of four, layers 2 and 3.
static bool more_bits(int layer, int64_t layers) {
    return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

static GgmlType wanted(const GgufMix *m, const GgufEntry *e, int64_t layers) {
    if (e->role == GGUF_VECTOR) return GGML_F32;
    for (int i = 0; i < m->pins; i++)
        if (strcmp(m->pin[i].key, e->key) == 0) return m->pin[i].type;
    switch (e->role) {
    case GGUF_HEAD:
        return m->head;
    case GGUF_OUT:
        return m->out;
    case GGUF_DOWN:
        return m->down_some && !more_bits(e->layer, layers) ? m->matrix : m->down;
    default:
        return m->matrix;
    }
}

static GgmlType fallback(GgmlType t) {
    switch (t) {
    case GGML_Q3_K:
        return GGML_Q4_0;
    case GGML_Q4_K:
        return GGML_Q5_0;
    case GGML_Q5_K:
        return GGML_Q5_1;
    case GGML_Q6_K:
        return GGML_Q8_0;
    case GGML_IQ4_XS:
        return GGML_IQ4_NL;
    default:
        return GGML_F16;
    }
}

GgmlType gguf_mix_type(const GgufMix *m, const GgufEntry *e, int64_t layers) {
    GgmlType t = wanted(m, e, layers);
    while (e->dim[0] % ggml_type(t)->block != 0) t = fallback(t); // F16 has blocks of one
    return t;
}

int64_t gguf_plan(const GgufMix *m, const GgufEntry *e, int n, int64_t layers, GgmlType *type) {
    int64_t total = 0;
    for (int i = 0; i < n; i++) {
        const GgmlType t = gguf_mix_type(m, &e[i], layers);
        const int64_t bytes = gguf_padded(gguf_tensor_bytes(t, e[i].rank, e[i].dim), GGUF_ALIGN);
        CHECK(bytes >= 0, "(%s)", e[i].name); // a configuration bounds every size
        if (type != NULL) type[i] = t;
        total += bytes;
    }
    return total;
}
