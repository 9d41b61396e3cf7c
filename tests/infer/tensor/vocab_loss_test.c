// tests/infer/tensor/vocab_loss_test.c - softmax, loss statistics and gradients over vocabulary
// tiles.
#include "tests/infer/tensor/vocab.h"

static const DType FLOATS[] = {DT_F32, DT_BF16};
static const LossKind KINDS[] = {LOSS_FKL, LOSS_CE_ARGMAX, LOSS_CE_LABEL, LOSS_TV, LOSS_HYBRID};
static const float MIX = 0.6f;

typedef struct {
    Tensor sz, tz, slse, tlse, best, id, p, psum, stat, trow, targ, label, weight, g;
    float temp, cap;
    int64_t tile;
} Case;

static Case new_case(int64_t rows, int64_t vocab, DType s, DType t, float temp, int64_t tile) {
    Case c = {.temp = temp, .tile = tile};
    const int64_t teachers = rows / 2 + 1;
    c.sz = strided(s, rows, vocab), c.tz = strided(t, teachers, vocab);
    c.slse = test_zeros(DT_F32, rows, 2), c.tlse = test_zeros(DT_F32, teachers, 2);
    c.best = test_random(DT_F32, rows, 2), c.id = test_zeros(DT_I32, rows, 2);
    c.p = strided(DT_F32, teachers, vocab), c.psum = test_zeros(DT_F64, teachers, 2);
    c.stat = test_zeros(DT_F64, rows, 4), c.trow = test_zeros(DT_I32, 1, rows);
    c.targ = test_zeros(DT_I32, 1, teachers), c.label = test_zeros(DT_I32, 1, rows);
    c.weight = test_random(DT_F32, 1, rows), c.g = test_zeros(DT_F32, rows, vocab);
    for (int64_t r = 0; r < rows; r++) {
        ((int32_t *)c.trow.data)[r] = (int32_t)(r * 5 % teachers);
        ((int32_t *)c.label.data)[r] = (int32_t)(r * 31 % vocab);
        for (int i = 0; i < 4; i++) ((double *)c.stat.data)[4 * r + i] = NAN; // begun anew
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

static double stat_of(const Case *c, int64_t r, int i) {
    return ((double *)c->stat.data)[4 * r + i];
}

static bool needs_signs(LossKind kind) {
    return kind == LOSS_TV || kind == LOSS_HYBRID;
}

static LossArgs args_of(const Case *c, LossKind kind, unsigned parts) {
    return (LossArgs){.psum = c->psum,
                      .trow = c->trow,
                      .target = kind == LOSS_CE_ARGMAX  ? c->targ
                                : kind == LOSS_CE_LABEL ? c->label
                                                        : NO_TENSOR,
                      .weight = c->weight,
                      .kind = kind,
                      .mix = MIX,
                      .temp = c->temp,
                      .parts = parts};
}

// The sums of all tiles; the teacher's logits stay as they are, whatever the cap.
static void run_sums(Device *dev, Case *c) {
    for (int64_t v0 = 0; v0 < c->sz.cols; v0 += c->tile) {
        const int64_t n = c->sz.cols - v0 < c->tile ? c->sz.cols - v0 : c->tile;
        const Tensor t = tensor_cols(c->tz, v0, n);
        op_lse_tile(dev, c->slse, c->best, c->id, tensor_cols(c->sz, v0, n), 0.0f, c->temp, v0);
        op_lse_tile(dev, c->tlse, NO_TENSOR, NO_TENSOR, c->cap != 0.0f ? same_copy(t) : t, c->cap,
                    c->temp, v0);
    }
}

static void run_loss(Device *dev, Case *c, LossKind kind, unsigned parts, Tensor g) {
    LossArgs args = args_of(c, kind, parts);
    for (int64_t v0 = 0; v0 < c->sz.cols; v0 += c->tile) {
        const int64_t n = c->sz.cols - v0 < c->tile ? c->sz.cols - v0 : c->tile;
        args.p = tensor_cols(c->p, v0, n);
        op_prob_tile(dev, args.p, parts & LOSS_STATS ? c->psum : NO_TENSOR,
                     tensor_cols(c->tz, v0, n), c->tlse, c->cap, c->temp);
        op_loss_tile(dev, c->stat, parts & LOSS_GRAD ? tensor_cols(g, v0, n) : NO_TENSOR,
                     tensor_cols(c->sz, v0, n), c->slse, &args, v0);
    }
}

// As few sweeps as the kind and the tiles allow.
static void run_all(Device *dev, Case *c, LossKind kind, Tensor g) {
    const bool apart = needs_signs(kind) && c->tile < c->sz.cols;
    run_sums(dev, c);
    run_loss(dev, c, kind, apart ? LOSS_STATS : LOSS_STATS | LOSS_GRAD, g);
    if (apart) run_loss(dev, c, kind, LOSS_GRAD, g);
}

static void expect_stats(Case *c, LossKind kind) {
    for (int64_t r = 0; r < c->sz.rows; r++) {
        const int32_t t = get_id(c->trow, 0, r);
        double *lq = log_softmax(c->sz, r, c->temp, 0.0),
               *lp = log_softmax(c->tz, t, c->temp, c->cap), want[4] = {0};
        for (int64_t v = 0; v < c->sz.cols; v++) {
            const double p = exp(lp[v]), q = exp(lq[v]);
            want[0] += p * (lp[v] - lq[v]), want[1] += 0.5 * fabs(p - q);
            if (needs_signs(kind)) want[2] += q * 0.5 * (q > p ? 1.0 : q < p ? -1.0 : 0.0);
        }
        if (kind == LOSS_CE_ARGMAX) want[3] = -lq[get_id(c->targ, 0, t)];
        if (kind == LOSS_CE_LABEL) want[3] = -lq[get_id(c->label, 0, r)];
        for (int i = 0; i < 4; i++)
            if (!(fabs(stat_of(c, r, i) - want[i]) <= 2e-6 * (1.0 + fabs(want[i]))))
                fail_msg("row %lld statistic %d: %.9g, expected %.9g", (long long)r, i,
                         stat_of(c, r, i), want[i]);
        free(lq), free(lp);
    }
}

static void statistics_over_tiles_match_whole_rows(void **state) {
    (void)state;
    const int64_t vocab[] = {50, 257, 2500}, tile[] = {33, 128, 2500};
    for (int i = 0; i < 9; i++)
        for (int mix = 0; mix < 4; mix++)
            for (int kind = 0; kind < 5; kind++) {
                Case c = new_case(5, vocab[i / 3], FLOATS[mix & 1], FLOATS[mix >> 1],
                                  mix ? 0.7f : 1.0f, tile[i % 3]);
                c.cap = mix < 2 && i & 1 ? 30.0f : 0.0f;
                run_sums(test_env()->dev, &c);
                run_loss(test_env()->dev, &c, KINDS[kind], LOSS_STATS, NO_TENSOR);
                expect_stats(&c, KINDS[kind]);
            }
}

static void sums_cap_in_place_and_find_the_two_best(void **state) {
    (void)state;
    const int64_t vocab[] = {2, 50, 257, 4999}, tile[] = {1, 100, 1300, 4999};
    for (int i = 0; i < 16; i++)
        for (int mix = 0; mix < 4; mix++) {
            Case c = new_case(5, vocab[i / 4], FLOATS[mix & 1], DT_F32, 0.9f, tile[i % 4]);
            const Tensor capped = same_copy(c.tz), best = test_random(DT_F32, 5, 2),
                         id = test_zeros(DT_I32, 5, 2), lse = test_zeros(DT_F32, c.tz.rows, 2);
            for (int64_t v = 0; mix >> 1 && v < 5 * c.sz.cols; v++) // full of ties
                set_float(c.sz, v / c.sz.cols, v % c.sz.cols,
                          round(test_get(c.sz, v / c.sz.cols, v % c.sz.cols)));
            if (c.sz.cols > 50) set_float(c.sz, 1, 49, NAN);
            op_softcap(test_env()->dev, capped, 2.0f);
            run_sums(test_env()->dev, &c);
            for (int64_t v0 = 0; v0 < c.sz.cols; v0 += c.tile) {
                const int64_t n = c.sz.cols - v0 < c.tile ? c.sz.cols - v0 : c.tile;
                op_top2(test_env()->dev, best, id, tensor_cols(c.sz, v0, n), NO_TENSOR, v0);
                op_lse_tile(test_env()->dev, c.tlse, NO_TENSOR, NO_TENSOR, tensor_cols(c.tz, v0, n),
                            2.0f, 0.9f, v0);
                op_lse_tile(test_env()->dev, lse, NO_TENSOR, NO_TENSOR, tensor_cols(capped, v0, n),
                            0.0f, 0.9f, v0);
            }
            assert_same_bits("best", c.best, best);
            assert_same_bits("id", c.id, id);
            assert_same_bits("capped", c.tz, capped);
            assert_same_bits("lse", c.tlse, lse);
        }
}

static void probabilities_may_overwrite_the_logits(void **state) {
    (void)state;
    Case c = new_case(9, 1357, DT_F32, DT_F32, 0.8f, 1357);
    const Tensor sum = test_zeros(DT_F64, c.tz.rows, 2);
    c.cap = 2.0f;
    run_sums(test_env()->dev, &c);
    op_prob_tile(test_env()->dev, c.p, c.psum, c.tz, c.tlse, c.cap, c.temp);
    for (int64_t r = 0; r < c.tz.rows; r++) {
        double *lp = log_softmax(c.tz, r, c.temp, c.cap), want = 0.0;
        const double *got = (double *)c.psum.data + 2 * r;
        for (int64_t v = 0; v < c.tz.cols; v++) {
            want += exp(lp[v]) * lp[v];
            assert_true(fabs(test_get(c.p, r, v) - exp(lp[v])) <= 2e-6 * exp(lp[v]));
        }
        assert_true(fabs(got[0] - 1.0) <= 1e-6 && fabs(got[1] - want) <= 1e-6 * fabs(want));
        free(lp);
    }
    op_prob_tile(test_env()->dev, c.tz, sum, c.tz, c.tlse, c.cap, c.temp);
    assert_same_bits("in place", c.tz, c.p);
    assert_same_bits("sums", sum, c.psum);
}

static void expect_grad(Case *c, LossKind kind, Tensor g) {
    for (int64_t r = 0; r < c->sz.rows; r++) {
        const int32_t t = get_id(c->trow, 0, r);
        double *lq = log_softmax(c->sz, r, c->temp, 0.0),
               *lp = log_softmax(c->tz, t, c->temp, c->cap), mean = 0.0;
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
            c.cap = mix & 2 ? 0.0f : 30.0f;
            set_float(c.weight, 0, 2, 0.0);
            run_all(test_env()->dev, &c, KINDS[kind], g);
            expect_grad(&c, KINDS[kind], g);
            expect_stats(&c, KINDS[kind]);
        }
}

static void one_sweep_or_two_give_the_same_bits(void **state) {
    (void)state;
    for (int kind = 0; kind < 5; kind++) {
        Case c = new_case(5, 1357, DT_F32, DT_F32, 0.9f, 1357);
        const Tensor apart = test_random(DT_F32, 5, 1357);
        set_float(c.weight, 0, 3, 0.0);
        run_all(test_env()->dev, &c, KINDS[kind], c.g);
        const Tensor stat = same_copy(c.stat);
        run_loss(test_env()->dev, &c, KINDS[kind], LOSS_STATS, NO_TENSOR);
        run_loss(test_env()->dev, &c, KINDS[kind], LOSS_GRAD, apart);
        assert_same_bits("statistics", c.stat, stat);
        assert_same_bits("gradient", apart, c.g);
        run_all(test_env()->dev, &c, KINDS[kind], c.sz); // over the logits
        assert_same_bits("statistics in place", c.stat, stat);
        assert_same_bits("gradient in place", c.sz, c.g);
    }
}

static LossKind kind_at_hand;
static double weighted_loss(void *ctx) {
    Case *c = ctx;
    double sum = 0.0;
    run_sums(test_env()->dev, c);
    run_loss(test_env()->dev, c, kind_at_hand, LOSS_STATS, NO_TENSOR);
    for (int64_t r = 0; r < c->sz.rows; r++) {
        const double s0 = stat_of(c, r, 0), s1 = stat_of(c, r, 1), s3 = stat_of(c, r, 3);
        const double loss = kind_at_hand == LOSS_FKL      ? s0
                            : kind_at_hand == LOSS_TV     ? s1
                            : kind_at_hand == LOSS_HYBRID ? MIX * s0 + (1.0 - MIX) * s1
                                                          : s3;
        sum += test_get(c->weight, 0, r) * loss;
    }
    return sum;
}

// Logits and weights that leave little rounding in the differences: small, and of one sign. Total
// variation has kinks at q = p: its students differ too much for a step to cross one.
static void smoothen(Case *c, LossKind kind) {
    for (int64_t r = 0; r < c->sz.rows; r++) {
        set_float(c->weight, 0, r, fabs(test_get(c->weight, 0, r)));
        for (int64_t v = 0; v < c->sz.cols; v++)
            set_float(c->sz, r, v, 0.1 * test_get(c->sz, r, v));
    }
    for (int64_t r = 0; r < c->tz.rows; r++)
        for (int64_t v = 0; v < c->tz.cols; v++)
            set_float(c->tz, r, v, 0.1 * test_get(c->tz, r, v));
    for (int64_t r = 0; needs_signs(kind) && r < c->sz.rows; r++)
        for (int64_t v = 0; v < c->sz.cols; v++) {
            const double t = test_get(c->tz, get_id(c->trow, 0, r), v),
                         x = c->cap != 0.0f ? c->cap * tanh(t / c->cap) : t,
                         some = 0.3 * tanh(test_get(c->sz, r, v));
            set_float(c->sz, r, v, x + some + (v & 1 ? 0.8 : -0.8));
        }
}

static void gradients_match_finite_differences(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        kind_at_hand = KINDS[i % 5];
        Case c = new_case(3, 50, DT_F32, DT_F32, 0.8f, i < 10 ? 17 : 50);
        c.cap = i / 5 & 1 ? 2.0f : 0.0f;
        smoothen(&c, kind_at_hand);
        run_all(test_env()->dev, &c, kind_at_hand, c.g);
        assert_gradient(weighted_loss, &c, c.sz, c.g, 2e-4);
    }
}

static void equal_rows_have_no_loss_and_no_gradient(void **state) {
    (void)state;
    Case c = new_case(1, 300, DT_F32, DT_F32, 1.0f, 128);
    op_copy(test_env()->dev, c.sz, c.tz);
    run_all(test_env()->dev, &c, LOSS_HYBRID, c.g);
    for (int i = 0; i < 3; i++) assert_true(stat_of(&c, 0, i) == 0.0);
    for (int64_t v = 0; v < 300; v++) assert_true(test_get(c.g, 0, v) == 0.0f);
}

static void large_logits_stay_finite(void **state) {
    (void)state;
    Case c = new_case(5, 300, DT_F32, DT_F32, 1.0f, 77);
    for (int64_t r = 0; r < 5; r++)
        for (int64_t v = 0; v < 300; v++) set_float(c.sz, r, v, 1e4 * round(test_get(c.sz, r, v)));
    for (int64_t v = 0; v < 300; v++) set_float(c.tz, 0, v, v == 9 ? 1e4 : -1e4);
    for (int kind = 0; kind < 5; kind++) {
        run_all(test_env()->dev, &c, KINDS[kind], c.g);
        expect_stats(&c, KINDS[kind]);
        expect_grad(&c, KINDS[kind], c.g);
    }
}

static void bits_do_not_depend_on_threads(void **state) {
    (void)state;
    for (int kind = 0; kind < 5; kind++) {
        Case c = new_case(33, 2500, DT_F32, DT_BF16, 0.9f, 1000), d = c;
        d.slse = test_zeros(DT_F32, 33, 2), d.tlse = test_zeros(DT_F32, c.tz.rows, 2);
        d.best = test_zeros(DT_F32, 33, 2), d.id = test_zeros(DT_I32, 33, 2);
        d.p = test_zeros(DT_F32, c.tz.rows, 2500), d.psum = test_zeros(DT_F64, c.tz.rows, 2);
        d.stat = test_zeros(DT_F64, 33, 4), d.g = test_zeros(DT_F32, 33, 2500);
        run_all(device_with(1), &c, KINDS[kind], c.g),
            run_all(device_with(2), &d, KINDS[kind], d.g);
        assert_same_bits("slse", c.slse, d.slse);
        assert_same_bits("tlse", c.tlse, d.tlse);
        assert_same_bits("best", c.best, d.best);
        assert_same_bits("id", c.id, d.id);
        assert_same_bits("p", c.p, d.p);
        assert_same_bits("psum", c.psum, d.psum);
        assert_same_bits("stat", c.stat, d.stat);
        assert_same_bits("g", c.g, d.g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statistics_over_tiles_match_whole_rows),
        cmocka_unit_test(sums_cap_in_place_and_find_the_two_best),
        cmocka_unit_test(probabilities_may_overwrite_the_logits),
        cmocka_unit_test(gradients_over_tiles_match_whole_rows),
        cmocka_unit_test(one_sweep_or_two_give_the_same_bits),
        cmocka_unit_test(gradients_match_finite_differences),
        cmocka_unit_test(equal_rows_have_no_loss_and_no_gradient),
        cmocka_unit_test(large_logits_stay_finite),
        cmocka_unit_test(bits_do_not_depend_on_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
