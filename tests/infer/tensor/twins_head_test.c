// tests/infer/tensor/twins_head_test.c - op_head_tile: logits, softmax and losses of student rows
// in one call. CPU against CUDA, and the CPU against its own pieces.
#include "tests/infer/tensor/twins.h"

static const LossKind KINDS[] = {LOSS_FKL, LOSS_CE_ARGMAX, LOSS_CE_LABEL, LOSS_TV, LOSS_HYBRID};
enum { ROWS_MOST = 300 };

typedef struct {
    int64_t rows, H, vocab, tile;
    DType y, table;
    TwinLayout layout;
} Spec;

typedef struct {
    Spec s;
    Twin y, table, p, psum, lse, best, id, stat, trow, targ, label, weight, g, z;
} Case;

static Case new_case(Spec s) {
    static int32_t trow[ROWS_MOST], label[ROWS_MOST], targ[ROWS_MOST];
    const int64_t teachers = s.rows / 4 + 1;
    for (int64_t r = 0; r < s.rows; r++) {
        trow[r] = (int32_t)(r * 5 % teachers), label[r] = (int32_t)(r * 4099 % s.vocab);
        targ[r] = (int32_t)((r + 1) * 8191 % s.vocab);
    }
    Case c = {.s = s,
              .y = twin_random(s.y, s.rows, s.H, s.layout),
              .table = twin_random(s.table, s.vocab, s.H, s.layout),
              .p = twin_random(DT_F32, teachers, s.vocab, s.layout),
              .psum = twin_zeros(DT_F64, teachers, 2, TWIN_PLAIN),
              .lse = twin_random(DT_F32, s.rows, 2, TWIN_PLAIN),
              .best = twin_random(DT_F32, s.rows, 2, TWIN_PLAIN),
              .id = twin_zeros(DT_I32, s.rows, 2, TWIN_PLAIN),
              .stat = twin_zeros(DT_F64, s.rows, 4, TWIN_PLAIN),
              .trow = twin_ids(trow, 1, s.rows),
              .targ = twin_ids(targ, 1, teachers),
              .label = twin_ids(label, 1, s.rows),
              .weight = twin_random(DT_F32, 1, s.rows, TWIN_PLAIN),
              .g = twin_random(s.y, s.rows, s.vocab, s.layout),
              .z = twin_random(DT_F32, s.rows, s.vocab, s.layout)};
    const float by = 3.0f / sqrtf((float)s.H); // logits of a few units
    op_axpby(twin_cpu(), c.y.cpu, c.y.cpu, by, 0.0f);
    dev_upload(twin_gpu(), c.y.gpu, same_copy(c.y.cpu).data);
    Tensor lse = test_zeros(DT_F32, teachers, 2);
    op_lse_tile(twin_cpu(), lse, NO_TENSOR, NO_TENSOR, c.p.cpu, 0.0f, 1.0f, 0);
    op_prob_tile(twin_cpu(), c.p.cpu, NO_TENSOR, c.p.cpu, lse, 0.0f, 1.0f);
    dev_upload(twin_gpu(), c.p.gpu, same_copy(c.p.cpu).data);
    set_float(c.weight.cpu, 0, s.rows / 2, 0.0);
    dev_upload(twin_gpu(), c.weight.gpu, c.weight.cpu.data);
    return c;
}

static LossArgs args_of(const Case *c, bool gpu, LossKind kind, unsigned parts) {
#define SIDE(x) (gpu ? c->x.gpu : c->x.cpu)
    return (LossArgs){.p = SIDE(p),
                      .psum = SIDE(psum),
                      .trow = SIDE(trow),
                      .target = kind == LOSS_CE_ARGMAX  ? SIDE(targ)
                                : kind == LOSS_CE_LABEL ? SIDE(label)
                                                        : NO_TENSOR,
                      .weight = SIDE(weight),
                      .kind = kind,
                      .mix = 0.6f,
                      .temp = 0.8f,
                      .parts = parts};
}

