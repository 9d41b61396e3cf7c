// tests/infer/decode/suppress_test.c - ids of suppress_tokens are chosen by nobody: not greedily,
// not by sampling, not live; the text is the best of the others.
#include "infer/base/file.h"
#include "infer/decode/generate.h"
#include "infer/decode/speculate.h"
#include "tests/infer/decode/mini_pair.h"

enum { PROMPTS = 6, NEW = 20, PROMPT = 11, LEAST = 3 };

static MiniPair plain, strict;
static int64_t banned[PROMPTS + 1];
static int bans;

typedef struct {
    int32_t prompt[PROMPT], answer[NEW];
    int64_t n;
} Item;

static Item *items;
static int asked;

static bool next_item(void *ctx, GenerateJob *out) {
    Item *it = ctx;
    if (asked == PROMPTS) return false;
    it += asked;
    mini_prompt(it->prompt, PROMPT, asked);
    *out = (GenerateJob){.user = it, .prompt = it->prompt, .n = PROMPT, .stream = (uint64_t)asked};
    asked++;
    return true;
}

static bool item_done(void *ctx, const GenerateDone *d, Err *err) {
    (void)ctx;
    (void)err;
    Item *it = d->user;
    it->n = d->n;
    memcpy(it->answer, d->ids, (size_t)d->n * sizeof *d->ids);
    return true;
}

static void generate(Target *t, Item *out, double temperature) {
    Err err = {0};
    const GenerateOptions opt = {.slots = 4,
                                 .max_new_tokens = NEW,
                                 .max_length = 64,
                                 .prefill_rows = 32,
                                 .sampler = {.temperature = temperature, .top_p = 1, .seed = 5},
                                 .kv_dtype = DT_F32};
    asked = 0;
    assert_ok(generate_run(t, &opt, next_item, item_done, out, &err), err);
}

static bool is_banned(int32_t id) {
    for (int i = 0; i < bans; i++)
        if (banned[i] == id) return true;
    return false;
}

// A folder like the miniature's, but for generation_config.json: what the plain target says first
// is suppressed.
static int open_both(void **state) {
    (void)state;
    static Item said[PROMPTS];
    char from[PATH_ROOM], to[PATH_ROOM], dir[PATH_ROOM], list[256] = "";
    Err err = {0};
    plain = mini_pair_open();
    items = calloc(PROMPTS, sizeof *items);
    generate(plain.target, said, 0);
    for (int i = 0; i < PROMPTS; i++)
        if (!is_banned(said[i].answer[0])) {
            banned[bans++] = said[i].answer[0];
            sprintf(list + strlen(list), "%s%d", bans > 1 ? "," : "", said[i].answer[0]);
        }
    path_join(dir, test_dir(), "strict");
    static const char *const files[] = {"config.json", "model.safetensors"};
    bool ok = dir_make(dir, &err);
    for (int i = 0; i < 2 && ok; i++)
        ok = file_copy(path_join(from, "tests/golden/e2b/target", files[i]),
                       path_join(to, dir, files[i]), &err);
    char *text;
    assert_true(asprintf(&text, "{\"eos_token_id\":[1,106,50],\"suppress_tokens\":[%s]}", list) >
                0);
    ok = ok && file_write(path_join(to, dir, "generation_config.json"), text, strlen(text), &err);
    free(text);
    assert_ok(ok, err);
    const TargetOptions opt = {.dir = dir, .dtype = DT_F32, .max_rows = MINI_ROWS};
    strict = plain;
    assert_ok(strict.target = target_open(test_env()->dev, &opt, &err), err);
    return 0;
}

static int close_both(void **state) {
    (void)state;
    target_close(strict.target);
    mini_pair_close(&plain);
    free(items);
    return 0;
}

// The best id that is allowed behind these, from all logits.
static int32_t best_allowed(const int32_t *ids, int64_t n) {
    Err err = {0};
    Env *env = test_env();
    const TextConfig *c = &target_config(plain.target)->text;
    const TargetPiece piece = {.count = n};
    const size_t mark = arena_mark(&env->arena);
    const Tensor hidden = tensor_take(&env->arena, DT_F32, n, c->hidden);
    KvCache *kv = kv_open(env->dev, c, 1, 64, 64, false, DT_F32, &err);
    assert_ok(kv, err);
    const Tensor logits = tensor_take(&env->arena, DT_F32, 1, c->vocab);
    const float *z = logits.data;
    target_forward(plain.target, kv, &piece, 1, ids, hidden, NULL);
    target_logits(plain.target, logits, tensor_rows(hidden, n - 1, 1));
    kv_close(kv);
    int32_t best = -1;
    for (int32_t v = 0; v < c->vocab; v++)
        if (!is_banned(v) && (best < 0 || z[v] > z[best])) best = v;
    arena_reset(&env->arena, mark);
    return best;
}

static void greedy_text_is_the_best_of_the_others(void **state) {
    (void)state;
    assert_true(bans >= LEAST);
    generate(strict.target, items, 0);
    for (int i = 0; i < PROMPTS; i++) {
        int32_t ids[PROMPT + NEW];
        memcpy(ids, items[i].prompt, sizeof items[i].prompt);
        for (int64_t t = 0; t < items[i].n; t++) {
            assert_int_equal(items[i].answer[t], best_allowed(ids, PROMPT + t));
            ids[PROMPT + t] = items[i].answer[t];
        }
    }
}

static void live_decoding_writes_the_same_text(void **state) {
    (void)state;
    Err err = {0};
    const SpeculatorOptions so = {
        .k_max = 4, .capacity = 80, .chunk = 64, .feature_dtype = DT_F32, .kv_dtype = DT_F32};
    Speculator *s = speculator_open(strict.target, strict.assistant, &so, &err);
    assert_ok(s, err);
    generate(strict.target, items, 0);
    int64_t drafted = 0;
    for (int i = 0; i < PROMPTS; i++)
        for (int k = 0; k <= 4; k += 4) {
            SpeculateResult r;
            const SpeculateOptions opt = {.k = k, .max_new_tokens = NEW};
            assert_ok(speculate(s, &opt, items[i].prompt, PROMPT, &r, &err), err);
            assert_int_equal(r.n - r.first, items[i].n);
            assert_memory_equal(r.ids + r.first, items[i].answer, (size_t)items[i].n * 4);
            for (int64_t j = 0; j < r.rounds; j++)
                for (int d = 0; d < k; d++) drafted += is_banned(r.round[j].draft[d]);
            speculate_result_free(&r);
        }
    assert_true(drafted > 0); // a draft may be any id, and was rejected
    speculator_close(s);
}

static void sampling_draws_none_of_them(void **state) {
    (void)state;
    int64_t plain_says = 0;
    generate(plain.target, items, 1.0);
    for (int i = 0; i < PROMPTS; i++)
        for (int64_t t = 0; t < items[i].n; t++) plain_says += is_banned(items[i].answer[t]);
    assert_true(plain_says > 0);
    generate(strict.target, items, 1.0);
    for (int i = 0; i < PROMPTS; i++)
        for (int64_t t = 0; t < items[i].n; t++) assert_false(is_banned(items[i].answer[t]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_text_is_the_best_of_the_others),
        cmocka_unit_test(live_decoding_writes_the_same_text),
        cmocka_unit_test(sampling_draws_none_of_them),
    };
    return cmocka_run_group_tests(tests, open_both, close_both);
}
