// tests/infer/decode/draft_test.c - many sequences with drafts at once: greedy text is the
// target's, samples do not depend on slots, p-min cuts drafts.
#include <math.h>
#include <stdio.h>

#include "infer/decode/generate.h"
#include "tests/infer/decode/mini_pair.h"

enum { JOBS = 11, NEW = 40, LENGTH = 100 };

static MiniPair pair;
static int32_t fitted[LENGTH]; // the text that the miniature assistant was fitted to

static int open_pair(void **state) {
    (void)state;
    pair = mini_pair_open();
    mini_fitted(fitted, LENGTH);
    return 0;
}
static int close_pair(void **state) {
    (void)state;
    mini_pair_close(&pair);
    return 0;
}

typedef struct {
    int32_t prompt[80], answer[NEW];
    int64_t n, len;
    bool stopped;
    double min_margin;
} Item;

typedef struct {
    Item *item;
    int n, next;
    Acceptance count;
} Jobs;

static bool next_job(void *ctx, GenerateJob *job) {
    Jobs *j = ctx;
    if (j->next == j->n) return false;
    Item *it = &j->item[j->next];
    *job =
        (GenerateJob){.user = it, .prompt = it->prompt, .n = it->n, .stream = (uint64_t)j->next++};
    return true;
}

static bool job_done(void *ctx, const GenerateDone *d, Err *err) {
    (void)err;
    Jobs *j = ctx;
    Item *it = d->user;
    memcpy(it->answer, d->ids, (size_t)d->n * sizeof *d->ids);
    it->len = d->n;
    it->stopped = d->stopped;
    it->min_margin = d->min_margin;
    rounds_count(&j->count, d->round, d->rounds, it->n + d->n);
    if (d->rounds > 0) assert_int_equal(d->round[0].T, it->n);
    return true;
}

static GenerateOptions options(int64_t slots, int k) {
    return (GenerateOptions){
        .slots = slots,
        .max_new_tokens = NEW,
        .max_length = LENGTH,
        .prefill_rows = MINI_ROWS,
        .kv_dtype = DT_F32,
        .keep_rounds = true,
        .draft = {
            .assistant = pair.assistant, .k = k, .head = HEAD_CENTROID, .feature_dtype = DT_F32}};
}

static Jobs run(Item *item, const GenerateOptions *opt) {
    Err err = {0};
    Jobs j = {.item = item, .n = JOBS};
    for (int i = 0; i < JOBS; i++) { // prompts that it drafts well behind, and others
        item[i] = (Item){.n = 3 + 7 * i};
        mini_prompt(item[i].prompt, item[i].n, i);
        if (i % 3) memcpy(item[i].prompt, fitted, (size_t)item[i].n * sizeof *fitted);
    }
    assert_ok(generate_run(pair.target, opt, next_job, job_done, &j, &err), err);
    return j;
}

// On the CPU a row's bits do not depend on the rows beside it. On a GPU keys are split by the
// number of rows.
static double margin_noise(void) {
    return strcmp(test_env()->dev->kind, "cpu") == 0 ? 0.0 : 1e-4;
}

static int differing(const Item *a, const Item *b) {
    int n = 0;
    for (int i = 0; i < JOBS; i++)
        n += a[i].len != b[i].len || a[i].stopped != b[i].stopped ||
             memcmp(a[i].answer, b[i].answer, (size_t)a[i].len * sizeof *a[i].answer) != 0;
    return n;
}

// Text that parts from another one is a finding unless the target was as good as undecided.
static void assert_same_text(const Item *plain, const Item *fast, const char *what) {
    for (int i = 0; i < JOBS; i++)
        if (plain[i].len != fast[i].len || plain[i].stopped != fast[i].stopped ||
            memcmp(plain[i].answer, fast[i].answer, (size_t)fast[i].len * 4) != 0)
            fail_msg("%s: text %d differs (smallest margin %.3g)", what, i, plain[i].min_margin);
}

static void greedy_text_is_that_of_the_target_alone(void **state) {
    (void)state;
    static Item plain[JOBS], fast[JOBS];
    const int64_t slots[] = {1, 3, 8};
    const int drafts[] = {1, 4, 9};
    const DType dtypes[] = {DT_F32, DT_BF16};
    GenerateOptions opt = options(3, 0);
    run(plain, &opt);
    for (int i = 0; i < 18; i++) {
        char what[64];
        opt = options(slots[i % 3], drafts[i / 3 % 3]);
        opt.draft.feature_dtype = dtypes[i / 9]; // BF16: through copies of the K/V
        opt.draft.head = i % 2 ? HEAD_DENSE : HEAD_CENTROID;
        const Jobs j = run(fast, &opt);
        snprintf(what, sizeof what, "%d slots, %d drafts", (int)opt.slots, opt.draft.k);
        assert_same_text(plain, fast, what);
        assert_true(j.count.accepted > 0 && j.count.drafted == opt.draft.k * j.count.rounds);
        int64_t tokens = 0;
        for (int k = 0; k < JOBS; k++) {
            tokens += fast[k].len - (fast[k].len > 0);
            if (fast[k].len > 0)
                assert_true(fabs(fast[k].min_margin - plain[k].min_margin) <= margin_noise());
        }
        assert_int_equal(j.count.tokens, tokens);
    }
}

