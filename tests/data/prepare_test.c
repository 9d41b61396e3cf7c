// tests/data/prepare_test.c - every item is accounted for; train, dev and eval share no prompt.
#include <stdlib.h>
#include <string.h>

#include "data/prepare.h"
#include "data/prepare_cmd.h"
#include "infer/base/hash.h"
#include "infer/base/log.h"
#include "tests/testing.h"

#define TARGET "configs/demo/base-target"

static PrepareTools tools(void) {
    static Tokenizer *t;
    Err err = {0};
    if (!t) t = open_tokenizer(TARGET, 8192, &err);
    assert_ok(t, err);
    return (PrepareTools){.tokenizer = t, .chat_template = CHAT_SMALL_2026_07};
}

static char *item(char *out, const char *id, const char *user, const char *answer) {
    out += sprintf(out, "{\"id\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}", id,
                   user);
    if (answer) out += sprintf(out, ",{\"role\":\"assistant\",\"content\":\"%s\"}", answer);
    return out + sprintf(out, "]}\n");
}

static char *save(const char *name, const char *text) {
    static char path[4][PATH_ROOM];
    static int turn;
    Err err = {0};
    char *p = path_join(path[turn++ % 4], test_dir(), name);
    assert_ok(file_write(p, text, strlen(text), &err), err);
    return p;
}

// Settings with two inputs; a NULL means none. Caller frees with settings_free.
static Settings settings(const char *train, const char *eval, const char *more) {
    Settings s;
    Err err = {0};
    char line[5][PATH_ROOM + 64];
    snprintf(line[0], sizeof line[0], "data.train=%s", train ? train : "");
    snprintf(line[1], sizeof line[1], "data.eval=%s", eval ? eval : "");
    snprintf(line[2], sizeof line[2], "output_dir=%s/out", test_dir());
    snprintf(line[3], sizeof line[3], "data.dev_fraction=0.3");
    snprintf(line[4], sizeof line[4], "%s", more ? more : "data.seed=1");
    // the defaults are the demo's: its caps on samples would hide what is counted here
    char *const list[] = {
        "data.max_samples=0", "data.dev_samples=0", line[0], line[1], line[2], line[3], line[4]};
    assert_ok(settings_load(&s, NULL, list, 7, &err), err);
    return s;
}

static uint64_t prompt_hash(const Sample *s) {
    return xxh3_64(s->ids, (size_t)s->prompt * 4);
}

static void splits_are_disjoint_and_everything_is_counted(void **state) {
    (void)state;
    char *train = calloc(1, 1 << 20), *at = train, eval[8192], *to = eval, id[16], user[64];
    for (int i = 0; i < 200; i++) {
        snprintf(id, sizeof id, "t%d", i);
        snprintf(user, sizeof user, "Question number %d?", i % 190); // ten repeat
        at = item(at, id, user, i % 2 ? "An answer." : NULL);
    }
    at += sprintf(at, "{\"id\":\"nothing\"}\n\n{\"id\":\"odd\",\"messages\":\"text\"}\n");
    for (int i = 0; i < 25; i++) { // five of them are asked in training, too
        snprintf(id, sizeof id, "e%d", i);
        snprintf(user, sizeof user, i < 5 ? "Question number %d?" : "Exam %d?", i);
        to = item(to, id, user, i == 2 ? "Answer of the exam." : NULL);
    }
    Settings s = settings(save("train.jsonl", train), save("eval.jsonl", eval), NULL);
    const PrepareTools with = tools();
    Prepared p;
    Err err = {0};
    assert_ok(prepare_all(&p, &s, &with, &err), err);
    assert_int_equal(p.train.in, 202);
    assert_int_equal(p.train.in_eval, 10); // 0..4, and 0..4 again: repeated prompts of eval
    assert_int_equal(p.train.duplicate, 5);
    assert_int_equal(p.train.failed, 2);
    assert_int_equal(p.train.out, 185);
    assert_int_equal(p.eval.in, 25);
    assert_int_equal(p.eval.out, 25);
    assert_int_equal(json_array_size(p.rejected), 17);
    assert_int_equal(p.split[SPLIT_TRAIN].n + p.split[SPLIT_DEV].n, 185);
    assert_in_range(p.split[SPLIT_DEV].n, 30, 85);
    const int64_t n = 210;
    uint64_t seen[210], k = 0;
    for (int i = 0; i < SPLIT_COUNT; i++)
        for (int64_t j = 0; j < p.split[i].n; j++) {
            const Sample *x = &p.split[i].sample[j];
            assert_int_equal(x->prompt, x->n); // the target answers
            for (int64_t t = 0; t < x->n; t++) assert_int_equal(x->kind[t], TOKEN_CONTEXT);
            seen[k++] = prompt_hash(x);
        }
    assert_int_equal(k, n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < i; j++) assert_true(seen[i] != seen[j]);
    json_decref(prepared_json(&p)); // CHECKs in = out + skipped + failed
    prepared_free(&p);
    settings_free(&s);
    free(train);
}

