// tests/infer/tensor/twins_elementwise_test.c - zero, copy, axpby, softcap, sumsq: CPU against
// CUDA.
#include "tests/infer/tensor/twins.h"

static const int64_t ROWS[] = {1, 3, 70}, COLS[] = {1, 8, 50, 257, 2104};

#define EACH_CASE(rows, cols, mix)                                                                 \
    for (int i = 0; i < 15; i++)                                                                   \
        for (int mix = 0; mix < 4 * TWIN_LAYOUTS; mix++)                                           \
            for (int64_t rows = ROWS[i / 5], cols = COLS[i % 5], once = 1; once; once = 0)

static void axpby_twins(void **state) {
    (void)state;
    twins_begin();
    EACH_CASE(rows, cols, mix) {
        twins_begin();
        const Twin y = twin_random(TWIN_FLOATS[mix & 1], rows, cols, (TwinLayout)(mix / 4));
        const Twin x = twin_random(TWIN_FLOATS[mix >> 1 & 1], rows, cols, (TwinLayout)(mix / 4));
        for (int b = 0; b < 2; b++) {
            op_axpby(twin_cpu(), y.cpu, x.cpu, 0.3f, 0.7f * (float)b);
            op_axpby(twin_gpu(), y.gpu, x.gpu, 0.3f, 0.7f * (float)b);
            twin_equal("axpby", y);
        }
    }
}

static void zero_and_copy_twins(void **state) {
    (void)state;
    twins_begin();
    EACH_CASE(rows, cols, mix) {
        twins_begin();
        const Twin y = twin_random(TWIN_FLOATS[mix & 1], rows, cols, (TwinLayout)(mix / 4));
        const Twin x = twin_random(TWIN_FLOATS[mix >> 1 & 1], rows, cols, (TwinLayout)(mix / 4));
        op_copy(twin_cpu(), y.cpu, x.cpu), op_copy(twin_gpu(), y.gpu, x.gpu);
        twin_equal("copy", y);
        op_zero(twin_cpu(), y.cpu), op_zero(twin_gpu(), y.gpu);
        twin_equal("zero", y);
    }
}

static void copy_moves_ids(void **state) {
    (void)state;
    twins_begin();
    const int32_t id[] = {1, -2, 3, 4, 5, 1 << 30};
    const Twin x = twin_ids(id, 2, 3), y = twin_zeros(DT_I32, 2, 3, TWIN_ODD);
    op_copy(twin_cpu(), y.cpu, x.cpu), op_copy(twin_gpu(), y.gpu, x.gpu);
    twin_equal("ids", y);
}

static void softcap_twins(void **state) {
    (void)state;
    twins_begin();
    EACH_CASE(rows, cols, mix) {
        twins_begin();
        const DType t = TWIN_FLOATS[mix & 1];
        const Twin z = twin_random(t, rows, cols, (TwinLayout)(mix / 4));
        const float scale = mix & 2 ? 300.0f : 1.0f; // far beyond the cap, too
        op_axpby(twin_cpu(), z.cpu, z.cpu, scale, 0.0f);
        op_axpby(twin_gpu(), z.gpu, z.gpu, scale, 0.0f);
        op_softcap(twin_cpu(), z.cpu, 30.0f), op_softcap(twin_gpu(), z.gpu, 30.0f);
        twin_close("softcap", z, 1e-6, twin_rounding(t, 1e-6));
    }
}

static void sumsq_twins(void **state) {
    (void)state;
    twins_begin();
    const int64_t shape[][2] = {{1, 1}, {1, 100003}, {70, 257}, {3, 16384}, {2, 40000}, {0, 5}};
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (int mix = 0; mix < 2 * TWIN_LAYOUTS; mix++) {
            twins_begin();
            const Twin out = twin_zeros(DT_F64, 1, 1, TWIN_PLAIN);
            const Twin x =
                twin_random(TWIN_FLOATS[mix & 1], shape[i][0], shape[i][1], (TwinLayout)(mix / 2));
            op_sumsq(twin_cpu(), out.cpu, x.cpu), op_sumsq(twin_gpu(), out.gpu, x.gpu);
            twin_close("sumsq", out, 0.0, 1e-7); // test_get reads the double as a float
            const Tensor again = twin_again(out);
            op_sumsq(twin_gpu(), again, x.gpu);
            twin_repeats("sumsq", out.gpu, again);
        }
}

static void nan_and_infinity_survive(void **state) {
    (void)state;
    twins_begin();
    const Twin x = twin_zeros(DT_F32, 1, 8, TWIN_PLAIN), y = twin_zeros(DT_BF16, 1, 8, TWIN_PLAIN);
    const float v[8] = {NAN, INFINITY, -INFINITY, 3.4e38f, -0.0f, 1e-40f, 1.00390625f, 1.01171875f};
    memcpy(x.cpu.data, v, sizeof v);
    dev_upload(twin_gpu(), x.gpu, v);
    op_copy(twin_cpu(), y.cpu, x.cpu), op_copy(twin_gpu(), y.gpu, x.gpu);
    const Tensor got = twin_fetched(y.gpu);
    assert_true(isnan(test_get(got, 0, 0)));
    for (int i = 1; i < 8; i++) assert_true(test_get(got, 0, i) == test_get(y.cpu, 0, i));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(axpby_twins),    cmocka_unit_test(zero_and_copy_twins),
        cmocka_unit_test(copy_moves_ids), cmocka_unit_test(softcap_twins),
        cmocka_unit_test(sumsq_twins),    cmocka_unit_test(nan_and_infinity_survive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
