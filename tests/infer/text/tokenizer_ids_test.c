// tests/infer/text/tokenizer_ids_test.c - ids and texts equal to HF tokenizers' on recorded lines.
//
// TOKENIZER and IDS name other files: `make check-tokenizer TOKENIZER=... IDS=...`.
#include "tests/testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/chat_json.h"
#include "infer/text/tokenizer.h"
#include "infer/text/tokenizer_file.h"

enum { IDS_FILE_LIMIT = 1 << 30 };

static const char *setting(const char *name, const char *fallback) {
    const char *value = getenv(name);
    return value && *value ? value : test_golden(fallback);
}

static bool ids_equal(const Ids *ids, const json_t *want) {
    if (!json_is_array(want) || json_array_size(want) != ids->n) return false;
    for (size_t i = 0; i < ids->n; i++) {
        const json_t *id = json_array_get(want, i);
        if (!json_is_integer(id) || json_integer_value(id) != ids->id[i]) return false;
    }
    return true;
}

// Mismatches of one line, each printed.
static int check_line(const Tokenizer *t, const json_t *line, size_t number) {
    const json_t *text = json_object_get(line, "text"), *ids = json_object_get(line, "ids");
    if (!json_is_string(text) || !json_is_array(ids)) {
        fprintf(stderr, "line %zu: no text or ids\n", number);
        return 1;
    }
    const char *s = json_string_value(text);
    const size_t size = json_string_length(text);
    const json_t *plain = json_object_get(line, "ids_plain"), *dec = json_object_get(line, "dec");
    const char *cat = json_string_value(json_object_get(line, "cat"));
    int wrong = 0;
    Ids out = {0};
    tokenizer_encode(t, s, size, false, &out);
    if (!ids_equal(&out, plain ? plain : ids)) {
        fprintf(stderr, "line %zu (%s): ids without added tokens differ: %.80s\n", number, cat, s);
        wrong++;
    }
    out.n = 0;
    tokenizer_encode(t, s, size, true, &out);
    if (!ids_equal(&out, ids)) {
        fprintf(stderr, "line %zu (%s): ids differ: %.80s\n", number, cat, s);
        wrong++;
    }
    size_t back_size;
    char *back = tokenizer_decode(t, out.id, out.n, false, &back_size);
    const json_t *want = dec ? dec : text;
    if (back_size != json_string_length(want) || memcmp(back, json_string_value(want), back_size)) {
        fprintf(stderr, "line %zu (%s): decoded text differs: %.80s\n", number, cat, back);
        wrong++;
    }
    free(back);
    ids_free(&out);
    return wrong;
}

static void every_recorded_line_encodes_and_decodes_alike(void **state) {
    (void)state;
    Err err = {0};
    Tokenizer *t =
        tokenizer_load(setting("TOKENIZER", "tokenizer/gemma4-tokenizer.json.zst"), &err);
    assert_ok(t != NULL, err);
    size_t size, lines = 0, wrong = 0;
    char *text = unpacked_read(setting("IDS", "tokenizer/ids-sample.jsonl.zst"), IDS_FILE_LIMIT,
                               &size, &err);
    assert_ok(text != NULL, err);
    for (char *p = text, *end = text + size; p < end;) {
        char *stop = memchr(p, '\n', (size_t)(end - p));
        if (stop == NULL) stop = end;
        if (stop > p) {
            json_t *line = chat_json_read(p, (size_t)(stop - p), &err);
            if (line == NULL) fail_msg("line %zu: %s", lines + 1, err.text);
            wrong += (size_t)check_line(t, line, ++lines);
            json_decref(line);
        }
        p = stop + 1;
    }
    printf("%zu lines, %zu mismatches\n", lines, wrong);
    free(text);
    tokenizer_free(t);
    assert_true(lines > 0);
    assert_int_equal(wrong, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_recorded_line_encodes_and_decodes_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
