// tests/infer/tensor/twins_rows_test.c - norms, rotations and gathers: CPU against CUDA.
#include "tests/infer/tensor/twins.h"

static const int64_t ROWS[] = {1, 3, 41}, COLS[] = {1, 8, 50, 264, 1300, 4104};
static const float EPS = 1e-6f;

static Twin maybe(bool there, DType t, int64_t rows, int64_t cols, TwinLayout layout) {
    return there ? twin_random(t, rows, cols, layout) : NO_TWIN;
}

static void norm_twins(void **state) {
    (void)state;
    twins_begin();
    for (int i = 0; i < 18; i++)
        for (int mix = 0; mix < 32; mix++) {
            twins_begin();
            const int64_t rows = ROWS[i / 6], cols = COLS[i % 6];
            const TwinLayout layout = (TwinLayout)((mix + i) % TWIN_LAYOUTS);
            const DType in = TWIN_FLOATS[mix & 1], out = TWIN_FLOATS[mix >> 1 & 1];
            const Twin x = twin_random(in, rows, cols, layout),
                       y = twin_random(out, rows, cols, layout),
                       w = maybe(mix & 4, in, 1, cols, layout),
                       res = maybe(mix & 8, out, rows, cols, layout),
                       rstd = maybe(mix & 16, DT_F32, 1, rows, TWIN_PLAIN);
            op_norm(twin_cpu(), y.cpu, rstd.cpu, res.cpu, x.cpu, w.cpu, EPS, 0.5f);
            op_norm(twin_gpu(), y.gpu, rstd.gpu, res.gpu, x.gpu, w.gpu, EPS, 0.5f);
            twin_close("norm", y, 1e-6, twin_rounding(out, 2e-6));
            if (mix & 16) twin_close("rstd", rstd, 0, 1e-6);
        }
}

static void norm_back_twins(void **state) {
    (void)state;
    twins_begin();
    const int64_t rows_of[] = {1, 41, 2100}, cols_of[] = {8, 50, 1032};
    for (int i = 0; i < 9; i++)
        for (int mix = 0; mix < 16; mix++) {
            const int64_t rows = rows_of[i / 3], cols = rows > 100 ? 24 : cols_of[i % 3];
            const TwinLayout layout = (TwinLayout)((mix + i) % TWIN_LAYOUTS);
            const DType t = TWIN_FLOATS[mix & 1], g = TWIN_FLOATS[mix >> 1 & 1];
            if (rows > 100 && i % 3 > 0) continue;
            twins_begin();
            const Twin x = twin_random(t, rows, cols, layout),
                       dy = twin_random(t, rows, cols, layout),
                       y = twin_zeros(DT_F32, rows, cols, TWIN_PLAIN),
                       rstd = twin_zeros(DT_F32, 1, rows, TWIN_PLAIN),
                       w = maybe(mix & 4, t, 1, cols, layout),
                       dw = maybe(mix & 4, DT_F32, 1, cols, layout),
                       dx = twin_random(g, rows, cols, layout),
                       dres = maybe(mix & 8, g, rows, cols, layout);
            const Tensor dx2 = twin_again(dx), dw2 = mix & 4 ? twin_again(dw) : NO_TENSOR;
            op_norm(twin_cpu(), y.cpu, rstd.cpu, NO_TENSOR, x.cpu, w.cpu, EPS, 1.0f);
            op_copy(twin_gpu(), rstd.gpu, twin_of(rstd.cpu, 0).gpu);
            op_norm_back(twin_cpu(), dx.cpu, dw.cpu, dres.cpu, dy.cpu, x.cpu, rstd.cpu, w.cpu, .5f);
            op_norm_back(twin_gpu(), dx.gpu, dw.gpu, dres.gpu, dy.gpu, x.gpu, rstd.gpu, w.gpu, .5f);
            twin_close("dx", dx, 1e-5, twin_rounding(g, 1e-5));
            if (mix & 4) twin_close("dw", dw, 1e-4, 1e-5);
            if (mix & 8) twin_close("dres", dres, 1e-6, twin_rounding(g, 1e-6));
            op_norm_back(twin_gpu(), dx2, dw2, NO_TENSOR, dy.gpu, x.gpu, rstd.gpu, w.gpu, .5f);
            twin_repeats("dx", dx.gpu, dx2);
            if (mix & 4) twin_repeats("dw", dw.gpu, dw2);
        }
}

