// tests/infer/tensor/attention_test.c - every mask, head grouping and type mix against a double
// softmax.
#include <stdlib.h>

#include "infer/tensor/cpu/panel_kernel.h"
#include "tests/infer/tensor/op_testing.h"

static const DType FLOATS[] = {DT_F32, DT_BF16};
enum { SEGS_MAX = 3 };

typedef struct {
    AttnArgs args;
    AttnSeg seg[SEGS_MAX];
    Tensor q, o, lse, do_, dq;
} Case;

// A sequence of `keys` rows beginning at absolute row `first`; its queries look at rows below
// end(i).
typedef struct {
    int64_t keys, first, nq;
    int32_t end0, end_step; // ends: min(end0 + i * end_step, first + keys)
} SegSpec;

static Case *new_case(const SegSpec *spec, int nseg, int heads, int kv_heads, int hd, int64_t span,
                      DType q, DType kv) {
    Case *c = calloc(1, sizeof *c);
    int64_t rows = 0;
    for (int i = 0; i < nseg; i++) rows += spec[i].nq;
    c->q = strided(q, rows, (int64_t)heads * hd);
    Tensor end = test_zeros(DT_I32, 1, rows);
    int64_t r = 0;
    for (int i = 0; i < nseg; i++) {
        c->seg[i] = (AttnSeg){strided(kv, spec[i].keys, (int64_t)kv_heads * hd),
                              strided(kv, spec[i].keys, (int64_t)kv_heads * hd), spec[i].first, r,
                              spec[i].nq};
        for (int64_t j = 0; j < spec[i].nq; j++, r++) {
            const int64_t e = spec[i].end0 + j * spec[i].end_step,
                          most = spec[i].first + spec[i].keys;
            ((int32_t *)end.data)[r] = (int32_t)(e < most ? e : most);
        }
    }
    c->args = (AttnArgs){c->seg, nseg, end, end.data, span, heads, kv_heads, hd};
    c->o = test_random(DT_F32, rows, (int64_t)heads * hd), c->lse = test_zeros(DT_F32, rows, heads);
    c->do_ = strided(DT_F32, rows, (int64_t)heads * hd),
    c->dq = test_zeros(DT_F32, rows, (int64_t)heads * hd);
    for (int64_t i = 0; i < rows; i++) // scores of size one, whatever hd is
        for (int64_t k = 0; k < c->q.cols; k++)
            set_float(c->q, i, k, 2.0 * test_get(c->q, i, k) / sqrt(hd));
    return c;
}

// test_get, where most of the time goes
static inline double value(Tensor t, int64_t r, int64_t c) {
    return t.dtype == DT_F32 ? *f32_at(t, r, c) : bf16_to_f32(*bf16_at(t, r, c));
}

static double dot_head(Tensor a, int64_t ra, int64_t ca, Tensor b, int64_t rb, int64_t cb, int hd) {
    double sum = 0.0;
    for (int i = 0; i < hd; i++) sum += value(a, ra, ca + i) * value(b, rb, cb + i);
    return sum;
}

