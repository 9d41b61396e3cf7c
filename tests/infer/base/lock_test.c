// tests/infer/base/lock_test.c
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "tests/testing.h"

static char path[PATH_ROOM];

static int setup(void **state) {
    (void)state;
    path_join(path, test_dir(), "run.lock");
    unlink(path);
    return 0;
}

// A process that holds the lock and lives until killed.
static pid_t holder(void) {
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
        const bool ok = lock_take(path, NULL);
        if (write(ready[1], ok ? "y" : "n", 1) == 1) pause();
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    close(ready[0]);
    close(ready[1]);
    return child;
}

static void a_living_owner_is_named(void **state) {
    (void)state;
    Err err = {0};
    char who[64];
    const pid_t child = holder();
    assert_false(lock_take(path, &err));
    assert_int_equal(err.code, ERR_FAILED);
    snprintf(who, sizeof who, "process %ld", (long)child);
    assert_non_null(strstr(err.text, who));
    assert_non_null(strstr(err.text, path));
    lock_release(path); // not ours: stays
    assert_true(file_exists(path));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static void a_dead_owner_is_taken_over(void **state) {
    (void)state;
    Err err = {0};
    const pid_t child = holder();
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_true(file_exists(path));
    assert_ok(lock_take(path, &err), err);
    assert_false(lock_take(path, &err)); // now we are the living owner
    lock_release(path);
    assert_false(file_exists(path));
}

static void a_zombie_holds_nothing(void **state) {
    (void)state;
    Err err = {0};
    siginfo_t info;
    const pid_t child = holder();
    kill(child, SIGKILL);
    assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(kill(child, 0), 0); // its pid is still taken
    assert_ok(lock_take(path, &err), err);
    lock_release(path);
    waitpid(child, NULL, 0);
}

static void a_reused_pid_is_not_the_owner(void **state) {
    (void)state;
    Err err = {0};
    char host[128] = "", text[256];
    assert_int_equal(gethostname(host, sizeof host - 1), 0);
    const int n = snprintf(text, sizeof text, "%ld 1 %s\n", (long)getppid(), host);
    assert_ok(file_write(path, text, (size_t)n, &err), err);
    assert_ok(lock_take(path, &err), err);
}

static void another_host_is_believed(void **state) {
    (void)state;
    Err err = {0};
    assert_ok(file_write(path, "1 1 elsewhere\n", 14, &err), err);
    assert_false(lock_take(path, &err));
    assert_non_null(strstr(err.text, "elsewhere"));
    assert_non_null(strstr(err.text, "delete the file"));
}

static void a_torn_lock_file_holds_nothing(void **state) {
    (void)state;
    Err err = {0};
    assert_ok(file_write(path, "", 0, &err), err);
    assert_ok(lock_take(path, &err), err);
    assert_false(lock_take("/nonexistent/run.lock", &err));
}

static void of_many_takers_one_wins(void **state) {
    (void)state;
    enum { TAKERS = 8 };
    pid_t child[TAKERS];
    int go[2], wins = 0;
    assert_int_equal(pipe(go), 0);
    for (int i = 0; i < TAKERS; i++) {
        child[i] = fork();
        if (child[i] != 0) continue;
        char byte;
        close(go[1]);
        if (read(go[0], &byte, 1) != 0) _exit(2);
        const bool won = lock_take(path, NULL);
        if (won) usleep(300000); // stays alive while the others try
        _exit(won ? 10 : 0);
    }
    close(go[0]);
    close(go[1]); // all start now
    for (int i = 0; i < TAKERS; i++) {
        int status = 0;
        waitpid(child[i], &status, 0);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 2);
        wins += WEXITSTATUS(status) == 10;
    }
    assert_int_equal(wins, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_living_owner_is_named, setup),
        cmocka_unit_test_setup(a_dead_owner_is_taken_over, setup),
        cmocka_unit_test_setup(a_zombie_holds_nothing, setup),
        cmocka_unit_test_setup(a_reused_pid_is_not_the_owner, setup),
        cmocka_unit_test_setup(another_host_is_believed, setup),
        cmocka_unit_test_setup(a_torn_lock_file_holds_nothing, setup),
        cmocka_unit_test_setup(of_many_takers_one_wins, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
