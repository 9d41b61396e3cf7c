// train/checkpoint.c - the folder protocol: write aside, seal, rename, point, prune; verify before
// use.
#include "train/checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/log.h"
#include "infer/export/manifest.h"

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

bool ckpt_commit(const char *root, int64_t step, Err *err) {
    char tmp[PATH_ROOM], final[PATH_ROOM], stale[PATH_ROOM];
    tmp_path(tmp, root, step);
    ckpt_path(final, root, step);
    bool ok = manifest_seal(tmp, step, err);
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
    if (path_publish(tmp, link, err)) return true;
    unlink(tmp); // gone already when only the folder could not be synced
    return false;
}

int64_t ckpt_pointed(const char *root, const char *name) {
    char link[PATH_ROOM], target[PATH_ROOM];
    const ssize_t n = readlink(path_join(link, root, name), target, sizeof target - 1);
    if (n <= 0) return -1;
    target[n] = '\0';
    return dir_exists(link) ? parse_step(target) : -1;
}

bool ckpt_verify(const char *dir, Err *err) {
    static const char *const required[] = {"config.json", "state.json", "state.safetensors"};
    const int64_t named = parse_step(path_base(dir));
    int64_t step = -1;
    if (!manifest_verify(dir, required, 3, &step, err)) return false;
    if (named >= 0 && named != step)
        return err_set(err, ERR_INPUT, "%s/%s: of step %lld, in the folder of step %lld", dir,
                       MANIFEST_NAME, (long long)step, (long long)named);
    return true;
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
