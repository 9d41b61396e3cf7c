// tests/data/regenerate_turns_e2e_test.c - conversations answered turn by turn by the demo target:
// each turn sees what was answered before, sequences are shared in training, rounds are resumed.
#include <math.h>
#include <unistd.h>

#include "data/regenerate_turns.h"
#include "infer/base/hash.h"
#include "infer/base/log.h"
#include "tests/data/prepare_helper.h"

enum { TALKS = 5, NEW_TOKENS = 40 };

static OpenTarget model;
static Tokenizer *tok;
static Written talks;

static int open_model(void **state) {
    (void)state;
    static const char *const of[] = {
        "A flashcard program with a graphical interface", "Development files of a sound library",
        "A text editor for the terminal", "Fonts for Tamil", "A driver of network cards"};
    char text[1 << 14], *at = text;
    Err err = {0};
    log_set_quiet(true);
    for (int i = 0; i < TALKS; i++)
        at +=
            sprintf(at,
                    "{\"id\":\"t%d\",\"turns\":[\"Which section fits this description?\\n\\n%s.\","
                    "\"Which section fits a game?\",\"Thanks\"]}\n",
                    i, of[i]);
    const char *more[] = {"model.target_path=" TARGET, "model.adapter_path=", "runtime.dtype=f32",
                          "runtime.threads=1",         "data.dev_fraction=0", NULL};
    Settings s = settings(save("t.jsonl", text), NULL, more);
    Prepared p = prepared(&s);
    talks = written(&p, SPLIT_TRAIN);
    tok = (Tokenizer *)tools(&s).tokenizer;
    prepared_free(&p);
    const bool ok = open_target(&model, &s, 64, &err);
    settings_free(&s);
    if (!ok) fprintf(stderr, "%s\n", err.text);
    return !ok;
}

static int close_model(void **state) {
    (void)state;
    chains_free(talks.chain, talks.n);
    close_target(&model);
    tokenizer_free(tok);
    return 0;
}

static RegenerateOptions options(double temperature, int samples) {
    return (RegenerateOptions){
        .generate = {.slots = 4,
                     .max_new_tokens = NEW_TOKENS,
                     .max_length = 400,
                     .prefill_rows = 64,
                     .sampler = {.temperature = temperature, .top_k = 20, .top_p = 0.95, .seed = 3},
                     .kv_dtype = DT_F32},
        .samples = samples,
        .group = 8,
        .tokenizer = tok,
        .identity = temperature > 0 ? "sampled" : "greedy",
        .what = "test"};
}

typedef struct {
    Sample *sample;
    int64_t n;
    RegenerateCount count;
    Sha256 sha;
} Answers;

static Answers answer(const char *name, bool join, double temperature, int samples) {
    char path[PATH_ROOM];
    Err err = {0};
    Answers a;
    const RegenerateOptions opt = options(temperature, samples);
    path_join(path, test_dir(), name);
    assert_ok(
        regenerate_turns(model.target, talks.chain, talks.n, &opt, join, path, &a.count, &err),
        err);
    assert_ok(samples_load(path, 8192, &a.sample, &a.n, &err), err);
    assert_ok(sha256_file(&a.sha, path, &err), err);
    return a;
}

static char *text_of(const int32_t *ids, int64_t n) {
    size_t size;
    return tokenizer_decode(tok, ids, (size_t)n, false, &size);
}

// The next prompt, written out from the answer's text, and the answer to that prompt alone.
static void follows(const Sample *before, const Sample *after, const char *user) {
    char *prompt = text_of(before->ids, before->prompt),
         *said = text_of(before->ids + before->prompt, before->n - before->prompt - 1);
    char *want, *got = text_of(after->ids, after->prompt), path[PATH_ROOM];
    size_t size;
    char *seen = chat_visible(said, strlen(said), &size);
    assert_true(asprintf(&want, "%s%s<turn|>\n<|turn>user\n%s<turn|>\n<|turn>model\n", prompt, seen,
                         user) > 0);
    assert_string_equal(got, want);
    Sample open = *after, *alone;
    open.n = open.prompt;
    const RegenerateOptions opt = options(0, 1);
    RegenerateCount count;
    int64_t n;
    Err err = {0};
    path_join(path, test_dir(), "alone.jsonl");
    assert_ok(regenerate(model.target, &open, 1, &opt, path, &count, &err), err);
    assert_ok(samples_load(path, 8192, &alone, &n, &err), err);
    assert_int_equal(n, 1);
    assert_int_equal(alone[0].n, after->n);
    assert_memory_equal(alone[0].ids, after->ids, (size_t)after->n * 4);
    samples_free(alone, n);
    free(seen);
    free(want);
    free(got);
    free(said);
    free(prompt);
}

static void every_turn_sees_the_answers_before_it(void **state) {
    (void)state;
    static const char *const user[] = {"", "Which section fits a game?", "Thanks"};
    Answers a = answer("apart.jsonl", false, 0, 1);
    int64_t turn = 0, deepest = 0, ended = 0;
    for (int64_t i = 0; i < a.n; i++) {
        const Sample *s = &a.sample[i];
        const bool first = i == 0 || strcmp(s->id, a.sample[i - 1].id) != 0;
        turn = first ? 0 : turn + 1;
        if (!first) follows(&a.sample[i - 1], s, user[turn]);
        if (turn > deepest) deepest = turn;
        ended += !s->stopped;
        for (int64_t t = 0; t < s->n; t++)
            assert_true((s->kind[t] >= TOKEN_MODEL) == (t >= s->prompt));
    }
    assert_true(deepest >= 1 && a.n > TALKS);
    assert_int_equal(a.count.prompts, TALKS);
    assert_int_equal(a.count.answers, a.n);
    assert_int_equal(a.count.cut, ended);
    samples_free(a.sample, a.n);
}

