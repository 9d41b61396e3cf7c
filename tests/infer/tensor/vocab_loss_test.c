// tests/infer/tensor/vocab_loss_test.c - running log-sum-exp, loss statistics and gradients over
// vocabulary tiles.
#include "tests/infer/tensor/vocab.h"

static const DType FLOATS[] = {DT_F32, DT_BF16};
static const LossKind KINDS[] = {LOSS_FKL, LOSS_CE_ARGMAX, LOSS_CE_LABEL, LOSS_TV, LOSS_HYBRID};
static const float MIX = 0.6f;

typedef struct {
    Tensor sz, tz, sstat, tstat, stat, trow, targ, label, weight, g;
    float temp;
    int64_t tile;
} Case;

static Case new_case(int64_t rows, int64_t vocab, DType s, DType t, float temp, int64_t tile) {
    Case c = {.temp = temp, .tile = tile};
    const int64_t teachers = rows / 2 + 1;
    c.sz = strided(s, rows, vocab), c.tz = strided(t, teachers, vocab);
    c.sstat = test_zeros(DT_F32, rows, 2), c.tstat = test_zeros(DT_F32, teachers, 2);
    c.stat = test_random(DT_F32, rows, 4), c.trow = test_zeros(DT_I32, 1, rows);
    c.targ = test_zeros(DT_I32, 1, teachers), c.label = test_zeros(DT_I32, 1, rows);
    c.weight = test_random(DT_F32, 1, rows), c.g = test_zeros(DT_F32, rows, vocab);
    for (int64_t r = 0; r < rows; r++) {
        ((int32_t *)c.trow.data)[r] = (int32_t)(r * 5 % teachers);
        ((int32_t *)c.label.data)[r] = (int32_t)(r * 31 % vocab);
        for (int64_t v = 0; v < vocab; v++) set_float(c.sz, r, v, 3.0 * test_get(c.sz, r, v));
    }
    for (int64_t r = 0; r < teachers; r++) {
        int64_t best = 0;
        for (int64_t v = 0; v < vocab; v++) {
            set_float(c.tz, r, v, 3.0 * test_get(c.tz, r, v));
            if (test_get(c.tz, r, v) > test_get(c.tz, r, best)) best = v;
        }
        ((int32_t *)c.targ.data)[r] = (int32_t)best;
    }
    return c;
}

static Tensor target_of(const Case *c, LossKind kind) {
    return kind == LOSS_CE_ARGMAX ? c->targ : kind == LOSS_CE_LABEL ? c->label : NO_TENSOR;
}

static void run_stats(Device *dev, Case *c, LossKind kind) {
    for (int pass = 0; pass < 2; pass++)
        for (int64_t v0 = 0; v0 < c->sz.cols; v0 += c->tile) {
            const int64_t n = c->sz.cols - v0 < c->tile ? c->sz.cols - v0 : c->tile;
            Tensor s = tensor_cols(c->sz, v0, n), t = tensor_cols(c->tz, v0, n);
            if (pass == 0)
                op_lse_tile(dev, c->sstat, s, c->temp, v0),
                    op_lse_tile(dev, c->tstat, t, c->temp, v0);
            else
                op_loss_stats(dev, c->stat, s, t, c->sstat, c->tstat, c->trow, target_of(c, kind),
                              kind, c->temp, v0);
        }
}

static void run_grad(Device *dev, Case *c, LossKind kind, Tensor g) {
    for (int64_t v0 = 0; v0 < c->sz.cols; v0 += c->tile) {
        const int64_t n = c->sz.cols - v0 < c->tile ? c->sz.cols - v0 : c->tile;
        op_loss_grad(dev, tensor_cols(g, v0, n), tensor_cols(c->sz, v0, n),
                     tensor_cols(c->tz, v0, n), c->sstat, c->tstat, c->stat, c->trow,
                     target_of(c, kind), c->weight, kind, MIX, c->temp, v0);
    }
}

