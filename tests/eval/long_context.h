// tests/eval/long_context.h - one long text through capture, training and eval of the program:
// memory as announced, results whatever the chunk. Bodies are here for a short and a long test.
#ifndef TESTS_LONG_CONTEXT_H
#define TESTS_LONG_CONTEXT_H

#include "data/capture.h"
#include "infer/base/rng.h"
#include "infer/text/chat.h"
#include "tests/eval/verb_run.h"

#define LONG_PAIR                                                                                  \
    "-c configs/demo.json eval.audit_prompts=0 eval.draft_tokens=3 "                               \
    "eval.select_k=3 "
#define LONG_TEXT "configs/demo/prompts/german-facts.train.jsonl.zst"

// Real text, one prompt behind the other, all of it but 16 tokens the model's turn.
static void long_ids(Sample *s, int64_t n, int64_t skip) {
    Err err = {0};
    Ids ids = {0};
    Tokenizer *t = open_tokenizer("configs/demo/base-target", 8192, &err);
    assert_ok(t != NULL, err);
    Corpus *c = corpus_open(LONG_TEXT, &err);
    assert_ok(c != NULL, err);
    CorpusLine line;
    while ((int64_t)ids.n < n + skip && corpus_next(c, &line, &err) > 0) {
        char *text = json_dumps(json_object_get(line.value, "messages"), JSON_COMPACT);
        tokenizer_encode(t, text, strlen(text), false, &ids);
        free(text);
    }
    corpus_close(c);
    tokenizer_free(t);
    assert_true((int64_t)ids.n >= n + skip);
    memcpy(s->ids, ids.id + skip, (size_t)n * sizeof *s->ids);
    ids_free(&ids);
}

static void long_split(const char *dir, const char *split, int64_t n, int64_t skip) {
    char path[PATH_ROOM], name[64];
    Err err = {0};
    Sample s = {.n = n, .prompt = 16, .min_margin = -1};
    snprintf(s.id, sizeof s.id, "long-%s", split);
    strcpy(s.source, "text");
    strcpy(s.sampler, "greedy"); // for eval, which takes no text but the target's
    s.ids = malloc((size_t)n * sizeof *s.ids);
    s.kind = calloc((size_t)n, 1);
    memset(s.kind + s.prompt, TOKEN_MODEL, (size_t)(n - s.prompt));
    long_ids(&s, n, skip);
    snprintf(name, sizeof name, "regen/%s.jsonl", split);
    assert_ok(dir_make(path_join(path, dir, "regen"), &err), err);
    assert_ok(samples_save(path_join(path, dir, name), &s, 1, &err), err);
    sample_free(&s);
}

static char *long_dir(const char *name, int64_t tokens) {
    static char path[4][PATH_ROOM];
    static int turn;
    char *dir = path_join(path[turn++ % 4], test_dir(), name);
    long_split(dir, "train", tokens, 0);
    long_split(dir, "dev", 400, tokens);
    long_split(dir, "eval", tokens, 1000);
    return dir;
}

// The largest "memory N MiB" that a dry run printed.
static double announced_in(const char *text) {
    double most = 0, mib;
    for (const char *p = text; (p = strstr(p, "memory")) != NULL; p++)
        if (sscanf(p + strlen("memory"), "%*[: ]%lf MiB", &mib) == 1 && mib > most) most = mib;
    return most;
}

// A stage that has run took no more than a tenth above what its dry run said, nor far less.
static void assert_memory(const char *dir, const char *stage, double said) {
    json_t *record = read_json(dir, "memory.json");
    const json_t *o = at(record, stage);
    const double announced = number(o, "announced_mib"), peak = number(o, "peak_mib");
    print_message("compared: %s: dry run %.1f MiB, announced %.1f, peak %.1f\n", stage, said,
                  announced, peak);
    assert_true(said > 0 && peak > 0);
    if (peak > 1.1 * said || peak > 1.1 * announced || said > 1.5 * peak)
        fail_msg("%s took %.1f MiB, its dry run said %.1f", stage, peak, said);
    json_decref(record);
}

static void long_stage(const char *dir, const char *stage, const char *settings) {
    Said said = run("%s --dry-run " LONG_PAIR "output_dir=%s %s", stage, dir, settings);
    assert_status(said, 0);
    const double mib = announced_in(said.out);
    said = run("%s -q " LONG_PAIR "output_dir=%s %s", stage, dir, settings);
    assert_status(said, 0);
    if (strstr(said.err, "warning: capture took") != NULL) fail_msg("%s", said.err);
    assert_memory(dir, stage, mib);
}

static inline CapturedSeq long_read(const char *dir) {
    char path[PATH_ROOM];
    Err err = {0};
    CapturedSeq c;
    const ShardMeta any = {0};
    ShardSet *set = shards_open(path_join(path, dir, "shards/eval"), &any, &err);
    assert_ok(set != NULL, err);
    assert_ok(shards_read(set, 0, &c, &err), err);
    shards_close(set);
    return c;
}

// Products of oneDNN give a row the same bits among any others; of another library nearly.
static inline void assert_same_rows(const char *what, const bf16 *a, const bf16 *b, int64_t n,
                                    bool bits) {
    double off = 0, sum = 0;
    int64_t differ = 0;
    for (int64_t i = 0; i < n; i++) {
        const double x = bf16_to_f32(a[i]), d = x - bf16_to_f32(b[i]);
        differ += a[i].bits != b[i].bits;
        off += d * d;
        sum += x * x;
    }
    print_message("compared: %s: %lld of %lld values differ, NMSE %.2g\n", what, (long long)differ,
                  (long long)n, off / sum);
    assert_true(sum > 0 && (bits ? differ == 0 : off / sum < 1e-6));
}

static inline void note_products(void *ctx, const char *name, const char *value) {
    if (strcmp(name, "f32 products") == 0) *(bool *)ctx = strcmp(value, "oneDNN") == 0;
}

static inline void assert_same_capture(const char *dir_a, const char *dir_b) {
    CapturedSeq a = long_read(dir_a), b = long_read(dir_b);
    bool bits = false;
    dev_describe(test_env()->dev, note_products, &bits);
    assert_int_equal(a.sample.n, b.sample.n);
    assert_int_equal(a.bare, b.bare);
    assert_same_rows("hidden", a.hidden, b.hidden, (a.sample.n - a.bare) * 256, bits);
    assert_same_rows("sliding keys", a.k[0], b.k[0], a.sample.n * 128, bits);
    assert_same_rows("full values", a.v[1], b.v[1], a.sample.n * 256, bits);
    captured_free(&a);
    captured_free(&b);
}

#endif
