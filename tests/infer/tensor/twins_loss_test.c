// tests/infer/tensor/twins_loss_test.c - softmax, losses, selection and clusters over vocabulary
// tiles: CPU against CUDA.
#include "tests/infer/tensor/twins.h"

static const LossKind KINDS[] = {LOSS_FKL, LOSS_CE_ARGMAX, LOSS_CE_LABEL, LOSS_TV, LOSS_HYBRID};
// Fewer columns than a block has threads, more than one block's share of a row, odd tiles.
static const struct {
    int64_t vocab, tile;
} SIZES[] = {{50, 33}, {2504, 2504}, {20008, 20008}, {17003, 9000}, {1, 1}};
enum { SIZE_COUNT = 5 };

typedef struct {
    Twin sz, tz, slse, tlse, best, id, p, psum, stat, trow, targ, label, weight, g;
    int64_t tile;
    float temp, cap;
} Case;

static void scale(Twin t, float by) {
    op_axpby(twin_cpu(), t.cpu, t.cpu, by, 0.0f);
    op_axpby(twin_gpu(), t.gpu, t.gpu, by, 0.0f);
}

static Case new_case(int size, DType s, DType t, TwinLayout l) {
    const int64_t vocab = SIZES[size].vocab, rows = 5, teachers = 3;
    int32_t trow[5], label[5], targ[3];
    for (int r = 0; r < rows; r++) trow[r] = r * 5 % 3, label[r] = (int32_t)(r * 4099 % vocab);
    for (int r = 0; r < teachers; r++) targ[r] = (int32_t)((r + 1) * 8191 % vocab);
    Case c = {.sz = twin_random(s, rows, vocab, l),
              .tz = twin_random(t, teachers, vocab, l),
              .slse = twin_random(DT_F32, rows, 2, TWIN_PLAIN),
              .tlse = twin_random(DT_F32, teachers, 2, TWIN_PLAIN),
              .best = twin_random(DT_F32, rows, 2, TWIN_PLAIN),
              .id = twin_zeros(DT_I32, rows, 2, TWIN_PLAIN),
              .p = twin_random(DT_F32, teachers, vocab, l),
              .psum = twin_zeros(DT_F64, teachers, 2, TWIN_PLAIN),
              .stat = twin_zeros(DT_F64, rows, 4, TWIN_PLAIN),
              .trow = twin_ids(trow, 1, rows),
              .targ = twin_ids(targ, 1, teachers),
              .label = twin_ids(label, 1, rows),
              .weight = twin_random(DT_F32, 1, rows, TWIN_PLAIN),
              .g = twin_random(size & 1 ? DT_F32 : DT_BF16, rows, vocab, l),
              .tile = SIZES[size].tile,
              .temp = size & 1 ? 0.7f : 1.0f};
    scale(c.sz, 3.0f), scale(c.tz, 3.0f);
    return c;
}

// Of one side of every twin.
typedef struct {
    Device *dev;
    Tensor sz, tz, slse, tlse, best, id, p, psum, stat, trow, targ, label, weight, g;
    const Case *c;
} Side;

static Side side_of(const Case *c, bool gpu) {
#define SIDE(x) .x = gpu ? c->x.gpu : c->x.cpu
    return (Side){.dev = gpu ? twin_gpu() : twin_cpu(),
                  SIDE(sz),
                  SIDE(tz),
                  SIDE(slse),
                  SIDE(tlse),
                  SIDE(best),
                  SIDE(id),
                  SIDE(p),
                  SIDE(psum),
                  SIDE(stat),
                  SIDE(trow),
                  SIDE(targ),
                  SIDE(label),
                  SIDE(weight),
                  SIDE(g),
                  .c = c};
#undef SIDE
}

static int64_t tile_cols(const Case *c, int64_t v0) {
    return c->sz.cpu.cols - v0 < c->tile ? c->sz.cpu.cols - v0 : c->tile;
}

