// tests/infer/decode/sampling_test.c - the warped distributions of transformers in float64.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "infer/decode/sampling.h"
#include "tests/testing.h"

static float row_of(const json_t *row, size_t i) {
    return (float)json_number_value(json_array_get(row, i));
}

static void check_case(const json_t *rows, const json_t *want, Dist *d) {
    const json_t *row = json_object_get(rows, json_string_value(json_object_get(want, "row")));
    const int64_t n = (int64_t)json_array_size(row);
    assert_true(n > 0);
    float *logits = malloc((size_t)n * sizeof *logits);
    for (int64_t i = 0; i < n; i++) logits[i] = row_of(row, (size_t)i);
    const Sampler s = {.temperature = json_number_value(json_object_get(want, "temperature")),
                       .top_k = json_integer_value(json_object_get(want, "top_k")),
                       .top_p = json_number_value(json_object_get(want, "top_p"))};
    dist_from_logits(d, logits, n, &s);
    const json_t *ids = json_object_get(want, "ids"), *probs = json_object_get(want, "probs");
    const int64_t survivors = json_integer_value(json_object_get(want, "survivors"));
    assert_int_equal(d->n, survivors);
    double sum = 0.0;
    for (int64_t i = 0; i < d->n; i++) {
        sum += d->p[i];
        assert_true(i == 0 || d->id[i] > d->id[i - 1]);
        if (json_is_true(json_object_get(want, "tie_at_cut"))) continue;
        assert_int_equal(d->id[i], json_integer_value(json_array_get(ids, (size_t)i)));
        const double p = json_number_value(json_array_get(probs, (size_t)i));
        if (fabs(d->p[i] - p) > 1e-12)
            fail_msg("id %d: %.17g, expected %.17g", d->id[i], d->p[i], p);
    }
    assert_true(fabs(sum - 1.0) < 1e-12);
    free(logits);
}

static void distributions_equal_those_of_the_official_warpers(void **state) {
    (void)state;
    json_error_t where;
    json_t *all = json_load_file(test_golden("sampling.json"), 0, &where);
    if (all == NULL) {
        print_message("[ SKIPPED ] no sampling.json in this golden set\n");
        skip();
    }
    const json_t *cases = json_object_get(all, "processed");
    assert_true(json_array_size(cases) > 0);
    Dist d = {0};
    size_t i;
    json_t *one;
    json_array_foreach(cases, i, one) check_case(json_object_get(all, "rows"), one, &d);
    print_message("%zu warped rows compared\n", json_array_size(cases));
    dist_free(&d);
    json_decref(all);
}

// The straightforward O(n log n) rule, against the partial sorts on a large row.
static const float *by_logit;
static int ascending(const void *pa, const void *pb) {
    const int32_t a = *(const int32_t *)pa, b = *(const int32_t *)pb;
    if (by_logit[a] != by_logit[b]) return by_logit[a] < by_logit[b] ? -1 : 1;
    return a < b ? -1 : a > b;
}

static void large_rows_keep_what_a_full_sort_keeps(void **state) {
    (void)state;
    enum { V = 20001 };
    static float z[V];
    static int32_t order[V];
    Dist d = {0};
    const double top_p[] = {0.1, 0.5, 0.9, 0.999, 0.9999999};
    for (int shape = 0; shape < 3; shape++) {
        const Tensor x = test_random(DT_F32, 1, V);
        for (int v = 0; v < V; v++) { // wide, flat, and with many ties
            const float g = ((const float *)x.data)[v];
            z[v] = shape == 0 ? 6 * g : shape == 1 ? 0.01f * g : roundf(2 * g);
            order[v] = v;
        }
        by_logit = z;
        qsort(order, V, sizeof *order, ascending);
        for (size_t t = 0; t < sizeof top_p / sizeof *top_p; t++) {
            double total = 0.0, mass = 0.0;
            for (int v = 0; v < V; v++) total += exp((double)z[v] - z[order[V - 1]]);
            int cut = 0;
            while (cut < V - 1) {
                mass += exp((double)z[order[cut]] - z[order[V - 1]]) / total;
                if (mass > 1.0 - top_p[t]) break;
                cut++;
            }
            const Sampler s = {.temperature = 1.0, .top_p = top_p[t]};
            dist_from_logits(&d, z, V, &s);
            assert_in_range(d.n, V - cut - 1,
                            V - cut + 1); // sums in another order: one token may differ
            if (shape < 2 && d.n == V - cut) {
                by_logit = z;
                for (int64_t i = 0; i < d.n; i++) assert_true(z[d.id[i]] >= z[order[cut]]);
            }
        }
    }
    dist_free(&d);
}

