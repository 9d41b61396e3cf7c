// tests/infer/tensor/twins_attention_test.c - attention and its gradient: CPU against CUDA. Heads
// of 256 and 512 in bf16 take the tensor cores, all else the other kernels.
#include "tests/infer/tensor/twins.h"

enum { SEGS_MAX = 40 };

// `keys` rows of K and V from absolute row `first` on; query i ends at min(end0 + i step, last).
typedef struct {
    int64_t keys, first, nq;
    int32_t end0, step;
} SegSpec;

typedef struct {
    int heads, kv_heads, hd;
    int64_t span;
    DType q, kv, o;
    TwinLayout layout;
} Spec;

typedef struct {
    AttnSeg cpu[SEGS_MAX], gpu[SEGS_MAX];
    int nseg;
    Twin q, o, lse, do_, dq, end;
    Spec spec;
} Case;

// Scores of size one, whatever hd is.
static Twin queries(const Spec *s, int64_t rows) {
    Twin q = twin_random(s->q, rows, (int64_t)s->heads * s->hd, s->layout);
    const float scale = 2.0f / sqrtf((float)s->hd);
    op_axpby(twin_cpu(), q.cpu, q.cpu, scale, 0.0f);
    dev_upload(twin_gpu(), q.gpu, same_copy(q.cpu).data);
    return q;
}

static Case *new_case(const SegSpec *seg, int nseg, Spec s) {
    Case *c = calloc(1, sizeof *c);
    const int64_t width = (int64_t)s.kv_heads * s.hd;
    int64_t rows = 0;
    for (int i = 0; i < nseg; i++) rows += seg[i].nq;
    *c = (Case){.nseg = nseg, .spec = s, .q = queries(&s, rows)};
    c->o = twin_random(s.o, rows, c->q.cpu.cols, s.layout);
    c->lse = twin_random(DT_F32, rows, s.heads, TWIN_PLAIN);
    c->do_ = twin_random(s.q, rows, c->q.cpu.cols, s.layout);
    c->dq = twin_random(DT_F32, rows, c->q.cpu.cols, s.layout);
    Tensor end = test_zeros(DT_I32, 1, rows);
    int64_t r = 0;
    for (int i = 0; i < nseg; i++) {
        const Twin k = twin_random(s.kv, seg[i].keys, width, s.layout),
                   v = twin_random(s.kv, seg[i].keys, width, s.layout);
        c->cpu[i] = (AttnSeg){k.cpu, v.cpu, seg[i].first, r, seg[i].nq};
        c->gpu[i] = (AttnSeg){k.gpu, v.gpu, seg[i].first, r, seg[i].nq};
        for (int64_t j = 0; j < seg[i].nq; j++, r++) {
            const int64_t e = seg[i].end0 + j * seg[i].step, most = seg[i].first + seg[i].keys;
            ((int32_t *)end.data)[r] = (int32_t)(e < most ? e : most);
        }
    }
    c->end = twin_of(end, 0);
    return c;
}

static AttnArgs args_of(const Case *c, bool gpu) {
    return (AttnArgs){gpu ? c->gpu : c->cpu, c->nseg,      gpu ? c->end.gpu : c->end.cpu,
                      c->end.cpu.data,       c->spec.span, c->spec.heads,
                      c->spec.kv_heads,      c->spec.hd};
}

// On tensor cores weights and score gradients are bf16: 2^-9 of values up to one and sqrt(hd).
static bool on_tensor_cores(const Case *c) {
    return c->spec.hd >= 256 && c->spec.q == DT_BF16 && c->spec.kv == DT_BF16;
}

