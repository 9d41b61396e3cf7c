// tests/eval/count/sweep_test.c - captured sequences measured through the packer: whatever fits
// into a pack, and several samples of a prompt as one entry.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/audit/wiring.h"
#include "eval/count/sweep.h"
#include "infer/text/chat.h"
#include "tests/infer/decode/mini_pair.h"
#include "tests/infer/decode/plain_walk.h"

enum { SEQS = 7, K = 6 };

static MiniPair pair;
static CapturedSeq seq[SEQS];

static void *copy(const void *p, size_t n) {
    void *q = malloc(n);
    assert_non_null(q);
    memcpy(q, p, n);
    return q;
}

static CapturedSeq copy_seq(const CapturedSeq *c) {
    CapturedSeq out = *c;
    const TargetConfig *tc = target_config(pair.target);
    const size_t n = (size_t)c->sample.n;
    out.sample.ids = copy(c->sample.ids, n * sizeof(int32_t));
    out.sample.kind = calloc(n, 1);
    for (size_t i = 0; i < n; i++) // all of them somewhere
        out.sample.kind[i] = (uint8_t)(c->sample.n % 2 ? TOKEN_MODEL : i % TOKEN_KINDS);
    out.hidden = copy(c->hidden, n * 2 * (size_t)tc->text.hidden);
    for (int kind = 0; kind < 2; kind++) {
        const int l = tc->kv_source[kind];
        const size_t width = (size_t)(layer_kv_heads(&tc->text, l) * layer_head_dim(&tc->text, l));
        out.k[kind] = copy(c->k[kind], n * 2 * width);
        out.v[kind] = copy(c->v[kind], n * 2 * width);
    }
    return out;
}

static int64_t length_of(void *ctx, int64_t i) {
    return ((CapturedSeq *)ctx)[i].sample.n;
}
static bool read_seq(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    (void)err;
    *out = copy_seq(&((CapturedSeq *)ctx)[i]);
    return true;
}

static const SeqSource source = {.ctx = seq, .count = SEQS, .length = length_of, .read = read_seq};

static int open_all(void **state) {
    (void)state;
    pair = mini_pair_open();
    Arena *arena = &test_env()->arena;
    for (int i = 0; i < SEQS; i++) { // prompts p0 p1 p2 p3, p0 again (a second sample), ...
        const int64_t n = 12 + 9 * i;
        FeaturePack pack;
        int32_t ids[96];
        const size_t mark = arena_mark(arena);
        features_take(&pack, target_config(pair.target), n, DT_BF16, arena);
        mini_prompt(ids, n, i);
        mini_capture(&pair, &pack, ids, n);
        CapturedSeq view = {
            .sample = {.prompt = i == 2 ? n - 1 : 5 + i, .n = n, .ids = ids, .sample = i / 4},
            .hidden = pack.hidden.data,
            .k = {pack.k[0].data, pack.k[1].data},
            .v = {pack.v[0].data, pack.v[1].data}};
        snprintf(view.sample.id, sizeof view.sample.id, "p%d", i % 4);
        seq[i] = copy_seq(&view);
        arena_reset(arena, mark);
    }
    return 0;
}

static int close_all(void **state) {
    (void)state;
    for (int i = 0; i < SEQS; i++) captured_free(&seq[i]);
    mini_pair_close(&pair);
    return 0;
}

static MeasuredPool pool; // of the latest measure()
static const SweepOptions how = {.K = K};

static void measure(Measured *out, int64_t anchors, int64_t tokens) {
    Err err = {0};
    const MeasureOptions opt = {
        .K = K, .head = {true, true}, .max_anchors = anchors, .pack_tokens = tokens};
    Measurer *m = measurer_open(pair.assistant, target_config(pair.target), &source, &opt, &err);
    assert_ok(m, err);
    assert_ok(measurer_run(m, pair.assistant, out, &pool, &err), err);
    assert_ok(measurer_run(m, pair.assistant, out, &pool, &err), err); // buffers serve again
    measurer_close(m);
}

