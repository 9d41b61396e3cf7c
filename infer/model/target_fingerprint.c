// infer/model/target_fingerprint.c - which target this is, told by its files' contents.
#include "infer/base/file.h"
#include "infer/base/hash_cache.h"
#include "infer/format/safetensors.h"
#include "infer/model/target.h"

static bool hash_file(Hasher *h, const char *path, const char *cache, Err *err) {
    Sha256 one;
    if (!sha256_remembered(&one, path, cache, err)) return false;
    hasher_add(h, one.hex, sizeof one.hex);
    return true;
}

static bool hash_adapter(Hasher *h, const char *dir, const char *cache, Err *err) {
    static const char *const FILES[] = {"adapter_config.json", "adapter_model.safetensors"};
    char path[PATH_ROOM];
    bool ok = true;
    for (int i = 0; ok && i < 2; i++) ok = hash_file(h, path_join(path, dir, FILES[i]), cache, err);
    return ok || err_wrap(err, "adapter %s", dir);
}

// Hashes of the files, in order: the merged weights are a function of them.
bool target_fingerprint(Sha256 *out, const char *dir, const char *adapter, const char *cache,
                        Err *err) {
    TargetConfig config;
    if (!target_config_load(&config, dir, err)) return false;
    StFile *files = st_open(dir, err);
    if (files == NULL) return false;
    Hasher *h = hasher_new();
    bool ok = h != NULL || err_set(err, ERR_FAILED, "out of memory");
    if (ok) hasher_add(h, config.hash.hex, sizeof config.hash.hex);
    for (int i = 0; ok && i < st_shards(files); i++)
        ok = hash_file(h, st_shard_path(files, i), cache, err);
    if (ok && adapter != NULL && adapter[0] != '\0') ok = hash_adapter(h, adapter, cache, err);
    if (h != NULL) hasher_finish(h, out);
    st_close(files);
    return ok;
}
