// tests/infer/base/cores_test.c - the number of threads outlives matrix products, which set
// OpenMP's.
#include "infer/base/cores.h"

#include <omp.h>

#include "tests/testing.h"

static void a_device_says_how_many(void **state) {
    (void)state;
    assert_true(cores_all() >= 1);
    assert_true(cores_all() <= omp_get_num_procs());
    Err err = {0};
    Device *dev = dev_open("cpu", 3, &err);
    if (dev == NULL) fail_msg("%s", err.text);
    assert_int_equal(cores_used(), 3);
    dev_close(dev);
    dev = dev_open("cpu", 0, &err);
    if (dev == NULL) fail_msg("%s", err.text);
    assert_int_equal(cores_used(), dev->threads);
    dev_close(dev);
}

static void a_product_changes_nothing(void **state) {
    (void)state;
    Env *env = test_env();
    const int all = cores_all(), used = cores_used();
    const Tensor a = test_random(DT_F32, 64, 64), b = test_random(DT_F32, 64, 64),
                 c = test_zeros(DT_F32, 64, 64);
    op_matmul_nt(env->dev, c, a, b, 1.0f);
    omp_set_num_threads(1); // what OpenBLAS does in some of them
    assert_int_equal(cores_all(), all);
    assert_int_equal(cores_used(), used);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_says_how_many),
        cmocka_unit_test(a_product_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