static void expect_near(const char *what, const Case *c, Twin t, double f32, double bf16_most) {
    const bool mma = on_tensor_cores(c), rounded = t.cpu.dtype == DT_BF16;
    const Tensor got = twin_fetched(t.gpu);
    double off = 0.0, all = 1e-9;
    for (int64_t r = 0; r < got.rows; r++)
        for (int64_t i = 0; i < got.cols; i++) {
            const double d = test_get(got, r, i) - test_get(t.cpu, r, i);
            off += d * d, all += pow(test_get(t.cpu, r, i), 2);
        }
    assert_close(what, got, t.cpu, mma ? bf16_most : f32, rounded ? 0.01 : mma ? 0.005 : f32);
    if (!(sqrt(off / all) < (mma ? 8e-3 : rounded ? 2e-3 : f32)))
        fail_msg("%s: relative distance %g", what, sqrt(off / all));
}

static void expect_lse(const Case *c) {
    const Tensor lse = twin_fetched(c->lse.gpu);
    for (int64_t r = 0; r < lse.rows; r++)
        for (int64_t h = 0; h < lse.cols; h++) {
            const double got = test_get(lse, r, h), want = test_get(c->lse.cpu, r, h);
            if (got != want && !(fabs(got - want) < 1e-5 + 1e-6 * fabs(want)))
                fail_msg("lse of row %lld: %.9g, expected %.9g", (long long)r, got, want);
        }
}

static void run(Case *c) {
    const AttnArgs cpu = args_of(c, false), gpu = args_of(c, true);
    const double f32 = 3e-6 * sqrt(c->spec.hd), size = sqrt(c->spec.hd);
    op_attention(twin_cpu(), c->o.cpu, c->lse.cpu, c->q.cpu, &cpu);
    op_attention(twin_gpu(), c->o.gpu, c->lse.gpu, c->q.gpu, &gpu);
    expect_near("o", c, c->o, f32, 0.02);
    expect_lse(c);
    const Tensor o = twin_fetched(c->o.gpu);
    op_attention(twin_gpu(), c->o.gpu, NO_TENSOR, c->q.gpu, &gpu);
    assert_same_bits("o", twin_fetched(c->o.gpu), o);
    // one rounding of o and lse for both
    dev_upload(twin_gpu(), c->o.gpu, same_copy(c->o.cpu).data);
    dev_upload(twin_gpu(), c->lse.gpu, c->lse.cpu.data);
    const Tensor again = twin_again(c->dq);
    op_attention_back(twin_cpu(), c->dq.cpu, c->do_.cpu, c->o.cpu, c->q.cpu, c->lse.cpu, &cpu);
    op_attention_back(twin_gpu(), c->dq.gpu, c->do_.gpu, c->o.gpu, c->q.gpu, c->lse.gpu, &gpu);
    expect_near("dq", c, c->dq, f32 * size, 0.01 * size);
    op_attention_back(twin_gpu(), again, c->do_.gpu, c->o.gpu, c->q.gpu, c->lse.gpu, &gpu);
    twin_repeats("dq", c->dq.gpu, again);
    free(c);
}

static const SegSpec SPECS[][3] = {
    {{7, 0, 1, 7, 0}, {50, 3, 1, 53, 0}, {300, 0, 1, 131, 0}},     // decoding: one row each
    {{40, 0, 40, 1, 1}, {17, 0, 17, 1, 1}, {130, 90, 24, 197, 1}}, // prefill
    {{200, 0, 20, 1, 10}, {90, 5, 27, 6, 3}, {9, 0, 0, 0, 0}},     // anchors; none
    {{33, 0, 5, 0, 0}, {64, 10, 40, 0, 2}, {200, 0, 12, 70, 12}},  // rows that see nothing; gaps
};

static void any_size_and_type(void **state) {
    (void)state;
    const int shape[][3] = {{3, 3, 5}, {4, 1, 32}, {6, 2, 48}, {5, 1, 80}, {2, 1, 130}};
    const int64_t span[] = {ATTN_ALL, 1, 13, 64};
    for (int i = 0; i < 10; i++) {
        twins_begin();
        run(new_case(SPECS[i % 4], 3,
                     (Spec){shape[i / 2][0], shape[i / 2][1], shape[i / 2][2],
                            span[(i + i / 2) % 4], TWIN_FLOATS[i & 1], TWIN_FLOATS[i >> 1 & 1],
                            TWIN_FLOATS[i >> 2 & 1], (TwinLayout)(i % TWIN_LAYOUTS)}));
    }
}

