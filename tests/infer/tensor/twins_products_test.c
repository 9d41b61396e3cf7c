// tests/infer/tensor/twins_products_test.c - products, experts, GEGLU and AdamW: CPU against CUDA.
#include "tests/infer/tensor/twins.h"

static void matmul_twins(void **state) {
    (void)state;
    twins_begin();
    const int64_t shape[][3] = {{1, 1, 1},    {3, 5, 7},    {17, 70, 33}, {64, 128, 96},
                                {1, 200, 64}, {130, 66, 8}, {4, 4, 0},    {0, 8, 8}};
    void (*const form[])(Device *, Tensor, Tensor, Tensor,
                         float) = {cpu_ops.matmul_nt, cpu_ops.matmul_nn, cpu_ops.matmul_tn};
    void (*const gpu_form[])(Device *, Tensor, Tensor, Tensor, float) = {
        twin_gpu()->ops->matmul_nt, twin_gpu()->ops->matmul_nn, twin_gpu()->ops->matmul_tn};
    for (int i = 0; i < 8; i++)
        for (int mix = 0; mix < 8 * 3 * 2; mix++) {
            twins_begin();
            const int kind = mix / 8 % 3;
            const int64_t m = shape[i][0], n = shape[i][1], k = shape[i][2];
            const TwinLayout layout = (TwinLayout)((mix + i) % TWIN_LAYOUTS);
            const Twin a =
                twin_random(TWIN_FLOATS[mix & 1], kind == 2 ? k : m, kind == 2 ? m : k, layout);
            const Twin b =
                twin_random(TWIN_FLOATS[mix >> 1 & 1], kind ? k : n, kind ? n : k, layout);
            const Twin c = twin_random(TWIN_FLOATS[mix >> 2 & 1], m, n, layout);
            const float beta = (float)(mix / 24);
            const Tensor again = twin_again(c);
            form[kind](twin_cpu(), c.cpu, a.cpu, b.cpu, beta);
            gpu_form[kind](twin_gpu(), c.gpu, a.gpu, b.gpu, beta);
            twin_close("product", c, 2e-5, twin_rounding(c.cpu.dtype, 1e-5));
            gpu_form[kind](twin_gpu(), again, a.gpu, b.gpu, beta);
            twin_repeats("product", c.gpu, again);
        }
}

// Decoding: few rows in bf16. Every way to share out K, columns beyond the last block's, C of
// either type. A row's bits do not depend on the rows beside it.
static void products_of_few_rows(void **state) {
    (void)state;
    twins_begin();
    const int64_t shape[][3] = {{1, 70, 2568}, {16, 33, 1160}, {9, 130, 520}, {8, 200, 264},
                                {3, 17, 8},    {16, 1, 32},    {2, 16, 4096}};
    for (int i = 0; i < 7; i++)
        for (int mix = 0; mix < 4; mix++) {
            twins_begin();
            const int64_t m = shape[i][0], n = shape[i][1], k = shape[i][2];
            const TwinLayout layout = mix & 1 ? TWIN_GAPS : TWIN_PLAIN;
            const Twin a = twin_random(DT_BF16, m, k, layout),
                       b = twin_random(DT_BF16, n, k, layout),
                       c = twin_random(TWIN_FLOATS[mix >> 1], m, n, layout);
            const float beta = (float)((mix + i) % 2);
            const Tensor again = twin_again(c);
            op_matmul_nt(twin_cpu(), c.cpu, a.cpu, b.cpu, beta);
            op_matmul_nt(twin_gpu(), c.gpu, a.gpu, b.gpu, beta);
            twin_close("few rows", c, 1e-6 * (double)(k + 20), twin_rounding(c.cpu.dtype, 1e-5));
            for (int64_t r = 0; r < m; r++)
                op_matmul_nt(twin_gpu(), tensor_rows(again, r, 1), tensor_rows(a.gpu, r, 1), b.gpu,
                             beta);
            twin_repeats("one row", c.gpu, again);
        }
}

