// tests/infer/decode/generate_test.c - many answers at once are the answers one by one.
#include <math.h>
#include <stdlib.h>

#include "infer/decode/generate.h"
#include "infer/decode/sampling.h"
#include "infer/decode/speculate.h"
#include "tests/infer/decode/mini_pair.h"

enum { JOBS = 9, NEW = 24, PICKS = 4000 };

static MiniPair pair;

static int open_pair(void **state) {
    (void)state;
    pair = mini_pair_open();
    return 0;
}
static int close_pair(void **state) {
    (void)state;
    mini_pair_close(&pair);
    return 0;
}

typedef struct {
    int32_t prompt[60];
    int64_t n;
    int32_t answer[NEW];
    int64_t len;
    bool stopped;
    double min_margin;
    int done;
} Item;

typedef struct {
    Item *item;
    int n, next, finished, stop_after;
    bool same_prompt;
} Jobs;

static bool next_job(void *ctx, GenerateJob *job) {
    Jobs *j = ctx;
    if (j->next == j->n) return false;
    Item *it = &j->item[j->same_prompt ? 0 : j->next];
    *job = (GenerateJob){
        .user = &j->item[j->next], .prompt = it->prompt, .n = it->n, .stream = (uint64_t)j->next};
    j->next++;
    return true;
}

static bool job_done(void *ctx, const GenerateDone *d, Err *err) {
    Jobs *j = ctx;
    Item *it = d->user;
    memcpy(it->answer, d->ids, (size_t)d->n * sizeof *d->ids);
    it->len = d->n;
    it->stopped = d->stopped;
    it->min_margin = d->min_margin;
    it->done++;
    return ++j->finished != j->stop_after || err_set(err, ERR_STOPPED, "enough");
}

static GenerateOptions options(int64_t slots, int64_t rows) {
    return (GenerateOptions){.slots = slots,
                             .max_new_tokens = NEW,
                             .max_length = 70,
                             .prefill_rows = rows,
                             .kv_dtype = DT_F32};
}

static void fill(Item *item) {
    for (int i = 0; i < JOBS; i++) {
        item[i] = (Item){.n = 3 + 7 * i};
        mini_prompt(item[i].prompt, item[i].n, i);
    }
}

static void run(Item *item, const GenerateOptions *opt) {
    Err err = {0};
    Jobs j = {.item = item, .n = JOBS};
    assert_ok(generate_run(pair.target, opt, next_job, job_done, &j, &err), err);
    assert_int_equal(j.finished, JOBS);
    for (int i = 0; i < JOBS; i++) assert_int_equal(item[i].done, 1);
}

static void check_alone(Speculator *s, const Item *it) {
    Err err = {0};
    SpeculateResult r;
    const int64_t room = 70 - it->n < NEW ? 70 - it->n : NEW;
    const SpeculateOptions opt = {.max_new_tokens = room};
    assert_ok(speculate(s, &opt, it->prompt, it->n, &r, &err), err);
    assert_int_equal(it->len, r.n - r.first);
    assert_memory_equal(it->answer, r.ids + r.first, (size_t)it->len * sizeof *it->answer);
    assert_int_equal(it->stopped, r.stopped);
    assert_true(it->min_margin >= 0 && it->min_margin <= r.first_margin + 1e-4);
    speculate_result_free(&r);
}

static void batched_answers_equal_single_ones(void **state) {
    (void)state;
    Err err = {0};
    const SpeculatorOptions so = {.capacity = 80, .chunk = 64, .kv_dtype = DT_F32};
    Speculator *s = speculator_open(pair.target, NULL, &so, &err);
    assert_ok(s, err);
    const int64_t slots[] = {1, 3, 16}, rows[] = {5, 64, 150};
    static Item item[JOBS];
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++) {
            if (rows[b] < slots[a]) continue;
            const GenerateOptions opt = options(slots[a], rows[b]);
            fill(item);
            run(item, &opt);
            for (int i = 0; i < JOBS; i++) check_alone(s, &item[i]);
        }
    speculator_close(s);
}

static void a_prompt_without_room_gets_no_answer(void **state) {
    (void)state;
    static Item item[JOBS];
    GenerateOptions opt = options(2, 64);
    opt.max_length = 38; // prompts of 3, 10, .. 59
    fill(item);
    run(item, &opt);
    for (int i = 0; i < JOBS; i++) {
        const int64_t room = 38 - item[i].n;
        assert_true(item[i].len <= (room > 0 ? room : 0));
        assert_int_equal(item[i].len == 0, room <= 0);
        assert_false(item[i].stopped && item[i].len == 0);
    }
}

