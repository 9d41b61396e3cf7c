// infer/export/repo.c - puts a repository together.
#include "infer/export/repo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/hash.h"
#include "infer/base/log.h"
#include "infer/export/json_edit.h"
#include "infer/export/mlx.h"

enum { CONFIG_LIMIT = 16 << 20 };

// Copies from_dir/name with `key` set to value; key NULL: as it is. An absent file is left out, or
// made of that key alone.
static bool carry_json(const char *from_dir, const char *dir, const char *name, const char *key,
                       int64_t value, Err *err) {
    char from[PATH_ROOM], to[PATH_ROOM];
    size_t size;
    path_join(to, dir, name);
    if (!file_exists(path_join(from, from_dir, name))) {
        char text[128];
        if (key == NULL) return true;
        const int n = snprintf(text, sizeof text, "{\n  \"%s\": %lld\n}\n", key, (long long)value);
        return file_write(to, text, (size_t)n, err);
    }
    if (key == NULL) return file_copy(from, to, err);
    char *text = file_read(from, CONFIG_LIMIT, &size, err);
    char *edited = text ? json_text_set(from, text, size, key, value, err) : NULL;
    const bool ok = edited != NULL && file_write(to, edited, strlen(edited), err);
    free(edited);
    free(text);
    return ok;
}

static bool carry_tokenizer(const char *target_dir, const char *dir, Err *err) {
    static const char *const names[] = {"tokenizer.json",          "tokenizer_config.json",
                                        "special_tokens_map.json", "added_tokens.json",
                                        "chat_template.jinja",     "chat_template.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!carry_json(target_dir, dir, names[i], NULL, 0, err)) return false;
    return true;
}

static bool build(const RepoInputs *in, const char *dir, Err *err) {
    const bool mlx = in->card.format == CARD_MLX;
    const int64_t k = in->card.draft_tokens;
    char path[PATH_ROOM];
    Sha256 sha;
    CardFacts card = in->card;
    const bool written = mlx ? mlx_write(in->stock_dir, dir, &in->weights, err)
                             : hf_mirror(in->stock_dir, dir, &in->weights, err);
    if (!written) return false;
    // MLX runtimes take the draft length from config.json: block_size = k + 1
    if (!carry_json(in->stock_dir, dir, "config.json", mlx ? "block_size" : NULL, k + 1, err) ||
        !carry_json(in->stock_dir, dir, "generation_config.json", "num_assistant_tokens", k, err) ||
        !carry_tokenizer(in->target_dir, dir, err))
        return false;
    path_join(path, dir, "model.safetensors");
    if (file_exists(path)) {
        if (!sha256_file(&sha, path, err)) return false;
        memcpy(card.sha256, sha.hex, sizeof card.sha256);
    }
    return card_write(dir, &card, err) && dir_sync(dir, err);
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
    snprintf(tmp, sizeof tmp, "%.*s.tmp", PATH_ROOM - 8, final_dir);
    if (dir_remove(tmp, err) && dir_make(tmp, err) && build(in, tmp, err) &&
        repo_replace(tmp, final_dir, err))
        return true;
    if (!dir_remove(tmp, &ignored)) log_warn("%s", ignored.text);
    return err_wrap(err, "%s", final_dir);
}
