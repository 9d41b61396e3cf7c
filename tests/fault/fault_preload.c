// tests/fault/fault_preload.c - counts calls on the files of a run and lets the chosen one fail.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fault/fault.h"

typedef enum {
    OPEN,
    READ,
    WRITE,
    FSYNC,
    CLOSE,
    RENAME,
    UNLINK,
    MKDIR,
    SYMLINK,
    TRUNCATE,
    LOCK,
    MALLOC,
    ANY,
    KINDS
} Kind;
static const char *const kind_names[KINDS] = {"open",   "read",   "write", "fsync",   "close",
                                              "rename", "unlink", "mkdir", "symlink", "truncate",
                                              "lock",   "malloc", "any"};
typedef enum { PASS, FAIL, SHORT } Verdict;
enum { FDS = 4096 };

Libc libc;
static char under[4096], count_file[4096], *fd_path[FDS];
static bool fd_writes[FDS], armed, later, disk, interrupts;
static Kind kind;
static long count[KINDS], wanted, fired;
static char how[16];
static uintptr_t text_begin, text_end; // of the program itself
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;

static int error_of(const char *name) {
    static const struct {
        const char *name;
        int value;
    } errors[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EINTR", EINTR},
                  {"EACCES", EACCES}, {"EMFILE", EMFILE}, {"ENOMEM", ENOMEM}};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (strcmp(errors[i].name, name) == 0) return errors[i].value;
    return 0;
}

static int find_program(struct dl_phdr_info *info, size_t size, void *data) {
    (void)size, (void)data;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X)) continue;
        text_begin = info->dlpi_addr + p->p_vaddr;
        text_end = text_begin + p->p_memsz;
    }
    return 1; // the first is the program
}

#define FIND(name) *(void **)&libc.name = dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void start(void) {
    FIND(open), FIND(read), FIND(write), FIND(pread), FIND(pwrite), FIND(fsync), FIND(fdatasync);
    FIND(close), FIND(ftruncate), FIND(rename), FIND(symlink), FIND(unlink), FIND(remove);
    FIND(mkdir), FIND(flock);
    dl_iterate_phdr(find_program, NULL);
    const char *dir = getenv("FAULT_UNDER"), *what = getenv("FAULT"), *to = getenv("FAULT_COUNT");
    const char *folder = getenv("FAULT_DISK"), *seed = getenv("FAULT_SEED");
    char name[16] = "", plus = 0;
    if (dir == NULL) return;
    snprintf(under, sizeof under, "%s", dir);
    if (to != NULL) snprintf(count_file, sizeof count_file, "%s", to);
    if (what != NULL) {
        if (sscanf(what, "%15[a-z]:%ld%c%15s", name, &wanted, &plus, how) != 4) abort();
        later = plus == '+';
        if (later) memmove(how, how + 1, strlen(how));
        while (kind < KINDS && strcmp(kind_names[kind], name) != 0) kind++;
        if (kind == KINDS) abort();
    }
    interrupts = strcmp(how, "EINTR") == 0;
    disk = strcmp(how, "drop") == 0 || strcmp(how, "mix") == 0;
    if (disk) disk_start(under, folder, seed ? (unsigned)atoi(seed) : 1);
    armed = true;
}

__attribute__((destructor)) static void end(void) {
    if (!armed || count_file[0] == '\0') return;
    armed = false;
    FILE *f = fopen(count_file, "w");
    if (f == NULL) abort();
    for (int i = 0; i < KINDS; i++) fprintf(f, "%s %ld\n", kind_names[i], count[i]);
    fprintf(f, "fired %ld\n", fired);
    fclose(f);
}

