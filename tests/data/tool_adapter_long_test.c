// tests/data/tool_adapter_long_test.c - the demo's config with another adapter and tool-calling
// prompts: calls, responses that are objects, conversations that end behind a response.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "data/corpus.h"
#include "infer/base/file.h"
#include "infer/base/json.h"
#include "tests/testing.h"

#define PROMPTS "configs/demo/prompts/"
enum { TRAIN = 500 };

typedef struct {
    FILE *train, *eval;
    int items, after_response;
} Split;

// Items of the category `tool`: the first TRAIN to train.jsonl, the others to eval.jsonl.
static void sort_out(Split *s, const char *path) {
    Err err = {0};
    CorpusLine line;
    CorpusStep step;
    Corpus *c = corpus_open(path, &err);
    assert_ok(c != NULL, err);
    while ((step = corpus_next(c, &line, &err)) == CORPUS_LINE) {
        const json_t *messages = json_object_get(line.value, "messages");
        const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
        const char *category = json_string_value(json_object_get(line.value, "category"));
        if (category == NULL || strcmp(category, "tool") != 0) continue;
        FILE *to = s->items++ < TRAIN ? s->train : s->eval;
        s->after_response += !strcmp(json_string_value(json_object_get(last, "role")), "tool");
        assert_int_equal(json_dumpf(line.value, to, JSON_COMPACT), 0);
        putc('\n', to);
    }
    assert_int_equal(step, CORPUS_END);
    corpus_close(c);
}

static void write_prompts(const char *dir) {
    char path[PATH_ROOM];
    Split s = {0};
    assert_non_null(s.train = fopen(path_join(path, dir, "train.jsonl"), "w"));
    assert_non_null(s.eval = fopen(path_join(path, dir, "eval.jsonl"), "w"));
    sort_out(&s, PROMPTS "general.train.jsonl.zst");
    sort_out(&s, PROMPTS "general.eval.jsonl");
    assert_int_equal(fclose(s.train) | fclose(s.eval), 0);
    assert_true(s.items > TRAIN + 100);
    assert_true(s.after_response > 50);
}

static double at_seven(const json_t *o, const char *key, int end) {
    const json_t *x = json_array_get(json_object_get(o, key), 6);
    return json_number_value(end < 0 ? x : json_array_get(x, (size_t)end));
}

static void it_gains_at_seven(void **state) {
    char command[4 * PATH_ROOM], path[PATH_ROOM];
    Err err = {0};
    (void)state;
    write_prompts(test_dir());
    snprintf(command, sizeof command,
             "./draftsmith run -q -c configs/demo.json model.adapter_path=tests/adapter-tools "
             "data.train=%s/train.jsonl data.eval=%s/eval.jsonl output_dir=%s/run train.steps=60 "
             "data.max_samples=0 export.to=hf",
             test_dir(), test_dir(), test_dir());
    assert_int_equal(system(command), 0);
    json_t *report =
        json_read_file(path_join(path, test_dir(), "run/eval/acceptance.json"), 1 << 24, &err);
    assert_ok(report != NULL, err);
    const json_t *paired = json_object_get(json_object_get(report, "paired"), "greedy"),
                 *kinds = json_object_get(report, "kinds"),
                 *structured = json_object_get(kinds, "structured");
    const double gain = at_seven(paired, "gain", -1), low = at_seven(paired, "ci", 0);
    print_message("compared: tau(7) %+.1f %%, at least %+.1f %%\n", 100 * gain, 100 * low);
    assert_true(gain > 0.2 && low > 0.0);
    assert_true(json_integer_value(json_object_get(structured, "tokens")) > 1000);
    json_decref(report);
    assert_true(file_exists(path_join(path, test_dir(), "run/export/hf/model.safetensors")));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(it_gains_at_seven)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
