// tests/infer/base/watchdog_test.c - a process without a sign of life ends with 76 and says where;
// one that works, waits by itself or was stopped does not.
#include "infer/base/watchdog.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "infer/base/log.h"
#include "tests/testing.h"

// What a child writes to stderr.
static char *said(char out[PATH_ROOM], pid_t pid) {
    char name[32];
    snprintf(name, sizeof name, "said-%ld", (long)pid);
    return path_join(out, test_dir(), name);
}

static pid_t start(int64_t limit_s, int ranks, void (*work)(void)) {
    char path[PATH_ROOM];
    test_dir();
    const pid_t pid = fork();
    if (pid != 0) return pid;
    Err err = {0};
    const int fd = open(said(path, getpid()), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(fd, STDERR_FILENO);
    if (!watchdog_start("train", limit_s, ranks - 1, ranks, &err)) _exit(1);
    work();
    watchdog_stop();
    _exit(0);
}

static int end_of(pid_t pid) {
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void expect_line(pid_t pid, const char *want) {
    char path[PATH_ROOM];
    size_t n;
    Err err = {0};
    char *text = file_read(said(path, pid), 4096, &n, &err);
    if (text == NULL) fail_msg("%s", err.text);
    assert_string_equal(text, want);
    free(text);
}

static void hangs(void) {
    watchdog_at("train", "step", 7);
    for (;;) pause();
}

static void hangs_at_once(void) {
    for (;;) pause();
}

static void works(void) {
    for (int i = 0; i < 40; i++) {
        usleep(50000);
        if (i % 2)
            watchdog_beat();
        else
            watchdog_waits();
    }
}

static void naps(void) { // less than the limit at once
    for (int i = 0; i < 4; i++) {
        watchdog_beat();
        usleep(600000);
    }
}

static void a_hanging_process_ends_with_76_and_a_line(void **state) {
    (void)state;
    const double begun = now_s();
    const pid_t one = start(1, 1, hangs), rank = start(1, 2, hangs),
                early = start(1, 1, hangs_at_once);
    assert_int_equal(end_of(one), ERR_STUCK);
    assert_int_equal(end_of(rank), ERR_STUCK);
    assert_int_equal(end_of(early), ERR_STUCK);
    assert_true(now_s() - begun < 5);
    expect_line(one, "draftsmith train: stuck at step 7 of train: no progress for 1 s "
                     "(runtime.watchdog)\n");
    expect_line(rank,
                "draftsmith train: rank 1 of 2: stuck at step 7 of train: no progress for 1 s "
                "(runtime.watchdog)\n");
    expect_line(early, "draftsmith train: stuck at its start: no progress for 1 s "
                       "(runtime.watchdog)\n");
}

static void signs_of_life_and_time_asleep_keep_it_quiet(void **state) {
    (void)state;
    const pid_t a = start(1, 1, works), b = start(1, 1, naps), off = start(0, 1, hangs),
                stopped = start(2, 1, works); // that time does not count
    usleep(200000);
    kill(stopped, SIGSTOP);
    usleep(2600000);
    kill(stopped, SIGCONT);
    assert_int_equal(end_of(a), 0);
    assert_int_equal(end_of(b), 0);
    kill(off, SIGKILL); // 0: no watchdog
    assert_int_equal(end_of(off), -SIGKILL);
    assert_int_equal(end_of(stopped), 0);
}

static _Thread_local int pulses;

static void count_pulse(void) {
    pulses++;
}

static void beats_are_passed_on(void **state) {
    (void)state;
    char where[160];
    watchdog_pulse(count_pulse);
    watchdog_beat();
    watchdog_waits(); // is no progress to tell others of
    watchdog_at("capture train", "tok", 512);
    watchdog_pulse(NULL);
    watchdog_beat();
    assert_int_equal(pulses, 2);
    watchdog_where(where);
    assert_string_equal(where, "tok 512 of capture train");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hanging_process_ends_with_76_and_a_line),
        cmocka_unit_test(signs_of_life_and_time_asleep_keep_it_quiet),
        cmocka_unit_test(beats_are_passed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
