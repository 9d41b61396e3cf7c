// infer/base/worker.c - a thread a piece: starting one costs microseconds, the pieces are files.
#include "infer/base/worker.h"

#include <signal.h>
#include <time.h>

#include "infer/base/err.h"
#include "infer/base/watchdog.h"

static void *run(void *worker) {
    Worker *w = worker;
    w->work(w->ctx);
    atomic_store(&w->done, true);
    return NULL;
}

void worker_start(Worker *w, void (*work)(void *ctx), void *ctx) {
    sigset_t all, before;
    CHECK(!w->runs);
    w->work = work;
    w->ctx = ctx;
    atomic_store(&w->done, false);
    sigfillset(&all); // signals stay the caller's
    pthread_sigmask(SIG_SETMASK, &all, &before);
    w->runs = pthread_create(&w->thread, NULL, run, w) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!w->runs) run(w);
}

bool worker_busy(Worker *w) {
    return w->runs && !atomic_load(&w->done);
}

void worker_wait(Worker *w) {
    const long tick_ns = 250000000;
    while (w->runs) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until); // the clock that the call goes by
        until.tv_nsec += tick_ns;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        w->runs = pthread_timedjoin_np(w->thread, NULL, &until) != 0;
        watchdog_pass_on();
    }
}
