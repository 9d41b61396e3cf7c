// infer/model/weight_source.h - an assistant's parameters, whatever artifact holds them.
//
// An artifact is a Hugging Face or MLX folder, a safetensors file, a GGUF file. The model asks by
// Hugging Face key and gets floats; every kind of artifact has one reader (SourceKind).
#ifndef MODEL_WEIGHT_SOURCE_H
#define MODEL_WEIGHT_SOURCE_H

#include "infer/base/file.h"
#include "infer/format/safetensors.h"
#include "infer/model/gemma4_config.h"
#include "infer/tensor/tensor.h"

// A parameter as the artifact has it.
typedef struct {
    char key[96];             // the Hugging Face key it was asked by
    char type[24];            // as stored: "BF16", "Q4_K", "affine 4 bit g64"
    int rank;                 // as in a Hugging Face file: its values, not words they are packed in
    int64_t dim[ST_RANK_MAX]; // slowest first
    int64_t count;            // product of dim
    int64_t bytes;            // all that is stored for it: scales and biases too
    const void *at;           // the reader's own
} SourceTensor;

typedef struct WeightSource WeightSource;

// Opens the artifact and checks what no parameter shows alone (a repeated head that differs).
MUST_CHECK WeightSource *weight_source_open(const char *path, Err *err);
void weight_source_close(WeightSource *s);
// By Hugging Face key; false: the artifact has no such parameter.
bool weight_source_find(const WeightSource *s, const char *key, SourceTensor *out);
// Its values as dtype (DT_F32, DT_BF16: rounded to nearest even where they are stored otherwise).
// out: room for count F32 values, whatever the dtype.
MUST_CHECK bool weight_source_read(const WeightSource *s, const SourceTensor *t, DType dtype,
                                   void *out, Err *err);
// Values of an integer type ("I64", "I32"); another type is refused.
MUST_CHECK bool weight_source_read_ints(const WeightSource *s, const SourceTensor *t, int64_t *out,
                                        Err *err);

// What the artifact at path says an assistant is, its weights unread. Also decides the head that it
// deploys: c->ordered is 0 where the artifact carries no centroids (GGUF), whatever it was made
// from.
MUST_CHECK bool weight_source_config(AssistantConfig *c, const char *path, Err *err);
// A folder, or a file of a kind that is read alone; whether it is whole shows when it is opened.
bool weight_source_is(const char *path);
// The file whose hash names the weights: path itself, or model.safetensors of a folder (which need
// not be there: shards). Returns out.
char *weight_source_file(char out[PATH_ROOM], const char *path);
// Whether the artifact has a configuration of its own; a checkpoint's folder has none.
bool weight_source_whole(const char *path);

// For tables. bits_per_weight: of the parameters that assistant_params() names, all that is stored
// for them; bytes: all tensor data of the artifact.
typedef struct {
    char format[16]; // "HF", "MLX", "GGUF"
    char label[64];  // "BF16", "affine 4 bit g64", "mixed 5.17 bit", "Q4_K_M, gemma4-assistant"
    int64_t bytes;
    double bits_per_weight;
} ArtifactInfo;
void weight_source_info(const WeightSource *s, const AssistantConfig *c, ArtifactInfo *out);

// One kind of artifact. ctx: what open gave. Kinds are asked in the order of weight_source.c; the
// last one takes everything.
typedef struct {
    bool own_config;                      // the file itself carries it, there is no config.json
    bool (*recognises)(const char *path); // cheap and quiet
    bool (*config)(const char *path, AssistantConfig *c, Err *err);
    void *(*open)(const char *path, Err *err);
    void (*close)(void *ctx);
    bool (*find)(void *ctx, const char *key, SourceTensor *out); // fills all but key
    bool (*read)(void *ctx, const SourceTensor *t, DType dtype, void *out, Err *err);
    bool (*read_ints)(void *ctx, const SourceTensor *t, int64_t *out, Err *err);
    void (*info)(void *ctx, ArtifactInfo *out); // all but bits_per_weight
} SourceKind;
extern const SourceKind source_gguf, source_mlx, source_safetensors;

#endif
