// infer/model/gemma4_text_config.h - the text part of a config.json, for gemma4_config.c alone.
#ifndef MODEL_GEMMA4_TEXT_CONFIG_H
#define MODEL_GEMMA4_TEXT_CONFIG_H

#include "infer/model/gemma4_config.h"

// Reads a named whole number; absent or null keeps *out; outside min..max is ERR_INPUT.
MUST_CHECK bool config_int(const json_t *o, const char *key, int64_t min, int64_t max, int64_t *out,
                           Err *err);
MUST_CHECK bool config_real(const json_t *o, const char *key, double min, double max, double *out,
                            Err *err);
MUST_CHECK bool config_flag(const json_t *o, const char *key, int *out, Err *err);
// Everything of TextConfig but model_type, checked. assistant: owns no K/V, no PLE, no experts.
MUST_CHECK bool text_config_read(TextConfig *c, const json_t *root, bool assistant, Err *err);

#endif
