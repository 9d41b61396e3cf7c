// tests/infer/base/tails_test.c - tails against closed forms and tabulated values.
#include <math.h>

#include "infer/base/tails.h"
#include "tests/testing.h"

static void assert_near(double got, double want) {
    if (!(fabs(got - want) <= 1e-9 * fabs(want))) fail_msg("%.17g, expected %.17g", got, want);
}

// Closed forms: df 2 is e^(-x/2); df 4 is (1 + x/2) e^(-x/2); df 1 is erfc(sqrt(x/2)).
static void chi_square_has_its_closed_forms(void **state) {
    (void)state;
    static const double x[] = {1e-3, 0.1, 1, 2.9, 3.1, 7, 30, 200, 1000};
    for (int i = 0; i < 9; i++) {
        assert_near(chi_square_upper(x[i], 2), exp(-x[i] / 2));
        assert_near(chi_square_upper(x[i], 4), (1 + x[i] / 2) * exp(-x[i] / 2));
        assert_near(chi_square_upper(x[i], 1), erfc(sqrt(x[i] / 2)));
    }
    assert_true(chi_square_upper(0, 3) == 1.0 && chi_square_upper(-1, 3) == 1.0);
    assert_true(fabs(chi_square_upper(124.342113404004, 100) - 0.05) < 1e-12); // tables
}

// Closed forms: df 1 is Cauchy; df 2 is (1 - t / sqrt(2 + t^2)) / 2.
static void student_has_its_closed_forms(void **state) {
    (void)state;
    static const double t[] = {1e-3, 0.2, 1, 2, 5, 40};
    for (int i = 0; i < 6; i++) {
        assert_near(student_upper(t[i], 1), atan(1 / t[i]) / acos(-1));
        const double s = sqrt(2 + t[i] * t[i]);
        assert_near(student_upper(t[i], 2), 1 / (s * (s + t[i])));
        assert_near(student_upper(-t[i], 7), 1 - student_upper(t[i], 7));
    }
    assert_true(student_upper(0, 5) == 0.5 && student_upper(INFINITY, 5) == 0.0);
    assert_true(fabs(student_upper(2.364624251592784, 7) - 0.025) < 1e-12);
    assert_true(fabs(student_upper(1.96, 1e9) / (0.5 * erfc(1.96 / sqrt(2))) - 1) < 1e-6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chi_square_has_its_closed_forms),
        cmocka_unit_test(student_has_its_closed_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
