// infer/export/manifest.c - seals a folder and tells whether it is still what was sealed.
#include "infer/export/manifest.h"

#include <string.h>

#include "infer/base/file.h"
#include "infer/base/hash.h"
#include "infer/base/json.h"

enum { MANIFEST_LIMIT = 1 << 20, MANIFEST_VERSION = 1 };

bool manifest_seal(const char *dir, int64_t step, Err *err) {
    char path[PATH_ROOM];
    int n = 0;
    char **names = dir_list(dir, &n, err);
    if (names == NULL) return false;
    json_t *files = json_object();
    bool ok = files != NULL || err_set(err, ERR_FAILED, "out of memory");
    for (int i = 0; ok && i < n; i++) {
        int64_t size = 0;
        Sha256 sha;
        path_join(path, dir, names[i]);
        ok = file_size(path, &size, err) && sha256_file(&sha, path, err);
        if (ok)
            json_object_set_new(
                files, names[i],
                json_pack("{s:I, s:s}", "size", (json_int_t)size, "sha256", sha.hex));
    }
    dir_list_free(names, n);
    json_t *manifest = json_pack("{s:i, s:I, s:o}", "version", MANIFEST_VERSION, "step",
                                 (json_int_t)step, "files", files);
    ok = ok && json_write_file(path_join(path, dir, MANIFEST_NAME), manifest, err) &&
         dir_sync(dir, err);
    json_decref(manifest);
    return ok;
}

static bool verify_file(const char *dir, const char *name, const json_t *entry, Err *err) {
    char path[PATH_ROOM];
    int64_t want = -1, size = 0;
    const char *hex = NULL;
    Sha256 sha;
    if (strchr(name, '/') != NULL)
        return err_set(err, ERR_INPUT, "%s/%s: names '%s'", dir, MANIFEST_NAME, name);
    path_join(path, dir, name);
    if (!json_get_i64(entry, "size", &want, err) || !json_get_str(entry, "sha256", &hex, err))
        return false;
    if (!file_exists(path)) return err_set(err, ERR_INPUT, "%s: missing", path);
    if (!file_size(path, &size, err)) return false;
    if (size != want)
        return err_set(err, ERR_INPUT, "%s: %lld bytes, its manifest says %lld", path,
                       (long long)size, (long long)want);
    if (!sha256_file(&sha, path, err)) return false;
    if (hex == NULL || strcmp(hex, sha.hex) != 0)
        return err_set(err, ERR_INPUT, "%s: damaged: SHA-256 %s, its manifest says %s", path,
                       sha.hex, hex ? hex : "nothing");
    return true;
}

bool manifest_verify(const char *dir, const char *const *required, int n, int64_t *step, Err *err) {
    char path[PATH_ROOM];
    json_t *manifest = json_read_file(path_join(path, dir, MANIFEST_NAME), MANIFEST_LIMIT, err);
    if (manifest == NULL) return false;
    int64_t version = -1;
    *step = -1;
    const json_t *files = json_object_get(manifest, "files");
    bool ok = json_get_i64(manifest, "step", step, err) &&
              json_get_i64(manifest, "version", &version, err);
    if (ok && version != MANIFEST_VERSION)
        ok = err_set(err, ERR_INPUT, "%s: version %lld, this build reads %d", path,
                     (long long)version, MANIFEST_VERSION);
    for (int i = 0; ok && i < n; i++)
        if (json_object_get(files, required[i]) == NULL)
            ok = err_set(err, ERR_INPUT, "%s: does not name %s", path, required[i]);
    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)files, name, entry) ok = ok && verify_file(dir, name, entry, err);
    json_decref(manifest);
    return ok;
}
