// eval/quant/sensitivity_json.h - what was measured of every module, as a file, and the mixture
// that follows from it.
//
// {"kind": "sensitivity", "model", "format", "k", "head", "tau", "reach": [..],
//  "layers": [{"layer_name", "sensitivities": {TYPE: KL, ..}, "param_count", "metadata": {"shape",
//  "lost_tokens": {TYPE: x}, "lost_tokens_se": {..}, "bytes": {..}}}, ..]}: layers in the
// form of mlx-optiq's checkpoint of sensitivities. TYPE: "4" bits of MLX, "Q4_K" of ggml. Of a
// target the lost tokens are absent. se: standard error over the sequences.
#ifndef EVAL_SENSITIVITY_JSON_H
#define EVAL_SENSITIVITY_JSON_H

#include <jansson.h>

#include "eval/quant/sensitivity.h"

json_t *sensitivity_json(const Sensitivity *s); // new reference

typedef struct {
    const char *method; // "tokens" | "optiq"
    double bpw;         // tokens: at most, all that is stored; optiq: at least, without scales
} MixWish;
// A mixture of the modules in `report`; new, mix_free. ERR_INPUT: not such a report, ERR_USAGE: a
// wish that it cannot grant (fewer bits than the smallest types have).
MUST_CHECK Mix *mix_of_sensitivity(const json_t *report, const MixWish *wish, Err *err);

#endif