// The teacher's logits are capped in place where there is a cap.
static void run_sums(const Side *s) {
    for (int64_t v0 = 0; v0 < s->sz.cols; v0 += s->c->tile) {
        const int64_t n = tile_cols(s->c, v0);
        op_lse_tile(s->dev, s->slse, s->best, s->id, tensor_cols(s->sz, v0, n), 0.0f, s->c->temp,
                    v0);
        op_lse_tile(s->dev, s->tlse, NO_TENSOR, NO_TENSOR, tensor_cols(s->tz, v0, n), s->c->cap,
                    s->c->temp, v0);
    }
}

static void run_loss(const Side *s, LossKind kind, unsigned parts, Tensor g) {
    for (int64_t v0 = 0; v0 < s->sz.cols; v0 += s->c->tile) {
        const int64_t n = tile_cols(s->c, v0);
        const LossArgs a = {.p = tensor_cols(s->p, v0, n),
                            .psum = s->psum,
                            .trow = s->trow,
                            .target = kind == LOSS_CE_ARGMAX  ? s->targ
                                      : kind == LOSS_CE_LABEL ? s->label
                                                              : NO_TENSOR,
                            .weight = s->weight,
                            .kind = kind,
                            .mix = 0.6f,
                            .temp = s->c->temp,
                            .parts = parts};
        op_prob_tile(s->dev, a.p, parts & LOSS_STATS ? s->psum : NO_TENSOR,
                     tensor_cols(s->tz, v0, n), s->tlse, 0.0f, s->c->temp);
        op_loss_tile(s->dev, s->stat, parts & LOSS_GRAD ? tensor_cols(g, v0, n) : NO_TENSOR,
                     tensor_cols(s->sz, v0, n), s->slse, &a, v0);
    }
}

static void run_all(const Side *s, LossKind kind, Tensor g) {
    const bool signs = kind == LOSS_TV || kind == LOSS_HYBRID,
               apart = signs && s->c->tile < s->sz.cols;
    run_loss(s, kind, apart ? LOSS_STATS : LOSS_STATS | LOSS_GRAD, g);
    if (apart) run_loss(s, kind, LOSS_GRAD, g);
}

static void expect_doubles(const char *what, Twin t, double tolerance) {
    const Tensor got = twin_fetched(t.gpu);
    for (int64_t i = 0; i < tensor_count(got); i++) {
        const double a = ((double *)got.data)[i], b = ((double *)t.cpu.data)[i];
        if (!(fabs(a - b) <= tolerance * (1.0 + fabs(b))))
            fail_msg("%s %lld: %.12g, expected %.12g", what, (long long)i, a, b);
    }
}

static void sums_and_probabilities(void **state) {
    (void)state;
    twins_begin();
    for (int i = 0; i < SIZE_COUNT; i++)
        for (int mix = 0; mix < 6; mix++) {
            twins_begin();
            Case c = new_case(i, TWIN_FLOATS[mix & 1], mix < 3 ? DT_F32 : TWIN_FLOATS[mix & 1],
                              (TwinLayout)(mix % TWIN_LAYOUTS));
            c.cap = mix < 3 ? 4.0f : 0.0f;
            const Side cpu = side_of(&c, false), gpu = side_of(&c, true);
            run_sums(&cpu), run_sums(&gpu);
            twin_close("student lse", c.slse, 1e-6, 2e-6);
            twin_close("teacher lse", c.tlse, 1e-6, 2e-6);
            twin_equal("best", c.best), twin_equal("id", c.id);
            twin_close("capped", c.tz, 1e-6, 1e-6);
            dev_upload(twin_gpu(), c.tz.gpu, same_copy(c.tz.cpu).data);
            dev_upload(twin_gpu(), c.tlse.gpu, c.tlse.cpu.data);
            const int64_t n = tile_cols(&c, 0); // of the first tile, capped once more
            const Tensor pc = tensor_cols(c.p.cpu, 0, n), pg = tensor_cols(c.p.gpu, 0, n);
            op_prob_tile(twin_cpu(), pc, c.psum.cpu, tensor_cols(c.tz.cpu, 0, n), c.tlse.cpu, c.cap,
                         c.temp);
            op_prob_tile(twin_gpu(), pg, c.psum.gpu, tensor_cols(c.tz.gpu, 0, n), c.tlse.gpu, c.cap,
                         c.temp);
            twin_close("p", (Twin){pc, pg}, 1e-9, 3e-6);
            expect_doubles("sum of p", c.psum, 1e-6);
        }
}

