// train/checkpoint.c - the folder protocol: write aside, seal, rename, point, prune; verify before use.
#include "train/checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/hash.h"
#include "infer/base/json.h"
#include "infer/base/log.h"

enum { MANIFEST_LIMIT = 1 << 20, MANIFEST_VERSION = 1 };
static const char MANIFEST[] = "MANIFEST.json";

static void step_name(char out[64], int64_t step, const char *suffix) {
    snprintf(out, 64, "step-%06lld%s", (long long)step, suffix);
}

char *ckpt_path(char out[PATH_ROOM], const char *root, int64_t step) {
    char name[64];
    step_name(name, step, "");
    return path_join(out, root, name);
}

static char *tmp_path(char out[PATH_ROOM], const char *root, int64_t step) {
    char name[64];
    step_name(name, step, ".tmp");
    return path_join(out, root, name);
}

// "step-N" exactly as step_name() writes it, else -1.
static int64_t parse_step(const char *name) {
    char again[64];
    char *end;
    if (strncmp(name, "step-", 5) != 0) return -1;
    const int64_t step = strtoll(name + 5, &end, 10);
    if (*end != '\0' || step < 0) return -1;
    step_name(again, step, "");
    return strcmp(again, name) == 0 ? step : -1;
}

bool ckpt_begin(const char *root, int64_t step, char tmp[PATH_ROOM], Err *err) {
    return dir_make(root, err) && dir_remove(tmp_path(tmp, root, step), err) && dir_make(tmp, err);
}

void ckpt_abort(const char *root, int64_t step) {
    char tmp[PATH_ROOM];
    Err ignored = {0};
    if (!dir_remove(tmp_path(tmp, root, step), &ignored)) log_warn("%s", ignored.text);
}

static bool seal(const char *dir, int64_t step, Err *err) {
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
            json_object_set_new(files, names[i],
                                json_pack("{s:I, s:s}", "size", (json_int_t)size, "sha256", sha.hex));
    }
    dir_list_free(names, n);
    json_t *manifest = json_pack("{s:i, s:I, s:o}", "version", MANIFEST_VERSION, "step",
                                 (json_int_t)step, "files", files);
    ok = ok && json_write_file(path_join(path, dir, MANIFEST), manifest, err) && dir_sync(dir, err);
    json_decref(manifest);
    return ok;
}

bool ckpt_commit(const char *root, int64_t step, Err *err) {
    char tmp[PATH_ROOM], final[PATH_ROOM], stale[PATH_ROOM];
    tmp_path(tmp, root, step);
    ckpt_path(final, root, step);
    bool ok = seal(tmp, step, err);
    // A folder of this step can only be one that `latest` never acknowledged, or came after a
    // checkpoint that somebody went back to: it makes way first, by rename.
    if (ok && dir_exists(final)) {
        char name[64];
        step_name(name, step, ".old.tmp");
        ok = dir_remove(path_join(stale, root, name), err) && path_publish(final, stale, err);
    }
    ok = ok && path_publish(tmp, final, err);
    if (!ok) ckpt_abort(root, step);
    return ok && ckpt_point(root, "latest", step, err);
}

bool ckpt_point(const char *root, const char *name, int64_t step, Err *err) {
    char target[64], link[PATH_ROOM], tmp[PATH_ROOM], tmp_name[96];
    step_name(target, step, "");
    snprintf(tmp_name, sizeof tmp_name, "%s.link.tmp", name);
    path_join(link, root, name);
    path_join(tmp, root, tmp_name);
    if (unlink(tmp) != 0 && errno != ENOENT) return err_errno(err, "%s", tmp);
    if (symlink(target, tmp) != 0) return err_errno(err, "%s", tmp);
    return path_publish(tmp, link, err);
}

int64_t ckpt_pointed(const char *root, const char *name) {
    char link[PATH_ROOM], target[PATH_ROOM];
    const ssize_t n = readlink(path_join(link, root, name), target, sizeof target - 1);
    if (n <= 0) return -1;
    target[n] = '\0';
    return dir_exists(link) ? parse_step(target) : -1;
}

static bool verify_file(const char *dir, const char *name, const json_t *entry, Err *err) {
    char path[PATH_ROOM];
    int64_t want = -1, size = 0;
    const char *hex = NULL;
    Sha256 sha;
    if (strchr(name, '/') != NULL)
        return err_set(err, ERR_INPUT, "%s/%s: names '%s'", dir, MANIFEST, name);
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
        return err_set(err, ERR_INPUT, "%s: damaged: SHA-256 %s, its manifest says %s", path, sha.hex,
                       hex ? hex : "nothing");
    return true;
}

