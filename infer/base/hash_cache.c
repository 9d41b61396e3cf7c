// infer/base/hash_cache.c - absolute path -> what stat said and the SHA-256 that went with it.
#include "infer/base/hash_cache.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "infer/base/file.h"
#include "infer/base/json.h"

enum { CACHE_BYTES = 16 << 20, GRAIN_S = 2 }; // GRAIN_S: the coarsest timestamps in use (FAT)

typedef struct {
    char text[160];
    time_t touched; // the later of its two times
} Stamp;

static bool stamp_of(Stamp *s, const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) return false;
    s->touched = st.st_mtim.tv_sec > st.st_ctim.tv_sec ? st.st_mtim.tv_sec : st.st_ctim.tv_sec;
    snprintf(s->text, sizeof s->text, "%llx:%llu %lld %lld.%09ld %lld.%09ld",
             (unsigned long long)st.st_dev, (unsigned long long)st.st_ino, (long long)st.st_size,
             (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (long long)st.st_ctim.tv_sec,
             st.st_ctim.tv_nsec);
    return true;
}

static json_t *read_cache(const char *cache) {
    Err ignored = {0};
    json_t *o = file_exists(cache) ? json_read_file(cache, CACHE_BYTES, &ignored) : NULL;
    if (json_is_object(o)) return o;
    json_decref(o);
    return json_object();
}

static bool recall(const json_t *all, const char *key, const Stamp *now, Sha256 *out) {
    const json_t *entry = json_object_get(all, key);
    const char *stamp = json_string_value(json_object_get(entry, "stamp")),
               *hex = json_string_value(json_object_get(entry, "sha256"));
    if (stamp == NULL || hex == NULL || strcmp(stamp, now->text) != 0) return false;
    if (strlen(hex) != 64 || strspn(hex, "0123456789abcdef") != 64) return false;
    strcpy(out->hex, hex);
    return true;
}

bool sha256_remembered(Sha256 *out, const char *path, const char *cache, Err *err) {
    Stamp before, after;
    char *key = cache != NULL ? realpath(path, NULL) : NULL;
    if (key == NULL || !stamp_of(&before, path)) { // no cache; or no file: let the reader say so
        free(key);
        return sha256_file(out, path, err);
    }
    json_t *all = read_cache(cache);
    const time_t start = time(NULL);
    bool ok = recall(all, key, &before, out);
    if (!ok && (ok = sha256_file(out, path, err)) && stamp_of(&after, path) &&
        strcmp(before.text, after.text) == 0 && before.touched + GRAIN_S < start) {
        Err ignored = {0};
        json_object_set_new(all, key,
                            json_pack("{s:s, s:s}", "stamp", before.text, "sha256", out->hex));
        (void)!json_write_file(cache, all, &ignored); // else the next run hashes again
    }
    json_decref(all);
    free(key);
    return ok;
}
