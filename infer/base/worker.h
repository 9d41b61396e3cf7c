// infer/base/worker.h - one piece of work on a thread of its own while the caller goes on.
//
// Between worker_start and worker_wait what the work touches is the work's alone: that is all the
// locking there is. It calls no collective of world.h: those belong to the thread that joined.
#ifndef BASE_WORKER_H
#define BASE_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

typedef struct {
    void (*work)(void *ctx);
    void *ctx;
    pthread_t thread;
    bool runs; // the thread is there to be waited for
    atomic_bool done;
} Worker; // zero-initialise: nothing to wait for

// The work before has been waited for. Where no thread is to be had, it is done before this
// returns.
void worker_start(Worker *w, void (*work)(void *ctx), void *ctx);
// Once it is false, what the work has written can be read.
bool worker_busy(Worker *w);
// Returns at once where nothing runs. The work's beats (watchdog.h) reach the other ranks through
// the caller: one that waits for a long write is alive as long as the write goes on.
void worker_wait(Worker *w);

#endif
