// tests/infer/tensor/start_guard_test.c - after the guard, OpenBLAS does not run kernels without
// AVX2 on a CPU with it, and OpenMP's waiting is bounded.
#include <stdlib.h>

#include "tests/infer/tensor/op_testing.h"

extern char *openblas_get_corename(void);

static void the_running_core_fits_the_cpu(void **state) {
    (void)state;
    const char *core = openblas_get_corename();
    print_message("OpenBLAS core %s\n", core);
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) skip();
    const char *old[] = {"Prescott",    "Core2",     "Nehalem", "Penryn",
                         "Sandybridge", "Barcelona", "Atom"};
    for (size_t i = 0; i < sizeof old / sizeof *old; i++) assert_string_not_equal(core, old[i]);
}

static void waiting_is_bounded(void **state) {
    (void)state;
    assert_true(getenv("OMP_WAIT_POLICY") != NULL || getenv("GOMP_SPINCOUNT") != NULL);
}

// Must return: a variable that is set is never questioned, so it cannot loop.
static void a_choice_once_made_is_kept(void **state) {
    char *argv[] = {"nothing", NULL};
    (void)state;
    assert_int_equal(setenv("OPENBLAS_CORETYPE", "Prescott", 1), 0);
    assert_int_equal(setenv("OMP_WAIT_POLICY", "active", 1), 0);
    const char *spin = getenv("GOMP_SPINCOUNT");
    start_guard(argv);
    assert_string_equal(getenv("OPENBLAS_CORETYPE"), "Prescott");
    assert_string_equal(getenv("OMP_WAIT_POLICY"), "active");
    assert_ptr_equal(getenv("GOMP_SPINCOUNT"), spin);
}

int main(int argc, char **argv) {
    (void)argc;
    start_guard(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_running_core_fits_the_cpu),
        cmocka_unit_test(waiting_is_bounded),
        cmocka_unit_test(a_choice_once_made_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
