// tests/infer/tensor/cluster_test.c - cluster masses, their cross-entropy and sparse logits.
#include "tests/infer/tensor/vocab.h"

static const DType FLOATS[] = {DT_F32, DT_BF16};

static void masses_over_tiles_sum_the_teacher(void **state) {
    (void)state;
    enum { V = 1300, C = 37, ROWS = 5 };
    for (int t = 0; t < 2; t++) {
        static int32_t cluster[V];
        for (int v = 0; v < V; v++) cluster[v] = v * 11 % C;
        Tensor tz = strided(FLOATS[t], ROWS, V), lse = test_zeros(DT_F32, ROWS, 2);
        Tensor mass = test_zeros(DT_F32, ROWS, C), of = tensor_of(cluster, DT_I32, 1, V);
        Tensor p = strided(DT_F32, ROWS, V);
        op_lse_tile(test_env()->dev, lse, NO_TENSOR, NO_TENSOR, tz, 0.0f, 0.7f, 0);
        op_prob_tile(test_env()->dev, p, NO_TENSOR, tz, lse, 0.0f, 0.7f);
        for (int64_t v0 = 0; v0 < V; v0 += 700)
            op_cluster_mass(test_env()->dev, mass, tensor_cols(p, v0, v0 ? V - v0 : 700), of, v0);
        for (int64_t r = 0; r < ROWS; r++) {
            double *l = log_softmax(tz, r, 0.7, 0.0), want[C] = {0};
            for (int v = 0; v < V; v++) want[cluster[v]] += exp(l[v]);
            for (int c = 0; c < C; c++) assert_true(fabs(test_get(mass, r, c) - want[c]) < 1e-6);
            free(l);
        }
    }
}

typedef struct {
    Tensor loss, g, z, mass, trow, weight;
} Case;

static Case new_case(DType t, int64_t rows, int64_t c) {
    Case k = {.loss = test_zeros(DT_F32, 1, rows),
              .g = test_zeros(DT_F32, rows, c),
              .z = strided(t, rows, c),
              .mass = strided(DT_F32, rows, c),
              .trow = test_zeros(DT_I32, 1, rows),
              .weight = test_random(DT_F32, 1, rows)};
    for (int64_t r = 0; r < rows; r++) {
        ((int32_t *)k.trow.data)[r] = (int32_t)(rows - 1 - r);
        for (int64_t i = 0; i < c; i++)
            set_float(k.mass, r, i, exp(test_get(k.mass, r, i)) / (double)c);
    }
    return k;
}

static void cross_entropy_matches_the_formula(void **state) {
    (void)state;
    const int64_t cols[] = {1, 50, 2049};
    for (int i = 0; i < 6; i++) {
        Case k = new_case(FLOATS[i & 1], 5, cols[i / 2]);
        op_cluster_ce(test_env()->dev, k.loss, k.g, k.z, k.mass, k.trow, k.weight);
        for (int64_t r = 0; r < 5; r++) {
            double *lq = log_softmax(k.z, r, 1.0, 0.0), loss = 0.0, total = 0.0;
            for (int64_t c = 0; c < k.z.cols; c++) {
                loss -= test_get(k.mass, 4 - r, c) * lq[c];
                total += test_get(k.mass, 4 - r, c);
            }
            assert_true(fabs(test_get(k.loss, 0, r) - loss) < 1e-5 * (1.0 + fabs(loss)));
            for (int64_t c = 0; c < k.z.cols; c++) {
                const double want =
                    test_get(k.weight, 0, r) * (exp(lq[c]) * total - test_get(k.mass, 4 - r, c));
                assert_true(fabs(test_get(k.g, r, c) - want) < 2e-6);
            }
            free(lq);
        }
        Tensor alone = test_zeros(DT_F32, 1, 5);
        op_cluster_ce(test_env()->dev, alone, NO_TENSOR, k.z, k.mass, k.trow, NO_TENSOR);
        assert_same_bits("loss only", alone, k.loss);
    }
}

static double weighted_loss(void *ctx) {
    Case *k = ctx;
    op_cluster_ce(test_env()->dev, k->loss, NO_TENSOR, k->z, k->mass, k->trow, NO_TENSOR);
    return test_dot(k->loss, k->weight);
}

static void cross_entropy_gradient_matches_finite_differences(void **state) {
    (void)state;
    Case k = new_case(DT_F32, 3, 50);
    op_cluster_ce(test_env()->dev, k.loss, k.g, k.z, k.mass, k.trow, k.weight);
    assert_gradient(weighted_loss, &k, k.z, k.g, 2e-4);
}

static void logits_of_chosen_clusters(void **state) {
    (void)state;
    enum { C = 11, PER = 5, K = 3, ROWS = 13 };
    const int64_t width[] = {50, 256, 1100};
    for (int i = 0; i < 12; i++) {
        const int64_t n = width[i / 4];
        static int32_t order[C * PER], pick[ROWS * K];
        for (int v = 0; v < C * PER; v++) order[v] = v * 7 % (C * PER);
        for (int v = 0; v < ROWS * K; v++) pick[v] = v * 4 % C;
        Tensor y = strided(FLOATS[i & 1], ROWS, n), table = strided(FLOATS[i >> 1 & 1], C * PER, n);
        Tensor z = test_zeros(DT_F32, ROWS, K * PER), token = test_zeros(DT_I32, ROWS, K * PER);
        op_cluster_logits(test_env()->dev, z, token, y, table, tensor_of(order, DT_I32, C, PER),
                          tensor_of(pick, DT_I32, ROWS, K));
        for (int64_t r = 0; r < ROWS; r++)
            for (int64_t j = 0; j < K * PER; j++) {
                const int32_t v = order[pick[r * K + j / PER] * PER + j % PER];
                assert_int_equal(get_id(token, r, j), v);
                const double want = test_dot(tensor_rows(y, r, 1), tensor_rows(table, v, 1));
                assert_true(fabs(test_get(z, r, j) - want) < 2e-6 * sqrt((double)n) * 4);
            }
        for (int64_t r = 0; r < ROWS; r++) { // a row has the same bits among others as alone
            Tensor own = test_zeros(DT_F32, 1, K * PER), id = test_zeros(DT_I32, 1, K * PER);
            op_cluster_logits(test_env()->dev, own, id, tensor_rows(y, r, 1), table,
                              tensor_of(order, DT_I32, C, PER),
                              tensor_of(pick + r * K, DT_I32, 1, K));
            assert_same_bits("a row alone", own, tensor_rows(z, r, 1));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masses_over_tiles_sum_the_teacher),
        cmocka_unit_test(cross_entropy_matches_the_formula),
        cmocka_unit_test(cross_entropy_gradient_matches_finite_differences),
        cmocka_unit_test(logits_of_chosen_clusters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