static void ties_nan_and_infinity(void **state) {
    (void)state;
    for (int i = 0; i < SIZE_COUNT; i++) {
        twins_begin();
        Case c = new_case(i, DT_F32, DT_F32, i & 1 ? TWIN_ODD : TWIN_PLAIN);
        for (int64_t r = 0; r < 5; r++)
            for (int64_t v = 0; v < c.sz.cpu.cols; v++) {
                set_float(c.sz.cpu, r, v, round(test_get(c.sz.cpu, r, v) / 3));
                if (v % 7 == r) set_float(c.sz.cpu, r, v, -INFINITY);
            }
        if (c.sz.cpu.cols > 40) set_float(c.sz.cpu, 1, 39, NAN);
        dev_upload(twin_gpu(), c.sz.gpu, same_copy(c.sz.cpu).data);
        const Side cpu = side_of(&c, false), gpu = side_of(&c, true);
        run_sums(&cpu), run_sums(&gpu);
        twin_equal("best", c.best), twin_equal("id", c.id);
        for (int64_t v0 = 0; v0 < c.sz.cpu.cols; v0 += c.tile) {
            const int64_t n = tile_cols(&c, v0);
            op_top2(twin_gpu(), c.best.gpu, c.id.gpu, tensor_cols(c.sz.gpu, v0, n), NO_TENSOR, v0);
        }
        twin_equal("top2", c.best), twin_equal("top2 id", c.id);
    }
}

static void losses_and_gradients(void **state) {
    (void)state;
    for (int i = 0; i < SIZE_COUNT; i++)
        for (int k = 0; k < 5; k++) {
            twins_begin();
            const Case c =
                new_case(i, TWIN_FLOATS[k & 1], DT_F32, (TwinLayout)((i + k) % TWIN_LAYOUTS));
            const Side cpu = side_of(&c, false), gpu = side_of(&c, true);
            set_float(c.weight.cpu, 0, 2, 0.0);
            dev_upload(twin_gpu(), c.weight.gpu, c.weight.cpu.data);
            run_sums(&cpu), run_sums(&gpu);
            run_all(&cpu, KINDS[k], cpu.g), run_all(&gpu, KINDS[k], gpu.g);
            expect_doubles("statistic", c.stat, 2e-6);
            twin_close("gradient", c.g, 2e-6, rounding(c.g.cpu.dtype, 1e-5) * 2);
            const Tensor again = twin_again(c.g), stat = twin_fetched(c.stat.gpu);
            run_all(&gpu, KINDS[k], again);
            twin_repeats("gradient", c.g.gpu, again);
            assert_same_bits("statistic", twin_fetched(c.stat.gpu), stat);
        }
}