static bool is_under(const char *path) {
    const size_t n = strlen(under);
    return armed && strncmp(path, under, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

static bool known(int fd) {
    return armed && fd >= 0 && fd < FDS && fd_path[fd] != NULL;
}

static Verdict fire(void) {
    if (strcmp(how, "kill") == 0) {
        kill(getpid(), SIGKILL);
        pause();
    }
    if (disk) disk_power_off(strcmp(how, "mix") == 0);
    if (strcmp(how, "short") == 0) return SHORT;
    errno = error_of(how);
    if (errno == 0) abort();
    return FAIL;
}

// One call of `k`; changes: it alters the disk.
static Verdict called(Kind k, bool changes) {
    pthread_mutex_lock(&guard);
    count[k]++;
    if (changes) count[ANY]++;
    const bool mine = kind == k || (kind == ANY && changes);
    const long at = kind == ANY ? count[ANY] : count[k];
    // "interrupted" and nothing else would never end: every other call
    const bool again = later && at > wanted && (!interrupts || (at - wanted) % 2 == 0);
    const bool hit = how[0] != '\0' && mine && (at == wanted || again);
    fired += hit;
    pthread_mutex_unlock(&guard);
    return hit ? fire() : PASS;
}

static int opened(const char *path, int flags, mode_t mode) {
    if (!is_under(path)) return libc.open(path, flags, mode);
    const bool creates = (flags & O_CREAT) && access(path, F_OK) != 0;
    if (called(OPEN, creates || (flags & O_TRUNC)) == FAIL) return -1;
    const bool writes = (flags & O_ACCMODE) != O_RDONLY;
    if (disk && writes && !creates) disk_before_open(path);
    const int fd = libc.open(path, flags, mode);
    if (fd < 0 || fd >= FDS) return fd;
    free(fd_path[fd]);
    fd_path[fd] = strdup(path);
    fd_writes[fd] = writes;
    if (disk && creates) disk_made(path);
    return fd;
}

#define WITH_MODE(call)                                                                            \
    mode_t mode = 0;                                                                               \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                           \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        mode = va_arg(ap, mode_t);                                                                 \
        va_end(ap);                                                                                \
    }                                                                                              \
    return call

int open(const char *path, int flags, ...) {
    WITH_MODE(opened(path, flags, mode));
}
int open64(const char *path, int flags, ...) {
    WITH_MODE(opened(path, flags, mode));
}
int __open_2(const char *path, int flags);
int __open_2(const char *path, int flags) {
    return opened(path, flags, 0);
}
int __open64_2(const char *path, int flags);
int __open64_2(const char *path, int flags) {
    return opened(path, flags, 0);
}

int close(int fd) {
    if (!known(fd)) return libc.close(fd);
    const Verdict v = called(CLOSE, fd_writes[fd]);
    free(fd_path[fd]);
    fd_path[fd] = NULL;
    const int error = errno, rc = libc.close(fd); // an error or not, the descriptor is gone
    if (v != FAIL) return rc;
    errno = error;
    return -1;
}

static size_t half(Verdict v, size_t n) {
    return v == SHORT && n > 1 ? n / 2 : n;
}

ssize_t read(int fd, void *to, size_t n) {
    const Verdict v = known(fd) ? called(READ, false) : PASS;
    return v == FAIL ? -1 : libc.read(fd, to, half(v, n));
}
ssize_t pread(int fd, void *to, size_t n, off_t at) {
    const Verdict v = known(fd) ? called(READ, false) : PASS;
    return v == FAIL ? -1 : libc.pread(fd, to, half(v, n), at);
}
ssize_t pread64(int fd, void *to, size_t n, off_t at) {
    return pread(fd, to, n, at);
}
ssize_t __read_chk(int fd, void *to, size_t n, size_t room);
ssize_t __read_chk(int fd, void *to, size_t n, size_t room) {
    return n <= room ? read(fd, to, n) : -1;
}
ssize_t __pread64_chk(int fd, void *to, size_t n, off_t at, size_t room);
ssize_t __pread64_chk(int fd, void *to, size_t n, off_t at, size_t room) {
    return n <= room ? pread(fd, to, n, at) : -1;
}

ssize_t write(int fd, const void *from, size_t n) {
    const Verdict v = known(fd) ? called(WRITE, true) : PASS;
    if (v == FAIL) return -1;
    if (disk && known(fd)) disk_written(fd);
    return libc.write(fd, from, half(v, n));
}
ssize_t pwrite(int fd, const void *from, size_t n, off_t at) {
    const Verdict v = known(fd) ? called(WRITE, true) : PASS;
    if (v == FAIL) return -1;
    if (disk && known(fd)) disk_written(fd);
    return libc.pwrite(fd, from, half(v, n), at);
}
ssize_t pwrite64(int fd, const void *from, size_t n, off_t at) {
    return pwrite(fd, from, n, at);
}

int ftruncate(int fd, off_t size) {
    if (known(fd) && called(TRUNCATE, true) == FAIL) return -1;
    if (disk && known(fd)) disk_written(fd);
    return libc.ftruncate(fd, size);
}
int ftruncate64(int fd, off_t size) {
    return ftruncate(fd, size);
}

static int synced(int fd, int (*real)(int)) {
    if (known(fd) && called(FSYNC, true) == FAIL) return -1;
    const int rc = real(fd);
    if (rc == 0 && disk && known(fd)) disk_synced(fd);
    return rc;
}
int fsync(int fd) {
    return synced(fd, libc.fsync);
}
int fdatasync(int fd) {
    return synced(fd, libc.fdatasync);
}

int flock(int fd, int operation) {
    return known(fd) && called(LOCK, false) == FAIL ? -1 : libc.flock(fd, operation);
}

int rename(const char *from, const char *to) {
    if (!is_under(from)) return libc.rename(from, to);
    if (called(RENAME, true) == FAIL) return -1;
    if (disk) disk_before_removal(to);
    return libc.rename(from, to);
}

static int removed(const char *path, int (*real)(const char *)) {
    if (!is_under(path)) return real(path);
    if (called(UNLINK, access(path, F_OK) == 0) == FAIL) return -1;
    if (disk) disk_before_removal(path);
    return real(path);
}
int unlink(const char *path) {
    return removed(path, libc.unlink);
}
int remove(const char *path) {
    return removed(path, libc.remove);
}

int mkdir(const char *path, mode_t mode) {
    if (!is_under(path)) return libc.mkdir(path, mode);
    if (called(MKDIR, access(path, F_OK) != 0) == FAIL) return -1;
    const int rc = libc.mkdir(path, mode);
    if (rc == 0 && disk) disk_made(path);
    return rc;
}

int symlink(const char *target, const char *path) {
    return is_under(path) && called(SYMLINK, true) == FAIL ? -1 : libc.symlink(target, path);
}

// Memory: glibc's own names, since finding the others needs memory itself.
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static bool no_memory(const void *caller) {
    const uintptr_t at = (uintptr_t)caller;
    return armed && at >= text_begin && at < text_end && called(MALLOC, false) == FAIL;
}

void *malloc(size_t size) {
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}
void *calloc(size_t n, size_t size) {
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}
void *realloc(void *block, size_t size) {
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_realloc(block, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
    return no_memory(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}
