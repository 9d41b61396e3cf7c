// infer/export/companions.h - the small files of a model folder: configuration, tokenizer,
// template.
#ifndef EXPORT_COMPANIONS_H
#define EXPORT_COMPANIONS_H

#include <jansson.h>

#include "infer/base/file.h"
#include "infer/model/gemma4_config.h"

// Copies from_dir/name into dir with members set (NULL: none), every other byte kept. An absent
// file is left out, or made of those members alone.
MUST_CHECK bool carry_json(const char *from_dir, const char *dir, const char *name,
                           const json_t *members, Err *err);
// config.json with members set. One that transformers has written (per_layer_config) gets the flat
// keys beside, which is what MLX runtimes read: global_head_dim and num_global_key_value_heads.
MUST_CHECK bool carry_config(const char *from_dir, const char *dir, const TextConfig *text,
                             json_t *members, Err *err);
// The files of the tokenizer that are there, and its template.
MUST_CHECK bool carry_tokenizer(const char *from_dir, const char *dir, Err *err);
// generation_config.json with temperature, top_p and top_k, which some runtimes want all three:
// those of from_dir, or Gemma 4's own where they are absent. k > 0: num_assistant_tokens.
MUST_CHECK bool carry_generation(const char *from_dir, const char *dir, int64_t k, Err *err);

#endif
