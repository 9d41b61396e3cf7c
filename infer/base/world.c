// infer/base/world.c - collectives of few bytes out of one: gathering.
#include "infer/base/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/cli.h"
#include "infer/base/log.h"
#include "infer/base/watchdog.h"
#include "infer/base/world_parts.h"

// How long a collective goes on after a SIGTERM. mpirun kills a second behind it: rank 0 needs that
// second for its checkpoint, the others only have to leave it the time.
static const double FIRST_STOPS_S = 0.1, OTHERS_STOP_S = 30.0;
static const double PULSE_S = 60.0; // at most between two signs of life

static struct {
    const WorldLink *link; // NULL: a world of one
    int rank, size, local;
    double limit_s; // 0: none
    bool alone;     // rank 0 works by itself
    bool broken;    // a collective failed
    bool agreed;    // every rank knows of the error that ends it
    double pulsed;  // when the others were last told that this one goes on
} world = {.size = 1};

int world_rank(void) {
    return world.rank;
}

int world_size(void) {
    return world.alone ? 1 : world.size;
}

int world_local(void) {
    return world.local;
}

bool world_broken(void) {
    return world.broken;
}

static void pulse(void) {
    const double now = now_s(), every = world.limit_s / 8 < PULSE_S ? world.limit_s / 8 : PULSE_S;
    if (world.limit_s == 0 || world.broken || world.link == NULL || now - world.pulsed < every)
        return;
    world.pulsed = now;
    world.link->pulse();
}

bool world_open(const WorldPlace *place, int64_t limit_s, Err *err) {
    if (place->size == 1) return true;
    world.rank = place->rank;
    world.local = place->local;
    // Rank 0 gives up first: it has something to save, and the end of another rank would end it.
    world.limit_s = (double)limit_s * (place->rank == 0 ? 1.0 : 1.25);
    if (limit_s > 0 && place->rank > 0) world.limit_s += 2.0;
    const bool sockets = place->port > 0;
    world.link = sockets ? world_socket_open(place, err) : world_mpi_open(place, err);
    if (world.link == NULL)
        return err_wrap(err, "rank %d of %d (%s)", place->rank, place->size, place->launcher);
    world.size = place->size;
    watchdog_pulse(pulse);
    return true;
}

void world_leave(int code) {
    const WorldLink *link = world.link;
    if (link == NULL) return;
    world.link = NULL;
    world.size = 1;
    link->leave(code, !world.broken && (code == 0 || world.agreed));
}

static bool too_long(WorldWait *w, int missing, Err *err) {
    char who[32] = "another rank", where[160];
    const bool stopping = w->stopping > 0 || stop_at_once();
    if (missing >= 0) snprintf(who, sizeof who, "rank %d", missing);
    if (stopping && w->stopping == 0) w->stopping = w->before;
    if (stopping && w->before - w->stopping > (world.rank == 0 ? FIRST_STOPS_S : OTHERS_STOP_S))
        return !err_set(err, ERR_STOPPED, "stopped by a signal while %s was waited for", who);
    if (world.limit_s == 0 || w->waited < world.limit_s) return false;
    watchdog_where(where);
    return !err_set(err, ERR_STUCK,
                    "rank %d of %d: stuck at %s: %s has not answered for %.0f s "
                    "(runtime.watchdog)",
                    world.rank, world.size, where[0] ? where : "its start", who, w->waited);
}

bool world_wait_awake(WorldWait *w, int missing, Err *err) {
    const double now = now_s(), passed = w->turns > 0 ? now - w->before : 0;
    w->before = now;
    w->turns++;
    w->waited += passed < 1.0 ? passed : 0.01; // longer: the process was stopped
    watchdog_waits();
    if ((w->turns & 15) == 15 && world.link->heard(missing)) w->waited = 0;
    if (!too_long(w, missing, err)) return true;
    world.broken = true;
    return false;
}

bool world_wait(WorldWait *w, int missing, Err *err) {
    if (w->turns > 64) // a rank that is busy wants its core
        usleep(w->waited < 0.01 ? 20 : w->waited < 1.0 ? 200 : 2000);
    return world_wait_awake(w, missing, err);
}

