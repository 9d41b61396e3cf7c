// data/peer.c - one line of a peer's JSON.
#include "data/peer.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "infer/base/json.h"

static bool parse(char *text, const char *script, const char *const *field, int n, double *out,
                  Err *err) {
    char *last = strrchr(text, '{'); // the object is flat and printed last
    json_t *o = last ? json_read_text(last, strlen(last), err) : NULL;
    int read = 0;
    for (; o != NULL && read < n; read++) {
        out[read] = -1.0;
        if (!json_get_f64(o, field[read], &out[read], err) || out[read] <= 0.0) break;
    }
    json_decref(o);
    if (read < n) return err_set(err, ERR_FAILED, "%s printed no \"%s\"", script, field[read]);
    return true;
}

bool peer_call(const Settings *s, const char *arguments, const char *const *field, int n,
               double *out, Err *err) {
    const int64_t threads =
        s->runtime.threads > 0 ? s->runtime.threads : sysconf(_SC_NPROCESSORS_ONLN);
    char command[3 * PATH_ROOM], text[8192];
    snprintf(command, sizeof command, "OMP_NUM_THREADS=%lld '%s' %s", (long long)threads,
             s->bench.python, arguments);
    FILE *f = popen(command, "r");
    if (f == NULL) return err_errno(err, "cannot run %s", s->bench.python);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    const int status = pclose(f);
    if (WIFEXITED(status) && WEXITSTATUS(status) == PEER_ABSENT)
        return err_set(err, ERR_USAGE, "%s %s lacks what it is to measure", s->bench.python,
                       arguments);
    if (status != 0)
        return err_set(err, ERR_FAILED, "%s %s ended with status %d", s->bench.python, arguments,
                       WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    return parse(text, arguments, field, n, out, err);
}

static bool peer_run(const Settings *s, const PeerJob *job, RunTime *out, Err *err) {
    const int64_t threads =
        s->runtime.threads > 0 ? s->runtime.threads : sysconf(_SC_NPROCESSORS_ONLN);
    char arguments[PATH_ROOM + 512], path[PATH_ROOM], mean[32], best[32];
    path_join(path, s->bench.peer_path, job->script);
    if (!file_exists(path))
        return err_set(err, ERR_USAGE, "bench.peer_path: %s is not there", path);
    snprintf(arguments, sizeof arguments,
             "'%s' --shape %s --device %s --threads %lld --batch %lld --seq %lld --dtype %s %s",
             path, job->shape, job->device, (long long)threads, (long long)job->batch,
             (long long)job->seq, job->dtype == DT_F32 ? "f32" : "bf16", job->extra);
    snprintf(mean, sizeof mean, "ms_per_%s", job->unit);
    snprintf(best, sizeof best, "best_ms_per_%s", job->unit);
    const char *const field[3] = {mean, best, "peak_memory_bytes"};
    double ms[3];
    if (!peer_call(s, arguments, field, 3, ms, err)) return false;
    *out = (RunTime){.mean = ms[0], .best = ms[1], .memory = ms[2]};
    return true;
}

static RunTime worst(void) {
    return (RunTime){.best = 1e30};
}

// Means of n rounds are added up by their share.
static void add_round(RunTime *all, RunTime one, int64_t n) {
    all->mean += one.mean / (double)n;
    all->best = fmin(all->best, one.best);
    all->memory = fmax(all->memory, one.memory);
}

static bool passes(int64_t repeat, PassFn *pass, void *ctx, RunTime *out, Err *err) {
    double seconds;
    *out = worst();
    if (!pass(ctx, &seconds, err)) return false; // warm-up
    for (int64_t i = 0; i < repeat; i++) {
        if (!pass(ctx, &seconds, err)) return false;
        add_round(out, (RunTime){.mean = 1e3 * seconds, .best = 1e3 * seconds}, repeat);
    }
    return true;
}

bool peer_race(const Settings *s, const PeerJob *job, PassFn *pass, void *ctx, RunTime *ours,
               RunTime *peer, Err *err) {
    const int64_t rounds = s->bench.peers ? s->bench.peer_rounds : 1;
    *ours = *peer = worst();
    for (int64_t i = 0; i < rounds; i++) {
        RunTime one;
        if (!passes(s->bench.repeat, pass, ctx, &one, err)) return false;
        add_round(ours, one, rounds);
        if (!s->bench.peers) continue;
        if (!peer_run(s, job, &one, err)) return false;
        add_round(peer, one, rounds);
    }
    return true;
}

void peer_print(RunTime peer, RunTime ours) {
    if (peer.mean == 0.0) return;
    printf("   peer %.1f ms: %.2fx (best %.1f ms: %.2fx)", peer.mean, peer.mean / ours.mean,
           peer.best, peer.best / ours.best);
    if (ours.memory > 0.0)
        printf(", memory %.2f of %.2f GiB", ours.memory / (1 << 30), peer.memory / (1 << 30));
}