static void norm_extremes(void **state) {
    (void)state;
    twins_begin();
    const float size[] = {0.0f, 1e-18f, 1e15f};
    for (int i = 0; i < 3; i++) {
        twins_begin();
        const Twin x = twin_random(DT_F32, 4, 520, TWIN_PLAIN),
                   w = twin_random(DT_F32, 1, 520, TWIN_PLAIN);
        op_axpby(twin_cpu(), x.cpu, x.cpu, size[i], 0.0f);
        op_axpby(twin_gpu(), x.gpu, x.gpu, size[i], 0.0f);
        op_norm(twin_cpu(), x.cpu, NO_TENSOR, NO_TENSOR, x.cpu, w.cpu, EPS, 1.0f);
        op_norm(twin_gpu(), x.gpu, NO_TENSOR, NO_TENSOR, x.gpu, w.gpu, EPS, 1.0f); // in place
        twin_close("norm of extremes", x, 1e-20, 3e-6);
    }
    const Twin none = twin_zeros(DT_F32, 0, 16, TWIN_PLAIN),
               w = twin_zeros(DT_F32, 1, 16, TWIN_PLAIN);
    const Twin dw = twin_random(DT_F32, 1, 16, TWIN_PLAIN),
               rstd = twin_zeros(DT_F32, 1, 0, TWIN_PLAIN);
    op_norm(twin_gpu(), none.gpu, NO_TENSOR, NO_TENSOR, none.gpu, w.gpu, EPS, 1.0f);
    op_norm_back(twin_gpu(), none.gpu, dw.gpu, NO_TENSOR, none.gpu, none.gpu, rstd.gpu, w.gpu,
                 1.0f);
    twin_equal("dw of no rows", dw);
}

static void head_norm_twins(void **state) {
    (void)state;
    twins_begin();
    const int64_t shape[][3] = {{1, 1, 6}, {5, 3, 16}, {9, 4, 256}, {3, 2, 512}, {40, 3, 8}};
    for (int i = 0; i < 5; i++)
        for (int mix = 0; mix < 16; mix++) {
            twins_begin();
            const int64_t rows = shape[i][0], heads = shape[i][1], hd = shape[i][2],
                          cols = heads * hd;
            const TwinLayout layout = (TwinLayout)((mix + i) % TWIN_LAYOUTS);
            const DType t = TWIN_FLOATS[mix & 1], o = TWIN_FLOATS[mix >> 1 & 1];
            const Twin x = twin_random(t, rows, cols, layout),
                       y = twin_random(o, rows, cols, layout),
                       dy = twin_random(o, rows, cols, layout),
                       dx = twin_random(o, rows, cols, layout),
                       w = maybe(mix & 4, t, 1, hd, TWIN_PLAIN),
                       dw = maybe(mix & 4, DT_F32, 1, hd, TWIN_PLAIN),
                       cs = maybe(mix & 8, DT_F32, rows, hd, TWIN_PLAIN),
                       rstd = twin_zeros(DT_F32, rows, heads, TWIN_PLAIN);
            op_head_norm(twin_cpu(), y.cpu, rstd.cpu, x.cpu, w.cpu, cs.cpu, EPS, (int)hd);
            op_head_norm(twin_gpu(), y.gpu, rstd.gpu, x.gpu, w.gpu, cs.gpu, EPS, (int)hd);
            twin_close("head_norm", y, 2e-6, twin_rounding(o, 2e-6));
            twin_close("rstd", rstd, 0, 1e-6);
            const Tensor dx2 = twin_again(dx), dw2 = mix & 4 ? twin_again(dw) : NO_TENSOR;
            op_head_norm_back(twin_cpu(), dx.cpu, dw.cpu, dy.cpu, x.cpu, rstd.cpu, w.cpu, cs.cpu,
                              (int)hd);
            op_head_norm_back(twin_gpu(), dx.gpu, dw.gpu, dy.gpu, x.gpu, rstd.gpu, w.gpu, cs.gpu,
                              (int)hd);
            op_head_norm_back(twin_gpu(), dx2, dw2, dy.gpu, x.gpu, rstd.gpu, w.gpu, cs.gpu,
                              (int)hd);
            twin_close("dx", dx, 2e-5, twin_rounding(o, 2e-5));
            twin_repeats("dx", dx.gpu, dx2);
            if (!(mix & 4)) continue;
            twin_close("dw", dw, 1e-4, 1e-5);
            twin_repeats("dw", dw.gpu, dw2);
        }
}