// Joined samples hold the same turns: each run of supervised tokens is one of them.
static void training_shares_sequences(void **state) {
    (void)state;
    Answers apart = answer("apart2.jsonl", false, 0, 1),
            joined = answer("joined.jsonl", true, 0, 1);
    int64_t runs = 0, tokens[2] = {0};
    assert_true(joined.n < apart.n);
    for (int64_t i = 0; i < joined.n; i++) {
        const Sample *s = &joined.sample[i];
        for (int64_t t = 1; t < s->n; t++) {
            runs += s->kind[t] >= TOKEN_MODEL && s->kind[t - 1] == TOKEN_CONTEXT;
            tokens[0] += s->kind[t] >= TOKEN_MODEL;
        }
    }
    for (int64_t i = 0; i < apart.n; i++) tokens[1] += apart.sample[i].n - apart.sample[i].prompt;
    assert_int_equal(runs, apart.n);
    assert_int_equal(tokens[0], tokens[1]);
    samples_free(apart.sample, apart.n);
    samples_free(joined.sample, joined.n);
}

static void several_answers_branch(void **state) {
    (void)state;
    Answers a = answer("sampled.jsonl", false, 1.0, 3), b = answer("again.jsonl", false, 1.0, 3);
    assert_string_equal(a.sha.hex, b.sha.hex);
    int64_t first[3] = {0};
    for (int64_t i = 0; i < a.n; i++) {
        assert_in_range(a.sample[i].sample, 0, 2);
        assert_true(a.sample[i].id[0] == 't' && !strchr(a.sample[i].id, '~'));
        first[a.sample[i].sample]++;
    }
    for (int k = 0; k < 3; k++) assert_true(first[k] >= TALKS - 1);
    samples_free(a.sample, a.n);
    samples_free(b.sample, b.n);
}

// A finished round is not answered again, and nothing of the rounds is left.
static void rounds_are_resumed(void **state) {
    (void)state;
    Answers a = answer("whole.jsonl", true, 0, 1);
    char path[PATH_ROOM], round[PATH_ROOM + 64];
    Err err = {0};
    RegenerateCount count;
    const RegenerateOptions opt = options(0, 1);
    Sample *prompt = malloc(TALKS * sizeof *prompt);
    for (int i = 0; i < TALKS; i++) prompt[i] = talks.chain[i].sample;
    path_join(path, test_dir(), "resumed.jsonl");
    snprintf(round, sizeof round, "%s.turn-0-%016llx", path,
             (unsigned long long)xxh3_64("greedy", strlen("greedy")));
    assert_ok(regenerate(model.target, prompt, TALKS, &opt, round, &count, &err), err);
    Answers b = answer("resumed.jsonl", true, 0, 1);
    assert_string_equal(a.sha.hex, b.sha.hex);
    assert_int_equal(a.count.answers, b.count.answers);
    int n;
    char **name = dir_list(test_dir(), &n, &err);
    for (int i = 0; i < n; i++)
        if (strstr(name[i], ".turn-") || strstr(name[i], ".journal")) fail_msg("left: %s", name[i]);
    dir_list_free(name, n);
    free(prompt);
    samples_free(a.sample, a.n);
    samples_free(b.sample, b.n);
}

// Rounds of other settings, or of single turns, are somebody's work.
static void rounds_of_other_settings_are_dropped_only_when_told(void **state) {
    (void)state;
    static const char *const left[] = {"other.jsonl.turn-0-0123456789abcdef",
                                       "other.jsonl.turn-1-0123456789abcdef.journal",
                                       "other.jsonl.journal"};
    char out[PATH_ROOM], path[PATH_ROOM];
    RegenerateCount count;
    RegenerateOptions opt = options(0, 1);
    path_join(out, test_dir(), "other.jsonl");
    for (int i = 0; i < 3; i++) {
        Err err = {0};
        path_join(path, test_dir(), left[i]);
        assert_ok(file_write(path, "work\n", 5, &err), err);
        assert_false(regenerate_turns(model.target, talks.chain, 1, &opt, true, out, &count, &err));
        assert_int_equal(err.code, ERR_USAGE);
        assert_non_null(strstr(err.text, left[i]));
        assert_true(file_exists(path) && !file_exists(out));
        opt.anew = true;
        err = (Err){0};
        assert_ok(regenerate_turns(model.target, talks.chain, 1, &opt, true, out, &count, &err),
                  err);
        assert_false(file_exists(path));
        assert_int_equal(unlink(out), 0);
        opt.anew = false;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_turn_sees_the_answers_before_it),
        cmocka_unit_test(training_shares_sequences),
        cmocka_unit_test(several_answers_branch),
        cmocka_unit_test(rounds_are_resumed),
        cmocka_unit_test(rounds_of_other_settings_are_dropped_only_when_told),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