// Position says nothing: the same items in another order, with others between them, split alike.
static void the_split_depends_on_the_prompt_alone(void **state) {
    (void)state;
    char a[32768], b[65536], *x = a, *y = b, user[64];
    for (int i = 0; i < 100; i++) {
        snprintf(user, sizeof user, "Question %d?", i);
        x = item(x, "q", user, NULL);
        snprintf(user, sizeof user, "Question %d?", 99 - i);
        y = item(y, "q", user, "With an answer now.");
        snprintf(user, sizeof user, "Another %d?", i);
        y = item(y, "other", user, NULL);
    }
    const char *text[2] = {a, b};
    uint64_t dev[2][100];
    int64_t found[2] = {0, 0};
    const PrepareTools with = tools();
    for (int turn = 0; turn < 2; turn++) {
        Settings s = settings(save("t.jsonl", text[turn]), NULL, NULL);
        Prepared p;
        Err err = {0};
        assert_ok(prepare_all(&p, &s, &with, &err), err);
        for (int64_t i = 0; i < p.split[SPLIT_DEV].n; i++) {
            const Sample *m = &p.split[SPLIT_DEV].sample[i];
            if (!strcmp(m->id, "q")) dev[turn][found[turn]++] = prompt_hash(m);
        }
        prepared_free(&p);
        settings_free(&s);
    }
    assert_int_equal(found[0], found[1]);
    assert_true(found[0] > 10);
    for (int64_t i = 0; i < found[0]; i++) {
        bool there = false;
        for (int64_t j = 0; j < found[1]; j++) there |= dev[0][i] == dev[1][j];
        assert_true(there);
    }
}

static void given_answers_are_kept_for_training_only_when_asked(void **state) {
    (void)state;
    char text[65536], *at = text, user[64];
    for (int i = 0; i < 100; i++) {
        snprintf(user, sizeof user, "Question %d?", i);
        at = item(at, "q", user, i % 2 ? "Thirteen rabbits." : NULL);
    }
    Settings s = settings(save("t.jsonl", text), NULL, "regenerate.answers=reference");
    const PrepareTools with = tools();
    Prepared p;
    Err err = {0};
    assert_ok(prepare_all(&p, &s, &with, &err), err);
    int64_t kept = 0;
    for (int64_t i = 0; i < p.split[SPLIT_DEV].n; i++)
        assert_int_equal(p.split[SPLIT_DEV].sample[i].prompt, p.split[SPLIT_DEV].sample[i].n);
    for (int64_t i = 0; i < p.split[SPLIT_TRAIN].n; i++) {
        const Sample *m = &p.split[SPLIT_TRAIN].sample[i];
        if (m->prompt == m->n) continue;
        kept++;
        assert_string_equal(m->sampler, "reference");
        size_t size;
        char *answer = tokenizer_decode(with.tokenizer, m->ids + m->prompt,
                                        (size_t)(m->n - m->prompt), false, &size);
        assert_string_equal(answer, "Thirteen rabbits.<turn|>");
        free(answer);
        for (int64_t t = 0; t < m->n; t++)
            assert_int_equal(m->kind[t], t < m->prompt ? TOKEN_CONTEXT : TOKEN_MODEL);
    }
    assert_in_range(kept, 20, 50);
    prepared_free(&p);
    settings_free(&s);
}

