// infer/export/mix.h - which type every module of a model is stored in: a mixture found by
// measurement (eval makes the file) or by hand, read by the MLX and the GGUF exporter.
//
// The file, JSON:
//   {"kind": "mix", "model": "assistant" | "target", "format": "mlx" | "gguf",
//    "method": "optiq" | "tokens" | any word, "reference": "bf16",
//    "weights_sha256": hex of the file that was measured ("" = by hand),
//    "target_bpw": 5.0, "achieved_bpw": 5.17,   as the method counts them; 0 = by hand
//    "bits_per_weight": 5.67, "bytes": n,       all that is stored for the modules named
//    "n_high_bits": n, "n_low_bits": n,         modules at their largest and smallest width
//    "modules": {PATH: MODULE, ..}}
// PATH is a Hugging Face module path without ".weight" ("pre_projection",
// "model.layers.0.mlp.up_proj"; of a target "layers.3.self_attn.k_proj", its canonical name).
// MODULE: mlx {"bits": 2|3|4|5|6|8|16, "group_size": 64, "mode": "affine"}, 16 = left as it is
// (`false` in the config of an MLX model); gguf {"type": "Q4_K"}. Beside it "kl" and "lost_tokens"
// as measured (absent: not measured). A module that is not named is the exporter's to decide.
// Unknown keys are passed over.
#ifndef EXPORT_MIX_H
#define EXPORT_MIX_H

#include "infer/format/ggml_blocks.h"
#include "infer/format/mlx_blocks.h"

typedef enum { MIX_MLX, MIX_GGUF } MixFormat;
const char *mix_format_name(MixFormat f); // "mlx", "gguf"

// How one matrix is stored.
typedef struct {
    MixFormat format;
    MlxScheme mlx; // MIX_MLX; bits 16: as it is, in bf16
    GgmlType type; // MIX_GGUF
} MixType;
MixType mix_mlx(int bits, int group); // affine
MixType mix_gguf(GgmlType type);
bool mix_type_plain(const MixType *t);              // bf16: nothing is lost
void mix_type_name(char out[32], const MixType *t); // "4" (affine, group 64), "Q4_K"
// Of a matrix [rows, cols]; -1: the type does not fit its rows.
int64_t mix_type_bytes(const MixType *t, int64_t rows, int64_t cols);

typedef struct {
    char module[128];
    MixType type;
    double kl, lost; // NaN: not measured
} MixModule;

typedef struct {
    MixFormat format;
    bool target;
    char method[32], reference[32], weights[65];
    double target_bpw, achieved_bpw, bits_per_weight;
    int64_t bytes;
    int high, low; // n_high_bits, n_low_bits
    int n;
    MixModule *module; // owned; by name
} Mix;

MUST_CHECK Mix *mix_read(const char *path, Err *err);
MUST_CHECK bool mix_write(const char *path, const Mix *m, Err *err); // atomic
void mix_free(Mix *m);                                               // what mix_read gave
const MixModule *mix_find(const Mix *m, const char *module);         // NULL = not named

#endif