static void samples_depend_on_seed_and_stream_alone(void **state) {
    (void)state;
    static Item a[JOBS], b[JOBS], c[JOBS];
    GenerateOptions opt = options(4, 64);
    opt.sampler = (Sampler){.temperature = 1.0, .top_k = 64, .top_p = 0.95, .seed = 11};
    fill(a), fill(b), fill(c);
    run(a, &opt);
    opt.slots = 2;
    opt.prefill_rows = 9;
    run(b, &opt);
    opt.sampler.seed = 12;
    run(c, &opt);
    int differ = 0;
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(a[i].len, b[i].len);
        assert_memory_equal(a[i].answer, b[i].answer, (size_t)a[i].len * sizeof *a[i].answer);
        differ +=
            a[i].len != c[i].len || memcmp(a[i].answer, c[i].answer, (size_t)a[i].len * 4) != 0;
    }
    assert_true(differ > JOBS / 2);
}

// Logits behind the last token of a prompt.
static void logits_of(const Item *it, float *out) {
    Err err = {0};
    Env *env = test_env();
    const TargetConfig *tc = target_config(pair.target);
    const TargetPiece piece = {.count = it->n};
    const size_t mark = arena_mark(&env->arena);
    const Tensor hidden = tensor_take(&env->arena, DT_F32, it->n, tc->text.hidden);
    KvCache *kv = kv_open(env->dev, &tc->text, 1, 64, 64, false, DT_F32, &err);
    assert_ok(kv, err);
    target_forward(pair.target, kv, &piece, 1, it->prompt, hidden, NULL);
    target_logits(pair.target, tensor_of(out, DT_F32, 1, tc->text.vocab),
                  tensor_rows(hidden, it->n - 1, 1));
    kv_close(kv);
    arena_reset(&env->arena, mark);
}

static void sampled_tokens_follow_the_distribution(void **state) {
    (void)state;
    Err err = {0};
    static Item item[PICKS];
    float logits[1024];
    GenerateOptions opt = options(100, 150);
    opt.max_new_tokens = 1;
    opt.sampler = (Sampler){.temperature = 1.5, .top_k = 12, .top_p = 0.98, .seed = 3};
    item[0].n = 6;
    mini_prompt(item[0].prompt, 6, 5);
    Jobs j = {.item = item, .n = PICKS, .same_prompt = true};
    assert_ok(generate_run(pair.target, &opt, next_job, job_done, &j, &err), err);
    logits_of(&item[0], logits);
    Dist d = {0};
    dist_from_logits(&d, logits, target_config(pair.target)->text.vocab, &opt.sampler);
    assert_true(d.n > 3 && d.n <= 12);
    double chi2 = 0.0;
    int64_t seen = 0;
    for (int64_t v = 0; v < d.n; v++) {
        int64_t count = 0;
        for (int i = 0; i < PICKS; i++) count += item[i].answer[0] == d.id[v];
        chi2 += pow((double)count - PICKS * d.p[v], 2) / (PICKS * d.p[v]);
        seen += count;
    }
    assert_int_equal(seen, PICKS);
    if (chi2 > 40.0)
        fail_msg("chi-square %.1f with %lld degrees of freedom", chi2, (long long)d.n - 1);
    dist_free(&d);
}

static void the_caller_can_stop_the_run(void **state) {
    (void)state;
    Err err = {0};
    static Item item[JOBS];
    const GenerateOptions opt = options(2, 64);
    Jobs j = {.item = item, .n = JOBS, .stop_after = 3};
    fill(item);
    assert_false(generate_run(pair.target, &opt, next_job, job_done, &j, &err));
    assert_int_equal(err.code, ERR_STOPPED);
    assert_int_equal(j.finished, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batched_answers_equal_single_ones),
        cmocka_unit_test(a_prompt_without_room_gets_no_answer),
        cmocka_unit_test(samples_depend_on_seed_and_stream_alone),
        cmocka_unit_test(sampled_tokens_follow_the_distribution),
        cmocka_unit_test(the_caller_can_stop_the_run),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