// o, lse and dq of one row and head in double; p is room for the keys
static void reference(const Case *c, const AttnSeg *s, int64_t r, int h, double *p, double *o,
                      double *lse, double *dq) {
    const AttnArgs *a = &c->args;
    const int hd = a->hd;
    const int64_t kc = h / (a->heads / a->kv_heads) * (int64_t)hd, qc = (int64_t)h * hd,
                  end = a->end_host[r];
    int64_t from = a->span == ATTN_ALL || end - a->span < s->first ? s->first : end - a->span;
    double max = -INFINITY, sum = 0.0, delta = 0.0;
    memset(o, 0, (size_t)hd * sizeof *o), memset(dq, 0, (size_t)hd * sizeof *dq);
    *lse = -INFINITY;
    if (from >= end) return;
    for (int64_t i = from; i < end; i++) {
        p[i - from] = dot_head(c->q, r, qc, s->k, i - s->first, kc, hd);
        max = fmax(max, p[i - from]);
    }
    for (int64_t i = 0; i < end - from; i++) sum += p[i] = exp(p[i] - max);
    for (int64_t i = 0; i < end - from; i++)
        for (int d = 0; d < hd; d++) o[d] += p[i] / sum * value(s->v, from + i - s->first, kc + d);
    *lse = max + log(sum);
    for (int d = 0; d < hd; d++) delta += o[d] * value(c->do_, r, qc + d);
    for (int64_t i = 0; i < end - from; i++) {
        const double dp = dot_head(c->do_, r, qc, s->v, from + i - s->first, kc, hd);
        for (int d = 0; d < hd; d++)
            dq[d] += p[i] / sum * (dp - delta) * value(s->k, from + i - s->first, kc + d);
    }
}

static void expect_near(const char *what, int64_t r, int h, double got, double want,
                        double tolerance) {
    if (!(fabs(got - want) <= tolerance * (1.0 + fabs(want))))
        fail_msg("%s of row %lld, head %d: %.9g, expected %.9g", what, (long long)r, h, got, want);
}

static void expect_all(const Case *c) {
    const AttnArgs *a = &c->args;
    static double p[40000], o[512], dq[512], lse;
    for (int i = 0; i < a->nseg; i++)
        for (int64_t r = a->seg[i].q0; r < a->seg[i].q0 + a->seg[i].nq; r++)
            for (int h = 0; h < a->heads; h++) {
                reference(c, &a->seg[i], r, h, p, o, &lse, dq);
                for (int d = 0; d < a->hd; d++) {
                    const int64_t at = (int64_t)h * a->hd + d;
                    expect_near("o", r, h, test_get(c->o, r, at), o[d],
                                rounding(c->o.dtype, 1e-6 + 6e-7 * sqrt(a->hd)));
                    // P = e^(s - lse) inherits the rounding of lse, times do.v of size sqrt(hd)
                    const double p_error = 6e-6 + 3e-7 * (lse > -INFINITY ? fabs(lse) : 0.0);
                    expect_near("dq", r, h, test_get(c->dq, r, at), dq[d], p_error * sqrt(a->hd));
                }
                if (lse > -INFINITY) expect_near("lse", r, h, test_get(c->lse, r, h), lse, 2e-6);
            }
}

static void run(Device *dev, Case *c) {
    op_attention(dev, c->o, c->lse, c->q, &c->args);
    op_attention_back(dev, c->dq, c->do_, c->o, c->q, c->lse, &c->args);
}

static const SegSpec SPECS[][SEGS_MAX] = {
    {{7, 0, 1, 7, 0}, {50, 3, 1, 53, 0}, {300, 0, 1, 131, 0}}, // decoding: one row each
    {{40, 0, 40, 1, 1},
     {17, 0, 17, 1, 1},
     {130, 90, 40, 181, 1}},                                    // prefill, the last after some rows
    {{300, 0, 30, 1, 10}, {270, 5, 90, 6, 3}, {9, 0, 0, 0, 0}}, // anchors, sparse and dense; none
    {{33, 0, 5, 0, 0}, {64, 10, 70, 0, 1}, {600, 0, 130, 330, 2}}, // rows that see nothing
};

static void attention_matches_a_double_softmax(void **state) {
    (void)state;
    const int64_t span[] = {ATTN_ALL, 1, 13, 64, 511};
    const int shape[][3] = {{4, 4, 16}, {4, 1, 32}, {6, 2, 18}, {8, 2, 64}};
    for (int i = 0; i < 4 * 5 * 4; i++)
        for (int mix = 0; mix < 2; mix++) {
            const int *s = shape[i / 20];
            Case *c = new_case(SPECS[i % 4], 3, s[0], s[1], s[2], span[i / 4 % 5], FLOATS[mix & 1],
                               FLOATS[mix]);
            run(test_env()->dev, c);
            expect_all(c);
            free(c);
        }
}

