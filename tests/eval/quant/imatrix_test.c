// tests/eval/quant/imatrix_test.c - importance of columns against what the inputs are known to be,
// and the files it goes into.
#include "eval/quant/imatrix.h"

#include <math.h>

#include "tests/eval/quant/quant_pair.h"

static const double REACH[] = {1.0, 0.6, 0.25};

static Imatrix collected(int K, int64_t max_anchors) {
    Err err = {0};
    Imatrix m;
    const ImatrixOptions o = {
        .K = K, .reach = REACH, .max_anchors = max_anchors, .dataset = "miniature"};
    assert_ok(imatrix_collect(&m, pair.assistant, target_config(pair.target), &source, &o, &err),
              err);
    return m;
}

static const ImatrixEntry *entry(const Imatrix *m, const char *name) {
    const ImatrixEntry *e = imatrix_find(m, name);
    if (e == NULL) fail_msg("no entry %s", name);
    return e;
}

// The embedding half of pre_projection's input: x_{T+j} of every anchor with text to match, scaled.
static void tokens_enter_as_they_are_drafted_from(void **state) {
    (void)state;
    enum { K = 3 };
    const int64_t B = pair.assistant->cfg.backbone;
    const Tensor table = target_embedding(pair.target);
    const double scale = target_embed_scale(pair.target);
    Imatrix m = collected(K, 1000);
    const ImatrixEntry *e = entry(&m, "nextn.pre_projection.weight");
    assert_int_equal(e->n, 2 * B);
    for (int64_t c = 0; c < B; c++) {
        double sum = 0, rows = 0;
        for (int i = 0; i < SEQS; i++)
            for (int64_t T = prompt[i]; T < length[i] - 1; T++)
                for (int j = 0; j < K && T + j + 1 < length[i]; j++) {
                    const double x = scale * test_get(table, ids[i][T + j], c);
                    sum += REACH[j] * x * x;
                    rows += REACH[j];
                }
        near("embedding column", e->iw[c], sum / rows, 1e-5 * sum / rows + 1e-7);
    }
    imatrix_free(&m);
}

// The other half at the first step: the target's hidden row before the anchor.
static void features_enter_as_captured(void **state) {
    (void)state;
    const int64_t B = pair.assistant->cfg.backbone;
    Imatrix m = collected(1, 1000);
    const ImatrixEntry *e = entry(&m, "nextn.pre_projection.weight");
    for (int64_t c = 0; c < B; c++) {
        double sum = 0, rows = 0;
        for (int i = 0; i < SEQS; i++)
            for (int64_t T = prompt[i]; T < length[i] - 1; T++) {
                const double x = test_get(pack.hidden, pack.start[i] + T - 1, c);
                sum += x * x;
                rows++;
            }
        near("feature column", e->iw[B + c], sum / rows, 1e-5 * sum / rows + 1e-7);
    }
    assert_null(imatrix_find(&m, "nextn.post_projection.weight")); // the last step calls none
    imatrix_free(&m);
}

// A normalised row has mean square 1: columns divided by the norm's weight squared add up to it.
static void normalised_inputs_have_mean_square_one(void **state) {
    (void)state;
    const AssistantWeights *w = &pair.assistant->w;
    Imatrix m = collected(3, 1000);
    const struct {
        const char *name;
        Tensor norm;
    } cases[] = {{"token_embd.weight", w->norm},
                 {"nextn.post_projection.weight", w->norm},
                 {"blk.0.attn_q.weight", w->layer[0].in_norm},
                 {"blk.2.ffn_gate.weight", w->layer[2].pre_ff_norm},
                 {"blk.2.ffn_up.weight", w->layer[2].pre_ff_norm}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const ImatrixEntry *e = entry(&m, cases[i].name);
        double sum = 0;
        for (int64_t c = 0; c < e->n; c++) {
            const double norm = test_get(cases[i].norm, 0, c);
            sum += e->iw[c] / (norm * norm);
        }
        near(cases[i].name, sum / (double)e->n, 1.0, 1e-3);
    }
    imatrix_free(&m);
}

static void every_matrix_has_its_entry_whatever_the_calls(void **state) {
    (void)state;
    const TextConfig *t = &pair.assistant->cfg.text;
    Imatrix m = collected(3, 1000), in_pieces = collected(3, 7);
    assert_int_equal(m.n, 3 + 5 * t->layers);
    assert_int_equal(in_pieces.n, m.n);
    for (int i = 0; i < m.n; i++) {
        assert_string_equal(m.entry[i].name, in_pieces.entry[i].name);
        for (int64_t c = 0; c < m.entry[i].n; c++)
            near(m.entry[i].name, in_pieces.entry[i].iw[c], m.entry[i].iw[c],
                 1e-4 * m.entry[i].iw[c] + 1e-9);
    }
    assert_memory_equal(entry(&m, "blk.1.ffn_gate.weight")->iw,
                        entry(&m, "blk.1.ffn_up.weight")->iw,
                        (size_t)entry(&m, "blk.1.ffn_up.weight")->n * sizeof(float));
    assert_int_equal(entry(&m, "blk.3.attn_output.weight")->n, t->heads * layer_head_dim(t, 3));
    imatrix_free(&m);
    imatrix_free(&in_pieces);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_enter_as_they_are_drafted_from),
        cmocka_unit_test(features_enter_as_captured),
        cmocka_unit_test(normalised_inputs_have_mean_square_one),
        cmocka_unit_test(every_matrix_has_its_entry_whatever_the_calls),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
