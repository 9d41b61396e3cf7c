// tests/infer/decode/twins_decode_e2e_test.c - decoding with CUDA graphs is decoding without them:
// the same tokens, rounds and margins to the last bit, while contexts grow, windows wrap and
// batches change.
#include "infer/decode/generate.h"
#include "tests/infer/decode/mini_pair.h"
#include "tests/infer/tensor/twins.h"

enum { JOBS = 4, NEW = 26, LENGTH = 100, ROUNDS = 32 };

typedef struct {
    int32_t prompt[80], answer[NEW];
    int64_t n, len, rounds;
    bool stopped;
    double min_margin;
    float first_margin;
    DraftRound round[ROUNDS];
} Item;

typedef struct {
    Item item[JOBS];
    int next, ended;
    int order[JOBS]; // in which they end
} Jobs;

static bool next_job(void *ctx, GenerateJob *job) {
    Jobs *j = ctx;
    if (j->next == JOBS) return false;
    Item *it = &j->item[j->next];
    *job =
        (GenerateJob){.user = it, .prompt = it->prompt, .n = it->n, .stream = (uint64_t)j->next++};
    return true;
}

static bool job_done(void *ctx, const GenerateDone *d, Err *err) {
    (void)err;
    Jobs *j = ctx;
    Item *it = d->user;
    assert_true(d->rounds <= ROUNDS);
    memcpy(it->answer, d->ids, (size_t)d->n * sizeof *d->ids);
    memcpy(it->round, d->round, (size_t)d->rounds * sizeof *d->round);
    it->len = d->n;
    it->rounds = d->rounds;
    it->stopped = d->stopped;
    it->min_margin = d->min_margin;
    it->first_margin = d->first_margin;
    j->order[j->ended++] = (int)(it - j->item);
    return true;
}

static MiniPair pair[2]; // F32, BF16

static int open_pairs(void **state) {
    (void)state;
    if (twin_gpu() == NULL) return 0;
    for (int i = 0; i < 2; i++) pair[i] = mini_pair_open_on(twin_gpu(), TWIN_FLOATS[i]);
    return 0;
}
static int close_pairs(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) mini_pair_close(&pair[i]);
    return 0;
}

static GenerateOptions options(int dtype, int64_t slots, int k) {
    return (GenerateOptions){.slots = slots,
                             .max_new_tokens = NEW,
                             .max_length = LENGTH,
                             .prefill_rows = 24, // windows of 8 rows wrap
                             .kv_dtype = TWIN_FLOATS[dtype],
                             .keep_rounds = true,
                             .draft = {.assistant = k > 0 ? pair[dtype].assistant : NULL,
                                       .k = k,
                                       .head = HEAD_CENTROID,
                                       .feature_dtype = TWIN_FLOATS[dtype]}};
}

// Prompts of many lengths, that it drafts well behind or not; answers end at different times.
static void fill(Jobs *j) {
    int32_t fitted[LENGTH];
    mini_fitted(fitted, LENGTH);
    *j = (Jobs){0};
    for (int i = 0; i < JOBS; i++) {
        Item *it = &j->item[i];
        it->n = 3 + 21 * i;
        mini_prompt(it->prompt, it->n, i);
        if (i % 3) memcpy(it->prompt, fitted, (size_t)it->n * sizeof *fitted);
    }
}

static bool same_round(const DraftRound *a, const DraftRound *b) {
    return a->T == b->T && a->wanted == b->wanted && a->drafted == b->drafted &&
           a->accepted == b->accepted && memcmp(a->draft, b->draft, sizeof a->draft) == 0 &&
           memcmp(a->margin, b->margin, sizeof a->margin) == 0 &&
           memcmp(a->verify_margin, b->verify_margin, sizeof a->verify_margin) == 0;
}

static void assert_same(const Jobs *a, const Jobs *b, const char *what) {
    assert_memory_equal(a->order, b->order, sizeof a->order);
    for (int i = 0; i < JOBS; i++) {
        const Item *x = &a->item[i], *y = &b->item[i];
        if (x->len != y->len || x->rounds != y->rounds || x->stopped != y->stopped ||
            memcmp(x->answer, y->answer, (size_t)x->len * sizeof *x->answer) != 0)
            fail_msg("%s: text %d differs", what, i);
        if (x->min_margin != y->min_margin || x->first_margin != y->first_margin)
            fail_msg("%s: margins of text %d differ", what, i);
        for (int64_t r = 0; r < x->rounds; r++)
            if (!same_round(&x->round[r], &y->round[r]))
                fail_msg("%s: round %lld of text %d differs", what, (long long)r, i);
    }
}

static void run(Generator *g, Jobs *j, const GenerateOptions *opt) {
    Err err = {0};
    fill(j);
    assert_ok(generator_run(g, opt, next_job, job_done, j, &err), err);
    assert_int_equal(j->ended, JOBS);
}

static Generator *generator(const MiniPair *p, const GenerateOptions *opt) {
    Err err = {0};
    Generator *g = generator_open(p->target, opt, &err);
    assert_ok(g != NULL, err);
    return g;
}

