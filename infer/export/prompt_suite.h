// infer/export/prompt_suite.h - held-out prompts as a suite that MTPLX's benchmark reads (spec
// export-formats D6).
#ifndef EXPORT_PROMPT_SUITE_H
#define EXPORT_PROMPT_SUITE_H

#include <stdint.h>

#include "infer/base/err.h"

typedef struct {
    const char *samples;       // data/eval.jsonl of a run
    const char *target_dir;    // tokenizer and template
    const char *chat_template; // by name, or "auto"
    int64_t max_tokens;
} SuiteInputs;

// One line a prompt: id, messages, category, max_tokens. Only prompts that are plain turns go in:
// their messages, rendered again, must give the very ids that acceptance was measured on. *left_out
// receives the others' number (tools, images, reasoning kept in the prompt).
MUST_CHECK bool prompt_suite_write(const char *path, const SuiteInputs *in, int64_t *written,
                                   int64_t *left_out, Err *err);

#endif
