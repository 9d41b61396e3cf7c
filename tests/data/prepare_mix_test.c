// tests/data/prepare_mix_test.c - how many samples of each source are taken: weights and limits.
#include <math.h>

#include "infer/base/log.h"
#include "tests/data/prepare_helper.h"

static void quota_is(const double *weight, const int64_t *there, int n, int64_t limit,
                     const int64_t *want) {
    int64_t quota[8];
    prepare_quota(quota, weight, there, n, limit);
    for (int i = 0; i < n; i++)
        if (quota[i] != want[i])
            fail_msg("limit %d: source %d gives %d, not %d", (int)limit, i, (int)quota[i],
                     (int)want[i]);
}
#define QUOTA(limit, n, weights, there, want)                                                      \
    quota_is((const double[])weights, (const int64_t[])there, n, limit, (const int64_t[])want)
#define L(...)                                                                                     \
    { __VA_ARGS__ }

static void quotas_follow_the_weights(void **state) {
    (void)state;
    QUOTA(100, 2, L(3, 1), L(1000, 1000), L(75, 25));
    QUOTA(10, 3, L(1, 1, 1), L(100, 100, 100), L(4, 3, 3)); // the largest remainder, then the first
    QUOTA(7, 3, L(0.5, 0.25, 0.25), L(9, 9, 9), L(3, 2, 2));
    QUOTA(1, 2, L(1, 3), L(9, 9), L(0, 1));
    // what a small source cannot give, the others do
    QUOTA(100, 2, L(1, 1), L(10, 1000), L(10, 90));
    QUOTA(100, 3, L(2, 1, 1), L(20, 15, 1000), L(20, 15, 65));
    QUOTA(100, 2, L(1, 1), L(10, 20), L(10, 20));
    QUOTA(5, 2, L(1, 1), L(0, 20), L(0, 5));
    // without a limit the source that is used up first sets the size
    QUOTA(0, 2, L(3, 1), L(90, 1000), L(90, 30));
    QUOTA(0, 2, L(1, 1), L(7, 7), L(7, 7));
    QUOTA(0, 3, L(1, 1, 2), L(0, 10, 10), L(0, 5, 10));
    QUOTA(0, 1, L(2), L(10), L(10));
}

// Whatever the sizes: never more than there is, the limit reached when it can be, near the shares.
static void quotas_add_up(void **state) {
    (void)state;
    uint32_t r = 12345;
    for (int round = 0; round < 2000; round++) {
        double weight[5];
        int64_t there[5], quota[5], all = 0, sum = 0;
        const int n = 1 + (int)((r = r * 1664525u + 1013904223u) >> 16) % 5;
        for (int i = 0; i < n; i++) {
            weight[i] = 0.1 + ((r = r * 1664525u + 1013904223u) >> 20) % 50;
            there[i] = ((r = r * 1664525u + 1013904223u) >> 16) % 200;
            all += there[i];
        }
        const int64_t limit = ((r = r * 1664525u + 1013904223u) >> 16) % 400;
        prepare_quota(quota, weight, there, n, limit);
        for (int i = 0; i < n; i++) {
            assert_in_range(quota[i], 0, there[i]);
            sum += quota[i];
        }
        if (limit > 0) assert_int_equal(sum, limit < all ? limit : all);
        for (int i = 0; i < n && limit > 0; i++)
            for (int k = 0; k < n; k++) // who gives less than his share gives all he has
                if (quota[i] < there[i])
                    assert_true((double)(quota[k] - 1) / weight[k] <=
                                (double)(quota[i] + 1) / weight[i] + 1e-9);
    }
}

static char *made(const char *name, int n, int offset) {
    static char text[1 << 18];
    char *at = text, id[32], user[64];
    for (int i = 0; i < n; i++) {
        snprintf(id, sizeof id, "%s%d", name, i);
        snprintf(user, sizeof user, "Question %d?", offset + i);
        at = item(at, id, user, NULL);
    }
    char file[64];
    snprintf(file, sizeof file, "%s.jsonl", name);
    return save(file, text);
}

// "a 30 b 10": samples of each source in a split.
static char *mix(const char *train, const char *const *more, Split split) {
    static char out[128];
    Settings s = settings(train, NULL, more);
    Prepared p = prepared(&s);
    Written w = written(&p, split);
    int count[3] = {0};
    for (int64_t i = 0; i < w.n; i++) count[w.chain[i].sample.source[0] - 'a']++;
    snprintf(out, sizeof out, "a %d b %d c %d", count[0], count[1], count[2]);
    chains_free(w.chain, w.n);
    prepared_free(&p);
    settings_free(&s);
    return out;
}