static void long_items_and_those_beyond_the_limit_are_skipped(void **state) {
    (void)state;
    char text[65536], *at = text, user[512];
    for (int i = 0; i < 60; i++) {
        snprintf(user, sizeof user, "%d %.*s", i, i < 10 ? 400 : 5,
                 "one two three four five six seven eight nine ten one two three four five six "
                 "seven eight nine ten "
                 "one two three four five six seven eight nine ten one two three four five six "
                 "seven eight nine ten "
                 "one two three four five six seven eight nine ten one two three four five six "
                 "seven eight nine ten "
                 "one two three four five six seven eight nine ten one two three four five six "
                 "seven eight nine ten");
        at = item(at, "q", user, NULL);
    }
    const PrepareTools with = tools();
    Err err = {0};
    Settings s = settings(save("t.jsonl", text), NULL, "data.max_length=40");
    Prepared p;
    assert_ok(prepare_all(&p, &s, &with, &err), err);
    assert_int_equal(p.train.too_long, 10);
    assert_int_equal(p.train.out, 50);
    prepared_free(&p);
    s.data.max_samples = 7;
    assert_ok(prepare_all(&p, &s, &with, &err), err);
    assert_int_equal(p.split[SPLIT_TRAIN].n, 7);
    assert_int_equal(p.train.in, p.train.out + p.train.too_long + p.train.over_limit);
    prepared_free(&p);
    settings_free(&s);
}

static void unusable_inputs_are_named(void **state) {
    (void)state;
    const PrepareTools with = tools();
    const struct {
        const char *text, *said;
    } bad[] = {
        {"", "t.jsonl: no prompts in it"},
        {"\n \n", "t.jsonl: no prompts in it"},
        {"{\"messages\":[]}\nx\n", "t.jsonl:2: not a JSON object"},
        {"{\"text\":\"a\"}\n", "t.jsonl:1: no list of \"messages\""},
        {"{\"id\":[],\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n", "\"id\" is neither"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}\n",
         "\"messages\" hold no prompt"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Settings s = settings(save("t.jsonl", bad[i].text), NULL, NULL);
        Prepared p;
        Err err = {0};
        assert_false(prepare_all(&p, &s, &with, &err));
        assert_int_equal(err.code, ERR_INPUT);
        if (!strstr(err.text, bad[i].said)) fail_msg("%s", err.text);
        settings_free(&s);
    }
}

static int64_t count_of(const PrepareCount *c, const char *what) {
    return json_integer_value(json_object_get(c->unused, what));
}

static void what_no_model_will_see_is_counted(void **state) {
    (void)state;
    const PrepareTools with = tools();
    Err err = {0};
    Prepared p;
    const char *text =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"One\",\"weight\":2},{\"role\":\"user\","
        "\"content\":\"b\",\"weight\":1},{\"role\":\"assistant\",\"content\":\"c\","
        "\"function_call\":{\"a\":1}}]}\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Two\",\"weight\":2}]}\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Three\"}]}\n";
    for (int reference = 0; reference < 2; reference++) {
        Settings s = settings(save("u.jsonl", text), NULL,
                              reference ? "regenerate.answers=reference" : NULL);
        s.data.dev_fraction = 0;
        assert_ok(prepare_all(&p, &s, &with, &err), err);
        assert_int_equal(count_of(&p.train, "the message key \"weight\""), 2); // conversations
        assert_int_equal(count_of(&p.train, "the message key \"function_call\""), reference);
        assert_int_equal(p.train.answers, !reference);
        json_t *o = prepared_json(&p), *train = json_object_get(o, "train");
        assert_int_equal(json_integer_value(json_object_get(train, "answers_not_used")),
                         !reference);
        assert_true(json_equal(json_object_get(train, "left_out_by_template"), p.train.unused));
        json_decref(o);
        prepared_free(&p);
        settings_free(&s);
    }
}