// Long prompts go through the sliding window's compaction, which drafts must survive.
static void prompts_wait_while_others_draft(void **state) {
    (void)state;
    static Item plain[JOBS], fast[JOBS];
    GenerateOptions opt = options(2, 0);
    run(plain, &opt);
    opt = options(5, 3);
    opt.prefill_rows = 20; // 5 answers with 3 drafts leave nothing
    run(fast, &opt);
    assert_same_text(plain, fast, "20 rows");
}

static const Sampler warm = {.temperature = 1.1, .top_k = 40, .top_p = 0.97, .seed = 21};

static void samples_do_not_depend_on_slots(void **state) {
    (void)state;
    static Item a[JOBS], b[JOBS];
    const DraftRule rules[] = {DRAFT_BEST, DRAFT_STRICT, DRAFT_REJECTION};
    for (int r = 0; r < 3; r++) {
        GenerateOptions opt = options(1, 4);
        opt.sampler = warm;
        opt.draft.rule = rules[r];
        opt.draft.p_min = r == 2 ? 0.05 : 0;
        const Jobs one = run(a, &opt);
        for (int64_t slots = 3; slots <= 8; slots += 5) {
            opt.slots = slots;
            const Jobs many = run(b, &opt);
            assert_int_equal(differing(a, b), 0);
            assert_memory_equal(&one.count, &many.count, sizeof one.count);
        }
        assert_true(one.count.accepted > 0 && one.count.accepted < one.count.drafted);
    }
}

// Two of the rules let the target draw as it does alone.
static void samples_of_two_rules_are_those_of_the_target_alone(void **state) {
    (void)state;
    static Item plain[JOBS], fast[JOBS];
    GenerateOptions opt = options(3, 0);
    opt.sampler = warm;
    run(plain, &opt);
    for (int k = 1; k <= 7; k += 3) {
        opt = options(4, k);
        opt.sampler = warm;
        for (int r = 0; r < 2; r++) {
            opt.draft.rule = r ? DRAFT_STRICT : DRAFT_BEST;
            run(fast, &opt);
            assert_same_text(plain, fast, r ? "strict" : "best");
        }
        opt.draft.rule = DRAFT_REJECTION;
        run(fast, &opt);
        assert_true(differing(plain, fast) > 0); // the same distribution, other texts
    }
}

static void p_min_ends_drafts_and_changes_no_text(void **state) {
    (void)state;
    static Item plain[JOBS], fast[JOBS];
    GenerateOptions opt = options(3, 0);
    run(plain, &opt);
    int64_t drafted = INT64_MAX;
    double rate = 0.0;
    const double p_min[] = {1e-9, 0.3, 0.6, 0.9, 1.1};
    for (int i = 0; i < 5; i++) {
        opt = options(3, 7);
        opt.draft.p_min = p_min[i];
        const Jobs j = run(fast, &opt);
        assert_same_text(plain, fast, "p-min");
        if (i == 0) assert_int_equal(j.count.drafted, 7 * j.count.rounds);
        if (i == 4) assert_int_equal(j.count.drafted, 0);
        assert_true(j.count.drafted < drafted);
        drafted = j.count.drafted;
        if (drafted == 0) continue;
        const double now = (double)j.count.accepted / (double)drafted;
        assert_true(now > rate); // what is left is surer
        rate = now;
    }
}

// A drafter that is always wrong, or draws nonsense: everything falls and the text stands.
static void a_bad_drafter_costs_nothing_but_time(void **state) {
    (void)state;
    static Item plain[JOBS], fast[JOBS];
    GenerateOptions opt = options(3, 0);
    run(plain, &opt);
    Tensor post = pair.assistant->w.norm;
    float *w = post.data, *kept = malloc((size_t)post.cols * sizeof *kept);
    memcpy(kept, w, (size_t)post.cols * sizeof *kept);
    for (int64_t i = 0; i < post.cols; i++) w[i] = -kept[i]; // the least likely token first
    opt = options(3, 4);
    const Jobs j = run(fast, &opt);
    memcpy(w, kept, (size_t)post.cols * sizeof *kept);
    free(kept);
    assert_same_text(plain, fast, "adversarial");
    print_message("adversarial: %lld of %lld drafts accepted\n", (long long)j.count.accepted,
                  (long long)j.count.drafted);
    assert_true(20 * j.count.accepted < j.count.drafted); // under 5 %
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_text_is_that_of_the_target_alone),
        cmocka_unit_test(prompts_wait_while_others_draft),
        cmocka_unit_test(samples_do_not_depend_on_slots),
        cmocka_unit_test(samples_of_two_rules_are_those_of_the_target_alone),
        cmocka_unit_test(p_min_ends_drafts_and_changes_no_text),
        cmocka_unit_test(a_bad_drafter_costs_nothing_but_time),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
