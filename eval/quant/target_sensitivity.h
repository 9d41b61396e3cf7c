// eval/quant/target_sensitivity.h - KL of the target's own distributions when one of its modules is
// stored in fewer bits, as mlx-optiq measures it: module by module in the one model that is loaded,
// put back before the next.
#ifndef EVAL_TARGET_SENSITIVITY_H
#define EVAL_TARGET_SENSITIVITY_H

#include <jansson.h>

#include "data/batch.h"
#include "infer/model/target.h"

enum { TARGET_WIDTHS = 2 }; // 4 and 8 bits, group 64: mlx-optiq's candidates

typedef struct {
    int64_t max_tokens; // of a sequence, the rest is cut off (mlx-optiq: 512)
    int64_t max_rows;   // of a forward call: at most the target's
    const char *only;   // NULL, or a pattern of module names (fnmatch)
} TargetSensitivityOptions;

typedef struct {
    char module[96];
    int64_t params, bytes[TARGET_WIDTHS];
    double kl[TARGET_WIDTHS]; // mean over all positions of all sequences
} TargetModuleSensitivity;

// Every module whose rows fit the group, in the order of the layers; *n of them, the caller's to
// free. The target's weights are changed while it runs and are back, bit for bit, when it returns.
MUST_CHECK TargetModuleSensitivity *target_sensitivity(Target *t, const SeqSource *src,
                                                       const TargetSensitivityOptions *opt, int *n,
                                                       Err *err);
size_t target_sensitivity_bytes(const Target *t, const SeqSource *src,
                                const TargetSensitivityOptions *opt);
// In the form of sensitivity_json.h, without lost tokens; "embeddings": those that t has, which are
// not measured. New reference.
json_t *target_sensitivity_json(const Target *t, const TargetModuleSensitivity *m, int n);

#endif
