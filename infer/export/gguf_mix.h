// infer/export/gguf_mix.h - which tensor of a GGUF file gets which type.
#ifndef EXPORT_GGUF_MIX_H
#define EXPORT_GGUF_MIX_H

#include "infer/model/gguf_names.h"

// A tensor whose type is chosen by hand (mixed precision), by Hugging Face key.
typedef struct {
    char key[136];
    GgmlType type;
} GgufPin;

typedef struct {
    char name[48];      // in file names: "Q4_K_M", "Q4_K_M-head4"
    uint32_t file_type; // general.file_type, the nearest one of a mix that has none
    bool own;           // no file type names it: the file says its name in a key of ours
    GgmlType matrix, head, out, down;
    bool down_some;     // down only on the layers that llama-quantize gives more bits, else matrix
    const GgufPin *pin; // borrowed
    int pins;
} GgufMix;
enum { GGUF_MIXES_MAX = 32 };

// One of llama-quantize's mixes, or one with "-head4" behind it: its head (most of an E2B or E4B
// drafter) at Q4_K. ERR_USAGE lists the names.
MUST_CHECK bool gguf_mix_named(GgufMix *m, const char *name, Err *err);
// The names that "all" stands for: the types that repositories of drafters ship.
int gguf_mix_all(const char *const **names);

// The type of a tensor: what the mix says, or what llama-quantize falls back to where a row is no
// multiple of that type's block.
GgmlType gguf_mix_type(const GgufMix *m, const GgufEntry *e, int64_t layers);
// Every tensor's type, and the bytes of the file's data section: what a writer writes.
// type: [n], NULL = only count.
int64_t gguf_plan(const GgufMix *m, const GgufEntry *e, int n, int64_t layers, GgmlType *type);

#endif