static void attention_of_wide_heads_and_every_type(void **state) {
    (void)state;
    const SegSpec spec[] = {{200, 0, 70, 20, 2}, {60, 30, 3, 80, 4}};
    const int size[] = {128, 256, 512};
    for (int i = 0; i < 3; i++)
        for (int mix = 0; mix < 8; mix++) {
            Case *c = new_case(spec, 2, 4, 2, size[i], i ? ATTN_ALL : 50, FLOATS[mix & 1],
                               FLOATS[mix >> 1 & 1]);
            if (mix & 4) c->o = test_random(DT_BF16, c->q.rows, c->q.cols);
            op_attention(test_env()->dev, c->o, c->lse, c->q, &c->args);
            Tensor exact =
                test_zeros(DT_F32, c->q.rows, c->q.cols); // backward reads o: give it unrounded
            op_attention(test_env()->dev, exact, NO_TENSOR, c->q, &c->args);
            op_attention_back(test_env()->dev, c->dq, c->do_, exact, c->q, c->lse, &c->args);
            expect_all(c);
            free(c);
        }
}

// Head sizes that fill neither vectors nor pairs of bf16; windows and ends at the edges of panels
// (16 keys) and of key tiles (64 to 512 keys); segments that begin anywhere.
static void attention_of_odd_sizes_and_edges(void **state) {
    (void)state;
    const int shape[][3] = {{3, 3, 5},  {6, 2, 48}, {5, 1, 80},  {12, 4, 33},
                            {2, 1, 96}, {16, 1, 8}, {4, 2, 256}, {2, 1, 512}};
    const int64_t span[] = {15, 16, 17, 63, 64, 65, 512, 513, ATTN_ALL};
    for (int i = 0; i < 8 * 9; i++) {
        const int *s = shape[i % 8];
        const int64_t w = span[i / 8];
        const SegSpec spec[] = {
            {12 + i, i, 12, i + 1, 1}, {150, 7, 11, 119, 3}, {530, 0, 8, 509, 1}};
        Case *c = new_case(spec, 3, s[0], s[1], s[2], w, FLOATS[i & 1], FLOATS[i / 3 & 1]);
        if (i & 1) c->do_ = strided(DT_BF16, c->q.rows, c->q.cols);
        run(test_env()->dev, c);
        expect_all(c);
        free(c);
    }
}

// The best instruction set of this CPU is what the other tests run.
static void every_instruction_set_is_right(void **state) {
    (void)state;
    const PanelSet best = panel_set();
    for (PanelSet set = PANEL_ANY; set < best; set++) {
        panel_limit(set);
        for (int mix = 0; mix < 8; mix++) {
            const int hd[] = {16, 45, 64, 130};
            Case *c = new_case(SPECS[mix % 4], 3, 6, 2, hd[mix / 2], mix & 4 ? 30 : ATTN_ALL,
                               FLOATS[mix & 1], FLOATS[mix >> 1 & 1]);
            run(test_env()->dev, c);
            expect_all(c);
            free(c);
        }
    }
    panel_limit(best);
}

// Keys that no query sees belong to nobody: what they hold must not matter.
static void unseen_keys_may_hold_anything(void **state) {
    (void)state;
    for (int mix = 0; mix < 4; mix++) {
        const SegSpec spec[] = {{200, 3, 40, 90, 1}, {90, 0, 1, 61, 0}, {30, 0, 5, 0, 0}};
        Case *c = new_case(spec, 3, 4, 2, 40, 30, FLOATS[mix & 1], FLOATS[mix >> 1]);
        for (int s = 0; s < 3; s++) {
            const AttnSeg *seg = &c->seg[s];
            const int64_t last = c->args.end_host[seg->q0 + seg->nq - 1],
                          from = c->args.end_host[seg->q0] - 30;
            for (int64_t r = 0; r < seg->k.rows; r++)
                for (int64_t i = 0; (r + seg->first < from || r + seg->first >= last) && i < 80;
                     i++)
                    set_float(seg->k, r, i, NAN), set_float(seg->v, r, i, INFINITY);
        }
        run(test_env()->dev, c);
        expect_all(c);
        free(c);
    }
}

