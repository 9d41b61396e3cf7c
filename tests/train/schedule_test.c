// tests/train/schedule_test.c - learning rates against values worked out by hand.
#include "tests/testing.h"

#include <math.h>
#include <string.h>

#include "train/schedule.h"

static void assert_near(double a, double b, double tolerance) {
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.17g, expected %.17g", a, b);
}

static void warmup_rises_from_its_first_share_to_the_peak(void **state) {
    (void)state;
    const Schedule s = {SCHEDULE_COSINE, 1e-3, 0.1, 4, 10};
    const double want[] = {0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3};
    for (int i = 0; i < 5; i++) assert_near(schedule_lr(&s, i), want[i], 1e-15);
}

static void shapes_fall_to_the_floor_at_the_horizon(void **state) {
    (void)state;
    Schedule s = {SCHEDULE_COSINE, 2.0, 0.1, 2, 12};
    assert_near(schedule_lr(&s, 7), 2.0 * 0.55, 1e-12); // half way
    assert_near(schedule_lr(&s, 12), 0.2, 1e-12);
    s.kind = SCHEDULE_LINEAR;
    assert_near(schedule_lr(&s, 3), 2.0 * (0.1 + 0.9 * 0.9), 1e-12);
    assert_near(schedule_lr(&s, 12), 0.2, 1e-12);
    s.kind = SCHEDULE_CONSTANT;
    assert_near(schedule_lr(&s, 11), 2.0, 0.0);
}

static void no_warmup_and_all_warmup_are_finite(void **state) {
    (void)state;
    Schedule s = {SCHEDULE_LINEAR, 1.0, 0.0, 0, 5};
    assert_near(schedule_lr(&s, 0), 1.0, 0.0);
    assert_near(schedule_lr(&s, 4), 0.2, 1e-12);
    s.warmup = 5;
    assert_near(schedule_lr(&s, 4), 1.0, 0.0);
    assert_near(schedule_lr(&s, 5), 0.0, 0.0);
}

static void an_unknown_kind_is_refused_by_name(void **state) {
    (void)state;
    Err err = {0};
    ScheduleKind kind;
    assert_true(schedule_kind("linear", &kind, &err) && kind == SCHEDULE_LINEAR);
    assert_false(schedule_kind("cosin", &kind, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "cosin"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warmup_rises_from_its_first_share_to_the_peak),
        cmocka_unit_test(shapes_fall_to_the_floor_at_the_horizon),
        cmocka_unit_test(no_warmup_and_all_warmup_are_finite),
        cmocka_unit_test(an_unknown_kind_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
