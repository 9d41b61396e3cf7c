// infer/export/gguf_keys.h - the keys of an assistant's GGUF file, as llama.cpp's converter writes
// them. Private to the exporter.
#ifndef EXPORT_GGUF_KEYS_H
#define EXPORT_GGUF_KEYS_H

#include "infer/export/gguf_export.h"

// What is read once for all files of a job.
typedef struct {
    Tokenizer *tokenizer;
    int32_t (*merge)[2];
    json_t *tokenizer_config, *config, *generation; // of the folders; empty objects when absent
    char *chat_template;                            // NULL = none
} GgufTexts;
MUST_CHECK bool gguf_texts_open(GgufTexts *t, const GgufJob *job, Err *err);
void gguf_texts_close(GgufTexts *t);

// general.*, then those of the architecture. written: gguf_written_config.
MUST_CHECK bool gguf_put_model(GgufWriter *w, const GgufJob *job, const GgufTexts *t,
                               const AssistantConfig *written, const GgufMix *mix, Err *err);
// tokenizer.*
void gguf_put_vocabulary(GgufWriter *w, const GgufTexts *t);

#endif