// Every mask of heads that have kernels of their own; windows at the edges of key tiles.
static void wide_heads_on_tensor_cores(void **state) {
    (void)state;
    const int64_t span[] = {ATTN_ALL, 31, 64, 65};
    const int shape[][2] = {{4, 2}, {4, 1}, {2, 2}, {3, 1}};
    for (int i = 0; i < 8; i++) {
        twins_begin();
        run(new_case(SPECS[i % 4], 3,
                     (Spec){shape[i / 2][0], shape[i / 2][1], i & 1 ? 512 : 256,
                            span[(i + 1) / 2 % 4], DT_BF16, DT_BF16, TWIN_FLOATS[i >> 1 & 1],
                            i & 2 ? TWIN_GAPS : TWIN_PLAIN}));
    }
}

static void wide_heads_in_f32_or_misaligned(void **state) {
    (void)state;
    const SegSpec seg[] = {{70, 0, 9, 20, 5}, {40, 30, 2, 60, 4}};
    for (int i = 0; i < 4; i++) {
        twins_begin();
        Spec s = {4, 2, i & 1 ? 512 : 256, 40, DT_F32, TWIN_FLOATS[i >> 1], DT_F32, TWIN_ODD};
        if (i == 3) s.q = DT_BF16;
        run(new_case(seg, 2, s));
    }
}

// Sixteen heads of one kv head; eighty, more than a tile of 512 wide heads has rows.
static void many_heads_share_keys(void **state) {
    (void)state;
    const SegSpec seg[] = {{90, 0, 3, 60, 4}, {30, 0, 1, 30, 0}};
    for (int i = 0; i < 2; i++) {
        twins_begin();
        run(new_case(
            seg, 2,
            (Spec){i ? 80 : 16, 1, i ? 512 : 256, 33, DT_BF16, DT_BF16, DT_BF16, TWIN_PLAIN}));
    }
}

// One query, many keys: they are split.
static void long_contexts_are_split(void **state) {
    (void)state;
    const SegSpec seg[] = {{500, 0, 1, 490, 0}, {200, 40, 2, 100, 50}, {64, 0, 1, 0, 0}};
    for (int i = 0; i < 4; i++) {
        twins_begin();
        const int hd[] = {256, 512, 40, 256};
        const DType t = hd[i] > 40 ? DT_BF16 : DT_F32;
        run(new_case(seg, 3,
                     (Spec){4, 2, hd[i], i == 3 ? 300 : ATTN_ALL, t, t, DT_F32, TWIN_PLAIN}));
    }
}

static void more_segments_than_a_launch_takes(void **state) {
    (void)state;
    SegSpec seg[SEGS_MAX];
    for (int i = 0; i < SEGS_MAX; i++) seg[i] = (SegSpec){i % 5 + 1, i, i % 3, i + 1, 1};
    twins_begin();
    run(new_case(seg, SEGS_MAX, (Spec){2, 1, 24, ATTN_ALL, DT_F32, DT_BF16, DT_F32, TWIN_PLAIN}));
}

