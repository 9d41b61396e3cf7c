// tests/infer/base/worker_test.c - work on a thread of its own: beside the caller, whole after the
// wait, and alive for other ranks only while it works.
#include "infer/base/worker.h"

#include <signal.h>
#include <unistd.h>

#include "infer/base/log.h"
#include "infer/base/watchdog.h"
#include "tests/testing.h"

static const double PATIENCE_S = 20;

static atomic_bool went_on;

static void wait_for_the_caller(void *met) {
    const double from = now_s();
    while (!atomic_load(&went_on) && now_s() - from < PATIENCE_S) usleep(1000);
    *(bool *)met = atomic_load(&went_on);
}

static void the_caller_goes_on_while_the_work_is_done(void **state) {
    (void)state;
    bool met = false;
    Worker w = {0};
    worker_start(&w, wait_for_the_caller, &met);
    assert_true(worker_busy(&w));
    atomic_store(&went_on, true);
    worker_wait(&w);
    assert_false(worker_busy(&w));
    assert_true(met);
}

static void add_one(void *x) {
    ++*(int *)x;
}

static void what_the_work_wrote_is_there_when_it_ends(void **state) {
    (void)state;
    int x = 0;
    Worker w = {0};
    worker_wait(&w); // nothing was started
    for (int i = 0; i < 200; i++) {
        worker_start(&w, add_one, &x);
        if (i % 2)
            while (worker_busy(&w)) usleep(10);
        else
            worker_wait(&w);
        assert_int_equal(x, i + 1);
        worker_wait(&w);
        worker_wait(&w);
    }
}

static pthread_t handled_by;

static void note_thread(int number) {
    (void)number;
    handled_by = pthread_self();
}

static void send_signal(void *unused) {
    (void)unused;
    kill(getpid(), SIGUSR1);
}

static void signals_stay_with_the_caller(void **state) {
    (void)state;
    const struct sigaction act = {.sa_handler = note_thread, .sa_flags = SA_RESTART};
    struct sigaction before;
    Worker w = {0};
    assert_int_equal(sigaction(SIGUSR1, &act, &before), 0);
    for (int i = 0; i < 20; i++) {
        worker_start(&w, send_signal, NULL);
        worker_wait(&w);
        assert_true(pthread_equal(handled_by, pthread_self()));
    }
    sigaction(SIGUSR1, &before, NULL);
}

static int pulses;

static void count_pulse(void) {
    pulses++;
}

static void work_aloud(void *unused) {
    (void)unused;
    for (int i = 0; i < 30; i++) usleep(50000), watchdog_beat();
}

static void hang(void *unused) {
    (void)unused;
    usleep(1500000);
}

static int pulses_while(void (*work)(void *ctx)) {
    Worker w = {0};
    watchdog_pass_on();
    pulses = 0;
    worker_start(&w, work, NULL);
    worker_wait(&w);
    return pulses;
}

// A pulse tells other ranks to go on waiting: it must not come from a wait that stands still.
static void beats_of_the_work_are_pulses_of_the_one_that_waits(void **state) {
    (void)state;
    watchdog_pulse(count_pulse);
    assert_in_range(pulses_while(work_aloud), 3, 8);
    assert_int_equal(pulses_while(hang), 0);
    watchdog_pulse(NULL);
}

static void where_no_thread_is_to_be_had_the_work_is_done_at_once(void **state) {
    (void)state;
    int x = 0;
    Worker w = {0};
    pthread_attr_t before, huge;
    assert_int_equal(pthread_getattr_default_np(&before), 0);
    assert_int_equal(pthread_attr_init(&huge), 0);
    assert_int_equal(pthread_attr_setstacksize(&huge, (size_t)1 << 50), 0); // no address space
    assert_int_equal(pthread_setattr_default_np(&huge), 0);
    worker_start(&w, add_one, &x);
    assert_int_equal(pthread_setattr_default_np(&before), 0);
    assert_false(w.runs);
    assert_int_equal(x, 1);
    assert_false(worker_busy(&w));
    worker_wait(&w);
    pthread_attr_destroy(&huge);
    pthread_attr_destroy(&before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_caller_goes_on_while_the_work_is_done),
        cmocka_unit_test(what_the_work_wrote_is_there_when_it_ends),
        cmocka_unit_test(signals_stay_with_the_caller),
        cmocka_unit_test(beats_of_the_work_are_pulses_of_the_one_that_waits),
        cmocka_unit_test(where_no_thread_is_to_be_had_the_work_is_done_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
