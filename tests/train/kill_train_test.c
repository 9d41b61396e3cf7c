// tests/train/kill_train_test.c - kill -9 and SIGTERM at random moments: no saved step is lost, and
// the end is bit for bit that of an unbroken run. The victim is this program itself, run anew as
// `child`.
#include "tests/train/tiny_run.h"

#include <errno.h>

#include "infer/base/log.h"

enum { KILLS = 20, TERMS = 8, CHILD_STEPS = 60 };
static const char *const MORE[] = {"train.steps=60",
                                   "train.step_weights=reach",
                                   "train.ema=0.9",
                                   "train.save_every=1",
                                   "train.dev_every=7",
                                   "train.keep=1",
                                   NULL};

static int child(const char *dir) {
    TinyFault slow = NO_FAULT;
    TrainResult r;
    Err err = {0};
    slow.slow_us = 1500;
    log_set_quiet(true);
    signals_install();
    const bool ok = tiny_run(dir, MORE, slow, &r, &err);
    if (!ok && err.code != ERR_STOPPED) fprintf(stderr, "child: %s\n", err.text);
    return ok ? 0 : (int)err.code;
}

static pid_t start(const char *dir) {
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL) _exit(126);
        execl("/proc/self/exe", "kill_train_test", "child", dir, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static int64_t acknowledged(const char *dir) {
    char root[PATH_ROOM];
    return ckpt_pointed(path_join(root, dir, "ckpt"), "latest");
}

// Starts, waits a random while, sends the signal; returns the exit status (or -signal).
static int strike(const char *dir, int sig, int i) {
    const pid_t pid = start(dir);
    // Up to about the length of a whole run: start-up, steps and saves are all hit.
    const double wait_s = 0.05 + 1.6 * rng_uniform(20261121, RNG_TEST, (uint64_t)sig, (uint64_t)i);
    const double end = now_s() + wait_s;
    int status = 0;
    pid_t got = 0;
    while ((got = waitpid(pid, &status, WNOHANG)) == 0 && now_s() < end) usleep(2000);
    if (got == 0) {
        kill(pid, sig);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    }
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void finish_and_compare(const char *dir, const char *want) {
    char got[130];
    int status;
    const pid_t pid = start(dir);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    tiny_hash(dir, CHILD_STEPS, got);
    assert_string_equal(got, want);
}

static const char *unbroken(void) {
    static char hash[130];
    if (hash[0] == '\0') {
        TrainResult r;
        Err err = {0};
        const char *dir = tiny_dir("unbroken");
        assert_ok(tiny_run(dir, MORE, NO_FAULT, &r, &err), err);
        tiny_hash(dir, CHILD_STEPS, hash);
    }
    return hash;
}

static void twenty_kills_lose_no_saved_step_and_change_no_bit(void **state) {
    (void)state;
    const char *dir = tiny_dir("killed");
    int64_t before = -1, struck = 0, runs = 0;
    for (int i = 0; struck < KILLS && i < 3 * KILLS; i++) {
        const int status = strike(dir, SIGKILL, i);
        const int64_t after = acknowledged(dir);
        if (status != -SIGKILL && status != 0) fail_msg("the child ended with %d", status);
        assert_true(after >= before); // an acknowledged step never goes
        before = after;
        struck += status == -SIGKILL;
        if (status != 0) continue;
        // done before the signal came: compare, and begin again
        finish_and_compare(dir, unbroken());
        Err err = {0};
        assert_ok(dir_remove(dir, &err), err);
        before = -1;
        runs++;
    }
    finish_and_compare(dir, unbroken());
    print_message("%lld kills in %lld runs, the last acknowledged step %lld, final weights equal\n",
                  (long long)struck, (long long)runs + 1, (long long)before);
    assert_int_equal(struck, KILLS);
}

static void sigterm_saves_and_exits_with_75(void **state) {
    (void)state;
    const char *dir = tiny_dir("terminated");
    int stopped = 0, early = 0;
    for (int i = 0; stopped < TERMS && i < 4 * TERMS; i++) {
        const int sig = i % 2 ? SIGTERM : SIGUSR1, status = strike(dir, sig, i);
        if (status == -sig) { // before the handler was there: nothing was running yet
            early++;
            continue;
        }
        if (status == 0) {
            Err err = {0};
            finish_and_compare(dir, unbroken());
            assert_ok(dir_remove(dir, &err), err);
            continue;
        }
        assert_int_equal(status, ERR_STOPPED);
        stopped++;
    }
    finish_and_compare(dir, unbroken());
    print_message("%d signals answered with 75 (%d came before the program was up)\n", stopped,
                  early);
    assert_int_equal(stopped, TERMS);
}

int main(int argc, char **argv) {
    tiny_passive(argv);
    if (argc == 3 && strcmp(argv[1], "child") == 0) return child(argv[2]);
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twenty_kills_lose_no_saved_step_and_change_no_bit),
        cmocka_unit_test(sigterm_saves_and_exits_with_75),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
