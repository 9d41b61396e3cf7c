// tests/infer/decode/acceptance_test.c - the count on hand-made texts, ends included.
#include "infer/decode/acceptance.h"
#include "tests/infer/decode/plain_walk.h"
#include "tests/testing.h"

// Text 0..9, prompt of 3: T = 3..8, the last anchor has one token left. K = 4.
enum { N = 10, FIRST = 3, ANCHORS = N - FIRST - 1, K = 4 };
static const int32_t TEXT[N] = {10, 11, 12, 13, 14, 15, 16, 17, 18, 19};
// Right drafts of T are TEXT[T+1], TEXT[T+2], ...; 99 is wrong; what lies past the end is
// arbitrary.
static const int32_t DRAFTS[ANCHORS][K] = {
    {14, 15, 99, 17}, // T=3: 2, although the fourth agrees again
    {15, 16, 17, 18}, // T=4: 4
    {99, 17, 18, 19}, // T=5: 0
    {17, 18, 19, 77}, // T=6: 3 = all that is left
    {18, 99, 0, 0},   // T=7: 1
    {19, 19, 19, 19}, // T=8: 1 = all that is left
};
static const int32_t LENGTHS[ANCHORS] = {2, 4, 0, 3, 1, 1};

static void lengths_stop_at_the_first_mismatch_and_at_the_end(void **state) {
    (void)state;
    int32_t L[ANCHORS];
    acceptance_lengths(L, &DRAFTS[0][0], ANCHORS, K, TEXT, N, FIRST);
    for (int a = 0; a < ANCHORS; a++) assert_int_equal(L[a], LENGTHS[a]);
}

static Acceptance walk(int k, uint8_t *visit) {
    Acceptance sum = {0};
    acceptance_walk(&sum, LENGTHS, ANCHORS, k, visit);
    return sum;
}

static void walk_visits_what_decoding_would(void **state) {
    (void)state;
    uint8_t visit[ANCHORS];
    // k = 2: T = 3 (2 accepted) -> 6 (2 of 3) -> 9 = the stop token: done. 3 + 3 tokens: 13+1..9.
    const Acceptance a = walk(2, visit);
    const uint8_t want[ANCHORS] = {1, 0, 0, 1, 0, 0};
    assert_memory_equal(visit, want, sizeof want);
    assert_int_equal(a.rounds, 2);
    assert_int_equal(a.tokens, N - FIRST - 1);
    assert_int_equal(a.drafted, 4);
    assert_int_equal(a.accepted, 4);
    assert_true(acceptance_tau(&a) == 3.0);
    assert_true(acceptance_u(&a, 2) == 1.0);
}

static void last_round_is_cut_at_the_end_of_the_text(void **state) {
    (void)state;
    // k = 4: T = 3 (2) -> 6 (3 accepted = the end): the round emits 3 tokens, no bonus.
    const Acceptance a = walk(4, NULL);
    assert_int_equal(a.rounds, 2);
    assert_int_equal(a.tokens, 6);
    assert_int_equal(a.accepted, 5);
    assert_int_equal(a.drafted, 8);
    assert_int_equal(a.possible[3], 2);
    assert_int_equal(a.possible[4], 1); // at T = 6 only three tokens are left
    assert_int_equal(a.reached[3], 1);
    assert_int_equal(a.reached[4], 0);
    assert_true(acceptance_tau(&a) == 3.0); // and not 1 + 5/2
    assert_true(acceptance_u(&a, 3) == 0.5);
    assert_true(acceptance_u(&a, 4) == 0.0);
}

static void without_drafts_every_token_is_a_round(void **state) {
    (void)state;
    const Acceptance a = walk(0, NULL);
    assert_int_equal(a.rounds, ANCHORS);
    assert_int_equal(a.tokens, ANCHORS);
    assert_true(acceptance_tau(&a) == 1.0);
}

static void every_k_emits_the_same_tokens(void **state) {
    (void)state;
    int64_t rounds = ANCHORS + 1;
    for (int k = 0; k <= K; k++) {
        const Acceptance a = walk(k, NULL);
        assert_int_equal(a.tokens, N - FIRST - 1);
        assert_true(a.rounds <= rounds);
        rounds = a.rounds;
        assert_int_equal(a.reached[0], a.rounds);
        int64_t accepted = 0;
        for (int i = 1; i <= DRAFT_MAX; i++) accepted += a.reached[i];
        assert_int_equal(accepted, a.accepted);
    }
}

static void a_round_never_counts_beyond_the_end(void **state) {
    (void)state;
    Acceptance a = {0};
    acceptance_round(&a, 5, 5, 5, 2); // two tokens left, the drafts went on after the stop token
    assert_int_equal(a.tokens, 2);
    assert_int_equal(a.accepted, 2);
    assert_int_equal(a.drafted, 5);
    acceptance_round(&a, 0, 5, 5, 2);
    assert_int_equal(a.tokens, 3);
    assert_int_equal(a.possible[2], 2);
    assert_int_equal(a.possible[3], 0);
}

