// eval/quant/sensitivity.h - what a drafter loses when one of its matrices is stored in a smaller
// type: KL of its draft distributions over all steps, and tokens per target step.
#ifndef EVAL_SENSITIVITY_H
#define EVAL_SENSITIVITY_H

#include "data/measure.h"
#include "eval/quant/roundtrip.h"
#include "infer/format/imatrix_file.h"

// Modules are the matrices that an artifact of the format quantises: GGUF has no centroids; MLX
// keeps the table of a drafter with centroids in bf16, as the centroids themselves.
typedef struct {
    MixFormat format;
    int k;                     // steps rolled out, and the draft length that tokens are counted at
    Sampler sampler;           // that drew the text
    const Target *target;      // its head; NULL for greedy text
    const Imatrix *importance; // of the GGUF encoders; NULL: none
    int64_t max_anchors, pack_tokens;
    const char *only; // NULL, or a pattern of module paths (fnmatch)
} SensitivityOptions;

typedef struct {
    char module[96]; // path without ".weight"
    int64_t rows, cols;
    int widths;
    MixType type[ROUNDTRIP_TYPES];
    double kl[ROUNDTRIP_TYPES];   // mean over the steps, by how likely each is reached
    double lost[ROUNDTRIP_TYPES]; // tau(k) of the drafter less that with the module in this type
    double se[ROUNDTRIP_TYPES];   // standard error of that, over the sequences
} ModuleSensitivity;

typedef struct {
    MixFormat format;
    int k;
    Head head;               // tokens are counted with: dense for GGUF
    double tau, all;         // of the drafter itself
    double reach[DRAFT_MAX]; // how likely step j is reached
    int n;
    ModuleSensitivity module[ASSISTANT_PARAMS_MAX];
} Sensitivity;

// How likely each of k steps is reached, by the drafter's acceptance over all anchors.
MUST_CHECK bool measure_reach(double *reach, const Assistant *a, const TargetConfig *tc,
                              const SeqSource *src, const SensitivityOptions *opt, Err *err);
// Measures every module in every type; new, caller frees. A line a module on stderr.
MUST_CHECK Sensitivity *sensitivity_measure(const Assistant *a, const TargetConfig *tc,
                                            const SeqSource *src, const SensitivityOptions *opt,
                                            Err *err);
size_t sensitivity_bytes(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                         const SensitivityOptions *opt);

#endif