static void long_contexts_stay_in_bounded_scratch(void **state) {
    (void)state;
    const SegSpec spec[] = {{33000, 0, 3, 32998, 1}};
    Case *c = new_case(spec, 1, 2, 1, 16, ATTN_ALL, DT_F32, DT_BF16);
    run(test_env()->dev, c);
    expect_all(c);
    free(c);
    Device *dev = device_with(1);
    const SegSpec wide[] = {{4100, 0, 18, 4080, 1}};
    c = new_case(wide, 1, 8, 1, 512, ATTN_ALL, DT_F32, DT_F32);
    run(dev, c);
    assert_true(((Cpu *)dev->impl)->scratch[SCRATCH_THREAD].size < 2 << 20);
    free(c);
}

static void large_scores_stay_finite(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        Case *c = new_case(SPECS[i], 3, 4, 2, 32, ATTN_ALL, DT_F32, DT_F32);
        for (int64_t r = 0; r < c->q.rows; r++)
            for (int64_t k = 0; k < c->q.cols; k++)
                set_float(c->q, r, k, 4096.0 * round(8 * test_get(c->q, r, k)));
        for (int s = 0; s < 3; s++) // exact products: the winners are clear
            for (int64_t r = 0; r < c->seg[s].k.rows; r++)
                for (int64_t k = 0; k < 64; k++)
                    set_float(c->seg[s].k, r, k, round(2 * test_get(c->seg[s].k, r, k)));
        run(test_env()->dev, c);
        expect_all(c);
        free(c);
    }
}

static double loss(void *ctx) {
    Case *c = ctx;
    op_attention(test_env()->dev, c->o, c->lse, c->q, &c->args);
    return test_dot(c->o, c->do_);
}

static void attention_back_matches_finite_differences(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        Case *c = new_case(SPECS[i / 2], 3, 4, 2, 16, i & 1 ? 20 : ATTN_ALL, DT_F32, DT_F32);
        run(test_env()->dev, c);
        assert_gradient(loss, c, c->q, c->dq, 3e-4);
        free(c);
    }
}

static void attention_repeats_on_any_number_of_threads(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        Case *c =
            new_case(SPECS[i % 4], 3, 8, 2, 64, i & 4 ? 40 : ATTN_ALL, FLOATS[i & 1], DT_BF16);
        run(device_with(1), c);
        const Tensor o = same_copy(c->o), lse = same_copy(c->lse), dq = same_copy(c->dq);
        const int threads[] = {2, 2, 7};
        for (int again = 0; again < 3; again++) {
            op_zero(test_env()->dev, c->dq);
            run(device_with(threads[again]), c);
            assert_same_bits("o", c->o, o);
            assert_same_bits("lse", c->lse, lse);
            assert_same_bits("dq", c->dq, dq);
        }
        free(c);
    }
}