static bool held(bool ok) {
    if (!ok) world.broken = true;
    return ok;
}

bool world_gather(const void *mine, size_t bytes, void *all, Err *err) {
    if (world_size() == 1) {
        memcpy(all, mine, bytes);
        return true;
    }
    CHECK(!world.broken);
    world.agreed = false;
    return held(world.link->gather(mine, bytes, all, err));
}

bool world_texts(const char *mine, char **all, Err *err) {
    const int N = world_size();
    const int64_t size = (int64_t)strlen(mine) + 1;
    int64_t *sizes = malloc((size_t)N * sizeof *sizes), most = 0;
    CHECK_MEMORY(sizes);
    bool ok = world_gather(&size, sizeof size, sizes, err);
    for (int r = 0; r < N && ok; r++) most = sizes[r] > most ? sizes[r] : most;
    free(sizes);
    char *padded = calloc((size_t)most + 1, 1), *texts = malloc((size_t)(N * most) + 1);
    CHECK_MEMORY(padded);
    CHECK_MEMORY(texts);
    if (ok) memcpy(padded, mine, (size_t)size);
    ok = ok && world_gather(padded, (size_t)most, texts, err);
    for (int r = 0; r < N && ok; r++) CHECK_MEMORY(all[r] = strdup(texts + r * most));
    free(padded);
    free(texts);
    return ok;
}

bool world_share(void *data, size_t bytes, Err *err) {
    if (world_size() == 1) return true;
    char *all = malloc(bytes * (size_t)world.size);
    CHECK_MEMORY(all);
    const bool ok = world_gather(data, bytes, all, err);
    if (ok) memcpy(data, all, bytes);
    free(all);
    return ok;
}

bool world_sum(bool ok, double *x, int n, Err *err) {
    const int N = world_size();
    if (N == 1) return ok;
    const size_t each = (size_t)n + 1;
    double *mine = malloc(each * (size_t)(N + 1) * sizeof *mine);
    CHECK_MEMORY(mine);
    double *all = mine + each;
    mine[0] = ok ? ERR_NONE : err && err->code != ERR_NONE ? err->code : ERR_FAILED;
    if (n > 0) memcpy(mine + 1, x, (size_t)n * sizeof *x);
    bool good = world_gather(mine, each * sizeof *mine, all, err);
    for (int i = 0; i < n; i++) x[i] = 0.0;
    for (int r = 0; r < N && good; r++)
        for (int i = 0; i < n; i++) x[i] += all[(size_t)r * each + 1 + (size_t)i];
    for (int r = 0; r < N && good; r++) {
        if (all[(size_t)r * each] == ERR_NONE) continue;
        good = false;
        world.agreed = true;
        if (r == world.rank) break;
        if (err) *err = (Err){.code = (ErrCode)all[(size_t)r * each]};
    }
    free(mine);
    return good;
}

bool world_any(bool mine, bool *any, Err *err) {
    double x = mine;
    if (!world_sum(true, &x, 1, err)) return false;
    *any = x > 0;
    return true;
}

bool world_add(float *x, int64_t n, Err *err) {
    if (world_size() == 1) return true;
    CHECK(!world.broken);
    return held(world.link->add(x, n, err));
}

bool world_alone(bool (*work)(void *ctx, Err *err), void *ctx, Err *err) {
    bool ok = true;
    if (world.size == 1) return work(ctx, err);
    if (world.rank == 0) {
        world.alone = true;
        ok = work(ctx, err);
        world.alone = false;
    }
    return world_agree(ok, err);
}

void sum_in_order(float *out, const float *const *part, int parts, int64_t n) {
    enum { BLOCK = 1024 };
    double sum[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        const int64_t m = n - at < BLOCK ? n - at : BLOCK;
        for (int64_t i = 0; i < m; i++) sum[i] = part[0][at + i];
        for (int p = 1; p < parts; p++)
            for (int64_t i = 0; i < m; i++) sum[i] += part[p][at + i];
        for (int64_t i = 0; i < m; i++) out[at + i] = (float)sum[i];
    }
}
