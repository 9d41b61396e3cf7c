// tests/infer/tensor/experts_test.c - shares of the chosen experts, and their sum against plain
// loops.
#include "tests/infer/tensor/op_testing.h"

static const DType FLOATS[] = {DT_F32, DT_BF16};

typedef struct {
    Tensor x, z, idx, w, scale, gate_up, down, y;
    int64_t experts, inter, k;
} Case;

// Expert 0 is everybody's first choice, the last expert nobody's.
static Case new_case(DType t, int64_t rows, int64_t width, int64_t inter, int64_t experts,
                     int64_t k) {
    Case c = {.experts = experts, .inter = inter, .k = k};
    c.x = strided(t, rows, width);
    c.z = test_random(DT_F32, rows, experts);
    c.idx = test_zeros(DT_I32, rows, k);
    c.w = test_zeros(DT_F32, rows, k);
    c.scale = test_random(DT_F32, 1, experts);
    c.gate_up = test_random(t, experts * 2 * inter, width);
    c.down = test_random(t, experts * width, inter);
    c.y = strided(DT_F32, rows, width);
    for (int64_t r = 0; r < rows; r++) {
        set_float(c.z, r, 0, 9.0);
        set_float(c.z, r, experts - 1, -9.0);
    }
    return c;
}

static void route(Case *c) {
    op_topk(test_env()->dev, c->idx, c->z, (int)c->k);
    op_route(test_env()->dev, c->w, c->z, c->idx, c->scale);
}

static void shares_are_a_softmax_of_the_chosen(void **state) {
    (void)state;
    Case c = new_case(DT_F32, 7, 5, 3, 11, 4);
    route(&c);
    for (int64_t r = 0; r < 7; r++) {
        double all = 0.0, chosen = 0.0;
        for (int64_t e = 0; e < 11; e++) all += exp(test_get(c.z, r, e));
        for (int64_t i = 0; i < 4; i++) chosen += exp(test_get(c.z, r, get_id(c.idx, r, i))) / all;
        for (int64_t i = 0; i < 4; i++) {
            const int32_t e = get_id(c.idx, r, i);
            const double want = exp(test_get(c.z, r, e)) / all / chosen * test_get(c.scale, 0, e);
            assert_true(fabs(test_get(c.w, r, i) - want) < 1e-6 * (1.0 + fabs(want)));
        }
    }
}

static double gelu(double a) {
    return a / (1.0 + exp(-2.0 * sqrt(2.0 / M_PI) * (a + 0.044715 * a * a * a)));
}

static double product(Tensor a, int64_t i, Tensor b, int64_t j) {
    double sum = 0.0;
    for (int64_t k = 0; k < a.cols; k++) sum += (double)test_get(a, i, k) * test_get(b, j, k);
    return sum;
}

// Row r through every expert it chose, in double; what is stored between products rounds as x does.
static void plain_row(const Case *c, int64_t r, double *y) {
    Tensor mid = test_zeros(c->x.dtype, 1, c->inter);
    for (int64_t i = 0; i < c->x.cols; i++) y[i] = 0.0;
    for (int64_t i = 0; i < c->k; i++) {
        const int64_t e = get_id(c->idx, r, i);
        Tensor both = test_zeros(c->x.dtype, 1, 2 * c->inter);
        for (int64_t j = 0; j < 2 * c->inter; j++)
            set_float(both, 0, j, product(c->x, r, c->gate_up, e * 2 * c->inter + j));
        for (int64_t j = 0; j < c->inter; j++)
            set_float(mid, 0, j, gelu(test_get(both, 0, j)) * test_get(both, 0, c->inter + j));
        for (int64_t j = 0; j < c->x.cols; j++)
            y[j] += test_get(c->w, r, i) * product(mid, 0, c->down, e * c->x.cols + j);
    }
}

static void experts_match_plain_loops(void **state) {
    (void)state;
    const int64_t rows[] = {1, 3, 70};
    for (int i = 0; i < 6; i++) {
        Case c = new_case(FLOATS[i & 1], rows[i / 2], 20, 7, 6, 3);
        route(&c);
        op_experts(test_env()->dev, c.y, c.x, c.idx, c.w, c.gate_up, c.down);
        Tensor want = test_zeros(DT_F32, rows[i / 2], 20);
        for (int64_t r = 0; r < rows[i / 2]; r++) {
            double y[20];
            plain_row(&c, r, y);
            for (int64_t j = 0; j < 20; j++) set_float(want, r, j, y[j]);
        }
        Tensor got = same_copy(c.y); // in bf16 a sum between two neighbours may fall to either
        assert_true(relative_l2(got.data, want.data, tensor_count(want)) < (i & 1 ? 2e-2 : 1e-5));
    }
}

// What a row computes must not depend on who shares its experts: decoding one equals prefill.
static void rows_do_not_depend_on_their_neighbours(void **state) {
    (void)state;
    skip_unless_rows_are_independent();
    for (int t = 0; t < 2; t++) {
        Case all = new_case(FLOATS[t], 40, 48, 32, 9, 2);
        route(&all);
        op_experts(test_env()->dev, all.y, all.x, all.idx, all.w, all.gate_up, all.down);
        for (int64_t r = 0; r < 40; r += 13) {
            Tensor y = test_zeros(DT_F32, 1, 48);
            op_experts(test_env()->dev, y, tensor_rows(all.x, r, 1), tensor_rows(all.idx, r, 1),
                       tensor_rows(all.w, r, 1), all.gate_up, all.down);
            assert_same_bits("one row", y, tensor_rows(all.y, r, 1));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_a_softmax_of_the_chosen),
        cmocka_unit_test(experts_match_plain_loops),
        cmocka_unit_test(rows_do_not_depend_on_their_neighbours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