// Row r of the case as decoding sees it: a cache that holds what the query sees, perhaps a little
// more.
static void expect_alone(Case *c, int64_t r, int64_t more) {
    const AttnArgs *all = &c->args;
    AttnSeg seg = c->seg[0];
    const int64_t end = all->end_host[r], first = seg.first,
                  from = all->span == ATTN_ALL || end - all->span - more < first
                             ? first
                             : end - all->span - more;
    seg.k = tensor_rows(seg.k, from - first, end - from);
    seg.v = tensor_rows(seg.v, from - first, end - from);
    seg.first = from, seg.q0 = 0, seg.nq = 1;
    AttnArgs args = *all;
    args.seg = &seg, args.end = tensor_cols(args.end, r, 1), args.end_host += r;
    const Tensor o = test_zeros(DT_F32, 1, c->q.cols), lse = test_zeros(DT_F32, 1, all->heads),
                 dq = test_zeros(DT_F32, 1, c->q.cols), q = tensor_rows(c->q, r, 1);
    op_attention(test_env()->dev, o, lse, q, &args);
    op_attention_back(test_env()->dev, dq, tensor_rows(c->do_, r, 1), o, q, lse, &args);
    assert_same_bits("o", o, tensor_rows(c->o, r, 1));
    assert_same_bits("lse", lse, tensor_rows(c->lse, r, 1));
    assert_same_bits("dq", dq, tensor_rows(c->dq, r, 1));
}

// Decoding must give what prefill gave: one query alone, and the same query among others.
static void a_query_has_the_same_bits_alone(void **state) {
    (void)state;
    const SegSpec spec[] = {{600, 5, 130, 25, 4}};
    const int shape[][3] = {{8, 2, 64},  {3, 3, 128}, {8, 1, 256},
                            {16, 1, 24}, {6, 2, 45},  {2, 1, 512}};
    for (int i = 0; i < 6 * 2; i++)
        for (int mix = 0; mix < 4; mix++) {
            const int *s = shape[i / 2];
            Case *c = new_case(spec, 1, s[0], s[1], s[2], i & 1 ? 70 : ATTN_ALL, FLOATS[mix & 1],
                               FLOATS[mix >> 1]);
            run(test_env()->dev, c);
            for (int64_t r = 0; r < 130; r += 11) expect_alone(c, r, r % 3);
            free(c);
        }
}

// A batch of sequences that decode together.
static void a_batch_gives_each_sequence_its_own_bits(void **state) {
    (void)state;
    enum { SEGS = 20 };
    for (int mix = 0; mix < 4; mix++) {
        AttnSeg seg[SEGS];
        const Tensor q = strided(FLOATS[mix & 1], SEGS, 256), end = test_zeros(DT_I32, 1, SEGS),
                     o = test_zeros(DT_F32, SEGS, 256), one = test_zeros(DT_F32, 1, 256);
        for (int i = 0; i < SEGS; i++) {
            const int64_t keys = 3 + 37 * i;
            seg[i] = (AttnSeg){strided(FLOATS[mix >> 1], keys, 128),
                               strided(FLOATS[mix >> 1], keys, 128), 0, i, 1};
            ((int32_t *)end.data)[i] = (int32_t)keys;
        }
        AttnArgs args = {seg, SEGS, end, end.data, mix & 1 ? 64 : ATTN_ALL, 4, 2, 64};
        op_attention(device_with(2), o, NO_TENSOR, q, &args);
        for (int i = 0; i < SEGS; i++) {
            seg[i].q0 = 0;
            AttnArgs alone = args;
            alone.seg = &seg[i], alone.nseg = 1, alone.end_host += i;
            alone.end = tensor_cols(end, i, 1);
            op_attention(device_with(1), one, NO_TENSOR, tensor_rows(q, i, 1), &alone);
            assert_same_bits("o", one, tensor_rows(o, i, 1));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_matches_a_double_softmax),
        cmocka_unit_test(attention_of_wide_heads_and_every_type),
        cmocka_unit_test(large_scores_stay_finite),
        cmocka_unit_test(attention_back_matches_finite_differences),
        cmocka_unit_test(attention_of_odd_sizes_and_edges),
        cmocka_unit_test(every_instruction_set_is_right),
        cmocka_unit_test(unseen_keys_may_hold_anything),
        cmocka_unit_test(long_contexts_stay_in_bounded_scratch),
        cmocka_unit_test(a_query_has_the_same_bits_alone),
        cmocka_unit_test(a_batch_gives_each_sequence_its_own_bits),
        cmocka_unit_test(attention_repeats_on_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
