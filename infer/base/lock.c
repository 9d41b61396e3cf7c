// infer/base/lock.c - a lock file that names its owner: "pid start host", start as in
// /proc/PID/stat.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "infer/base/log.h"

typedef struct {
    long pid;
    unsigned long long start; // clock ticks after boot: tells a reused pid from the owner
    char host[128];
} Owner;

// 0: no such process, or a zombie that nobody has waited for (some containers have no init).
static unsigned long long start_of(long pid) {
    char path[64];
    size_t n;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "re");
    char text[1024];
    if (f == NULL) return 0;
    n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    const char *p = strrchr(text, ')'); // the command name may hold anything
    if (p != NULL && (p[2] == 'Z' || p[2] == 'X')) return 0;
    for (int field = 2; p != NULL && field < 22; field++) p = strchr(p + 1, ' ');
    return p ? strtoull(p + 1, NULL, 10) : 0;
}

static Owner myself(void) {
    Owner o = {.pid = (long)getpid()};
    o.start = start_of(o.pid);
    if (gethostname(o.host, sizeof o.host - 1) != 0 || o.host[0] == '\0') strcpy(o.host, "unknown");
    return o;
}

// 1 = read, 0 = no such file, -1 = err set. A torn file (power loss) reads as an owner of pid 0.
static int owner_read(const char *path, Owner *o, Err *err) {
    *o = (Owner){0};
    if (access(path, F_OK) != 0 && errno == ENOENT) return 0;
    size_t n;
    char *text = file_read(path, 4096, &n, err);
    if (text == NULL) return -1;
    if (sscanf(text, "%ld %llu %127s", &o->pid, &o->start, o->host) != 3) o->pid = 0;
    free(text);
    return 1;
}

static bool refuse_living(const char *path, const Owner *o, const Owner *me, Err *err) {
    if (o->pid <= 0) return true;
    if (strcmp(o->host, me->host) != 0)
        return err_set(err, ERR_FAILED,
                       "%s: held by process %ld on host %s (this is %s); delete the file if that "
                       "process is gone",
                       path, o->pid, o->host, me->host);
    const bool alive = kill((pid_t)o->pid, 0) == 0 || errno == EPERM;
    const unsigned long long start = start_of(o->pid);
    if (!alive || start == 0 || start != o->start) return true;
    return err_set(err, ERR_FAILED, "%s: held by process %ld, which is still running", path,
                   o->pid);
}

bool lock_take(const char *path, Err *err) {
    char folder[PATH_ROOM];
    // The folder's own lock makes looking and taking one act among processes of this host.
    const int fd = open(path_folder(folder, path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return err_errno(err, "%s", path);
    bool ok = false;
    const Owner me = myself();
    Owner was;
    if (flock(fd, LOCK_EX) != 0) {
        err_errno(err, "%s", path);
        goto fail;
    }
    const int found = owner_read(path, &was, err);
    if (found < 0 || (found > 0 && !refuse_living(path, &was, &me, err))) goto fail;
    if (found > 0) log_warn("%s: taken over from process %ld, which is gone", path, was.pid);
    char text[256];
    const int n = snprintf(text, sizeof text, "%ld %llu %s\n", me.pid, me.start, me.host);
    ok = file_write(path, text, (size_t)n, err);
fail:
    close(fd);
    return ok;
}

void lock_release(const char *path) {
    Owner o;
    const Owner me = myself();
    if (owner_read(path, &o, NULL) == 1 && o.pid == me.pid && !strcmp(o.host, me.host))
        unlink(path);
}