static void expect_stats(Case *c, LossKind kind) {
    for (int64_t r = 0; r < c->sz.rows; r++) {
        const int32_t t = get_id(c->trow, 0, r);
        double *lq = log_softmax(c->sz, r, c->temp), *lp = log_softmax(c->tz, t, c->temp),
               want[4] = {0};
        for (int64_t v = 0; v < c->sz.cols; v++) {
            const double p = exp(lp[v]), q = exp(lq[v]);
            want[0] += p * (lp[v] - lq[v]), want[1] += 0.5 * fabs(p - q);
            want[2] += q * 0.5 * (q > p ? 1.0 : q < p ? -1.0 : 0.0);
        }
        if (kind == LOSS_CE_ARGMAX) want[3] = -lq[get_id(c->targ, 0, t)];
        if (kind == LOSS_CE_LABEL) want[3] = -lq[get_id(c->label, 0, r)];
        for (int i = 0; i < 4; i++)
            if (!(fabs(test_get(c->stat, r, i) - want[i]) <= 2e-6 * (1.0 + fabs(want[i]))))
                fail_msg("row %lld statistic %d: %.9g, expected %.9g", (long long)r, i,
                         test_get(c->stat, r, i), want[i]);
        free(lq), free(lp);
    }
}

static void statistics_over_tiles_match_whole_rows(void **state) {
    (void)state;
    const int64_t vocab[] = {50, 257, 2500}, tile[] = {33, 128, 2500};
    for (int i = 0; i < 9; i++)
        for (int mix = 0; mix < 4; mix++)
            for (int kind = 0; kind < 3; kind++) {
                Case c = new_case(5, vocab[i / 3], FLOATS[mix & 1], FLOATS[mix >> 1],
                                  mix ? 0.7f : 1.0f, tile[i % 3]);
                run_stats(test_env()->dev, &c, KINDS[kind]);
                expect_stats(&c, KINDS[kind]);
            }
}

static void expect_grad(Case *c, LossKind kind, Tensor g) {
    for (int64_t r = 0; r < c->sz.rows; r++) {
        const int32_t t = get_id(c->trow, 0, r);
        double *lq = log_softmax(c->sz, r, c->temp), *lp = log_softmax(c->tz, t, c->temp),
               mean = 0.0;
        const double w = test_get(c->weight, 0, r) / c->temp;
        for (int64_t v = 0; v < c->sz.cols; v++)
            mean += exp(lq[v]) * 0.5 * (lq[v] > lp[v] ? 1.0 : lq[v] < lp[v] ? -1.0 : 0.0);
        for (int64_t v = 0; v < c->sz.cols; v++) {
            const double p = exp(lp[v]), q = exp(lq[v]),
                         s = 0.5 * (q > p   ? 1.0
                                    : q < p ? -1.0
                                            : 0.0);
            const double kl = q - p, tv = q * (s - mean);
            double want = kind == LOSS_FKL  ? kl
                          : kind == LOSS_TV ? tv
                                            : MIX * kl + (1.0 - MIX) * tv;
            if (kind == LOSS_CE_ARGMAX) want = q - (v == get_id(c->targ, 0, t));
            if (kind == LOSS_CE_LABEL) want = q - (v == get_id(c->label, 0, r));
            const double allowed = fabs(w) * 5e-7 + fabs(w * want) * rounding(g.dtype, 2e-6);
            if (!(fabs(test_get(g, r, v) - w * want) <= allowed))
                fail_msg("kind %d row %lld column %lld: %.9g, expected %.9g", kind, (long long)r,
                         (long long)v, test_get(g, r, v), w * want);
        }
        free(lq), free(lp);
    }
}

static void gradients_over_tiles_match_whole_rows(void **state) {
    (void)state;
    for (int kind = 0; kind < 5; kind++)
        for (int mix = 0; mix < 8; mix++) {
            Case c = new_case(5, 1357, FLOATS[mix & 1], FLOATS[mix >> 1 & 1], mix & 1 ? 1.0f : 1.3f,
                              mix & 2 ? 1357 : 500);
            Tensor g = strided(FLOATS[mix >> 2], 5, 1357);
            set_float(c.weight, 0, 2, 0.0);
            run_stats(test_env()->dev, &c, KINDS[kind]);
            run_grad(test_env()->dev, &c, KINDS[kind], g);
            expect_grad(&c, KINDS[kind], g);
        }
}

static void gradient_may_overwrite_the_logits(void **state) {
    (void)state;
    Case c = new_case(5, 1357, DT_F32, DT_F32, 1.0f, 1357);
    run_stats(test_env()->dev, &c, LOSS_HYBRID);
    run_grad(test_env()->dev, &c, LOSS_HYBRID, c.g);
    run_grad(test_env()->dev, &c, LOSS_HYBRID, c.sz);
    assert_same_bits("in place", c.sz, c.g);
}