static void packing_does_not_change_the_counts(void **state) {
    (void)state;
    static Measured whole[SEQS], pieces[SEQS];
    memset(whole, 0, sizeof whole);
    memset(pieces, 0, sizeof pieces);
    measure(whole, 4096, 4096);
    measure(pieces, 17, 1);
    for (int i = 0; i < SEQS; i++) {
        assert_string_equal(whole[i].id, seq[i].sample.id);
        assert_int_equal(whole[i].tokens, seq[i].sample.n - seq[i].sample.prompt - 1);
        assert_memory_equal(whole[i].k, pieces[i].k, sizeof whole[i].k);
        assert_true(whole[i].k[RULE_GREEDY][0][3].tokens == (double)whole[i].tokens);
    }
    assert_true(pool.k[RULE_GREEDY][0][K].accepted > 0);
}

static void one_sequence_alone_gives_its_lengths(void **state) {
    (void)state;
    Err err = {0};
    static Measured all[SEQS];
    int32_t L[96], drafts[96 * K];
    float margin[96 * K];
    measure(all, 64, 256);
    const MeasureOptions opt = {
        .K = K, .head = {true, true}, .max_anchors = 64, .pack_tokens = 128};
    Measurer *m = measurer_open(pair.assistant, target_config(pair.target), &source, &opt, &err);
    assert_ok(m, err);
    for (int i = 0; i < SEQS; i++) {
        const int64_t anchors = seq[i].sample.n - seq[i].sample.prompt - 1;
        if (anchors < 1) continue;
        assert_ok(
            measurer_lengths(m, pair.assistant, &seq[i], HEAD_CENTROID, L, drafts, margin, &err),
            err);
        for (int k = 1; k <= K; k++) {
            Acceptance a = {0};
            acceptance_walk(&a, L, anchors, k, NULL);
            const StepCount *c = &all[i].k[RULE_GREEDY][HEAD_CENTROID][k];
            assert_true(a.rounds == c->rounds && a.tokens == c->tokens);
        }
    }
    measurer_close(m);
}

// Every round and every token is in one part; a round belongs to the token behind its bonus.
static void rounds_are_told_apart_by_what_they_draft(void **state) {
    (void)state;
    Err err = {0};
    static Measured all[SEQS];
    int32_t L[96], drafts[96 * K];
    int64_t mixed = 0;
    measure(all, 64, 256);
    const MeasureOptions opt = {
        .K = K, .head = {true, true}, .max_anchors = 64, .pack_tokens = 128};
    Measurer *m = measurer_open(pair.assistant, target_config(pair.target), &source, &opt, &err);
    assert_ok(m, err);
    for (int i = 0; i < SEQS; i++) {
        const Sample *s = &seq[i].sample;
        const int64_t anchors = s->n - s->prompt - 1;
        int64_t tokens[PART_COUNT] = {0};
        for (int64_t t = s->prompt + 1; t < s->n; t++)
            tokens[s->kind[t] == TOKEN_THOUGHT                               ? PART_THOUGHT
                   : s->kind[t] == TOKEN_CALL || s->kind[t] == TOKEN_CHANNEL ? PART_STRUCTURED
                                                                             : PART_TEXT]++;
        assert_memory_equal(tokens, all[i].part_tokens, PART_KINDS * sizeof *tokens);
        mixed += tokens[PART_STRUCTURED] > 0 && tokens[PART_TEXT] > 0;
        if (anchors < 1) continue;
        assert_ok(measurer_lengths(m, pair.assistant, &seq[i], HEAD_DENSE, L, drafts, NULL, &err),
                  err);
        for (int k = 0; k <= K; k++) {
            StepCount want[PART_COUNT] = {{0}}, *got = all[i].part[HEAD_DENSE][k];
            for (int64_t a = 0; a < anchors;) {
                const int64_t end = a + (L[a] < k ? L[a] : k) + 1;
                const int kind = s->kind[s->prompt + a + 1];
                const TextPart p = kind == TOKEN_THOUGHT                         ? PART_THOUGHT
                                   : kind == TOKEN_CALL || kind == TOKEN_CHANNEL ? PART_STRUCTURED
                                                                                 : PART_TEXT;
                want[p].rounds++;
                want[p].tokens += (end < anchors ? end : anchors) - a;
                a = end;
            }
            assert_memory_equal(got, want, PART_KINDS * sizeof *want);
            assert_true(got[0].rounds + got[1].rounds + got[2].rounds ==
                        all[i].k[RULE_GREEDY][HEAD_DENSE][k].rounds);
            assert_true(got[0].tokens + got[1].tokens + got[2].tokens == (double)anchors);
            assert_true(got[PART_CONTEXT_512].rounds ==
                        all[i].k[RULE_GREEDY][HEAD_DENSE][k].rounds);
        }
    }
    assert_true(mixed > 1);
    measurer_close(m);
}

