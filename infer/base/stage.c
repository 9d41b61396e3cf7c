// infer/base/stage.c - the files that say a stage is done.
#include "infer/base/stage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "infer/base/hash.h"
#include "infer/base/json.h"
#include "infer/base/log.h"

enum { STAGE_BYTES = 16 << 20, VALUE_CHARS = 160, HASHED_BYTES = 256 << 20 };

static char *spelled(const json_t *v) {
    if (v == NULL) return strdup("absent");
    return json_text(v, JSON_COMPACT | JSON_SORT_KEYS);
}

static bool same(const json_t *a, const json_t *b) {
    char *x = spelled(a), *y = spelled(b);
    const bool equal = x && y && !strcmp(x, y);
    free(x);
    free(y);
    return equal;
}

// Names the first difference of two unequal values: "a.b was 1, is now 2".
static void say_difference(const char *path, json_t *was, json_t *is, const char *file, Err *err) {
    const char *key;
    json_t *v;
    char deeper[512];
    if (json_is_object(was) && json_is_object(is)) {
        json_t *all = json_copy(is); // the keys of both, those of `is` first
        json_object_update_missing(all, was);
        json_object_foreach(all, key, v) {
            json_t *a = json_object_get(was, key), *b = json_object_get(is, key);
            if (same(a, b)) continue;
            snprintf(deeper, sizeof deeper, "%s%s%s", path, *path ? "." : "", key);
            say_difference(deeper, a, b, file, err);
            break;
        }
        json_decref(all);
        return;
    }
    char *x = spelled(was), *y = spelled(is);
    err_set(err, ERR_USAGE, "%s was made with %s %.*s, now it is %.*s (--overwrite redoes it)",
            file, *path ? path : "identity", VALUE_CHARS, x ? x : "?", VALUE_CHARS, y ? y : "?");
    free(x);
    free(y);
}

static json_t *read_stage(const char *file, Err *err) {
    json_t *o = json_read_file(file, STAGE_BYTES, err);
    if (o != NULL && json_is_object(json_object_get(o, "identity"))) return o;
    if (o != NULL) err_set(err, ERR_INPUT, "%s: no \"identity\" object in it", file);
    json_decref(o);
    return NULL;
}

static json_t *fingerprint(const char *path, Err *err) {
    int64_t size = 0;
    Sha256 sha = {""};
    if (!file_size(path, &size, err)) return NULL;
    if (size <= HASHED_BYTES && !sha256_file(&sha, path, err)) return NULL;
    return json_pack("{s:I, s:s}", "bytes", (json_int_t)size, "sha256", sha.hex);
}

bool stage_note_output(json_t *outputs, const char *file, const char *name, Err *err) {
    char folder[PATH_ROOM], path[PATH_ROOM];
    json_t *o = fingerprint(path_join(path, path_folder(folder, file), name), err);
    return o != NULL && json_object_set_new(outputs, name, o) == 0;
}

static bool outputs_are_whole(const char *file, json_t *outputs) {
    char folder[PATH_ROOM], path[PATH_ROOM];
    const char *name;
    json_t *was;
    path_folder(folder, file);
    json_object_foreach(outputs, name, was) {
        Err gone = {0};
        json_t *is = strlen(folder) + strlen(name) + 2 < PATH_ROOM
                         ? fingerprint(path_join(path, folder, name), &gone)
                         : NULL;
        const bool whole = is != NULL && json_equal(is, was);
        json_decref(is);
        if (whole) continue;
        log_info("%s: %s/%s is no longer there as it was written: done again", file, folder, name);
        return false;
    }
    return true;
}

StageState stage_state(const char *file, const json_t *identity, bool overwrite, Err *err) {
    CHECK(json_is_object(identity));
    if (overwrite || !file_exists(file)) return STAGE_ABSENT;
    json_t *o = read_stage(file, err), *is = json_deep_copy(identity);
    StageState state = STAGE_ERROR;
    if (o != NULL && same(json_object_get(o, "identity"), is))
        state = outputs_are_whole(file, json_object_get(o, "outputs")) ? STAGE_DONE : STAGE_ABSENT;
    else if (o != NULL)
        say_difference("", json_object_get(o, "identity"), is, file, err);
    json_decref(is);
    json_decref(o);
    return state;
}

bool stage_clear(const char *file, Err *err) {
    char folder[PATH_ROOM];
    if (unlink(file) != 0) return errno == ENOENT || err_errno(err, "cannot remove %s", file);
    return dir_sync(path_folder(folder, file), err);
}

bool stage_publish(const char *file, const json_t *identity, const json_t *result, Err *err) {
    return stage_publish_outputs(file, identity, result, NULL, err);
}

bool stage_publish_outputs(const char *file, const json_t *identity, const json_t *result,
                           const json_t *outputs, Err *err) {
    json_t *o = json_object();
    json_object_set_new(o, "identity", json_deep_copy(identity));
    json_object_set_new(o, "result", result ? json_deep_copy(result) : json_object());
    if (outputs != NULL) json_object_set_new(o, "outputs", json_deep_copy(outputs));
    const bool ok = json_write_file(file, o, err);
    json_decref(o);
    return ok;
}

json_t *stage_result(const char *file, Err *err) {
    json_t *o = read_stage(file, err);
    if (o == NULL) return NULL;
    json_t *r = json_incref(json_object_get(o, "result"));
    if (r == NULL) err_set(err, ERR_INPUT, "%s: no \"result\" in it", file);
    json_decref(o);
    return r;
}