// Keys that no query sees belong to nobody: what they hold must not matter.
static void unseen_keys_may_hold_anything(void **state) {
    (void)state;
    const SegSpec spec[] = {{200, 3, 40, 90, 1}, {90, 0, 1, 61, 0}, {180, 0, 9, 20, 20}};
    for (int mix = 0; mix < 3; mix++) {
        twins_begin();
        Case *c = new_case(spec, 3,
                           (Spec){4, 2,
                                  mix == 2 ? 40
                                  : mix    ? 512
                                           : 256,
                                  15, DT_BF16, DT_BF16, DT_F32, TWIN_PLAIN});
        for (int s = 0; s < 3; s++) {
            const AttnSeg *seg = &c->cpu[s];
            for (int64_t r = 0; r < seg->k.rows; r++) {
                bool seen = false;
                for (int64_t q = seg->q0; q < seg->q0 + seg->nq; q++) {
                    const int64_t end = get_id(c->end.cpu, 0, q);
                    seen |= r + seg->first < end && r + seg->first >= end - 15;
                }
                for (int64_t i = 0; !seen && i < seg->k.cols; i++)
                    set_float(seg->k, r, i, NAN), set_float(seg->v, r, i, INFINITY);
            }
            dev_upload(twin_gpu(), c->gpu[s].k, seg->k.data);
            dev_upload(twin_gpu(), c->gpu[s].v, seg->v.data);
        }
        run(c);
    }
}

static void large_scores_stay_finite(void **state) {
    (void)state;
    for (int i = 0; i < 4; i += 3) {
        twins_begin();
        Case *c = new_case(
            SPECS[i], 3,
            (Spec){2, 1, i & 1 ? 256 : 32, ATTN_ALL, DT_BF16, DT_BF16, DT_F32, TWIN_PLAIN});
        for (int64_t r = 0; r < c->q.cpu.rows; r++)
            for (int64_t k = 0; k < c->q.cpu.cols; k++)
                set_float(c->q.cpu, r, k, 2048.0 * round(8 * test_get(c->q.cpu, r, k)));
        dev_upload(twin_gpu(), c->q.gpu, c->q.cpu.data);
        for (int s = 0; s < 3; s++) { // exact products: the winners are clear
            for (int64_t r = 0; r < c->cpu[s].k.rows; r++)
                for (int64_t k = 0; k < c->cpu[s].k.cols; k++)
                    set_float(c->cpu[s].k, r, k, round(2 * test_get(c->cpu[s].k, r, k)));
            dev_upload(twin_gpu(), c->gpu[s].k, c->cpu[s].k.data);
        }
        run(c);
    }
}

// Cards of 163 and 99 KiB take other tiles, the smallest none for the gradient of 512 wide heads.
// (A real card keeps what it has: it repeats its own.)
static void small_shared_memories_have_tiles(void **state) {
    (void)state;
    const char *const kib[] = {"163", "99"};
    const SegSpec seg[] = {{150, 0, 70, 20, 2}, {70, 0, 1, 66, 0}};
    for (int i = 0; i < 4; i++) {
        Err err = {0};
        twins_begin();
        Case *c = new_case(seg, 2,
                           (Spec){4, 2, i & 1 ? 512 : 256, i & 1 ? ATTN_ALL : 64, DT_BF16, DT_BF16,
                                  DT_F32, TWIN_PLAIN});
        assert_ok(dev_sync(twins.gpu, &err), err);
        Device *whole = twins.gpu;
        setenv("CUDA_HOST_SHARED_KIB", kib[i / 2], 1);
        twins.gpu = dev_open("cuda", 1, &err);
        assert_ok(twins.gpu != NULL, err);
        run(c);
        while (twins.blocks > 0) dev_free(twins.gpu, twins.block[--twins.blocks]);
        dev_close(twins.gpu);
        unsetenv("CUDA_HOST_SHARED_KIB");
        twins.gpu = whole;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_shared_memories_have_tiles),
        cmocka_unit_test(any_size_and_type),
        cmocka_unit_test(wide_heads_on_tensor_cores),
        cmocka_unit_test(wide_heads_in_f32_or_misaligned),
        cmocka_unit_test(many_heads_share_keys),
        cmocka_unit_test(long_contexts_are_split),
        cmocka_unit_test(more_segments_than_a_launch_takes),
        cmocka_unit_test(unseen_keys_may_hold_anything),
        cmocka_unit_test(large_scores_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