static LossKind kind_at_hand;
static double weighted_loss(void *ctx) {
    Case *c = ctx;
    double sum = 0.0;
    run_stats(test_env()->dev, c, kind_at_hand);
    for (int64_t r = 0; r < c->sz.rows; r++) {
        const double s0 = test_get(c->stat, r, 0), s1 = test_get(c->stat, r, 1),
                     s3 = test_get(c->stat, r, 3);
        const double loss = kind_at_hand == LOSS_FKL      ? s0
                            : kind_at_hand == LOSS_TV     ? s1
                            : kind_at_hand == LOSS_HYBRID ? MIX * s0 + (1.0 - MIX) * s1
                                                          : s3;
        sum += test_get(c->weight, 0, r) * loss;
    }
    return sum;
}

static void gradients_match_finite_differences(void **state) {
    (void)state;
    for (int kind = 0; kind < 5; kind++) {
        kind_at_hand = KINDS[kind];
        Case c = new_case(3, 50, DT_F32, DT_F32, 0.8f, 17);
        run_stats(test_env()->dev, &c, kind_at_hand);
        run_grad(test_env()->dev, &c, kind_at_hand, c.g);
        // total variation has kinks: a step may cross one of the 150 signs
        assert_gradient(weighted_loss, &c, c.sz, c.g,
                        KINDS[kind] == LOSS_TV || KINDS[kind] == LOSS_HYBRID ? 5e-3 : 2e-4);
    }
}

static void equal_rows_have_no_loss_and_no_gradient(void **state) {
    (void)state;
    Case c = new_case(1, 300, DT_F32, DT_F32, 1.0f, 128);
    op_copy(test_env()->dev, c.sz, c.tz);
    run_stats(test_env()->dev, &c, LOSS_HYBRID);
    run_grad(test_env()->dev, &c, LOSS_HYBRID, c.g);
    for (int i = 0; i < 3; i++) assert_true(test_get(c.stat, 0, i) == 0.0f);
    for (int64_t v = 0; v < 300; v++) assert_true(test_get(c.g, 0, v) == 0.0f);
}

static void large_logits_stay_finite(void **state) {
    (void)state;
    Case c = new_case(5, 300, DT_F32, DT_F32, 1.0f, 77);
    for (int64_t r = 0; r < 5; r++)
        for (int64_t v = 0; v < 300; v++) set_float(c.sz, r, v, 1e4 * round(test_get(c.sz, r, v)));
    for (int64_t v = 0; v < 300; v++) set_float(c.tz, 0, v, v == 9 ? 1e4 : -1e4);
    for (int kind = 0; kind < 5; kind++) {
        run_stats(test_env()->dev, &c, KINDS[kind]);
        expect_stats(&c, KINDS[kind]);
        run_grad(test_env()->dev, &c, KINDS[kind], c.g);
        expect_grad(&c, KINDS[kind], c.g);
    }
}

static void bits_do_not_depend_on_threads(void **state) {
    (void)state;
    Case c = new_case(33, 2500, DT_F32, DT_BF16, 0.9f, 1000), d = c;
    d.sstat = test_zeros(DT_F32, 33, 2), d.tstat = test_zeros(DT_F32, c.tz.rows, 2);
    d.stat = test_zeros(DT_F32, 33, 4), d.g = test_zeros(DT_F32, 33, 2500);
    run_stats(device_with(1), &c, LOSS_CE_LABEL), run_stats(device_with(2), &d, LOSS_CE_LABEL);
    run_grad(device_with(1), &c, LOSS_HYBRID, c.g), run_grad(device_with(2), &d, LOSS_HYBRID, d.g);
    assert_same_bits("sstat", c.sstat, d.sstat);
    assert_same_bits("tstat", c.tstat, d.tstat);
    assert_same_bits("stat", c.stat, d.stat);
    assert_same_bits("g", c.g, d.g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statistics_over_tiles_match_whole_rows),
        cmocka_unit_test(gradients_over_tiles_match_whole_rows),
        cmocka_unit_test(gradient_may_overwrite_the_logits),
        cmocka_unit_test(gradients_match_finite_differences),
        cmocka_unit_test(equal_rows_have_no_loss_and_no_gradient),
        cmocka_unit_test(large_logits_stay_finite),
        cmocka_unit_test(bits_do_not_depend_on_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
