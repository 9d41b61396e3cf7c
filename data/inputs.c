// data/inputs.c - entries of data.train and data.eval to files, names and weights.
#include "data/inputs.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "infer/base/hash.h"
#include "infer/base/utf8.h"

static bool there(const char *path) {
    return file_exists(path) || dir_exists(path);
}

// "PATH=WEIGHT": the text behind the last '=' is a number, and no file has the whole as its name.
static bool split_weight(Source *s, const char *setting, const char *entry, bool *weighted,
                         Err *err) {
    const char *eq = strrchr(entry, '=');
    char *end = NULL;
    double weight = 1;
    const bool given =
        eq && eq > entry && eq[1] && (weight = strtod(eq + 1, &end), *end == '\0') && !there(entry);
    s->path = given ? strndup(entry, (size_t)(eq - entry)) : strdup(entry);
    if (!s->path) return err_errno(err, "%s", setting);
    if (given && (!isfinite(weight) || weight <= 0))
        return err_set(err, ERR_USAGE, "%s: the weight of %s is %s, expected a number above 0",
                       setting, s->path, eq + 1);
    s->weight = given ? weight : 1;
    *weighted |= given;
    return true;
}

// Whether name ends in what corpora are called, and begins as `stem` does ("": any).
static bool is_corpus(const char *name, const char *stem) {
    static const char *const packed[] = {".gz", ".zst", ".xz"};
    static const char *const forms[] = {".jsonl", ".ndjson", ".json", ".tar", ".zip", ".tgz"};
    const size_t n = strlen(stem);
    if (name[0] == '.' || strncmp(name, stem, n) != 0) return false;
    if (n > 0 && name[n] != '.' && name[n] != '-') return false;
    size_t size = strlen(name);
    for (size_t i = 0; i < sizeof packed / sizeof *packed; i++) {
        const size_t k = strlen(packed[i]);
        if (size > k && !strcasecmp(name + size - k, packed[i])) {
            size -= k;
            break;
        }
    }
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const size_t k = strlen(forms[i]);
        if (size > k && !strncasecmp(name + size - k, forms[i], k)) return true;
    }
    return false;
}

static bool add_file(Source *s, const char *path, Err *err) {
    char **more = realloc(s->file, (size_t)(s->files + 1) * sizeof *more);
    if (!more) return err_errno(err, "%s", path);
    s->file = more;
    if (!(s->file[s->files] = strdup(path))) return err_errno(err, "%s", path);
    s->files++;
    return true;
}

static bool add_folder(Source *s, bool held_out, Err *err) {
    static const char *const train[] = {"train", "", NULL};
    static const char *const eval[] = {"test", "valid", "validation", "", NULL};
    char path[PATH_ROOM];
    int n;
    char **name = dir_list(s->path, &n, err);
    if (!name) return false;
    bool ok = true;
    for (const char *const *stem = held_out ? eval : train; *stem && s->files == 0; stem++)
        for (int i = 0; i < n && ok; i++)
            if (is_corpus(name[i], *stem) && file_exists(path_join(path, s->path, name[i])))
                ok = add_file(s, path, err);
    const char *parquet = NULL;
    for (int i = 0; i < n; i++)
        if (strstr(name[i], ".parquet")) parquet = name[i];
    if (ok && s->files == 0 && parquet)
        ok = add_file(s, path_join(path, s->path, parquet), err); // refused by name below
    dir_list_free(name, n);
    return ok && (s->files > 0 ||
                  err_set(err, ERR_INPUT, "%s: a folder without %s.jsonl or another corpus",
                          s->path, held_out ? "test.jsonl, valid" : "train"));
}

// Columnar files are the hub's default; no C library of Debian's reads them.
static bool refuse_columns(const char *path, Err *err) {
    char head[6] = "";
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const bool read_it = fd >= 0 && read(fd, head, sizeof head) >= 0;
    if (fd >= 0) close(fd);
    if (!read_it) return err_errno(err, "%s", path);
    const size_t n = strlen(path);
    const bool arrow = !memcmp(head, "ARROW1", 6);
    const bool named = n > 8 && !strcasecmp(path + n - 8, ".parquet");
    if (memcmp(head, "PAR1", 4) != 0 && !arrow && !named) return true;
    return err_set(err, ERR_INPUT,
                   "%s: %s is not read; this makes JSON lines of it: python3 -c \"import datasets; "
                   "datasets.load_dataset('%s', data_files='%s', split='train')"
                   ".to_json('%.*s.jsonl')\"",
                   path, arrow ? "Arrow" : "Parquet", arrow ? "arrow" : "parquet", path,
                   (int)(named ? n - 8 : n), path);
}

static bool expand(Source *s, bool held_out, Err *err) {
    if (dir_exists(s->path)) {
        if (!add_folder(s, held_out, err)) return false;
    } else if (!file_exists(s->path)) {
        return err_set(err, ERR_INPUT, "%s: %s", s->path,
                       access(s->path, F_OK) == 0 ? "not a regular file" : "no such file");
    } else if (!add_file(s, s->path, err)) {
        return false;
    }
    for (int i = 0; i < s->files; i++)
        if (!refuse_columns(s->file[i], err)) return false;
    return true;
}

// The last `parts` components of a path.
static void tail_of(const char *path, int parts, char out[128]) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t from = n;
    for (; from > 0; from--)
        if (path[from - 1] == '/' && --parts == 0) break;
    char part[PATH_ROOM];
    snprintf(part, sizeof part, "%.*s", (int)(n - from), path + from);
    utf8_fit(out, 128, part);
}

static void label(Sources *s, int i) {
    Source *own = &s->item[i];
    for (int parts = 1; parts < 4; parts++) {
        bool unique = true;
        tail_of(own->path, parts, own->label);
        for (int k = 0; k < i; k++) unique = unique && strcmp(s->item[k].label, own->label) != 0;
        if (unique) return;
    }
    char cut[112]; // room for the number
    tail_of(own->path, 1, own->label);
    snprintf(own->label, sizeof own->label, "%s#%d", utf8_fit(cut, sizeof cut, own->label), i + 1);
}

bool sources_open(Sources *s, const char *setting, const StrList *list, bool held_out, Err *err) {
    *s = (Sources){.item = calloc((size_t)list->n + 1, sizeof *s->item)};
    if (!s->item) return err_errno(err, "%s", setting);
    for (int i = 0; i < list->n; i++) {
        s->n = i + 1;
        if (!split_weight(&s->item[i], setting, list->item[i], &s->weighted, err) ||
            !expand(&s->item[i], held_out, err)) {
            sources_free(s);
            return false;
        }
        label(s, i);
    }
    return true;
}

void sources_free(Sources *s) {
    for (int i = 0; i < s->n; i++) {
        for (int k = 0; k < s->item[i].files; k++) free(s->item[i].file[k]);
        free(s->item[i].file);
        free(s->item[i].path);
    }
    free(s->item);
    *s = (Sources){0};
}

json_t *sources_hashes(const Sources *s, Err *err) {
    json_t *list = json_array();
    for (int i = 0; i < s->n; i++)
        for (int k = 0; k < s->item[i].files; k++) {
            Sha256 sha;
            if (!sha256_file(&sha, s->item[i].file[k], err)) {
                json_decref(list);
                return NULL;
            }
            json_array_append_new(list, json_string(sha.hex));
        }
    return list;
}

json_t *sources_weights(const Sources *s) {
    if (!s->weighted) return json_null();
    json_t *list = json_array();
    for (int i = 0; i < s->n; i++) json_array_append_new(list, json_real(s->item[i].weight));
    return list;
}
