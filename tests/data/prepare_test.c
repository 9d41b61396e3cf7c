// tests/data/prepare_test.c - every item is accounted for; train, dev and eval share no prompt.
#include "data/prepare_cmd.h"
#include "infer/base/hash.h"
#include "infer/base/log.h"
#include "tests/data/prepare_helper.h"

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
    at += sprintf(at, "{\"id\":\"nothing\"}\n\n{\"id\":\"odd\",\"messages\":\"text\"}\n"
                      "{\"id\":\"seen\",\"prompt\":\"What is this?\",\"images\":[\"a.png\"]}\n");
    for (int i = 0; i < 25; i++) { // five of them are asked in training, too
        snprintf(id, sizeof id, "e%d", i);
        snprintf(user, sizeof user, i < 5 ? "Question number %d?" : "Exam %d?", i);
        to = item(to, id, user, i == 2 ? "Answer of the exam." : NULL);
    }
    Settings s = settings(save("train.jsonl", train), save("eval.jsonl", eval), NULL);
    Prepared p = prepared(&s);
    const PrepareCount t = prepared_sum(&p, INPUT_TRAIN), e = prepared_sum(&p, INPUT_EVAL);
    assert_int_equal(t.in, 203);
    assert_int_equal(t.in_eval, 10); // 0..4, and 0..4 again: repeated prompts of eval
    assert_int_equal(t.duplicate, 5);
    assert_int_equal(t.failed, 2);
    assert_int_equal(t.media, 1);
    assert_int_equal(t.out, 185);
    assert_int_equal(e.in, 25);
    assert_int_equal(e.out, 25);
    assert_int_equal(p.split[SPLIT_TRAIN].n + p.split[SPLIT_DEV].n, 185);
    assert_in_range(p.split[SPLIT_DEV].n, 30, 85);
    const int64_t n = 210;
    uint64_t seen[210], k = 0;
    for (int i = 0; i < SPLIT_COUNT; i++) {
        Written w = written(&p, (Split)i);
        for (int64_t j = 0; j < w.n; j++) {
            const Sample *x = &w.chain[j].sample;
            assert_int_equal(x->prompt, x->n); // the target answers
            assert_int_equal(w.chain[j].follows, 0);
            for (int64_t q = 0; q < x->n; q++) assert_int_equal(x->kind[q], TOKEN_CONTEXT);
            seen[k++] = prompt_hash(x);
        }
        chains_free(w.chain, w.n);
    }
    assert_int_equal(k, n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < i; j++) assert_true(seen[i] != seen[j]);
    prepared_free(&p);
    settings_free(&s);
    free(train);
}