// Tile by tile; the sums of p are any numbers, all of them brought by the first tile.
static void run(const Case *c, bool gpu, LossKind kind, unsigned parts) {
    for (int64_t v0 = 0; v0 < c->s.vocab; v0 += c->s.tile) {
        const int64_t n = c->s.vocab - v0 < c->s.tile ? c->s.vocab - v0 : c->s.tile;
        LossArgs a = args_of(c, gpu, kind, parts);
        a.p = tensor_cols(a.p, v0, n);
        if (v0 > 0) a.psum = NO_TENSOR;
        const HeadOut out = {SIDE(lse),
                             SIDE(best),
                             SIDE(id),
                             SIDE(stat),
                             tensor_cols(SIDE(g), v0, n),
                             gpu ? NO_TENSOR : tensor_cols(c->z.cpu, v0, n)};
        op_head_tile(gpu ? twin_gpu() : twin_cpu(), &out, SIDE(y), tensor_rows(SIDE(table), v0, n),
                     &a, v0);
    }
}

static void expect_doubles(const char *what, Twin t, double tolerance) {
    const Tensor got = twin_fetched(t.gpu);
    for (int64_t i = 0; i < tensor_count(got); i++) {
        const double a = ((double *)got.data)[i], b = ((double *)t.cpu.data)[i];
        if (!(fabs(a - b) <= tolerance * (1.0 + fabs(b))))
            fail_msg("%s %lld: %.12g, expected %.12g", what, (long long)i, a, b);
    }
}

// One kind of loss; whole: all parts in one call, the vocabulary is one tile.
static void expect_twins(Case *c, LossKind kind, bool whole) {
    const bool signs = kind == LOSS_TV || kind == LOSS_HYBRID;
    for (int64_t i = 0; i < 2 * c->psum.cpu.rows; i++)
        ((double *)c->psum.cpu.data)[i] = i & 1 ? -1.5 : 1.0;
    dev_upload(twin_gpu(), c->psum.gpu, c->psum.cpu.data);
    for (int gpu = 0; gpu < 2; gpu++) {
        if (whole) {
            run(c, gpu, kind, LOSS_LSE | LOSS_STATS | LOSS_GRAD);
            continue;
        }
        run(c, gpu, kind, LOSS_LSE);
        run(c, gpu, kind, signs ? LOSS_STATS : LOSS_STATS | LOSS_GRAD);
        if (signs) run(c, gpu, kind, LOSS_GRAD);
    }
    twin_close("lse", c->lse, 1e-5, 1e-5);
    twin_close("best", c->best, 1e-5, 1e-5);
    twin_equal("id", c->id);
    expect_doubles("statistic", c->stat, 1e-5);
    twin_close("gradient", c->g, 2e-6, rounding(c->g.cpu.dtype, 1e-4) * 2);
}

static void repeats(const Case *c, LossKind kind, unsigned parts) {
    const Tensor g = twin_fetched(c->g.gpu), stat = twin_fetched(c->stat.gpu),
                 lse = twin_fetched(c->lse.gpu);
    run(c, true, kind, LOSS_LSE);
    run(c, true, kind, parts);
    assert_same_bits("gradient", twin_fetched(c->g.gpu), g);
    assert_same_bits("statistic", twin_fetched(c->stat.gpu), stat);
    assert_same_bits("lse", twin_fetched(c->lse.gpu), lse);
}

// Narrow students stay in shared memory, wide ones stream; neither rows nor tokens fill a block.
static void every_loss_on_tensor_cores(void **state) {
    (void)state;
    const Spec spec[] = {{5, 64, 328, 328, DT_BF16, DT_BF16, TWIN_PLAIN},
                         {131, 40, 400, 200, DT_BF16, DT_BF16, TWIN_GAPS},
                         {70, 264, 264, 264, DT_BF16, DT_BF16, TWIN_GAPS},
                         {3, 8, 8, 8, DT_BF16, DT_BF16, TWIN_PLAIN}};
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 5; k++) {
            twins_begin();
            Case c = new_case(spec[i]);
            expect_twins(&c, KINDS[k], spec[i].tile == spec[i].vocab && k != 1);
            if (KINDS[k] == LOSS_FKL) repeats(&c, LOSS_FKL, LOSS_STATS | LOSS_GRAD);
        }
}

