// data/workspace.c - names of the stages' files; settings to models.
#include "data/workspace.h"

#include <string.h>

#include "infer/base/world.h"

const char *split_name(Split split) {
    static const char *const names[SPLIT_COUNT] = {"train", "dev", "eval"};
    return names[split];
}

char *split_path(char out[PATH_ROOM], const Settings *s, const char *folder, Split split,
                 const char *suffix) {
    char dir[PATH_ROOM], name[64];
    snprintf(name, sizeof name, "%s%s", split_name(split), suffix);
    return path_join(out, path_join(dir, s->output_dir, folder), name);
}

static EmbedScale embed_scale(const char *name) {
    if (!strcmp(name, "f32")) return EMBED_SCALE_F32;
    return !strcmp(name, "bf16") ? EMBED_SCALE_BF16 : EMBED_SCALE_AUTO;
}

char *hash_cache_path(char out[PATH_ROOM], const Settings *s) {
    return path_join(out, s->output_dir, "hashes.json");
}

static bool open_device(OpenTarget *o, const Settings *s, Err *err) {
    *o = (OpenTarget){0};
    o->dev = dev_open(s->runtime.device, (int)s->runtime.threads, err);
    if (!o->dev) return false;
    dev_set_graphs(o->dev, s->runtime.graphs);
    const bool wide = !strcmp(s->runtime.dtype, "f32") ||
                      (!strcmp(s->runtime.dtype, "auto") && !dev_prefers_bf16(o->dev));
    o->dtype = wide ? DT_F32 : DT_BF16;
    return load_target_config(&o->config, s, err);
}

bool load_target_config(TargetConfig *c, const Settings *s, Err *err) {
    if (!target_config_load(c, s->model.target_path, err)) return false;
    if (s->model.max_positions > 0) c->text.max_positions = s->model.max_positions;
    return true;
}

bool check_positions(const OpenTarget *o, const char *id, int64_t tokens, Err *err) {
    const int64_t most = o->config.text.max_positions;
    return tokens <= most ||
           err_set(err, ERR_INPUT,
                   "sequence %s has %lld tokens, the target takes %lld (max_position_embeddings; "
                   "model.max_positions sets another limit)",
                   id, (long long)tokens, (long long)most);
}

bool identify_target(OpenTarget *o, const Settings *s, Err *err) {
    char cache[PATH_ROOM];
    bool ok = open_device(o, s, err);
    if (ok && world_rank() == 0) // one reader, and one writer of the cache
        ok = target_fingerprint(&o->fingerprint, s->model.target_path, s->model.adapter_path,
                                hash_cache_path(cache, s), err);
    if (world_agree(ok, err) && world_share(&o->fingerprint, sizeof o->fingerprint, err))
        return true;
    close_target(o);
    return false;
}

bool load_target(OpenTarget *o, const Settings *s, int64_t max_rows, Err *err) {
    const TargetOptions opt = {.dir = s->model.target_path,
                               .adapter = s->model.adapter_path,
                               .dtype = o->dtype,
                               .scale = embed_scale(s->model.embed_scale),
                               .max_rows = max_rows};
    if (!o->target) o->target = target_open(o->dev, &opt, err);
    return o->target != NULL;
}

bool open_target(OpenTarget *o, const Settings *s, int64_t max_rows, Err *err) {
    if (open_device(o, s, err) && load_target(o, s, max_rows, err)) return true;
    close_target(o);
    return false;
}

void close_target(OpenTarget *o) {
    target_close(o->target);
    dev_close(o->dev);
    *o = (OpenTarget){0};
}

Tokenizer *open_tokenizer(const char *target_dir, int64_t vocab, Err *err) {
    char path[PATH_ROOM];
    Tokenizer *t = tokenizer_load(path_join(path, target_dir, "tokenizer.json"), err);
    if (!t || tokenizer_vocab(t) == vocab) return t;
    err_set(err, ERR_INPUT,
            "%s: a tokenizer of %d ids, config.json of the target has a vocabulary of %lld", path,
            (int)tokenizer_vocab(t), (long long)vocab);
    tokenizer_free(t);
    return NULL;
}
