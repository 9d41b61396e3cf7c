// tests/eval/quant/allocate_test.c - widths chosen from tables made by hand.
#include "eval/quant/allocate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/testing.h"

enum { MOST = 64 };

typedef struct {
    Component c[MOST];
    int n;
} Table;
static char names[MOST][64]; // of the table at hand

static uint32_t state;
static uint32_t next(void) {
    return state = (state * 1103515245u + 12345u) & 0x7fffffffu;
}

static void add(Table *t, const char *name, int64_t params, double base, const int *bits, int n) {
    Component *c = &t->c[t->n];
    snprintf(names[t->n], sizeof names[0], "%s", name);
    *c = (Component){.name = names[t->n], .params = params, .widths = n};
    for (int i = 0; i < n; i++) {
        c->bits[i] = bits[i];
        c->bytes[i] = params * bits[i] / 8;
        c->kl[i] = base / (double)(1 << bits[i]);
    }
    t->n++;
}

// Blocks of attention modules and two of the MLP, then pre_projection; KL halves with every bit.
static Table table_of(int blocks, int attention, uint32_t seed) {
    static const char *const two[] = {"q_proj", "o_proj"}, *const four[] = {"q_proj", "k_proj",
                                                                            "v_proj", "o_proj"};
    static const int odd[] = {4, 8}, even[] = {2, 3, 4, 6};
    const int *bits = seed % 2 ? odd : even, n = seed % 2 ? 2 : 4;
    Table t = {0};
    char name[64];
    state = seed;
    for (int b = 0; b < blocks; b++)
        for (int m = 0; m < attention + 2; m++) {
            const char *mlp = m == attention ? "down_proj" : "up_proj";
            const double base = next() % 1000 + 1;
            if (m < attention)
                snprintf(name, sizeof name, "model.layers.%d.self_attn.%s", b,
                         attention == 2 ? two[m] : four[m]);
            else
                snprintf(name, sizeof name, "model.layers.%d.mlp.%s", b, mlp);
            add(&t, name, (next() % 4 + 1) * 1024, base, bits, n);
        }
    const double base = next() % 1000 + 1;
    add(&t, "pre_projection", 4096, base, bits, n);
    t.c[2].kl[0] = NAN;
    return t;
}

