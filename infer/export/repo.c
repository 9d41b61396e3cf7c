// infer/export/repo.c - puts a repository together.
#include "infer/export/repo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/export/companions.h"
#include "infer/export/mlx.h"
#include "infer/model/gemma4_config.h"

static bool fill_hf(const RepoInputs *in, const char *dir, char encoding[256], Err *err) {
    if (!hf_mirror(in->stock_dir, dir, &in->weights, err)) return false;
    StFile *f = st_open(in->stock_dir, err);
    if (f == NULL) return false;
    const StTensor *table = st_find(f, "model.embed_tokens.weight");
    snprintf(encoding, 256, "%s", table != NULL ? table->dtype : "");
    st_close(f);
    json_t *k = json_pack("{s:I}", "num_assistant_tokens", (json_int_t)in->card.draft_tokens);
    const bool ok = carry_json(in->stock_dir, dir, "config.json", NULL, err) &&
                    carry_json(in->stock_dir, dir, "generation_config.json", k, err);
    json_decref(k);
    return ok;
}

// MLX runtimes take the draft length from config.json: block_size = k + 1.
static bool mlx_config(const RepoInputs *in, const char *dir, const MlxRules *rules, Err *err) {
    AssistantConfig config;
    if (!assistant_config_load(&config, in->stock_dir, err)) return false;
    json_t *members = json_pack("{s:I}", "block_size", (json_int_t)in->card.draft_tokens + 1);
    mlx_rules_put(rules, members);
    const bool ok = carry_config(in->stock_dir, dir, &config.text, members, err);
    json_decref(members);
    return ok;
}

static bool fill_mlx(const RepoInputs *in, const char *dir, char encoding[256], bool *packed_head,
                     Err *err) {
    MlxRules rules = {0};
    char stock[256];
    card_model_name(in->stock_dir, stock);
    bool ok = mlx_write(in->stock_dir, dir, &in->weights, in->mlx, &rules, err) &&
              mlx_config(in, dir, &rules, err) &&
              carry_generation(in->stock_dir, dir, in->card.draft_tokens, err);
    if (ok && in->mlx->mix != NULL) ok = mlx_recipe_metadata(in->mlx, dir, stock, err);
    mlx_rules_text(&rules, encoding);
    const MlxRule *table = mlx_rules_find(&rules, "model.embed_tokens");
    *packed_head = rules.present && (table == NULL || !table->keep);
    mlx_rules_free(&rules);
    return ok;
}

bool repo_fill(const RepoInputs *in, const char *dir, char encoding[256], bool *packed_head,
               Err *err) {
    *packed_head = false;
    return (in->mlx == NULL ? fill_hf(in, dir, encoding, err)
                            : fill_mlx(in, dir, encoding, packed_head, err)) &&
           carry_tokenizer(in->target_dir, dir, err);
}

static bool build(const RepoInputs *in, const char *dir, Err *err) {
    char encoding[256] = "", path[PATH_ROOM];
    AssistantConfig config;
    CardFacts card = in->card;
    if (!assistant_config_load(&config, in->stock_dir, err) ||
        !repo_fill(in, dir, encoding, &card.packed_head, err))
        return false;
    card.kind = in->mlx == NULL ? CARD_HF : in->mlx->quantise ? CARD_MLX_PACKED : CARD_MLX;
    card.encoding = encoding;
    card.quantised = in->mlx != NULL && in->mlx->quantise;
    card.ordered = config.ordered != 0;
    card.weights =
        file_exists(path_join(path, dir, "model.safetensors")) ? "model.safetensors" : NULL;
    return card_write(dir, &card, err) && dir_sync(dir, err);
}

char *repo_begin(char tmp[PATH_ROOM], const char *final_dir, Err *err) {
    snprintf(tmp, PATH_ROOM, "%.*s.tmp", PATH_ROOM - 8, final_dir);
    return dir_remove(tmp, err) && dir_make(tmp, err) ? tmp : NULL;
}

bool repo_replace(const char *tmp_dir, const char *final_dir, Err *err) {
    char old[PATH_ROOM];
    snprintf(old, sizeof old, "%.*s.old", PATH_ROOM - 8, final_dir);
    if (!dir_remove(old, err)) return false;
    if (dir_exists(final_dir) && !path_publish(final_dir, old, err)) return false;
    return path_publish(tmp_dir, final_dir, err) && dir_remove(old, err);
}

bool repo_write(const RepoInputs *in, const char *final_dir, Err *err) {
    char tmp[PATH_ROOM];
    Err ignored = {0};
    if (repo_begin(tmp, final_dir, err) == NULL) return false;
    if (build(in, tmp, err) && repo_replace(tmp, final_dir, err)) return true;
    if (!dir_remove(tmp, &ignored)) log_warn("%s: left behind: %s", tmp, ignored.text);
    return false;
}
