// tests/eval/quant/divergence_test.c - KL of draft steps against the same in plain double.
#include "eval/quant/divergence.h"

#include <math.h>

#include "tests/eval/quant/quant_pair.h"

enum { K = 3 };

// A copy of a matrix with noise on it.
static Tensor noisy(Tensor t, double noise) {
    const Tensor out = test_random(DT_F32, t.rows, t.cols);
    for (int64_t i = 0; i < tensor_count(t); i++)
        ((float *)out.data)[i] = (float)(((float *)t.data)[i] + noise * ((float *)out.data)[i]);
    return out;
}

// Logits of all steps by the dense head: z (K, anchors, V), of every sequence by itself.
typedef struct {
    Walk *walk;
    const Assistant *a;
    StepActs acts;
    float *z;
    int64_t at, rows;
} Logits;

static bool keep_logits(void *ctx, int j, const StepActs *acts, Err *err) {
    Logits *l = ctx;
    (void)err;
    const int64_t V = l->a->cfg.text.vocab;
    const Tensor z = tensor_of(l->z + (j * 200 + l->at) * V, DT_F32, l->rows, V);
    assistant_logits(l->a, HEAD_DENSE, z, NO_TENSOR, acts->y, &test_env()->arena);
    return true;
}

static bool show(void *ctx, const WalkChunk *c, Err *err) {
    Logits *l = ctx;
    const size_t mark = arena_mark(&test_env()->arena);
    assistant_acts_take(l->a, &l->acts, c->rows, false, &test_env()->arena);
    l->rows = c->rows;
    const bool ok = walk_roll(l->walk, l->a, c, &l->acts, keep_logits, l, err);
    l->at += c->rows;
    arena_reset(&test_env()->arena, mark);
    return ok;
}

static float *logits_of(const Assistant *a) {
    Err err = {0};
    Logits l = {.a = a, .z = calloc((size_t)(K * 200 * a->cfg.text.vocab), sizeof(float))};
    l.walk = walk_open(a, target_config(pair.target), &source, K, 1000, 1, &err);
    assert_ok(l.walk, err);
    assert_ok(walk_run(l.walk, show, &l, &err), err);
    walk_close(l.walk);
    return l.z;
}

static double kl_of(const float *p, const float *q, int64_t n) {
    double sp = 0, sq = 0, mp = -INFINITY, mq = -INFINITY, kl = 0;
    for (int64_t i = 0; i < n; i++) mp = fmax(mp, p[i]), mq = fmax(mq, q[i]);
    for (int64_t i = 0; i < n; i++) sp += exp(p[i] - mp), sq += exp(q[i] - mq);
    for (int64_t i = 0; i < n; i++) {
        const double lp = p[i] - mp - log(sp), lq = q[i] - mq - log(sq);
        kl += exp(lp) * (lp - lq);
    }
    return kl;
}

static void means_by_step_are_those_of_the_logits(void **state) {
    (void)state;
    Err err = {0};
    const int64_t V = pair.assistant->cfg.text.vocab;
    Assistant v[2] = {*pair.assistant, *pair.assistant};
    v[0].w.layer[1].q_proj = noisy(v[0].w.layer[1].q_proj, 0.1);
    v[1].w.table = noisy(v[1].w.table, 0.05);
    const Assistant *const list[] = {&v[0], &v[1]};
    double kl[2 * K];
    Walk *w = walk_open(pair.assistant, target_config(pair.target), &source, K, 16, 1, &err);
    Divergence *d = divergence_open(pair.assistant, K, 16, &err);
    assert_ok(w && d, err);
    for (int twice = 0; twice < 2; twice++)
        assert_ok(divergence_run(d, w, pair.assistant, list, 2, kl, &err), err);
    divergence_close(d);
    walk_close(w);
    float *p = logits_of(pair.assistant);
    for (int i = 0; i < 2; i++) {
        float *q = logits_of(&v[i]);
        for (int j = 0; j < K; j++) {
            double sum = 0, rows = 0;
            int64_t at = 0;
            for (int s = 0; s < SEQS; s++)
                for (int64_t T = prompt[s]; T < length[s] - 1; T++, at++) {
                    if (T + j + 1 >= length[s]) continue;
                    sum += kl_of(p + (j * 200 + at) * V, q + (j * 200 + at) * V, V);
                    rows++;
                }
            assert_true(sum / rows > 1e-6);
            near("KL", kl[i * K + j], sum / rows, 1e-4 * sum / rows);
        }
        free(q);
    }
    free(p);
}

static void nothing_diverges_from_itself(void **state) {
    (void)state;
    Err err = {0};
    double kl[K];
    const Assistant *const list[] = {pair.assistant};
    Walk *w = walk_open(pair.assistant, target_config(pair.target), &source, K, 100, 3, &err);
    Divergence *d = divergence_open(pair.assistant, K, 100, &err);
    assert_ok(w && d, err);
    assert_ok(divergence_run(d, w, pair.assistant, list, 1, kl, &err), err);
    for (int j = 0; j < K; j++) near("KL", kl[j], 0, 1e-6);
    near("mean", divergence_mean((double[]){3, 1, 2}, (double[]){1, 0.5, 0.25}, 3), 4.0 / 1.75,
         1e-12);
    divergence_close(d);
    walk_close(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(means_by_step_are_those_of_the_logits),
        cmocka_unit_test(nothing_diverges_from_itself),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