static void geglu_twins(void **state) {
    (void)state;
    twins_begin();
    const int64_t shape[][2] = {{1, 1}, {3, 50}, {17, 264}, {0, 8}};
    for (int i = 0; i < 4; i++)
        for (int mix = 0; mix < 16; mix++) {
            twins_begin();
            const int64_t rows = shape[i][0], cols = shape[i][1];
            const TwinLayout layout = (TwinLayout)((mix + i) % TWIN_LAYOUTS);
            const DType in = TWIN_FLOATS[mix & 1], out = TWIN_FLOATS[mix >> 1 & 1];
            const Twin a = twin_random(in, rows, cols, layout),
                       b = twin_random(in, rows, cols, layout),
                       m = twin_random(out, rows, cols, layout),
                       da = twin_random(out, rows, cols, layout),
                       db = twin_random(out, rows, cols, layout);
            const float wide = mix & 4 ? 40.0f : 2.0f;
            op_axpby(twin_cpu(), a.cpu, a.cpu, wide, 0),
                op_axpby(twin_gpu(), a.gpu, a.gpu, wide, 0);
            op_geglu(twin_cpu(), m.cpu, a.cpu, b.cpu), op_geglu(twin_gpu(), m.gpu, a.gpu, b.gpu);
            twin_close("geglu", m, 1e-6, twin_rounding(out, 5e-6));
            op_geglu_back(twin_cpu(), da.cpu, db.cpu, m.cpu, a.cpu, b.cpu);
            op_geglu_back(twin_gpu(), da.gpu, db.gpu, twin_of(m.cpu, 0).gpu, a.gpu, b.gpu);
            twin_close("da", da, 2e-5, twin_rounding(out, 2e-5));
            twin_close("db", db, 2e-5, twin_rounding(out, 2e-5));
        }
}

static void gated_twins(void **state) {
    (void)state;
    const int64_t shape[][3] = {{1, 8, 64}, {17, 24, 40}, {70, 136, 96}};
    for (int i = 0; i < 3; i++)
        for (int mix = 0; mix < 8; mix++) {
            twins_begin();
            const int64_t rows = shape[i][0], n = shape[i][1], k = shape[i][2];
            const TwinLayout layout = (TwinLayout)((mix + i) % TWIN_LAYOUTS);
            const DType in = TWIN_FLOATS[mix & 1];
            const Twin x = twin_random(in, rows, k, layout), w = twin_random(in, 2 * n, k, layout),
                       ab = twin_random(TWIN_FLOATS[mix >> 1 & 1], rows, 2 * n, layout),
                       m = twin_random(TWIN_FLOATS[mix >> 2 & 1], rows, n, layout);
            op_gated(twin_cpu(), m.cpu, ab.cpu, x.cpu, w.cpu, true);
            op_gated(twin_gpu(), m.gpu, ab.gpu, x.gpu, w.gpu, true);
            twin_close("products", ab, 2e-5, twin_rounding(ab.cpu.dtype, 1e-5));
            const DType coarser = ab.cpu.dtype == DT_BF16 ? DT_BF16 : m.cpu.dtype;
            twin_close("gated", m, 5e-5, twin_rounding(coarser, 1e-5));
        }
}

static void adamw_twins(void **state) {
    (void)state;
    twins_begin();
    const int64_t count[] = {1, 7, 1000, 5001};
    for (int i = 0; i < 4; i++)
        for (int with = 0; with < 2; with++) {
            twins_begin();
            const int64_t n = count[i];
            const Twin w = twin_random(DT_F32, 1, n, TWIN_PLAIN),
                       m = twin_zeros(DT_F32, 1, n, TWIN_PLAIN),
                       v = twin_zeros(DT_F32, 1, n, TWIN_PLAIN);
            const Twin copy = with ? twin_zeros(DT_BF16, 1, n, TWIN_PLAIN) : NO_TWIN;
            for (int64_t step = 1; step <= 3; step++) {
                const Twin g = twin_random(DT_F32, 1, n, TWIN_PLAIN);
                op_adamw(twin_cpu(), w.cpu, m.cpu, v.cpu, copy.cpu, g.cpu, 0.5f, 1e-3f, 0.9f, 0.95f,
                         1e-8f, 0.01f, step);
                op_adamw(twin_gpu(), w.gpu, m.gpu, v.gpu, copy.gpu, g.gpu, 0.5f, 1e-3f, 0.9f, 0.95f,
                         1e-8f, 0.01f, step);
            }
            twin_close("w", w, 0, 1e-6), twin_close("m", m, 1e-9, 1e-6),
                twin_close("v", v, 1e-12, 1e-6);
            if (with) twin_close("copy", copy, 0, 1.0 / 256);
        }
}

enum { ROWS = 70, EXPERTS = 6, CHOICES = 3 };

// Experts 0 and 4 are chosen often, 5 by nobody; in every row they differ.
static void choose(int32_t *idx, int64_t rows) {
    for (int64_t r = 0; r < rows; r++) {
        const int32_t a = (int32_t)(r % 4), b = r % 3 ? 4 : (a + 1) % 4;
        idx[r * CHOICES] = a, idx[r * CHOICES + 1] = b;
        idx[r * CHOICES + 2] = a != 0 && b != 0 ? 0 : a != 2 && b != 2 ? 2 : 3;
    }
}

