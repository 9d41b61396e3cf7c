// data/peer.c - one line of a peer's JSON.
#include "data/peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "infer/base/json.h"

static bool parse(char *text, const char *script, const char *field, double *out, Err *err) {
    char *last = strrchr(text, '{'); // the object is flat and printed last
    json_t *o = last ? json_read_text(last, strlen(last), err) : NULL;
    *out = -1.0;
    const bool ok = o != NULL && json_get_f64(o, field, out, err);
    json_decref(o);
    if (!ok || *out <= 0.0) return err_set(err, ERR_FAILED, "%s printed no \"%s\"", script, field);
    return true;
}

bool peer_call(const Settings *s, const char *arguments, const char *field, double *out, Err *err) {
    const int64_t threads =
        s->runtime.threads > 0 ? s->runtime.threads : sysconf(_SC_NPROCESSORS_ONLN);
    char command[3 * PATH_ROOM], text[8192];
    snprintf(command, sizeof command, "OMP_NUM_THREADS=%lld '%s' %s", (long long)threads,
             s->bench.python, arguments);
    FILE *f = popen(command, "r");
    if (f == NULL) return err_errno(err, "cannot run %s", s->bench.python);
    const size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    const int status = pclose(f);
    if (status != 0)
        return err_set(err, ERR_FAILED, "%s %s ended with status %d", s->bench.python, arguments,
                       WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    return parse(text, arguments, field, out, err);
}

bool peer_run(const Settings *s, const char *script, const char *extra, const char *shape,
              DType dtype, int64_t batch, int64_t seq, const char *field, double *out, Err *err) {
    const int64_t threads =
        s->runtime.threads > 0 ? s->runtime.threads : sysconf(_SC_NPROCESSORS_ONLN);
    char arguments[PATH_ROOM + 512], path[PATH_ROOM];
    path_join(path, s->bench.peer_path, script);
    if (!file_exists(path))
        return err_set(err, ERR_USAGE, "bench.peer_path: %s is not there", path);
    snprintf(arguments, sizeof arguments,
             "'%s' --shape %s --device cpu --threads %lld --batch %lld --seq %lld --dtype %s %s",
             path, shape, (long long)threads, (long long)batch, (long long)seq,
             dtype == DT_F32 ? "f32" : "bf16", extra);
    return peer_call(s, arguments, field, out, err);
}
