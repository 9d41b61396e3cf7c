// infer/base/watchdog.c - a thread that counts its own seconds without a sign of life.
#include "infer/base/watchdog.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "infer/base/log.h"

static atomic_ullong beats;

static pthread_mutex_t place_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    char stage[96], unit[32];
    int64_t at;
} place;

static struct {
    pthread_t thread;
    bool runs;
    atomic_bool ending;
    char verb[32];
    int64_t limit_s;
    int rank, ranks;
} dog;

static _Thread_local void (*pulse_of_thread)(void);
static _Thread_local unsigned long long passed_on; // beats

void watchdog_beat(void) {
    atomic_fetch_add_explicit(&beats, 1, memory_order_relaxed);
    if (pulse_of_thread != NULL) pulse_of_thread();
}

void watchdog_waits(void) {
    atomic_fetch_add_explicit(&beats, 1, memory_order_relaxed);
}

void watchdog_pulse(void (*pulse)(void)) {
    pulse_of_thread = pulse;
}

void watchdog_pass_on(void) {
    const unsigned long long is = atomic_load(&beats);
    if (is != passed_on && pulse_of_thread != NULL) pulse_of_thread();
    passed_on = is;
}

void watchdog_at(const char *stage, const char *unit, int64_t at) {
    watchdog_beat();
    pthread_mutex_lock(&place_lock);
    snprintf(place.stage, sizeof place.stage, "%s", stage);
    snprintf(place.unit, sizeof place.unit, "%s", unit);
    place.at = at;
    pthread_mutex_unlock(&place_lock);
}

void watchdog_where(char out[160]) {
    out[0] = '\0';
    pthread_mutex_lock(&place_lock);
    if (place.unit[0] != '\0')
        snprintf(out, 160, "%s %lld of %s", place.unit, (long long)place.at, place.stage);
    else if (place.stage[0] != '\0')
        snprintf(out, 160, "the start of %s", place.stage);
    pthread_mutex_unlock(&place_lock);
}

// One write() and out: whatever holds the others may hold a lock of stdio.
__attribute__((noreturn)) static void bark(void) {
    char where[160], who[64] = "", line[512];
    watchdog_where(where);
    if (dog.ranks > 1) snprintf(who, sizeof who, "rank %d of %d: ", dog.rank, dog.ranks);
    const int n = snprintf(line, sizeof line,
                           "draftsmith %s: %sstuck at %s: no progress for %lld s "
                           "(runtime.watchdog)\n",
                           dog.verb, who, where[0] ? where : "its start", (long long)dog.limit_s);
    (void)!write(STDERR_FILENO, line, (size_t)n);
    _exit(ERR_STUCK);
}

static void *watch(void *unused) {
    (void)unused;
    const double tick = 0.25;
    unsigned long long seen = atomic_load(&beats);
    double idle = 0, before = now_s();
    while (!atomic_load(&dog.ending)) {
        const struct timespec nap = {0, (long)(tick * 1e9)};
        nanosleep(&nap, NULL);
        const double now = now_s(), passed = now - before;
        const unsigned long long is = atomic_load(&beats);
        before = now;
        idle = is != seen ? 0 : idle + (passed < 4 * tick ? passed : tick);
        seen = is;
        if (idle > (double)dog.limit_s) bark();
    }
    return NULL;
}

bool watchdog_start(const char *verb, int64_t limit_s, int rank, int ranks, Err *err) {
    if (limit_s == 0 || dog.runs) return true;
    snprintf(dog.verb, sizeof dog.verb, "%s", verb);
    dog.limit_s = limit_s;
    dog.rank = rank;
    dog.ranks = ranks;
    atomic_store(&dog.ending, false);
    if (pthread_create(&dog.thread, NULL, watch, NULL) != 0)
        return err_errno(err, "watchdog: no thread");
    dog.runs = true;
    return true;
}

void watchdog_stop(void) {
    if (!dog.runs) return;
    atomic_store(&dog.ending, true);
    pthread_join(dog.thread, NULL);
    dog.runs = false;
}