static void other_types_and_misaligned(void **state) {
    (void)state;
    for (int i = 0; i < 10; i++) {
        twins_begin();
        Case c = new_case((Spec){i & 1 ? 33 : 4, 50, 311, i & 2 ? 311 : 100, TWIN_FLOATS[i & 1],
                                 TWIN_FLOATS[i >> 1 & 1], (TwinLayout)(i % TWIN_LAYOUTS)});
        expect_twins(&c, KINDS[i / 2], false);
    }
}

// Many tokens for few rows: they are split over blocks; the best two come late, early, side by
// side.
static void best_tokens_are_found_anywhere(void **state) {
    (void)state;
    const int32_t at[][2] = {{0, 1}, {4095, 0}, {63, 64}, {2000, 4095}};
    for (int i = 0; i < 4; i++) {
        twins_begin();
        Case c = new_case((Spec){2, 32, 4096, 4096, DT_BF16, DT_BF16, TWIN_PLAIN});
        for (int k = 0; k < 2; k++)
            for (int64_t h = 0; h < 32; h++)
                set_float(c.table.cpu, at[i][k], h, 4.0 * test_get(c.y.cpu, 0, h));
        dev_upload(twin_gpu(), c.table.gpu, c.table.cpu.data);
        run(&c, false, LOSS_FKL, LOSS_LSE), run(&c, true, LOSS_FKL, LOSS_LSE);
        twin_equal("id", c.id);
        twin_close("lse", c.lse, 1e-5, 1e-5);
        const int32_t low = at[i][0] < at[i][1] ? at[i][0] : at[i][1];
        assert_int_equal(get_id(twin_fetched(c.id.gpu), 0, 0), low); // equal: the lower one
    }
}

// The CPU's call is its three pieces.
static void cpu_pieces_give_the_same_bits(void **state) {
    (void)state;
    Device *dev = test_env()->dev;
    Tensor y = test_random(DT_F32, 5, 24), table = test_random(DT_F32, 90, 24),
           p = test_random(DT_F32, 2, 90), psum = test_zeros(DT_F64, 2, 2),
           weight = test_random(DT_F32, 1, 5);
    const int32_t row[5] = {0, 1, 1, 0, 1};
    const Tensor trow = test_ids(row, 5);
    Tensor lse[2], best[2], id[2], stat[2], g[2], z[2];
    for (int i = 0; i < 2; i++) {
        lse[i] = test_zeros(DT_F32, 5, 2), best[i] = test_zeros(DT_F32, 5, 2);
        id[i] = test_zeros(DT_I32, 5, 2), stat[i] = test_zeros(DT_F64, 5, 4);
        g[i] = test_zeros(DT_F32, 5, 90), z[i] = test_zeros(DT_F32, 5, 90);
    }
    LossArgs a = {.p = p, .psum = psum, .trow = trow, .weight = weight, .temp = 1.0f};
    a.parts = LOSS_LSE | LOSS_STATS | LOSS_GRAD;
    const HeadOut out = {lse[0], best[0], id[0], stat[0], g[0], z[0]};
    op_head_tile(dev, &out, y, table, &a, 0);
    op_matmul_nt(dev, z[1], y, table, 0.0f);
    op_lse_tile(dev, lse[1], best[1], id[1], z[1], 0.0f, 1.0f, 0);
    a.parts = LOSS_STATS | LOSS_GRAD;
    op_loss_tile(dev, stat[1], g[1], z[1], lse[1], &a, 0);
    assert_same_bits("lse", lse[0], lse[1]), assert_same_bits("id", id[0], id[1]);
    assert_same_bits("stat", stat[0], stat[1]), assert_same_bits("g", g[0], g[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_pieces_give_the_same_bits),
        cmocka_unit_test(every_loss_on_tensor_cores),
        cmocka_unit_test(other_types_and_misaligned),
        cmocka_unit_test(best_tokens_are_found_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
