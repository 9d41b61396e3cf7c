// tests/fault/fault_disk.c - a disk that forgets: what was not synced when the power fails is gone,
// or part of it is.
//
// Kept per file: its content at the last fsync, in shadow/; per folder: its entries at the last
// fsync. What was there at the start is durable. A power failure builds the tree that such a disk
// would show: `drop` keeps nothing else; `mix` throws a coin for every entry that differs and for
// every file that was written since (old content, new, or new cut short).
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fault/fault.h"

enum { FILES = 4096, PATHS = 4096 };

typedef struct {
    char name[256];
    ino_t ino;
    mode_t mode;
    char target[256]; // of a symbolic link
} Entry;

typedef struct {
    Entry *entry;
    int n;
} Listing;

typedef struct {
    ino_t ino;
    bool folder, dirty, shadow; // shadow: a durable content is kept
    Listing durable;            // of a folder
} Node;

static char root[PATHS], scratch[PATHS];
static Node node[FILES];
static int nodes;
static uint64_t coins;

static void stop(const char *what) {
    fprintf(stderr, "fault_disk: %s: %s\n", what, strerror(errno));
    _exit(98);
}

static Node *node_of(ino_t ino) {
    for (int i = 0; i < nodes; i++)
        if (node[i].ino == ino) return &node[i];
    if (nodes == FILES) stop("too many files");
    node[nodes] = (Node){.ino = ino};
    return &node[nodes++];
}

static unsigned coin(unsigned sides) {
    coins = coins * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(coins >> 33) % sides;
}

static char *shadow_path(char out[PATHS], ino_t ino) {
    snprintf(out, PATHS, "%.3000s/shadow/%ju", scratch, (uintmax_t)ino);
    return out;
}

// size < 0: all of it
static void copy(const char *from, const char *to, off_t size) {
    static char block[1 << 20];
    const int in = libc.open(from, O_RDONLY),
              out = libc.open(to, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (in < 0 || out < 0) stop(to);
    for (ssize_t n; size != 0 && (n = libc.read(in, block, sizeof block)) > 0;) {
        if (size > 0 && n > size) n = size;
        if (size > 0) size -= n;
        if (libc.write(out, block, (size_t)n) != n) stop(to);
    }
    libc.close(in);
    libc.close(out);
}

static Listing list(const char *path) {
    Listing l = {0};
    DIR *d = opendir(path);
    if (d == NULL) return l;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char full[PATHS];
        struct stat st;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        snprintf(full, sizeof full, "%.3000s/%.255s", path, e->d_name);
        if (lstat(full, &st) != 0) stop(full);
        l.entry = realloc(l.entry, (size_t)(l.n + 1) * sizeof *l.entry);
        Entry *x = &l.entry[l.n++];
        *x = (Entry){.ino = st.st_ino, .mode = st.st_mode};
        snprintf(x->name, sizeof x->name, "%s", e->d_name);
        if (S_ISLNK(st.st_mode) && readlink(full, x->target, sizeof x->target - 1) < 0) stop(full);
    }
    closedir(d);
    return l;
}

static void folder_is_durable(const char *path, ino_t ino) {
    Node *n = node_of(ino);
    free(n->durable.entry);
    n->folder = true;
    n->durable = list(path);
}

static void all_is_durable(const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) return;
    folder_is_durable(path, st.st_ino);
    const Listing l = node_of(st.st_ino)->durable;
    for (int i = 0; i < l.n; i++) {
        char full[PATHS];
        snprintf(full, sizeof full, "%.3000s/%.255s", path, l.entry[i].name);
        if (S_ISDIR(l.entry[i].mode)) all_is_durable(full);
    }
}

void disk_start(const char *below, const char *folder, unsigned seed) {
    char path[PATHS];
    if (folder == NULL) stop("FAULT_DISK is not set");
    snprintf(root, sizeof root, "%s", below);
    snprintf(scratch, sizeof scratch, "%s", folder);
    snprintf(path, sizeof path, "%.3000s/shadow", scratch);
    if (libc.mkdir(path, 0777) != 0 && errno != EEXIST) stop(path);
    coins = seed;
    all_is_durable(root);
}

// A clean file's content is what the disk has: kept before anything happens to it.
static void keep(const char *path) {
    struct stat st;
    char shadow[PATHS];
    if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode)) return;
    Node *n = node_of(st.st_ino);
    if (n->dirty || n->shadow) return;
    copy(path, shadow_path(shadow, st.st_ino), -1);
    n->shadow = true;
}

void disk_before_open(const char *path) {
    keep(path);
}