// Logits of some tokens in any order beside a row that has -infinity for all others, to the bit.
static void some_tokens_are_a_row_without_the_others(void **state) {
    (void)state;
    enum { V = 9000, N = 700 };
    static float row[V], z[N];
    static int32_t token[N];
    Dist whole = {0}, some = {0};
    const int64_t top_k[] = {0, 1, 20, 64, 300, N, 5000};
    const double top_p[] = {1, 0.95, 0.3};
    int64_t compared = 0;
    for (int turn = 0; turn < 6; turn++) {
        const int64_t n = turn < 3 ? N : 100;
        const Tensor x = test_random(DT_F32, 1, N);
        for (int v = 0; v < V; v++) row[v] = -INFINITY;
        for (int64_t i = 0; i < n; i++) { // wide, with ties, some impossible
            const float g = ((const float *)x.data)[i];
            token[i] = (int32_t)(i * 5003 % V);
            z[i] = i % 11 == 3     ? -INFINITY
                   : turn % 3 == 0 ? 5 * g
                                   : roundf(2 * g) + (turn % 3) * 0.1f;
            row[token[i]] = z[i];
        }
        for (int c = 0; c < 7 * 3; c++) {
            const Sampler s = {.temperature = 0.8, .top_k = top_k[c / 3], .top_p = top_p[c % 3]};
            dist_from_logits(&whole, row, V, &s);
            dist_from_some(&some, z, token, n, &s);
            assert_int_equal(some.n, whole.n);
            assert_true(some.n > 0);
            assert_memory_equal(some.id, whole.id, (size_t)whole.n * sizeof *whole.id);
            assert_memory_equal(some.p, whole.p, (size_t)whole.n * sizeof *whole.p);
            compared += whole.n;
        }
    }
    print_message("%lld survivors compared\n", (long long)compared);
    assert_true(compared > 5000);
    z[0] = NAN;
    const Sampler s = {.temperature = 1, .top_k = 5, .top_p = 1};
    dist_from_some(&some, z, token, 100, &s);
    assert_int_equal(some.n, 0);
    dist_free(&whole);
    dist_free(&some);
}

static void picks_follow_the_probabilities(void **state) {
    (void)state;
    const float z[5] = {0.0f, logf(2.0f), -INFINITY, logf(5.0f), 0.0f};
    const Sampler s = {.temperature = 1.0, .top_p = 1.0};
    Dist d = {0};
    dist_from_logits(&d, z, 5, &s);
    assert_int_equal(d.n, 4);
    assert_int_equal(dist_pick(&d, 0.0), 0);
    assert_int_equal(dist_pick(&d, 0.1110), 0);
    assert_int_equal(dist_pick(&d, 0.1112), 1);
    assert_int_equal(dist_pick(&d, 0.3334), 3);
    assert_int_equal(dist_pick(&d, 0.8888), 3);
    assert_int_equal(dist_pick(&d, 0.9999), 4);
    assert_int_equal(dist_pick(&d, nextafter(1.0, 0.0)), 4);
    dist_free(&d);
}

static void a_row_without_a_distribution_has_no_survivor(void **state) {
    (void)state;
    const float nan_row[2] = {0.0f, NAN}, nothing[2] = {-INFINITY, -INFINITY};
    const Sampler s = {.temperature = 0.5, .top_k = 1, .top_p = 0.5};
    Dist d = {0};
    dist_from_logits(&d, nan_row, 2, &s);
    assert_int_equal(d.n, 0);
    dist_from_logits(&d, nothing, 2, &s);
    assert_int_equal(d.n, 0);
    dist_free(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distributions_equal_those_of_the_official_warpers),
        cmocka_unit_test(large_rows_keep_what_a_full_sort_keeps),
        cmocka_unit_test(some_tokens_are_a_row_without_the_others),
        cmocka_unit_test(picks_follow_the_probabilities),
        cmocka_unit_test(a_row_without_a_distribution_has_no_survivor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
