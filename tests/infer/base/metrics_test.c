// tests/infer/base/metrics_test.c
#include "infer/base/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/base/tfevents.h"
#include "tests/testing.h"

static char *slurp(const char *dir, const char *name, size_t *n) { // caller frees
    char path[PATH_ROOM];
    Err err = {0};
    char *text = file_read(path_join(path, dir, name), 1 << 20, n, &err);
    if (text == NULL) fail_msg("%s", err.text);
    return text;
}

static uint32_t u32(const uint8_t *p) {
    return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

// A second reading of the format: checks every CRC, returns the steps of the records.
static int event_steps(const char *dir, int64_t step[], float first_value[], int room) {
    char tb[PATH_ROOM];
    int names = 0, found = 0;
    Err err = {0};
    char **name = dir_list(path_join(tb, dir, "tb"), &names, &err);
    assert_int_equal(names, 1);
    assert_memory_equal(name[0], "events.out.tfevents.", 20);
    size_t n;
    uint8_t *data = (uint8_t *)slurp(tb, name[0], &n);
    dir_list_free(name, names);
    for (size_t at = 0; at < n;) {
        const uint32_t size = u32(data + at);
        assert_int_equal(u32(data + at + 4), 0);
        assert_true(at + size + 16 <= n);
        assert_int_equal(u32(data + at + 8), crc32c_masked(crc32c(data + at, 8)));
        const uint8_t *event = data + at + 12;
        assert_int_equal(u32(event + size), crc32c_masked(crc32c(event, size)));
        assert_int_equal(event[0], 0x09); // wall_time, a double
        if (at == 0) {
            assert_memory_equal(event + 9,
                                "\x1a\x0d"
                                "brain.Event:2",
                                15);
        } else {
            assert_true(found < room);
            assert_int_equal(event[9], 0x10);
            assert_true(event[10] < 0x80 && event[11] == 0x2a && event[12] < 0x80);
            step[found] = event[10];
            const uint8_t *value = event + 13; // value { tag, simple_value }
            assert_true(value[0] == 0x0a && value[2] == 0x0a);
            const uint8_t *real = value + 4 + value[3];
            assert_int_equal(real[0], 0x15);
            memcpy(&first_value[found++], real + 1, 4);
        }
        at += size + 16;
    }
    free(data);
    return found;
}

static int line_count(const char *text) {
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

static void write_steps(const char *dir, int64_t resume, int64_t from, int64_t to) {
    static const char *const names[] = {"train/loss", "train/lr"};
    Err err = {0};
    Metrics *m = metrics_open(dir, resume, &err);
    if (m == NULL) fail_msg("%s", err.text);
    for (int64_t s = from; s <= to; s++)
        assert_ok(metrics_scalars(m, s, names, (double[]){1.0 / (double)s, 0.1}, 2, &err), err);
    metrics_close(m);
}

static void lines_and_events_tell_the_same(void **state) {
    (void)state;
    char dir[PATH_ROOM];
    path_join(dir, test_dir(), "run");
    write_steps(dir, 0, 1, 4);
    size_t n;
    char *text = slurp(dir, "metrics.jsonl", &n);
    assert_int_equal(line_count(text), 4);
    json_t *line = json_read_text(text, strcspn(text, "\n"), NULL);
    assert_int_equal(json_integer_value(json_object_get(line, "step")), 1);
    assert_true(json_real_value(json_object_get(line, "train/lr")) == 0.1);
    assert_true(json_real_value(json_object_get(line, "time")) > 1.7e9);
    json_decref(line);
    free(text);
    int64_t step[8];
    float value[8];
    assert_int_equal(event_steps(dir, step, value, 8), 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(step[i], i + 1);
        assert_true(value[i] == (float)(1.0 / (i + 1)));
    }
}

static void resuming_cuts_what_lies_beyond(void **state) {
    (void)state;
    char dir[PATH_ROOM], path[PATH_ROOM];
    path_join(dir, test_dir(), "resumed");
    write_steps(dir, 0, 1, 6);
    FILE *f = fopen(path_join(path, dir, "metrics.jsonl"), "a");
    fputs("{\"time\": 1, \"step\": 7, \"tra", f); // a torn last line
    fclose(f);
    write_steps(dir, 4, 5, 5);
    size_t n;
    char *text = slurp(dir, "metrics.jsonl", &n);
    assert_int_equal(line_count(text), 5);
    assert_null(strstr(text, "\"step\":6"));
    free(text);
    int64_t step[8];
    float value[8];
    assert_int_equal(event_steps(dir, step, value, 8), 5);
    assert_int_equal(step[4], 5);
    write_steps(dir, METRICS_KEEP_ALL, 9, 9);
    assert_int_equal(event_steps(dir, step, value, 8), 6);
    write_steps(dir, 0, 1, 1); // a new run
    assert_int_equal(event_steps(dir, step, value, 8), 1);
}

static void a_loss_that_is_not_finite_can_be_logged(void **state) {
    (void)state;
    Err err = {0};
    char dir[PATH_ROOM];
    path_join(dir, test_dir(), "nan");
    Metrics *m = metrics_open(dir, 0, &err);
    assert_non_null(m);
    assert_ok(metrics_scalars(m, 3, (const char *[]){"x"}, (double[]){NAN}, 1, &err), err);
    metrics_close(m);
    size_t n;
    char *text = slurp(dir, "metrics.jsonl", &n);
    assert_non_null(strstr(text, "\"step\":3,\"x\":null}\n"));
    free(text);
    int64_t step[2];
    float value[2];
    assert_int_equal(event_steps(dir, step, value, 2), 1);
    assert_true(isnan(value[0]));
}

static void an_unusable_folder_is_an_error(void **state) {
    (void)state;
    Err err = {0};
    assert_null(metrics_open("/proc/self/nothing", 0, &err));
    assert_int_equal(err.code, ERR_FAILED);
    metrics_close(NULL);
}

static void crc32c_matches_rfc_3720(void **state) { // appendix B.4
    (void)state;
    uint8_t bytes[32] = {0};
    assert_true(crc32c(bytes, 32) == 0x8a9136aau);
    memset(bytes, 0xff, 32);
    assert_true(crc32c(bytes, 32) == 0x62a8ab43u);
    for (int i = 0; i < 32; i++) bytes[i] = (uint8_t)i;
    assert_true(crc32c(bytes, 32) == 0x46dd794eu);
    assert_true(crc32c("123456789", 9) == 0xe3069283u);
    assert_true(crc32c_masked(0) == 0xa282ead8u);
    assert_true(crc32c_masked(0x8000u) == 0xa282ead9u);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_and_events_tell_the_same),
        cmocka_unit_test(resuming_cuts_what_lies_beyond),
        cmocka_unit_test(a_loss_that_is_not_finite_can_be_logged),
        cmocka_unit_test(an_unusable_folder_is_an_error),
        cmocka_unit_test(crc32c_matches_rfc_3720),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