static void rope_table_twins(void **state) {
    (void)state;
    twins_begin();
    const int32_t at[] = {0, 1, 2, 77, 4095, 131071, 262143};
    const Twin pos = twin_ids(at, 1, 7), cs = twin_zeros(DT_F32, 7, 256, TWIN_ODD);
    Tensor inv = test_zeros(DT_F32, 1, 128);
    for (int i = 0; i < 128; i++) set_float(inv, 0, i, pow(1e6, -i / 128.0));
    const Twin f = twin_of(inv, 0);
    op_rope_table(twin_cpu(), cs.cpu, pos.cpu, f.cpu);
    op_rope_table(twin_gpu(), cs.gpu, pos.gpu, f.gpu);
    twin_close("cos and sin", cs, 3e-7, 0);
}

static void gather_twins(void **state) {
    (void)state;
    twins_begin();
    enum { N = 300 };
    int32_t id[N];
    for (int i = 0; i < N; i++)
        id[i] = i % 7 == 3 ? -1 : i * 37 % 23; // rows come often, some never
    for (int mix = 0; mix < 8; mix++)
        for (int n = 0; n <= N; n = n ? 12 * n + 12 : 1) { // 0, 1, 24, 300
            if (n > N) break;
            for (int layout = 0; layout < TWIN_LAYOUTS; layout++) {
                twins_begin();
                const int64_t cols = mix & 4 ? 264 : 51;
                const Twin ids = twin_ids(id, 1, n);
                const Twin table = twin_random(TWIN_FLOATS[mix & 1], 23, cols, layout);
                const Twin y = twin_random(TWIN_FLOATS[mix >> 1 & 1], n, cols, layout);
                const Twin dt = twin_random(DT_F32, 23, cols, layout);
                op_gather(twin_cpu(), y.cpu, table.cpu, ids.cpu, 1.5f);
                op_gather(twin_gpu(), y.gpu, table.gpu, ids.gpu, 1.5f);
                twin_equal("gather", y);
                op_gather_back(twin_cpu(), dt.cpu, y.cpu, ids.cpu, 0.7f);
                op_gather_back(twin_gpu(), dt.gpu, y.gpu, ids.gpu, 0.7f);
                twin_equal("gather_back", dt);
            }
        }
}

static void an_id_beyond_the_table_is_said(void **state) {
    (void)state;
    twins_begin();
    Err err = {0};
    Device *dev = dev_open("cuda", 1, &err);
    assert_ok(dev != NULL, err);
    const int32_t id[] = {0, 5};
    const Twin ids = twin_ids(id, 1, 2), table = twin_random(DT_F32, 5, 8, TWIN_PLAIN),
               y = twin_zeros(DT_F32, 2, 8, TWIN_PLAIN);
    assert_true(dev_sync(twin_gpu(), &err)); // their streams differ
    op_gather(dev, y.gpu, table.gpu, ids.gpu, 1.0f);
    assert_false(dev_sync(dev, &err));
    assert_non_null(strstr(err.text, "gather"));
    err = (Err){0};
    assert_false(dev_sync(dev, &err)); // for good
    dev_close(dev);
    assert_true(dev_sync(twin_gpu(), &(Err){0}));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_twins),
        cmocka_unit_test(norm_back_twins),
        cmocka_unit_test(norm_extremes),
        cmocka_unit_test(head_norm_twins),
        cmocka_unit_test(rope_table_twins),
        cmocka_unit_test(gather_twins),
        cmocka_unit_test(an_id_beyond_the_table_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