bool ckpt_verify(const char *dir, Err *err) {
    char path[PATH_ROOM];
    json_t *manifest = json_read_file(path_join(path, dir, MANIFEST), MANIFEST_LIMIT, err);
    if (manifest == NULL) return false;
    int64_t step = -1, version = -1;
    const int64_t named = parse_step(path_base(dir));
    const json_t *files = json_object_get(manifest, "files");
    const char *const required[] = {"config.json", "state.json", "state.safetensors"};
    bool ok = json_get_i64(manifest, "step", &step, err) &&
              json_get_i64(manifest, "version", &version, err);
    if (ok && version != MANIFEST_VERSION)
        ok = err_set(err, ERR_INPUT, "%s: version %lld, this build reads %d", path,
                     (long long)version, MANIFEST_VERSION);
    if (ok && named >= 0 && named != step)
        ok = err_set(err, ERR_INPUT, "%s: of step %lld, in the folder of step %lld", path,
                     (long long)step, (long long)named);
    for (int i = 0; ok && i < 3; i++)
        if (json_object_get(files, required[i]) == NULL)
            ok = err_set(err, ERR_INPUT, "%s: does not name %s", path, required[i]);
    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)files, name, entry) ok = ok && verify_file(dir, name, entry, err);
    json_decref(manifest);
    return ok;
}

static int by_step(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

bool ckpt_steps(const char *root, int64_t **steps, int *n, Err *err) {
    int names_n = 0;
    *steps = NULL;
    *n = 0;
    if (!dir_exists(root)) return true;
    char **names = dir_list(root, &names_n, err);
    if (names == NULL) return false;
    *steps = malloc((size_t)(names_n + 1) * sizeof **steps);
    if (*steps == NULL) {
        dir_list_free(names, names_n);
        return err_set(err, ERR_FAILED, "out of memory");
    }
    for (int i = 0; i < names_n; i++)
        if (parse_step(names[i]) >= 0) (*steps)[(*n)++] = parse_step(names[i]);
    dir_list_free(names, names_n);
    qsort(*steps, (size_t)*n, sizeof **steps, by_step);
    return true;
}

bool ckpt_find(const char *root, int64_t *step, Err *err) {
    char dir[PATH_ROOM];
    int64_t *steps;
    int n;
    *step = -1;
    if (!ckpt_steps(root, &steps, &n, err)) return false;
    const int64_t latest = ckpt_pointed(root, "latest");
    Err first = {0};
    for (int i = n - 1; i >= 0 && *step < 0; i--) {
        if (latest >= 0 && steps[i] > latest) continue;
        Err damaged = {0};
        if (ckpt_verify(ckpt_path(dir, root, steps[i]), &damaged)) {
            *step = steps[i];
        } else {
            log_warn("%s", damaged.text);
            if (first.code == ERR_NONE) first = damaged;
        }
    }
    free(steps);
    if (*step < 0 && first.code != ERR_NONE)
        return err_set(err, first.code, "no checkpoint under %s is whole: %s", root, first.text);
    if (first.code != ERR_NONE) log_warn("falling back to %s", ckpt_path(dir, root, *step));
    return true;
}

static void prune_tmp(const char *root) {
    char path[PATH_ROOM];
    int n = 0;
    Err err = {0};
    char **names = dir_list(root, &n, &err);
    for (int i = 0; names != NULL && i < n; i++) {
        const size_t len = strlen(names[i]);
        if (len < 4 || strcmp(names[i] + len - 4, ".tmp") != 0) continue;
        if (!dir_remove(path_join(path, root, names[i]), &err)) unlink(path);
    }
    dir_list_free(names, n);
}

void ckpt_prune(const char *root, int64_t keep, int64_t best) {
    char dir[PATH_ROOM], aside[PATH_ROOM], name[64];
    int64_t *steps = NULL;
    int n = 0;
    Err err = {0};
    bool ok = ckpt_steps(root, &steps, &n, &err);
    int others = 0; // beside the newest two and the best
    for (int i = n - 3; ok && i >= 0; i--) {
        if (steps[i] == best || others++ < keep) continue;
        // Renamed first: a folder half removed must not look like a checkpoint.
        step_name(name, steps[i], ".old.tmp");
        ok = path_publish(ckpt_path(dir, root, steps[i]), path_join(aside, root, name), &err) &&
             dir_remove(aside, &err);
    }
    free(steps);
    prune_tmp(root);
    if (!ok) log_warn("old checkpoints stay: %s", err.text);
}