static Tensor scaled(DType t, int64_t rows, int64_t cols, float s) {
    const Tensor x = test_random(t, rows, cols);
    op_axpby(twin_cpu(), x, x, s, 0);
    return x;
}

static void experts_twins(void **state) {
    (void)state;
    twins_begin();
    const int64_t shape[][3] = {{1, 16, 8}, {5, 13, 7}, {ROWS, 40, 24}, {ROWS, 72, 136}};
    int32_t idx[ROWS * CHOICES];
    choose(idx, ROWS);
    for (int i = 0; i < 4; i++)
        for (int mix = 0; mix < 4; mix++) {
            twins_begin();
            const int64_t rows = shape[i][0], B = shape[i][1], inter = shape[i][2];
            const DType t = TWIN_FLOATS[mix & 1], wt = TWIN_FLOATS[mix >> 1];
            const Twin x = twin_random(t, rows, B, TWIN_PLAIN), ids = twin_ids(idx, rows, CHOICES),
                       w = twin_random(DT_F32, rows, CHOICES, TWIN_PLAIN),
                       y = twin_random(DT_F32, rows, B, TWIN_PLAIN);
            const Twin gate_up = twin_of(scaled(wt, EXPERTS * 2 * inter, B, 0.2f), 0),
                       down = twin_of(scaled(wt, EXPERTS * B, inter, 0.2f), 0);
            const Tensor again = twin_again(y);
            op_experts(twin_cpu(), y.cpu, x.cpu, ids.cpu, w.cpu, gate_up.cpu, down.cpu);
            op_experts(twin_gpu(), y.gpu, x.gpu, ids.gpu, w.gpu, gate_up.gpu, down.gpu);
            // the CPU rounds gate and up on the way
            const double off = relative_l2(twin_fetched(y.gpu).data, y.cpu.data, rows * B);
            if (!(off < (t == DT_BF16 ? 6e-3 : 1e-6))) fail_msg("experts: off by %g", off);
            op_experts(twin_gpu(), again, x.gpu, ids.gpu, w.gpu, gate_up.gpu, down.gpu);
            twin_repeats("experts", y.gpu, again);
        }
}

// A row's bits do not depend on the rows beside it, nor on the height of the tiles.
static void rows_of_experts_are_independent(void **state) {
    (void)state;
    twins_begin();
    int32_t idx[400 * CHOICES];
    choose(idx, 400);
    for (int mix = 0; mix < 2; mix++) {
        twins_begin();
        const DType t = TWIN_FLOATS[mix];
        const Twin x = twin_random(t, 400, 64, TWIN_PLAIN), ids = twin_ids(idx, 400, CHOICES),
                   w = twin_random(DT_F32, 400, CHOICES, TWIN_PLAIN),
                   y = twin_zeros(DT_F32, 400, 64, TWIN_PLAIN),
                   z = twin_zeros(DT_F32, 7, 64, TWIN_PLAIN);
        const Twin gate_up = twin_random(t, EXPERTS * 2 * 48, 64, TWIN_PLAIN),
                   down = twin_random(t, EXPERTS * 64, 48, TWIN_PLAIN);
        op_experts(twin_gpu(), y.gpu, x.gpu, ids.gpu, w.gpu, gate_up.gpu, down.gpu);
        op_experts(twin_gpu(), z.gpu, tensor_rows(x.gpu, 90, 7), tensor_rows(ids.gpu, 90, 7),
                   tensor_rows(w.gpu, 90, 7), gate_up.gpu, down.gpu);
        twin_repeats("few rows and many", tensor_rows(y.gpu, 90, 7), z.gpu);
    }
}

static void route_twins(void **state) {
    (void)state;
    twins_begin();
    int32_t idx[ROWS * CHOICES];
    choose(idx, ROWS);
    const Twin ids = twin_ids(idx, ROWS, CHOICES), z = twin_random(DT_F32, ROWS, EXPERTS, TWIN_ODD),
               scale = twin_random(DT_F32, 1, EXPERTS, TWIN_PLAIN),
               w = twin_random(DT_F32, ROWS, CHOICES, TWIN_PLAIN);
    op_route(twin_cpu(), w.cpu, z.cpu, ids.cpu, scale.cpu);
    op_route(twin_gpu(), w.gpu, z.gpu, ids.gpu, scale.gpu);
    twin_close("route", w, 1e-7, 1e-6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matmul_twins),
        cmocka_unit_test(geglu_twins),
        cmocka_unit_test(gated_twins),
        cmocka_unit_test(adamw_twins),
        cmocka_unit_test(experts_twins),
        cmocka_unit_test(route_twins),
        cmocka_unit_test(rows_of_experts_are_independent),
        cmocka_unit_test(products_of_few_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
