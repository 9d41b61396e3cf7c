// tests/eval/audit/audit_test.c - what counts as equal, as a near tie, and as a failure.
#include <stdlib.h>
#include <string.h>

#include "eval/audit/audit.h"
#include "tests/testing.h"

// Text 20..29 after a prompt of 4; K = 2; anchors T = 4..8.
enum { N = 10, FIRST = 4, K = 2, ANCHORS = N - FIRST - 1 };
static int32_t text_ids[N] = {1, 2, 3, 4, 24, 25, 26, 27, 28, 29};
static const int32_t L[ANCHORS] = {2, 0, 1, 0, 1};
static float margin[ANCHORS * K];

static AuditText text_of(void) {
    for (int i = 0; i < ANCHORS * K; i++) margin[i] = 1.0f;
    return (AuditText){
        .id = "p", .ids = text_ids, .n = N, .first = FIRST, .K = K, .L = L, .margin = margin};
}

// The live decode that agrees for k = 2: T = 4 (2 accepted), 7 (0), 8 (1).
static DraftRound live_rounds[3];
static int32_t live_ids[N];
static SpeculateResult live_of(void) {
    const int64_t T[] = {4, 7, 8};
    const int accepted[] = {2, 0, 1};
    memcpy(live_ids, text_ids, sizeof live_ids);
    for (int i = 0; i < 3; i++) {
        live_rounds[i] = (DraftRound){.T = T[i],
                                      .drafted = 2,
                                      .accepted = accepted[i],
                                      .margin = {1, 1},
                                      .verify_margin = {1, 1, 1}};
    }
    return (SpeculateResult){.ids = live_ids,
                             .n = N,
                             .first = FIRST,
                             .first_margin = 1,
                             .round = live_rounds,
                             .rounds = 3};
}

static void equal_rounds_pass(void **state) {
    (void)state;
    Audit a;
    const AuditText t = text_of();
    const SpeculateResult r = live_of();
    audit_start(&a, K, 1e-3);
    audit_compare(&a, &t, &r, 2);
    assert_int_equal(a.row[2].rounds, 3);
    assert_int_equal(a.row[2].equal, 3);
    assert_int_equal(a.row[2].texts_equal, 1);
    assert_int_equal(a.row[2].near_rounds, 0);
    assert_true(audit_passed(&a));
}

static void a_round_that_differs_fails_the_gate(void **state) {
    (void)state;
    Audit a;
    Err err = {0};
    const AuditText t = text_of();
    const SpeculateResult r = live_of();
    live_rounds[1].accepted = 0, live_rounds[0].accepted = 1; // as if T = 4 had stopped early
    audit_start(&a, K, 1e-3);
    audit_compare(&a, &t, &r, 2);
    assert_int_equal(a.row[2].mismatches, 1);
    assert_false(audit_gate(&a, &err));
    assert_int_equal(err.code, ERR_GATE);
    assert_non_null(strstr(err.text, "T=4"));
}

static void a_near_tie_excuses_a_round(void **state) {
    (void)state;
    for (int where = 0; where < 3; where++) { // drafter live, drafter simulated, target
        Audit a;
        const AuditText t = text_of();
        const SpeculateResult r = live_of();
        live_rounds[0].accepted = 1;
        if (where == 0) live_rounds[0].margin[1] = 5e-4f;
        if (where == 1) margin[0 * K + 1] = 5e-4f;
        if (where == 2) live_rounds[0].verify_margin[1] = 5e-4f;
        audit_start(&a, K, 1e-3);
        audit_compare(&a, &t, &r, 2);
        assert_int_equal(a.row[2].near, 1);
        assert_int_equal(a.row[2].near_rounds, 1);
        assert_int_equal(a.row[2].mismatches, 0);
        assert_true(audit_passed(&a)); // one is always allowed
        audit_compare(&a, &t, &r, 2);
        assert_false(audit_passed(&a)); // two of six rounds are not
    }
}

static void a_gap_behind_the_first_difference_excuses_nothing(void **state) {
    (void)state;
    Audit a;
    const AuditText t = text_of();
    const SpeculateResult r = live_of();
    live_rounds[0].accepted = 0;
    live_rounds[0].margin[1] = 5e-4f;
    audit_start(&a, K, 1e-3);
    audit_compare(&a, &t, &r, 2);
    assert_int_equal(a.row[2].mismatches, 1);
}

static void texts_may_part_at_a_near_tie_only(void **state) {
    (void)state;
    for (int tie = 0; tie < 2; tie++) {
        Audit a;
        const AuditText t = text_of();
        const SpeculateResult r = live_of();
        live_ids[8] = 99; // the bonus of the round at T = 7
        if (tie) live_rounds[1].verify_margin[0] = 2e-4f;
        audit_start(&a, K, 1e-3);
        audit_compare(&a, &t, &r, 2);
        assert_int_equal(a.row[2].texts_near, tie);
        assert_int_equal(a.row[2].texts_differ, !tie);
        assert_int_equal(a.row[2].rounds, 1); // only what lies before the fork is compared
        assert_int_equal(audit_passed(&a), tie);
    }
}

static void the_table_names_every_count(void **state) {
    (void)state;
    Audit a;
    char *text = NULL;
    size_t size = 0;
    const AuditText t = text_of();
    const SpeculateResult r = live_of();
    audit_start(&a, K, 1e-3);
    audit_compare(&a, &t, &r, 2);
    json_t *o = audit_json(&a, "centroid");
    FILE *f = open_memstream(&text, &size);
    audit_markdown(f, o);
    fclose(f);
    assert_non_null(strstr(text, "| 2 | 3 | 3 | 0 | 0 | 1 | 1 | 0 | 0 |"));
    assert_non_null(strstr(text, "passed"));
    free(text);
    json_decref(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_rounds_pass),
        cmocka_unit_test(a_round_that_differs_fails_the_gate),
        cmocka_unit_test(a_near_tie_excuses_a_round),
        cmocka_unit_test(a_gap_behind_the_first_difference_excuses_nothing),
        cmocka_unit_test(texts_may_part_at_a_near_tie_only),
        cmocka_unit_test(the_table_names_every_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
