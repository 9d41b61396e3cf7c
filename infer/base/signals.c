// infer/base/signals.c - a request to stop is a flag that long loops look at.
#include <signal.h>
#include <stddef.h>

#include "infer/base/cli.h"
#include "infer/base/watchdog.h"

static volatile sig_atomic_t stopping, terminated;

static void on_stop(int number) {
    if (number == SIGTERM) terminated = 1;
    stopping = 1;
}

void signals_install(void) {
    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigemptyset(&stop.sa_mask);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGUSR1, &stop, NULL);
    stop.sa_flags |= SA_RESETHAND; // the second SIGINT ends the process
    sigaction(SIGINT, &stop, NULL);
}

void signals_ignore_write(void) {
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL);
}

bool stop_requested(void) {
    watchdog_beat(); // a loop that asks is one that goes on
    return stopping != 0;
}

bool stop_at_once(void) {
    return terminated != 0;
}