void disk_made(const char *path) {
    struct stat st;
    if (lstat(path, &st) != 0) stop(path);
    Node *n = node_of(st.st_ino); // the number may have been another file's before
    free(n->durable.entry);
    *n = (Node){.ino = st.st_ino, .dirty = S_ISREG(st.st_mode)};
}

void disk_written(int fd) {
    struct stat st;
    if (fstat(fd, &st) == 0) node_of(st.st_ino)->dirty = true;
}

void disk_synced(int fd) {
    struct stat st;
    char path[PATHS], link[64], shadow[PATHS];
    if (fstat(fd, &st) != 0) stop("fsync");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (S_ISDIR(st.st_mode)) {
        const ssize_t n = readlink(link, path, sizeof path - 1);
        if (n < 0) stop(link);
        path[n] = '\0';
        folder_is_durable(path, st.st_ino);
        return;
    }
    Node *n = node_of(st.st_ino);
    copy(link, shadow_path(shadow, st.st_ino), -1);
    n->shadow = true;
    n->dirty = false;
}

// Held open for ever, so that no new file gets the number of one that the disk still knows.
void disk_before_removal(const char *path) {
    keep(path);
    (void)libc.open(path, O_RDONLY | O_NOFOLLOW);
}

static const Entry *named(const Listing *l, const char *name) {
    for (int i = 0; i < l->n; i++)
        if (strcmp(l->entry[i].name, name) == 0) return &l->entry[i];
    return NULL;
}

// Where a file or folder lies in the tree that the program sees; false: nowhere any more.
static bool find(const char *dir, ino_t ino, char out[PATHS]) {
    struct stat st;
    if (stat(dir, &st) == 0 && st.st_ino == ino) return snprintf(out, PATHS, "%s", dir) > 0;
    Listing l = list(dir);
    bool found = false;
    for (int i = 0; i < l.n && !found; i++) {
        char full[PATHS];
        snprintf(full, sizeof full, "%.3000s/%.255s", dir, l.entry[i].name);
        if (l.entry[i].ino == ino)
            found = snprintf(out, PATHS, "%s", full) > 0;
        else if (S_ISDIR(l.entry[i].mode))
            found = find(full, ino, out);
    }
    free(l.entry);
    return found;
}

static void rebuild_file(const Entry *e, const char *to, bool mix) {
    char now[PATHS], shadow[PATHS];
    struct stat st;
    const Node *n = node_of(e->ino);
    const bool there = find(root, e->ino, now) && stat(now, &st) == 0;
    const unsigned side = mix && there && n->dirty ? coin(3) : 0;
    if (there && (side > 0 || (!n->dirty && !n->shadow)))
        copy(now, to, side == 2 ? st.st_size / 2 : -1);
    else
        copy(n->shadow ? shadow_path(shadow, e->ino) : "/dev/null", to, -1);
}

static void rebuild(ino_t ino, const char *to, bool mix);

static void rebuild_entry(const Entry *e, const char *dir, bool mix) {
    char to[PATHS];
    snprintf(to, sizeof to, "%.3000s/%.255s", dir, e->name);
    if (S_ISDIR(e->mode))
        rebuild(e->ino, to, mix);
    else if (!S_ISLNK(e->mode))
        rebuild_file(e, to, mix);
    else if (libc.symlink(e->target, to) != 0)
        stop(to);
}

static void rebuild(ino_t ino, const char *to, bool mix) {
    char now[PATHS];
    const Listing before = node_of(ino)->durable;
    const Listing after = mix && find(root, ino, now) ? list(now) : (Listing){0};
    if (libc.mkdir(to, 0777) != 0) stop(to);
    for (int i = 0; i < before.n; i++) {
        const Entry *e = &before.entry[i], *other = named(&after, e->name);
        const bool same = other != NULL && other->ino == e->ino;
        if (mix && !same && coin(2)) continue; // the change reached the disk
        rebuild_entry(e, to, mix);
        if (other != NULL) after.entry[other - after.entry].name[0] = '\0';
    }
    for (int i = 0; i < after.n; i++) {
        const Entry *e = &after.entry[i];
        if (e->name[0] != '\0' && (named(&before, e->name) || coin(2))) rebuild_entry(e, to, mix);
    }
}

void disk_power_off(bool mix) {
    char crashed[PATHS];
    struct stat st;
    snprintf(crashed, sizeof crashed, "%.3000s/crashed", scratch);
    if (stat(root, &st) == 0) rebuild(st.st_ino, crashed, mix);
    _exit(97);
}
