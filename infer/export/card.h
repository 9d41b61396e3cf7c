// infer/export/card.h - the model card (README.md) of an exported artifact, and what
// acceptance.json says.
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

// What an artifact is; bits, so that a runtime can name all it reads.
typedef enum {
    CARD_HF = 1,
    CARD_MLX = 2,        // floats
    CARD_MLX_PACKED = 4, // quantised
    CARD_GGUF = 8,       // gemma4-assistant
    CARD_GGUF_IK = 16,   // gemma4_mtp
    CARD_TARGET_HF = 32,
    CARD_TARGET_MLX = 64,
    CARD_MTPLX = 128,
} CardKind;

typedef struct {
    CardKind kind;
    const char *encoding;                             // "bf16", "Q4_K_M", "affine, 4 bits, ..."
    const char *stock_dir, *target_dir, *adapter_dir; // adapter "" or NULL = none
    const char *target_fingerprint;                   // SHA-256, "" = unknown
    int64_t draft_tokens;                             // recommended k
    int64_t trained_k, steps;                         // 0 = unknown
    bool ordered;                                     // the drafter has a centroid head
    bool quantised;              // an MLX or MTPLX drafter's values are not those that were trained
    bool packed_head;            // and its table is quantised
    bool mtplx_runnable;         // the pair is one that MTPLX takes
    int64_t width, padded_width; // hidden_size as trained and as the file has it; 0 = the same
    const json_t *acceptance;    // NULL = not measured
    const char *drafter_sha;     // of the trained drafter's weights, NULL = unknown
    const char *weights; // name of the artifact's weight file in its folder: its SHA-256 finds
                         // its own measurement. NULL: it has several, or none of its own
    const char *hashes;  // hash_cache.h, NULL = none
} CardFacts;

// Writes dir/README.md, over every file of the folder. The same facts give the same bytes.
MUST_CHECK bool card_write(const char *dir, const CardFacts *facts, Err *err);
// The name to cite for a model folder: "org/name" out of a hub cache path, else the folder's name.
void card_model_name(const char *dir, char out[256]);

#endif
