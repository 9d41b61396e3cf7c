// infer/export/card.h - the model card (README.md) of an exported drafter, and what acceptance.json
// says.
#ifndef EXPORT_CARD_H
#define EXPORT_CARD_H

#include <stdint.h>

#include <jansson.h>

#include "infer/base/err.h"
#include "infer/base/file.h"

// tau of both drafters at one draft length, greedy, deployed head.
typedef struct {
    bool known; // measured: acceptance.json holds both drafters at k
    double stock, trained;
    double gain, lo, hi; // relative change with its interval
} Measurement;

// acceptance: contents of eval/acceptance.json, NULL = none. Wrong types are ERR_INPUT.
MUST_CHECK bool measurement_at(Measurement *m, const json_t *acceptance, int64_t k, Err *err);

typedef enum { CARD_HF, CARD_MLX } CardFormat;

typedef struct {
    CardFormat format;
    const char *stock_dir, *target_dir, *adapter_dir; // adapter "" = none
    const char *target_fingerprint;                   // SHA-256, "" = unknown
    int64_t draft_tokens;                             // recommended k
    int64_t trained_k, steps;                         // 0 = unknown
    const json_t *acceptance;                         // NULL = not measured
    char sha256[65];                                  // of model.safetensors
} CardFacts;

// Writes dir/README.md. The same facts give the same bytes.
MUST_CHECK bool card_write(const char *dir, const CardFacts *facts, Err *err);
// The name to cite for a model folder: "org/name" out of a hub cache path, else the folder's name.
void card_model_name(const char *dir, char out[256]);

#endif
