// infer/base/file.c - paths, folders and whole-file reads.
#include "infer/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

char *path_join(char out[PATH_ROOM], const char *a, const char *b) {
    const size_t n = strlen(a);
    const char *slash = n == 0 || a[n - 1] == '/' ? "" : "/";
    const int used = snprintf(out, PATH_ROOM, "%s%s%s", a, slash, b);
    CHECK(used >= 0 && used < PATH_ROOM, "(path of %d bytes)", used);
    return out;
}

const char *path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

char *path_folder(char out[PATH_ROOM], const char *path) {
    path_join(out, "", path);
    char *slash = strrchr(out, '/');
    if (slash == NULL) return strcpy(out, ".");
    slash[slash == out] = '\0';
    return out;
}

bool file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool dir_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool file_size(const char *path, int64_t *size, Err *err) {
    struct stat st;
    if (stat(path, &st) != 0) return err_errno(err, "%s", path);
    if (!S_ISREG(st.st_mode)) return err_set(err, ERR_INPUT, "%s: not a regular file", path);
    *size = st.st_size;
    return true;
}

// Reads until the end or `room` bytes; -1 with errno set.
static ssize_t read_all(int fd, char *to, size_t room) {
    size_t got = 0;
    while (got < room) {
        const ssize_t n = read(fd, to + got, room - got);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

char *file_read(const char *path, int64_t limit, size_t *size, Err *err) {
    char *text = NULL;
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        err_errno(err, "%s", path);
        goto fail;
    }
    if (!S_ISREG(st.st_mode)) {
        err_set(err, ERR_INPUT, "%s: not a regular file", path);
        goto fail;
    }
    if (st.st_size > limit) {
        err_set(err, ERR_INPUT, "%s: %" PRId64 " bytes, at most %" PRId64 " are read", path,
                (int64_t)st.st_size, limit);
        goto fail;
    }
    text = malloc((size_t)st.st_size + 1);
    const ssize_t got = text ? read_all(fd, text, (size_t)st.st_size) : -1;
    if (got < 0) {
        err_errno(err, "%s", path);
        goto fail;
    }
    text[got] = '\0';
    *size = (size_t)got;
    close(fd);
    return text;
fail:
    free(text);
    if (fd >= 0) close(fd);
    return NULL;
}

// One folder, and its name in the one above onto the disk: what is synced below it later would be
// lost with that name.
static bool make_one(const char *path, Err *err) {
    char above[PATH_ROOM];
    if (mkdir(path, 0777) != 0) return errno == EEXIST || err_errno(err, "folder %s", path);
    return dir_sync(path_folder(above, path), err);
}

bool dir_make(const char *path, Err *err) {
    char part[PATH_ROOM];
    path_join(part, "", path);
    for (char *p = part + 1; part[0] != '\0'; p++) {
        const char was = *p;
        if (was != '/' && was != '\0') continue;
        *p = '\0';
        if (!make_one(part, err)) return false;
        if (was == '\0') break;
        *p = was;
    }
    if (!dir_exists(path)) return err_set(err, ERR_FAILED, "%s: exists and is not a folder", path);
    return true;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    return remove(path);
}

bool dir_remove(const char *path, Err *err) {
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
        return err_errno(err, "cannot remove %s", path);
    return true;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

char **dir_list(const char *path, int *n, Err *err) {
    char **names = NULL;
    int used = 0, room = 0;
    DIR *d = opendir(path);
    if (d == NULL) {
        err_errno(err, "folder %s", path);
        return NULL;
    }
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (used == room) {
            room = room ? 2 * room : 16;
            char **more = realloc(names, (size_t)room * sizeof *names);
            if (more == NULL) goto fail;
            names = more;
        }
        if ((names[used] = strdup(e->d_name)) == NULL) goto fail;
        used++;
    }
    closedir(d);
    if (names == NULL && (names = calloc(1, sizeof *names)) == NULL)
        err_errno(err, "folder %s", path);
    if (used > 1) qsort(names, (size_t)used, sizeof *names, by_name);
    *n = used;
    return names;
fail:
    err_errno(err, "folder %s", path);
    dir_list_free(names, used);
    closedir(d);
    return NULL;
}

void dir_list_free(char **names, int n) {
    for (int i = 0; names != NULL && i < n; i++) free(names[i]);
    free(names);
}

int64_t disk_free_bytes(const char *path) {
    char at[PATH_ROOM];
    path_join(at, "", *path ? path : ".");
    struct statvfs v;
    while (statvfs(at, &v) != 0) { // the nearest parent that exists
        char *slash = strrchr(at, '/');
        if (slash == NULL)
            strcpy(at, ".");
        else if (slash == at && at[1] != '\0')
            at[1] = '\0';
        else if (slash == at)
            return -1;
        else
            *slash = '\0';
    }
    return (int64_t)v.f_bavail * (int64_t)v.f_frsize;
}