// One run without and one with graphs, on buffers of their own.
static DeviceGraphs both(const MiniPair *p, const GenerateOptions *opt, const char *what) {
    static Jobs plain, fast;
    dev_set_graphs(twin_gpu(), false);
    Generator *g = generator(p, opt);
    run(g, &plain, opt);
    generator_close(g);
    dev_set_graphs(twin_gpu(), true);
    g = generator(p, opt);
    const DeviceGraphs before = dev_graphs(twin_gpu());
    run(g, &fast, opt);
    const DeviceGraphs n = dev_graphs(twin_gpu());
    generator_close(g);
    assert_same(&plain, &fast, what);
    const DeviceGraphs d = {n.made - before.made, n.launched - before.launched,
                            n.by_hand - before.by_hand, n.exchanged - before.exchanged};
    print_message("%s: %d graphs, launched %d times, %d parts by hand, %d launches exchanged\n",
                  what, (int)d.made, (int)d.launched, (int)d.by_hand, (int)d.exchanged);
    return d;
}

static void greedy_decoding_is_the_same(void **state) {
    (void)state;
    twins_begin();
    const struct {
        int dtype, slots, k;
        double p_min;
    } turn[] = {{0, 1, 0, 0}, {1, 1, 0, 0}, {0, 1, 4, 0}, {1, 3, 2, 0}, {0, 3, 4, 0.4}};
    for (size_t i = 0; i < sizeof turn / sizeof *turn; i++) {
        char what[64];
        GenerateOptions opt = options(turn[i].dtype, turn[i].slots, turn[i].k);
        opt.draft.p_min = turn[i].p_min;
        opt.draft.head = i % 2 ? HEAD_DENSE : HEAD_CENTROID;
        snprintf(what, sizeof what, "%s, %d at once, %d drafts", dtype_name(opt.kv_dtype),
                 turn[i].slots, turn[i].k);
        const DeviceGraphs n = both(&pair[turn[i].dtype], &opt, what);
        assert_true(n.made > 0 && n.launched > n.by_hand && n.exchanged > n.launched);
    }
}

static void drawn_text_and_drafts_are_the_same(void **state) {
    (void)state;
    twins_begin();
    const DraftRule rules[] = {DRAFT_BEST, DRAFT_REJECTION};
    for (int r = 0; r < 2; r++) {
        GenerateOptions opt = options(0, 2, 3);
        opt.sampler = (Sampler){.temperature = 1.1, .top_k = 40, .top_p = 0.97, .seed = 21};
        opt.draft.rule = rules[r];
        assert_true(both(&pair[0], &opt, r ? "rejection" : "best").launched > 0);
    }
}

// K/V of another type than the features: their copies come behind the step.
static void drafts_from_copies_are_the_same(void **state) {
    (void)state;
    twins_begin();
    GenerateOptions opt = options(0, 2, 3);
    opt.draft.feature_dtype = DT_BF16;
    assert_true(both(&pair[0], &opt, "copies").launched > 0);
}

// One generator, run after run: graphs of an earlier run meet other lengths, p-min, heads, answers
// and, in between, scratch that has moved.
static void graphs_outlive_a_run(void **state) {
    (void)state;
    twins_begin();
    static Jobs plain, fast;
    const struct {
        int k;
        double p_min;
        Head head;
        int64_t most;
    } turn[] = {{4, 0, HEAD_CENTROID, NEW},
                {2, 0, HEAD_CENTROID, 12},
                {4, 0.5, HEAD_DENSE, NEW},
                {4, 0, HEAD_CENTROID, 17}};
    const GenerateOptions opened = options(0, 2, 4);
    Generator *off = generator(&pair[0], &opened), *on = generator(&pair[0], &opened);
    for (int i = 0; i < 4; i++) {
        GenerateOptions opt = options(0, 2, turn[i].k);
        opt.draft.p_min = turn[i].p_min;
        opt.draft.head = turn[i].head;
        opt.max_new_tokens = turn[i].most;
        dev_set_graphs(twin_gpu(), false); // forgets those of the other runs
        run(off, &plain, &opt);
        dev_set_graphs(twin_gpu(), true);
        for (int again = i == 0 || i == 3; again < 2; again++) {
            const Twin big = twin_random(DT_BF16, 700 * (i + 1), 500 + 100 * again, TWIN_PLAIN),
                       row = twin_random(DT_F32, 1, big.cpu.cols, TWIN_PLAIN),
                       y = twin_zeros(DT_F32, 1, big.cpu.rows, TWIN_PLAIN);
            const DeviceGraphs before = dev_graphs(twin_gpu());
            run(on, &fast, &opt);
            assert_same(&plain, &fast, "run after run");
            assert_true(dev_graphs(twin_gpu()).launched > before.launched);
            op_matmul_nt(twin_gpu(), y.gpu, row.gpu, big.gpu, 0.0f); // its scratch grows
        }
    }
    generator_close(off);
    generator_close(on);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_decoding_is_the_same),
        cmocka_unit_test(drawn_text_and_drafts_are_the_same),
        cmocka_unit_test(drafts_from_copies_are_the_same),
        cmocka_unit_test(graphs_outlive_a_run),
    };
    return cmocka_run_group_tests(tests, open_pairs, close_pairs);
}