// The expected widths come from a program of its own, written from the rules with a heap.
static void optiq_rules_are_reproduced(void **state_) {
    (void)state_;
    static const struct {
        int blocks, attention;
        uint32_t seed;
        double target, bpw;
        const char *width;
    } cases[] = {
        {4, 2, 1, 5.0, 5.692308, "10101000100001100"},
        {9, 4, 3, 5.8, 6.024096, "1111110011101010001010001011000101000011000110011111110"},
        {9, 2, 2, 2.4, 2.473684, "1120101001001000101001000100010120111"},
        {4, 2, 4, 3.9, 3.916667, "22330100020023333"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const Table t = table_of(cases[i].blocks, cases[i].attention, cases[i].seed);
        OptiqRules r = OPTIQ_RULES;
        int width[MOST];
        char got[MOST + 1] = "";
        r.target_bpw = cases[i].target;
        allocate_optiq(t.c, t.n, &r, width);
        for (int k = 0; k < t.n; k++) got[k] = (char)('0' + width[k]);
        assert_string_equal(got, cases[i].width);
        assert_true(fabs(allocation_bpw(t.c, t.n, width) - cases[i].bpw) < 1e-6);
    }
}

// Two modules of 1000 weights at 4, 5 and 6 bits: 500, 625 and 750 bytes.
static Table pair_of(const double a[3], const double b[3]) {
    static const int bits[] = {4, 5, 6};
    Table t = {0};
    add(&t, "a", 1000, 1, bits, 3);
    add(&t, "b", 1000, 1, bits, 3);
    memcpy(t.c[0].lost, a, 3 * sizeof *a);
    memcpy(t.c[1].lost, b, 3 * sizeof *b);
    return t;
}

static void expect_tokens(const Table *t, int64_t bytes, int a, int b) {
    int width[2];
    allocate_tokens(t->c, t->n, bytes, width);
    if (width[0] != a || width[1] != b)
        fail_msg("%lld bytes: widths %d %d, expected %d %d", (long long)bytes, width[0], width[1],
                 a, b);
    assert_true(allocation_bytes(t->c, t->n, width) <= bytes);
}

static void tokens_go_where_a_byte_wins_most(void **state_) {
    (void)state_;
    const Table t = pair_of((double[]){0.4, 0.1, 0.0}, (double[]){0.2, 0.1, 0.05});
    expect_tokens(&t, 1000, 0, 0);
    expect_tokens(&t, 1124, 0, 0);
    expect_tokens(&t, 1125, 1, 0); // 0.3 for 125 bytes before 0.1
    expect_tokens(&t, 1250, 2, 0); // then 0.1 each: by name
    expect_tokens(&t, 1375, 2, 1);
    expect_tokens(&t, 5000, 2, 2);
}

static void a_width_that_wins_nothing_is_passed_over(void **state_) {
    (void)state_;
    const Table t = pair_of((double[]){0.4, 0.4, 0.0}, (double[]){0.15, 0.0, 0.0});
    expect_tokens(&t, 1125, 0, 1); // a's next useful step does not fit
    expect_tokens(&t, 1250, 2, 0); // 0.4 for 250 bytes before 0.15 for 125
    expect_tokens(&t, 1375, 2, 1);
}

static void noise_does_not_buy_bytes(void **state_) {
    (void)state_;
    // a got worse with a fifth bit: 0.2 for 0, and 1 bits more, then nothing
    const Table t = pair_of((double[]){0.1, 0.3, 0.0}, (double[]){0.5, 0.1, -0.1});
    expect_tokens(&t, 1125, 0, 1); // 0.4 for 125 bytes
    expect_tokens(&t, 1250, 0, 2); // 0.1 for 125 bytes before 0.2 for 250, by name; and it fits
    expect_tokens(&t, 1500, 2, 2);
}

static void what_is_left_goes_by_divergence(void **state_) {
    (void)state_;
    Table t = pair_of((double[]){0, 0, 0}, (double[]){0, 0, 0});
    t.c[0].kl[0] = 0.1, t.c[0].kl[1] = 0.09, t.c[0].kl[2] = 0.08;
    t.c[1].kl[0] = 0.5, t.c[1].kl[1] = 0.1, t.c[1].kl[2] = 0.05;
    expect_tokens(&t, 1125, 0, 1);
    expect_tokens(&t, 1250, 0, 2);
}

// Two widths of two modules; the second one's loss drowns in its error.
static void noise_is_read_by_divergence(void **state_) {
    (void)state_;
    static const int bits[] = {4, 5, 6};
    Table t = {0};
    double loss[2][ALLOCATE_WIDTHS];
    add(&t, "a", 1000, 1, bits, 2);
    add(&t, "b", 1000, 1, bits, 2);
    const double kl[2][2] = {{0.1, 0.05}, {0.2, 0.01}}, lost[2][2] = {{0.3, 0.1}, {-0.5, 0.4}},
                 se[2][2] = {{0.1, 0.1}, {1.0, 1.0}};
    double both = 0, squares = 0;
    for (int i = 0; i < 2; i++)
        for (int w = 0; w < 2; w++) {
            t.c[i].kl[w] = kl[i][w], t.c[i].lost[w] = lost[i][w], t.c[i].se[w] = se[i][w];
            both += kl[i][w] * lost[i][w] / (se[i][w] * se[i][w]);
            squares += kl[i][w] * kl[i][w] / (se[i][w] * se[i][w]);
        }
    const double b = both / squares;
    expected_loss(t.c, 2, loss);
    assert_true(b > 2 && b < 4);
    for (int i = 0; i < 2; i++)
        for (int w = 0; w < 2; w++) {
            const double said = b * kl[i][w],
                         share = said * said / (said * said + se[i][w] * se[i][w]);
            assert_true(fabs(loss[i][w] - (share * lost[i][w] + (1 - share) * said)) < 1e-12);
        }
    assert_true(loss[1][0] > 0.1); // not -0.5
    t.c[1].se[0] = 0;              // exact
    expected_loss(t.c, 2, loss);
    assert_true(loss[1][0] == -0.5);
    // losses that fall as the KL grows: nothing is predicted
    for (int i = 0; i < 2; i++)
        for (int w = 0; w < 2; w++) t.c[i].lost[w] = -1, t.c[i].se[w] = 1;
    expected_loss(t.c, 2, loss);
    assert_true(loss[0][0] == 0 && loss[1][1] == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(optiq_rules_are_reproduced),
        cmocka_unit_test(tokens_go_where_a_byte_wins_most),
        cmocka_unit_test(a_width_that_wins_nothing_is_passed_over),
        cmocka_unit_test(noise_does_not_buy_bytes),
        cmocka_unit_test(what_is_left_goes_by_divergence),
        cmocka_unit_test(noise_is_read_by_divergence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
