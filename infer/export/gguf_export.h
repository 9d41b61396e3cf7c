// infer/export/gguf_export.h - an assistant as GGUF files: any number of mixes from one reading of
// its weights.
#ifndef EXPORT_GGUF_EXPORT_H
#define EXPORT_GGUF_EXPORT_H

#include "infer/base/file.h"
#include "infer/export/gguf_mix.h"
#include "infer/export/hf.h"
#include "infer/text/tokenizer.h"

// Rows [first, first + n) of a parameter (a vector has one row), by Hugging Face key, as f32.
typedef struct {
    void *ctx;
    bool (*rows)(void *ctx, const char *key, int64_t first, int64_t n, int64_t cols, float *out,
                 Err *err);
} GgufWeights;

// Importance of columns: mean squares of what enters a matrix (an imatrix).
typedef struct {
    const char *file, *dataset; // as recorded in the file
    int64_t entries, chunks;
    void *ctx;
    // e->dim[0] values >= 0 (e as the weights are, not widened), borrowed; NULL = none for it.
    const float *(*find)(void *ctx, const GgufEntry *e);
} GgufImportance;

typedef struct {
    GgufDialect dialect;
    const AssistantConfig *config; // of the weights
    GgufWeights weights;
    const char *stock_dir;            // config.json, generation_config.json
    const char *tokenizer_dir;        // tokenizer.json, tokenizer_config.json, chat template
    const char *name;                 // general.name and the middle of the file names
    const char *base_model;           // "org/name" or a name; "" = none
    const GgufImportance *importance; // NULL = none
} GgufJob;

// Writes dir/mtp-NAME-MIX.gguf for every mix; dir must be there. Each file is atomic. The
// vocabulary must have as many pieces as the assistant has rows.
MUST_CHECK bool gguf_export(const GgufJob *job, const GgufMix *mix, int n, const char *dir,
                            Err *err);
// The bytes that each of those files will have; reads no weights, writes nothing. bytes: [n].
MUST_CHECK bool gguf_export_bytes(const GgufJob *job, const GgufMix *mix, int n, int64_t *bytes,
                                  Err *err);
// "mtp-NAME-MIX.gguf" into out; what does not belong into a file name becomes '-'. Returns out.
char *gguf_file_name(char out[256], const char *name, const char *mix);

// llama.cpp refuses an assistant that is as wide as its target. Such a one is written four times as
// wide, the new channels zero: the same function, since a mean over four times as many squares is
// exactly halved by a root, and the norms' weights halve with it. The configuration that the file
// gets; *wide tells whether it differs.
AssistantConfig gguf_written_config(GgufDialect d, const AssistantConfig *c, bool *wide);

// Weights out of another drafter's files in the stock's shapes and dtypes (hf.h): the values that a
// Hugging Face export has. One tensor is held in memory.
typedef struct GgufSource GgufSource;
MUST_CHECK GgufSource *gguf_source_open(const char *stock_dir, const HfSource *src, Err *err);
GgufWeights gguf_source_weights(GgufSource *s);
void gguf_source_close(GgufSource *s);

#endif