// Position says nothing: the same items in another order, with others between them, split alike.
static void the_split_depends_on_the_prompt_alone(void **state) {
    (void)state;
    char a[32768], b[65536], *x = a, *y = b, id[32], user[64];
    for (int i = 0; i < 100; i++) {
        snprintf(id, sizeof id, "q%d", i);
        snprintf(user, sizeof user, "Question %d?", i);
        x = item(x, id, user, NULL);
        snprintf(user, sizeof user, "Question %d?", 99 - i);
        y = item(y, id, user, "With an answer now.");
        snprintf(id, sizeof id, "other%d", i);
        snprintf(user, sizeof user, "Another %d?", i);
        y = item(y, id, user, NULL);
    }
    const char *text[2] = {a, b};
    uint64_t dev[2][100];
    int64_t found[2] = {0, 0};
    for (int turn = 0; turn < 2; turn++) {
        Settings s = settings(save("t.jsonl", text[turn]), NULL, NULL);
        Prepared p = prepared(&s);
        Written w = written(&p, SPLIT_DEV);
        for (int64_t i = 0; i < w.n; i++) {
            const Sample *m = &w.chain[i].sample;
            if (m->id[0] == 'q') dev[turn][found[turn]++] = prompt_hash(m);
        }
        chains_free(w.chain, w.n);
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
    char text[65536], *at = text, id[16], user[64];
    for (int i = 0; i < 100; i++) {
        snprintf(id, sizeof id, "q%d", i);
        snprintf(user, sizeof user, "Question %d?", i);
        at = item(at, id, user, i % 2 ? "Thirteen rabbits." : NULL);
    }
    Settings s = settings(save("t.jsonl", text), NULL,
                          (const char *[]){"regenerate.answers=reference", NULL});
    Prepared p = prepared(&s);
    int64_t kept = 0;
    Written dev = written(&p, SPLIT_DEV), train = written(&p, SPLIT_TRAIN);
    for (int64_t i = 0; i < dev.n; i++)
        assert_int_equal(dev.chain[i].sample.prompt, dev.chain[i].sample.n);
    for (int64_t i = 0; i < train.n; i++) {
        const Sample *m = &train.chain[i].sample;
        if (m->prompt == m->n) continue;
        kept++;
        assert_string_equal(m->sampler, "reference");
        size_t size;
        char *answer = tokenizer_decode(tools(&s).tokenizer, m->ids + m->prompt,
                                        (size_t)(m->n - m->prompt), false, &size);
        assert_string_equal(answer, "Thirteen rabbits.<turn|>");
        free(answer);
        for (int64_t t = 0; t < m->n; t++)
            assert_int_equal(m->kind[t], t < m->prompt ? TOKEN_CONTEXT : TOKEN_MODEL);
    }
    assert_in_range(kept, 20, 50);
    chains_free(dev.chain, dev.n);
    chains_free(train.chain, train.n);
    prepared_free(&p);
    s.data.minimum_valid_tokens = 1000; // prompts without an answer have nothing to be too short
    p = prepared(&s);
    const PrepareCount c = prepared_sum(&p, INPUT_TRAIN);
    assert_int_equal(c.too_few, kept);
    assert_int_equal(c.out, 100 - kept);
    prepared_free(&p);
    settings_free(&s);
}

static const char DIALOGUE[] =
    "{\"id\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"},{\"role\":\"assistant\","
    "\"content\":\"One\"},{\"role\":\"user\",\"content\":\"More\"},{\"role\":\"assistant\","
    "\"content\":\"Two\"}]}\n";

static void every_turn_is_a_chain_or_one_sample(void **state) {
    (void)state;
    char text[4096];
    snprintf(text, sizeof text, DIALOGUE, "a", "Hi");
    const char *every[] = {"data.turns=every", "data.dev_fraction=0", NULL};
    Settings s = settings(save("t.jsonl", text), NULL, every);
    Prepared p = prepared(&s);
    Written w = written(&p, SPLIT_TRAIN);
    assert_int_equal(w.n, 1);
    assert_int_equal(w.chain[0].follows, 1);
    assert_true(w.chain[0].follow[0].answer);
    assert_int_equal(w.chain[0].follow[0].drop, 0);
    chains_free(w.chain, w.n);
    prepared_free(&p);
    free(s.regenerate.answers);
    s.regenerate.answers = strdup("reference");
    p = prepared(&s);
    w = written(&p, SPLIT_TRAIN);
    assert_int_equal(w.n, 1); // both turns share a sequence
    int runs = 0;
    const Sample *x = &w.chain[0].sample;
    for (int64_t t = 1; t < x->n; t++)
        runs += x->kind[t] >= TOKEN_MODEL && x->kind[t - 1] == TOKEN_CONTEXT;
    assert_int_equal(runs, 2);
    chains_free(w.chain, w.n);
    prepared_free(&p);
    s.data.max_length = 20; // the second turn is too long
    p = prepared(&s);
    assert_int_equal(p.count[INPUT_TRAIN][0].left_out, 1);
    assert_int_equal(p.count[INPUT_TRAIN][0].items.out, 1);
    prepared_free(&p);
    settings_free(&s);
}

// No turn of data.eval may be learned from, in the middle of a conversation neither.
static void prompts_of_eval_are_in_no_turn(void **state) {
    (void)state;
    char text[4096], eval[4096];
    size_t n = (size_t)snprintf(text, sizeof text, DIALOGUE, "a", "Hi");
    snprintf(text + n, sizeof text - n, DIALOGUE, "b", "Ho");
    item(eval, "e", "Hi", NULL);
    const char *every[] = {"data.turns=every", "data.dev_fraction=0", NULL};
    Settings s = settings(save("t.jsonl", text), save("e.jsonl", eval), every);
    Prepared p = prepared(&s);
    assert_int_equal(prepared_sum(&p, INPUT_TRAIN).in_eval, 1);
    assert_int_equal(prepared_sum(&p, INPUT_TRAIN).out, 1);
    prepared_free(&p);
    settings_free(&s);
    s = settings(save("t.jsonl", text), save("e.jsonl", eval),
                 (const char *[]){"data.dev_fraction=0", NULL}); // last turns are other prompts
    p = prepared(&s);
    assert_int_equal(prepared_sum(&p, INPUT_TRAIN).out, 2);
    prepared_free(&p);
    settings_free(&s);
}

static void unusable_inputs_are_named(void **state) {
    (void)state;
    const struct {
        const char *text, *said;
    } bad[] = {
        {"", "t.jsonl: no prompts in it"},
        {"\n \n", "t.jsonl: no prompts in it"},
        {"{\"messages\":[]}\nx\n", "t.jsonl:2: not a JSON object"},
        {"{\"a\":\"a\"}\n", "t.jsonl:1: no shape that is known"},
        {"{\"id\":[],\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n", "\"id\" is neither"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}\n",
         "the messages hold no prompt"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Settings s = settings(save("t.jsonl", bad[i].text), NULL, NULL);
        const PrepareTools with = tools(&s);
        Prepared p;
        Err err = {0};
        assert_false(prepare_all(&p, &s, &with, NULL, &err));
        assert_int_equal(err.code, ERR_INPUT);
        if (!strstr(err.text, bad[i].said)) fail_msg("%s", err.text);
        settings_free(&s);
    }
}

static void bad_lines_stop_or_are_counted(void **state) {
    (void)state;
    char text[1024];
    char *end = item(text, "a", "Hi", NULL);
    end += sprintf(end, "no JSON\n[1]\n");
    item(end, "b", "Ho", NULL);
    Settings s = settings(save("t.jsonl", text), NULL,
                          (const char *[]){"data.bad_lines=count", "data.dev_fraction=0", NULL});
    Prepared p = prepared(&s);
    const PrepareCount c = prepared_sum(&p, INPUT_TRAIN);
    assert_int_equal(c.in, 4);
    assert_int_equal(c.failed, 2);
    assert_int_equal(c.out, 2);
    prepared_free(&p);
    settings_free(&s);
}

// Objects beyond what is read are too long, whatever they hold; reading goes on.
static void giant_lines_are_too_long(void **state) {
    (void)state;
    const size_t n = 17u << 20;
    char *text = malloc(n + 1024), *end = item(text, "a", "Hi", NULL);
    end += sprintf(end, "{\"id\":\"b\",\"prompt\":\"");
    memset(end, 'x', n);
    end += n;
    end += sprintf(end, "\"}\n");
    item(end, "c", "Ho", NULL);
    Settings s =
        settings(save("t.jsonl", text), NULL, (const char *[]){"data.dev_fraction=0", NULL});
    Prepared p = prepared(&s);
    const PrepareCount c = prepared_sum(&p, INPUT_TRAIN);
    assert_int_equal(c.too_long, 1);
    assert_int_equal(c.out, 2);
    prepared_free(&p);
    settings_free(&s);
    free(text);
}

// A sample is named by its file when it has no id: the name is cut, the text stays JSON.
static void a_long_file_name_becomes_a_name_that_can_be_written(void **state) {
    (void)state;
    char name[256] = "x";
    for (int i = 0; i < 100; i++) strcat(name, "\u00e9");
    Settings s = settings(
        save(name, "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}\n{\"messages\":1}\n"),
        NULL, (const char *[]){"data.dev_fraction=0", NULL});
    Prepared p = prepared(&s);
    Written w = written(&p, SPLIT_TRAIN);
    assert_int_equal(w.n, 1);
    assert_int_equal(prepared_sum(&p, INPUT_TRAIN).failed, 1);
    const Sample *back = &w.chain[0].sample;
    assert_true(strncmp(back->id, name, 101) == 0 && strchr(back->id, '~') != NULL);
    assert_true(strncmp(back->source, name, 127) == 0 && strlen(back->source) == 127);
    chains_free(w.chain, w.n);
    prepared_free(&p);
    settings_free(&s);
}

// Results are paired by name: two prompts of one name would count as one.
static void names_that_repeat_are_made_different(void **state) {
    (void)state;
    char a[1024], b[1024], *x = a, *y = b;
    x = item(x, "1", "One", NULL);
    x = item(x, "1", "Two", NULL);
    y = item(y, "1", "Three", NULL);
    y = item(y, "1@b.jsonl", "Four", NULL);
    char both[2 * PATH_ROOM];
    snprintf(both, sizeof both, "%s,%s", save("a.jsonl", a), save("b.jsonl", b));
    Settings s = settings(both, NULL, (const char *[]){"data.dev_fraction=0", NULL});
    Prepared p = prepared(&s);
    Written w = written(&p, SPLIT_TRAIN);
    assert_int_equal(w.n, 4);
    for (int64_t i = 0; i < 4; i++)
        for (int64_t j = 0; j < i; j++)
            assert_string_not_equal(w.chain[i].sample.id, w.chain[j].sample.id);
    chains_free(w.chain, w.n);
    prepared_free(&p);
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

static char *side_file(const Settings *s, const char *name) {
    char dir[PATH_ROOM], path[PATH_ROOM];
    Err err = {0};
    size_t size;
    path_join(path, path_join(dir, s->output_dir, "data"), name);
    char *text = file_read(path, 1 << 20, &size, &err);
    assert_ok(text, err);
    return text;
}

static void the_verb_writes_once_and_refuses_other_settings(void **state) {
    (void)state;
    char text[8192], *at = text, id[16], user[64], path[PATH_ROOM];
    for (int i = 0; i < 30; i++) {
        snprintf(id, sizeof id, "q%d", i);
        snprintf(user, sizeof user, "Question %d?", i);
        at = item(at, id, user, NULL);
    }
    at = item(at, "again", "Question 3?", NULL);
    sprintf(at, "{\"id\":\"odd\",\"messages\":7}\n");
    Err err = {0};
    const char *target[] = {"model.target_path=" TARGET, NULL};
    Cli cli = {.verb = "prepare", .s = settings(save("t.jsonl", text), NULL, target)};
    path_join(path, cli.s.output_dir, "data/train.jsonl");
    assert_ok(prepare_verb.run(&cli, &err), err);
    Sample *s;
    int64_t n;
    Sha256 first, second;
    assert_ok(samples_load(path, 8192, &s, &n, &err), err);
    samples_free(s, n);
    char *skipped = side_file(&cli.s, "train_skipped.jsonl"),
         *failed = side_file(&cli.s, "train_error.jsonl"),
         *none = side_file(&cli.s, "eval_error.jsonl");
    assert_string_equal(skipped, "{\"where\":\"t.jsonl:31\",\"id\":\"again\","
                                 "\"why\":\"the prompt came before\"}\n");
    assert_string_equal(failed, "{\"where\":\"t.jsonl:32\",\"id\":\"odd\","
                                "\"why\":\"\\\"messages\\\" is not a list\"}\n");
    assert_string_equal(none, "");
    free(skipped);
    free(failed);
    free(none);
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
        cmocka_unit_test(every_turn_is_a_chain_or_one_sample),
        cmocka_unit_test(prompts_of_eval_are_in_no_turn),
        cmocka_unit_test(unusable_inputs_are_named),
        cmocka_unit_test(bad_lines_stop_or_are_counted),
        cmocka_unit_test(giant_lines_are_too_long),
        cmocka_unit_test(a_long_file_name_becomes_a_name_that_can_be_written),
        cmocka_unit_test(names_that_repeat_are_made_different),
        cmocka_unit_test(a_tokenizer_of_another_vocabulary_is_refused_with_both_numbers),
        cmocka_unit_test(the_verb_writes_once_and_refuses_other_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