// A sample is named by its file when it has no id: the name is cut, the text stays JSON.
static void a_long_file_name_becomes_a_name_that_can_be_written(void **state) {
    (void)state;
    char name[256] = "x", path[PATH_ROOM];
    for (int i = 0; i < 100; i++) strcat(name, "\u00e9");
    Settings s = settings(
        save(name, "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}\n{\"messages\":1}\n"),
        NULL, "data.dev_fraction=0");
    const PrepareTools with = tools();
    Prepared p;
    Err err = {0};
    assert_ok(prepare_all(&p, &s, &with, &err), err);
    assert_int_equal(p.split[SPLIT_TRAIN].n, 1);
    assert_int_equal(json_array_size(p.rejected), 1);
    assert_ok(samples_save(path_join(path, test_dir(), "out.jsonl"), p.split[SPLIT_TRAIN].sample, 1,
                           &err),
              err);
    prepared_free(&p);
    Sample *back;
    int64_t n;
    assert_ok(samples_load(path, 8192, &back, &n, &err), err);
    assert_true(strncmp(back[0].id, name, 101) == 0 && strchr(back[0].id, ':') != NULL);
    assert_true(strncmp(back[0].source, name, 127) == 0 && strlen(back[0].source) == 127);
    samples_free(back, n);
    settings_free(&s);
}

static void a_tokenizer_of_another_vocabulary_is_refused_with_both_numbers(void **state) {
    (void)state;
    Err err = {0};
    assert_null(open_tokenizer(TARGET, 262144, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "8192"));
    assert_non_null(strstr(err.text, "262144"));
}

static void the_verb_writes_once_and_refuses_other_settings(void **state) {
    (void)state;
    char text[8192], *at = text, user[64], path[PATH_ROOM];
    for (int i = 0; i < 30; i++) {
        snprintf(user, sizeof user, "Question %d?", i);
        at = item(at, "q", user, NULL);
    }
    Err err = {0};
    Cli cli = {
        .verb = "prepare",
        .s = settings(save("t.jsonl", text), NULL, "model.target_path=" TARGET),
    };
    path_join(path, cli.s.output_dir, "data/train.jsonl");
    assert_ok(prepare_verb.run(&cli, &err), err);
    Sample *s;
    int64_t n;
    Sha256 first, second;
    assert_ok(samples_load(path, 8192, &s, &n, &err), err);
    samples_free(s, n);
    assert_ok(sha256_file(&first, path, &err), err);
    assert_ok(prepare_verb.run(&cli, &err), err);
    cli.s.data.seed = 9;
    assert_false(prepare_verb.run(&cli, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "data.seed"));
    err = (Err){0};
    cli.overwrite = true;
    assert_ok(prepare_verb.run(&cli, &err), err);
    assert_ok(sha256_file(&second, path, &err), err);
    assert_string_not_equal(first.hex, second.hex); // another order
    settings_free(&cli.s);
}

int main(void) {
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_are_disjoint_and_everything_is_counted),
        cmocka_unit_test(the_split_depends_on_the_prompt_alone),
        cmocka_unit_test(given_answers_are_kept_for_training_only_when_asked),
        cmocka_unit_test(long_items_and_those_beyond_the_limit_are_skipped),
        cmocka_unit_test(what_no_model_will_see_is_counted),
        cmocka_unit_test(unusable_inputs_are_named),
        cmocka_unit_test(a_long_file_name_becomes_a_name_that_can_be_written),
        cmocka_unit_test(a_tokenizer_of_another_vocabulary_is_refused_with_both_numbers),
        cmocka_unit_test(the_verb_writes_once_and_refuses_other_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