// In place, where g has the logits' type; equal rows have no loss and no gradient at all.
static void gradients_may_overwrite_the_logits(void **state) {
    (void)state;
    for (int k = 0; k < 5; k++) {
        twins_begin();
        Case c = new_case(3, DT_F32, DT_F32, TWIN_GAPS);
        c.tile = c.sz.cpu.cols;
        const Side gpu = side_of(&c, true);
        run_sums(&gpu);
        run_all(&gpu, KINDS[k], gpu.g);
        const Tensor g = twin_fetched(c.g.gpu);
        run_all(&gpu, KINDS[k], gpu.sz);
        assert_same_bits("in place", twin_fetched(c.sz.gpu), g);
    }
    Case c = new_case(1, DT_F32, DT_F32, TWIN_PLAIN);
    const int32_t zero[5] = {0};
    dev_upload(twin_gpu(), c.trow.gpu, zero);
    for (int r = 0; r < 5; r++)
        op_copy(twin_gpu(), tensor_rows(c.sz.gpu, r, 1), tensor_rows(c.tz.gpu, 0, 1));
    const Side gpu = side_of(&c, true);
    run_sums(&gpu);
    run_all(&gpu, LOSS_HYBRID, gpu.g);
    const Tensor stat = twin_fetched(c.stat.gpu), g = twin_fetched(c.g.gpu);
    for (int i = 0; i < 15; i++) assert_true(((double *)stat.data)[4 * (i / 3) + i % 3] == 0.0);
    for (int64_t v = 0; v < g.cols; v++) assert_true(test_get(g, 4, v) == 0.0f);
}

static void top2_of_listed_tokens(void **state) {
    (void)state;
    const int64_t cols[] = {2, 300, 9001};
    for (int i = 0; i < 6; i++) {
        twins_begin();
        const int64_t n = cols[i / 2];
        const Twin z = twin_random(TWIN_FLOATS[i & 1], 3, n, TWIN_ODD),
                   token = twin_zeros(DT_I32, 3, n, TWIN_PLAIN),
                   best = twin_random(DT_F32, 3, 2, TWIN_PLAIN),
                   id = twin_zeros(DT_I32, 3, 2, TWIN_PLAIN);
        for (int64_t r = 0; r < 3; r++)
            for (int64_t c = 0; c < n; c++) {
                set_float(z.cpu, r, c, round(test_get(z.cpu, r, c)));
                ((int32_t *)token.cpu.data)[r * n + c] = (int32_t)(c * 7919 % 100003 + 5);
            }
        dev_upload(twin_gpu(), z.gpu, same_copy(z.cpu).data);
        dev_upload(twin_gpu(), token.gpu, token.cpu.data);
        op_top2(twin_cpu(), best.cpu, id.cpu, z.cpu, token.cpu, 0);
        op_top2(twin_gpu(), best.gpu, id.gpu, z.gpu, token.gpu, 0);
        twin_equal("best", best), twin_equal("id", id);
    }
}

static void topk_with_ties(void **state) {
    (void)state;
    const int64_t cols[] = {1, 8, 128, 2048, 5001}, k[] = {1, 8, 8, 32, 1024};
    for (int i = 0; i < 5; i++)
        for (int mix = 0; mix < 6; mix++) {
            twins_begin();
            const Twin x = twin_random(TWIN_FLOATS[mix & 1], 3, cols[i], (TwinLayout)(mix / 2)),
                       idx = twin_zeros(DT_I32, 3, k[i], TWIN_PLAIN);
            for (int64_t c = 0; c < cols[i]; c++) {
                if (mix > 1) set_float(x.cpu, 0, c, round(2 * test_get(x.cpu, 0, c)));
                if (mix > 3) set_float(x.cpu, 1, c, c % 3 ? -0.0 : 0.0);
                if (c % 5 == 1) set_float(x.cpu, 2, c, c % 2 ? NAN : -INFINITY);
            }
            dev_upload(twin_gpu(), x.gpu, same_copy(x.cpu).data);
            op_topk(twin_cpu(), idx.cpu, x.cpu, (int)k[i]);
            op_topk(twin_gpu(), idx.gpu, x.gpu, (int)k[i]);
            twin_equal("topk", idx);
        }
}

