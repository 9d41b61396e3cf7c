// infer/export/repo.h - one model repository: weights, configuration, tokenizer and card in a
// folder that appears whole or not at all.
#ifndef EXPORT_REPO_H
#define EXPORT_REPO_H

#include "infer/export/card.h"
#include "infer/export/hf.h"

typedef struct {
    const char *stock_dir, *target_dir;
    HfSource weights;
    CardFacts card; // sha256 is filled in here
} RepoInputs;

// Builds final_dir (its format is card.format) aside and renames it into place; an older folder of
// that name makes way. Files that the stock or the target do not have are left out.
MUST_CHECK bool repo_write(const RepoInputs *in, const char *final_dir, Err *err);
// The same replacement for a folder somebody else has built at tmp_dir.
MUST_CHECK bool repo_replace(const char *tmp_dir, const char *final_dir, Err *err);

#endif
