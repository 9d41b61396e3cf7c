// infer/export/repo.h - one drafter's repository: weights, configuration, tokenizer and card in a
// folder that appears whole or not at all.
#ifndef EXPORT_REPO_H
#define EXPORT_REPO_H

#include "infer/export/card.h"
#include "infer/export/hf.h"
#include "infer/export/mlx_recipe.h"

typedef struct {
    const char *stock_dir, *target_dir;
    HfSource weights;
    const MlxRecipe *mlx; // NULL: Hugging Face
    CardFacts card;       // kind, encoding, ordered, packed_head and weights are filled in here
} RepoInputs;

// Builds final_dir aside and renames it into place; an older folder of that name makes way. Files
// that the stock or the target do not have are left out.
MUST_CHECK bool repo_write(const RepoInputs *in, const char *final_dir, Err *err);
// The weights and small files alone, into a folder that is there: no card. encoding: what the card
// says of it; *packed_head: the table is quantised.
MUST_CHECK bool repo_fill(const RepoInputs *in, const char *dir, char encoding[256],
                          bool *packed_head, Err *err);
// The same replacement for a folder somebody else has built at tmp_dir.
MUST_CHECK bool repo_replace(const char *tmp_dir, const char *final_dir, Err *err);
// final_dir + ".tmp", new and empty. Returns tmp, NULL with err set.
MUST_CHECK char *repo_begin(char tmp[PATH_ROOM], const char *final_dir, Err *err);

#endif
