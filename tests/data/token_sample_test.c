// tests/data/token_sample_test.c - samples as JSON lines: round trip and refusals.
#include <stdlib.h>
#include <string.h>

#include "data/token_sample.h"
#include "infer/base/json.h"
#include "infer/text/chat.h"
#include "tests/testing.h"

static Sample make(int64_t n, int seed) {
    Sample s = {
        .sample = seed, .prompt = n / 3, .n = n, .stopped = seed % 2, .min_margin = seed / 3.0};
    snprintf(s.id, sizeof s.id, "id \"%d\" ü\n", seed);
    strcpy(s.category, "short");
    strcpy(s.source, "x.jsonl");
    strcpy(s.sampler, "T=0.7,top_k=64,top_p=0.95");
    s.ids = malloc((size_t)n * 4);
    s.kind = malloc((size_t)n);
    for (int64_t i = 0; i < n; i++) {
        s.ids[i] = (int32_t)(i * 31 + seed) % 500;
        s.kind[i] = (uint8_t)(i < s.prompt ? 0 : (i / 5 + seed) % 4);
    }
    return s;
}

static void samples_come_back_as_they_were(void **state) {
    (void)state;
    char path[PATH_ROOM];
    Err err = {0};
    Sample in[4], *out;
    int64_t n;
    for (int i = 0; i < 4; i++) in[i] = make(1 + 40 * i, i);
    assert_ok(samples_save(path_join(path, test_dir(), "s.jsonl"), in, 4, &err), err);
    assert_ok(samples_load(path, 500, &out, &n, &err), err);
    assert_int_equal(n, 4);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(out[i].id, in[i].id);
        assert_string_equal(out[i].sampler, in[i].sampler);
        assert_int_equal(out[i].n, in[i].n);
        assert_int_equal(out[i].prompt, in[i].prompt);
        assert_int_equal(out[i].sample, in[i].sample);
        assert_int_equal(out[i].stopped, in[i].stopped);
        assert_true(out[i].min_margin == in[i].min_margin);
        assert_memory_equal(out[i].ids, in[i].ids, (size_t)in[i].n * 4);
        assert_memory_equal(out[i].kind, in[i].kind, (size_t)in[i].n);
        sample_free(&in[i]);
    }
    samples_free(out, n);
    assert_false(samples_load(path, 100, &out, &n, &err)); // ids of another vocabulary
    assert_non_null(strstr(err.text, "s.jsonl:"));
    assert_non_null(strstr(err.text, "the vocabulary has 100"));
}

static void lines_out_of_range_are_refused(void **state) {
    (void)state;
#define LINE(ids, kinds, prompt)                                                                   \
    "{\"id\":\"a\",\"category\":\"\",\"source\":\"\",\"sampler\":\"\",\"sample\":0,"               \
    "\"prompt\":" prompt ",\"ids\":" ids ",\"kinds\":" kinds "}"
    const char *bad[] = {
        LINE("[1,2]", "[[0,3]]", "0"),   LINE("[1,2]", "[[0,1]]", "0"),
        LINE("[1,2]", "[[5,2]]", "0"),   LINE("[1,2]", "[[0,-1],[0,3]]", "0"),
        LINE("[1,2]", "[[0,2.0]]", "0"), LINE("[1,500]", "[[0,2]]", "0"),
        LINE("[-1,2]", "[[0,2]]", "0"),  LINE("[]", "[]", "0"),
        LINE("[1,2]", "[[0,2]]", "3"),   LINE("[1,2]", "[[0,2]]", "-1"),
        LINE("7", "[[0,2]]", "0"),       LINE("[1,true]", "[[0,2]]", "0"),
        LINE("[1,2]", "[0,2]", "0"),     "{\"ids\":[1],\"kinds\":[[0,1]],\"prompt\":0}"};
    Err err = {0};
    Sample s;
    json_t *good = json_read_text(LINE("[1,2]", "[[0,1],[1,1]]", "1"),
                                  strlen(LINE("[1,2]", "[[0,1],[1,1]]", "1")), &err);
    assert_ok(sample_read(&s, good, 500, "here", &err), err);
    sample_free(&s);
    json_decref(good);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err = (Err){0};
        json_t *line = json_read_text(bad[i], strlen(bad[i]), &err);
        assert_non_null(line);
        if (sample_read(&s, line, 500, "here", &err)) fail_msg("accepted: %s", bad[i]);
        assert_int_equal(err.code, ERR_INPUT);
        assert_int_equal(strncmp(err.text, "here: ", 6), 0);
        json_decref(line);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_come_back_as_they_were),
        cmocka_unit_test(lines_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