static void texts_without_a_successor_count_nothing(void **state) {
    (void)state;
    Acceptance a = {0};
    acceptance_walk(&a, NULL, 0, 3, NULL);
    acceptance_walk(&a, NULL, -1, 3, NULL); // an answer of no token at all
    for (int64_t anchors = -1; anchors <= 0; anchors++) {
        const DraftOdds none = {.anchors = anchors, .K = 3};
        AnchorReach r = {0};
        acceptance_expect(&a, &none, 3, NULL);
        acceptance_reach(&r, &none);
        assert_true(r.anchors[0] == 0 && acceptance_u_all(&r, 1) == 0.0);
        assert_true(biased_uniform_anchors(&r, 3) == 1.0);
    }
    assert_int_equal(a.rounds, 0);
    assert_true(acceptance_tau(&a) == 0.0);
    assert_true(acceptance_u(&a, 1) == 0.0);
}

static void rounds_with_fewer_drafts_than_wanted(void **state) {
    (void)state;
    Acceptance a = {0};
    acceptance_round(&a, 1, 2, 5, 9); // a third step was run, its draft withheld
    acceptance_round(&a, 0, 0, 5, 9);
    acceptance_round(&a, 5, 5, 5, 9);
    assert_int_equal(a.drafted, 7);
    assert_int_equal(a.steps, 3 + 1 + 5);
    assert_int_equal(a.verified[0], 1);
    assert_int_equal(a.verified[2], 1);
    assert_int_equal(a.verified[5], 1);
    assert_int_equal(a.possible[5], 3); // withheld drafts had text to match, too
    assert_int_equal(a.tokens, 2 + 1 + 6);
}

static void merging_pools(void **state) {
    (void)state;
    Acceptance a = walk(1, NULL), b = walk(3, NULL), sum = a;
    acceptance_merge(&sum, &b);
    assert_int_equal(sum.rounds, a.rounds + b.rounds);
    assert_int_equal(sum.tokens, a.tokens + b.tokens);
    assert_int_equal(sum.drafted, a.drafted + b.drafted);
    assert_int_equal(sum.accepted, a.accepted + b.accepted);
    assert_int_equal(sum.reached[1], a.reached[1] + b.reached[1]);
    assert_int_equal(sum.possible[3], b.possible[3]);
}

static void reach_counts_anchors_with_that_many_successors(void **state) {
    (void)state;
    AnchorReach r = {0}, two = {0};
    double keep[ANCHORS * K];
    acceptance_keep(keep, &DRAFTS[0][0], ANCHORS, K, TEXT, N, FIRST);
    const DraftOdds odds = {.keep = keep, .anchors = ANCHORS, .K = K};
    acceptance_reach(&r, &odds);
    const int64_t anchors[] = {6, 6, 5, 4, 3}, reached[] = {6, 5, 3, 2, 1},
                  match[] = {0, 5, 4, 3, 3}; // by themselves: T = 5 from its second on
    for (int i = 0; i <= K; i++) {
        assert_int_equal(r.anchors[i], anchors[i]);
        assert_int_equal(r.reached[i], reached[i]);
        assert_int_equal(r.match[i], match[i]);
        if (i > 0) assert_int_equal(r.alphas[i], reached[i]); // alpha is keep
    }
    assert_true(biased_uniform_anchors(&r, 2) == 1 + 5.0 / 6 + 3.0 / 5);
    assert_true(biased_product_of_means(&r, 2) == 1 + 5.0 / 6 + 5.0 / 6 * (4.0 / 5));
    assert_true(biased_uniform_alpha(&r, 2) == biased_uniform_anchors(&r, 2));
    acceptance_reach(&two, &odds);
    acceptance_reach(&two, &odds);
    assert_int_equal(two.anchors[4], 6);
    assert_true(acceptance_u_all(&two, 4) == 1.0 / 3.0);
    assert_true(acceptance_u_all(&two, K + 1) == 0.0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_stop_at_the_first_mismatch_and_at_the_end),
        cmocka_unit_test(walk_visits_what_decoding_would),
        cmocka_unit_test(last_round_is_cut_at_the_end_of_the_text),
        cmocka_unit_test(without_drafts_every_token_is_a_round),
        cmocka_unit_test(every_k_emits_the_same_tokens),
        cmocka_unit_test(a_round_never_counts_beyond_the_end),
        cmocka_unit_test(texts_without_a_successor_count_nothing),
        cmocka_unit_test(rounds_with_fewer_drafts_than_wanted),
        cmocka_unit_test(merging_pools),
        cmocka_unit_test(reach_counts_anchors_with_that_many_successors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
