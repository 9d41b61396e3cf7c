// infer/export/tree.c - walks a folder of files and folders.
#include "infer/export/tree.h"

#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 4 };

typedef struct {
    char **name;
    int n;
} List;

static void add(List *l, const char *name) {
    l->name = realloc(l->name, ((size_t)l->n + 1) * sizeof *l->name);
    CHECK_MEMORY(l->name);
    l->name[l->n] = strdup(name);
    CHECK_MEMORY(l->name[l->n]);
    l->n++;
}

// inside: the folder as seen from root, "" = root itself.
static bool walk(List *l, const char *root, const char *inside, int depth, Err *err) {
    char dir[PATH_ROOM], path[PATH_ROOM], name[PATH_ROOM];
    int n = 0;
    if (depth > DEPTH_MAX)
        return err_set(err, ERR_INPUT, "%s: folders more than %d deep", root, DEPTH_MAX);
    if (inside[0] == '\0')
        snprintf(dir, sizeof dir, "%s", root);
    else
        path_join(dir, root, inside);
    char **names = dir_list(dir, &n, err);
    bool ok = names != NULL;
    for (int i = 0; ok && i < n; i++) {
        path_join(path, dir, names[i]);
        if (inside[0] == '\0')
            snprintf(name, sizeof name, "%s", names[i]);
        else
            path_join(name, inside, names[i]);
        if (dir_exists(path))
            ok = walk(l, root, name, depth + 1, err);
        else
            add(l, name);
    }
    dir_list_free(names, n);
    return ok;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

char **tree_list(const char *dir, int *n, Err *err) {
    List l = {calloc(1, sizeof(char *)), 0};
    CHECK_MEMORY(l.name);
    const bool ok = walk(&l, dir, "", 0, err);
    *n = l.n;
    if (ok) {
        qsort(l.name, (size_t)l.n, sizeof *l.name, by_name);
        return l.name;
    }
    dir_list_free(l.name, l.n);
    *n = 0;
    return NULL;
}