static void sources_are_mixed_by_weight(void **state) {
    (void)state;
    char a[PATH_ROOM], b[PATH_ROOM], both[3 * PATH_ROOM];
    strcpy(a, made("a", 200, 0));
    strcpy(b, made("b", 100, 1000));
    const char *most[] = {"data.max_samples=40", "data.dev_fraction=0", NULL},
               *all[] = {"data.dev_fraction=0", NULL};
    snprintf(both, sizeof both, "%s=3,%s", a, b);
    assert_string_equal(mix(both, most, SPLIT_TRAIN), "a 30 b 10 c 0");
    assert_string_equal(mix(both, all, SPLIT_TRAIN), "a 200 b 66 c 0");
    snprintf(both, sizeof both, "%s,%s=9", a, b);
    assert_string_equal(mix(both, most, SPLIT_TRAIN), "a 4 b 36 c 0");
    const char *dev[] = {"data.dev_fraction=0.5", "data.dev_samples=20", NULL};
    assert_string_equal(mix(both, dev, SPLIT_DEV), "a 2 b 18 c 0");
    snprintf(both, sizeof both, "%s,%s", a, b); // no weights: as large as they are
    int na = 0, nb = 0;
    assert_int_equal(sscanf(mix(both, most, SPLIT_TRAIN), "a %d b %d", &na, &nb), 2);
    assert_int_equal(na + nb, 40);
    assert_in_range(na, 20, 34);
}

// The same seed takes the same samples; another one others of the same number.
static void what_is_taken_is_a_function_of_the_seed(void **state) {
    (void)state;
    char both[3 * PATH_ROOM], a[PATH_ROOM], first[3][128];
    strcpy(a, made("a", 50, 0));
    snprintf(both, sizeof both, "%s=1,%s=1", a, made("b", 50, 1000));
    for (int turn = 0; turn < 3; turn++) {
        const char *more[] = {"data.max_samples=10", turn == 2 ? "data.seed=5" : "data.seed=4",
                              "data.dev_fraction=0", NULL};
        Settings s = settings(both, NULL, more);
        Prepared p = prepared(&s);
        Written w = written(&p, SPLIT_TRAIN);
        assert_int_equal(w.n, 10);
        first[turn][0] = '\0';
        for (int i = 0; i < 10; i++) {
            strcat(first[turn], w.chain[i].sample.id);
            strcat(first[turn], " ");
        }
        chains_free(w.chain, w.n);
        prepared_free(&p);
        settings_free(&s);
    }
    assert_string_equal(first[0], first[1]);
    assert_string_not_equal(first[0], first[2]);
}

static void every_source_is_counted_apart(void **state) {
    (void)state;
    char all[3 * PATH_ROOM], path[PATH_ROOM], odd[2048], *at = odd;
    at = item(at, "x", "Question 3?", NULL); // asked in a, too
    at = item(at, "y", "Only here", NULL);
    sprintf(at, "{\"id\":\"z\"}\n");
    strcpy(path, made("a", 10, 0));
    snprintf(all, sizeof all, "%s,%s", path, save("b.jsonl", odd));
    const char *more[] = {"data.dev_fraction=0", "data.max_samples=9", NULL};
    Settings s = settings(all, NULL, more);
    Prepared p = prepared(&s);
    const PrepareCount *a = &p.count[INPUT_TRAIN][0].items, *b = &p.count[INPUT_TRAIN][1].items;
    assert_int_equal(a->in, 10);
    assert_int_equal(a->out + a->over_limit, 10);
    assert_int_equal(b->in, 3);
    assert_int_equal(b->duplicate, 1);
    assert_int_equal(b->failed, 1);
    assert_int_equal(b->out + b->over_limit, 1);
    assert_int_equal(a->out + b->out, 9);
    json_t *o = prepared_json(&p), *sources = json_object_get(o, "sources");
    assert_int_equal(json_array_size(sources), 2);
    json_t *second = json_array_get(sources, 1);
    assert_string_equal(json_string_value(json_object_get(second, "source")), "b.jsonl");
    assert_int_equal(json_integer_value(json_object_get(second, "skipped")),
                     b->duplicate + b->over_limit);
    json_decref(o);
    prepared_free(&p);
    settings_free(&s);
}

int main(void) {
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotas_follow_the_weights),
        cmocka_unit_test(quotas_add_up),
        cmocka_unit_test(sources_are_mixed_by_weight),
        cmocka_unit_test(what_is_taken_is_a_function_of_the_seed),
        cmocka_unit_test(every_source_is_counted_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