static void cluster_twins(void **state) {
    (void)state;
    enum { V = 1300, C = 37, ROWS = 5 };
    static int32_t cluster[V], trow[ROWS] = {1, 1, 0, 2, 0};
    for (int v = 0; v < V; v++) cluster[v] = v * 11 % C;
    for (int mix = 0; mix < 6; mix++) {
        twins_begin();
        const DType t = TWIN_FLOATS[mix & 1];
        const Twin p = twin_random(DT_F32, 3, V, (TwinLayout)(mix / 2)),
                   of = twin_ids(cluster, 1, V),
                   mass = twin_random(DT_F32, 3, C + 3 * (mix & 1), TWIN_PLAIN);
        scale(p, 0.01f);
        const Twin z = twin_random(t, ROWS, mass.cpu.cols, (TwinLayout)(mix / 2)),
                   g = twin_random(t, ROWS, mass.cpu.cols, (TwinLayout)(mix / 2)),
                   loss = twin_zeros(DT_F32, 1, ROWS, TWIN_PLAIN), row = twin_ids(trow, 1, ROWS),
                   w = twin_random(DT_F32, 1, ROWS, TWIN_PLAIN);
        for (int64_t v0 = 0; v0 < V; v0 += 700) {
            const int64_t n = v0 ? V - v0 : 700;
            op_cluster_mass(twin_cpu(), mass.cpu, tensor_cols(p.cpu, v0, n), of.cpu, v0);
            op_cluster_mass(twin_gpu(), mass.gpu, tensor_cols(p.gpu, v0, n), of.gpu, v0);
        }
        twin_close("mass", mass, 1e-6, 1e-6);
        op_cluster_ce(twin_cpu(), loss.cpu, g.cpu, z.cpu, mass.cpu, row.cpu, w.cpu);
        op_cluster_ce(twin_gpu(), loss.gpu, g.gpu, z.gpu, mass.gpu, row.gpu, w.gpu);
        twin_close("loss", loss, 2e-5, 2e-6);
        twin_close("gradient", g, 1e-5, rounding(t, 1e-5) * 2);
        op_cluster_ce(twin_gpu(), loss.gpu, NO_TENSOR, z.gpu, mass.gpu, row.gpu, NO_TENSOR);
        twin_close("loss only", loss, 2e-5, 2e-6);
    }
}

static void cluster_logits_twins(void **state) {
    (void)state;
    enum { CLUSTERS = 9, PER = 7, ROWS = 4, K = 3 };
    static int32_t ordering[CLUSTERS * PER], idx[ROWS * K];
    for (int i = 0; i < CLUSTERS * PER; i++) ordering[i] = i * 5 % (CLUSTERS * PER);
    for (int i = 0; i < ROWS * K; i++) idx[i] = i * 4 % CLUSTERS;
    for (int mix = 0; mix < 12; mix++) {
        twins_begin();
        const int64_t H = mix < 6 ? 50 : 520;
        const Twin y = twin_random(TWIN_FLOATS[mix & 1], ROWS, H, TWIN_ODD),
                   table = twin_random(TWIN_FLOATS[mix >> 1 & 1], CLUSTERS * PER, H,
                                       (TwinLayout)(mix % TWIN_LAYOUTS)),
                   z = twin_random(DT_F32, ROWS, K * PER, TWIN_GAPS),
                   token = twin_zeros(DT_I32, ROWS, K * PER, TWIN_ODD),
                   order = twin_ids(ordering, CLUSTERS, PER), of = twin_ids(idx, ROWS, K);
        op_cluster_logits(twin_cpu(), z.cpu, token.cpu, y.cpu, table.cpu, order.cpu, of.cpu);
        op_cluster_logits(twin_gpu(), z.gpu, token.gpu, y.gpu, table.gpu, order.gpu, of.gpu);
        twin_close("logits", z, 1e-4, 1e-5);
        twin_equal("tokens", token);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_and_probabilities),
        cmocka_unit_test(ties_nan_and_infinity),
        cmocka_unit_test(losses_and_gradients),
        cmocka_unit_test(gradients_may_overwrite_the_logits),
        cmocka_unit_test(top2_of_listed_tokens),
        cmocka_unit_test(topk_with_ties),
        cmocka_unit_test(cluster_twins),
        cmocka_unit_test(cluster_logits_twins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