static void samples_of_a_prompt_are_one_entry(void **state) {
    (void)state;
    Err err = {0};
    static Measured all[SEQS];
    const SweepDrafter drafter = {"stock", "dir", pair.assistant};
    Sweep s;
    measure(all, 64, 256);
    assert_ok(sweep_run(&s, &drafter, 1, target_config(pair.target), &source, &how, &err), err);
    assert_int_equal(s.n, 4);
    assert_int_equal(s.sequences, SEQS);
    assert_string_equal(s.prompt[1].id, "p1");
    assert_int_equal(s.prompt[1].tokens, all[1].tokens + all[5].tokens);
    assert_true(s.prompt[1].k[RULE_GREEDY][0][4].rounds ==
                all[1].k[RULE_GREEDY][0][4].rounds + all[5].k[RULE_GREEDY][0][4].rounds);
    assert_int_equal(s.prompt[1].part_tokens[PART_STRUCTURED],
                     all[1].part_tokens[PART_STRUCTURED] + all[5].part_tokens[PART_STRUCTURED]);
    assert_true(s.prompt[1].part[0][4][PART_STRUCTURED].rounds ==
                all[1].part[0][4][PART_STRUCTURED].rounds +
                    all[5].part[0][4][PART_STRUCTURED].rounds);
    assert_memory_equal(&s.pool->all[RULE_GREEDY][1], &pool.all[RULE_GREEDY][1],
                        sizeof(AnchorReach));
    sweep_free(&s);
}

static void training_and_inference_forwards_are_compared(void **state) {
    (void)state;
    Err err = {0};
    FeaturePack pack;
    Arena *arena = &test_env()->arena;
    const size_t mark = arena_mark(arena);
    const Sample *x = &seq[SEQS - 1].sample;
    features_take(&pack, target_config(pair.target), x->n, DT_BF16, arena);
    mini_capture(&pair, &pack, x->ids, x->n);
    Wiring w = {0};
    assert_ok(wiring_compare(&w, pair.assistant, &pack, x->ids, x->n, x->prompt, K, 30, 1e-3, &err),
              err);
    assert_true(w.values > 0 && w.choices > 100);
    assert_true(w.worst <= wiring_tolerance(DT_F32));
    assert_int_equal(w.choices_differ, 0);
    arena_reset(arena, mark);
}

static void a_prompt_longer_than_its_text_is_refused(void **state) {
    (void)state;
    Err err = {0};
    const SweepDrafter drafter = {"stock", "dir", pair.assistant};
    Sweep s;
    const int64_t saved = seq[3].sample.prompt;
    seq[3].sample.prompt = seq[3].sample.n + 1;
    assert_false(sweep_run(&s, &drafter, 1, target_config(pair.target), &source, &how, &err));
    seq[3].sample.prompt = saved;
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "p3"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packing_does_not_change_the_counts),
        cmocka_unit_test(one_sequence_alone_gives_its_lengths),
        cmocka_unit_test(rounds_are_told_apart_by_what_they_draft),
        cmocka_unit_test(samples_of_a_prompt_are_one_entry),
        cmocka_unit_test(training_and_inference_forwards_are_compared),
        cmocka_unit_test(a_prompt_longer_than_its_text_is_refused),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
