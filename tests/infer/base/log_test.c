// tests/infer/base/log_test.c
#include "infer/base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "tests/testing.h"

static int kept = -1;
static char captured[PATH_ROOM];

static void capture_begin(void) {
    path_join(captured, test_dir(), "stderr.txt");
    fflush(stderr);
    kept = dup(STDERR_FILENO);
    const int fd = open(captured, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(dup2(fd, STDERR_FILENO) >= 0);
    close(fd);
}

static char *capture_end(void) { // caller frees
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    size_t n;
    Err err = {0};
    char *text = file_read(captured, 1 << 20, &n, &err);
    if (text == NULL) fail_msg("%s", err.text);
    return text;
}

static void quiet_hides_notes_but_not_warnings(void **state) {
    (void)state;
    capture_begin();
    log_info("loaded %d", 3);
    log_set_quiet(true);
    log_info("hidden");
    log_warn("disk %s", "slow");
    log_set_quiet(false);
    char *text = capture_end();
    assert_string_equal(text, "loaded 3\nwarning: disk slow\n");
    free(text);
}

static void a_plain_line_tells_done_total_and_note(void **state) {
    (void)state;
    Progress p;
    capture_begin();
    progress_start(&p, "capture", "tok", 200);
    progress_at(&p, 50, ""); // not a terminal: nothing before 30 s
    progress_end(&p, 200, "loss 0.41");
    char *text = capture_end();
    assert_non_null(strstr(text, "capture: 100% |####################| 200/200 tok ["));
    assert_non_null(strstr(text, "tok/s] loss 0.41\n"));
    assert_null(strchr(text, '\r'));
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1); // one line only
    free(text);
}

static void resumed_work_does_not_count_as_speed(void **state) {
    (void)state;
    Progress p;
    capture_begin();
    progress_start(&p, "train", "step", 1000);
    progress_at(&p, 990, "");
    usleep(50000);
    progress_end(&p, 1000, "");
    char *text = capture_end();
    const char *comma = strchr(text, ',');
    assert_non_null(comma);
    assert_true(atof(comma + 1) < 210.0); // 10 steps in at least 0.05 s
    assert_true(atof(comma + 1) > 0.0);
    free(text);
}

static void the_clock_runs_forward(void **state) {
    (void)state;
    const double a = now_s();
    usleep(2000);
    assert_true(now_s() - a >= 0.002);
}

int main(void) {
    setenv("NO_COLOR", "1", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quiet_hides_notes_but_not_warnings),
        cmocka_unit_test(a_plain_line_tells_done_total_and_note),
        cmocka_unit_test(resumed_work_does_not_count_as_speed),
        cmocka_unit_test(the_clock_runs_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
