// tests/infer/text/tokenizer_load_test.c - what is not Gemma 4's scheme is refused, whatever is
// wrong.
#include "tests/infer/text/tokenizer_made.h"

#include "infer/base/file.h"
#include "infer/base/rng.h"
#include "infer/text/tokenizer_table.h"

static void what_is_not_the_scheme_is_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *message;
    } edits[] = {
        {"\"BPE\"", "\"Unigram\"", "model.type is \"Unigram\"; Gemma 4's is \"BPE\""},
        {"\"byte_fallback\":true", "\"byte_fallback\":false", "model.byte_fallback is false"},
        {"\"ignore_merges\":false", "\"ignore_merges\":true", "model.ignore_merges is true"},
        {"\"content\":\"\u2581\"", "\"content\":\"_\"", "normalizer is"},
        {"\"Split\"", "\"ByteLevel\"", "pre_tokenizer.type is \"ByteLevel\""},
        {"\"Fuse\"", "\"Strip\"", "decoder is"},
        {"\"lstrip\":false", "\"lstrip\":true", "added token \"<s>\": lstrip is true"},
        {"\"special\":true", "\"special\":false", "added token \"<s>\" is not special"},
        {"\"a\":257", "\"a\":256", "id 256 is given to"},
        {"\"a\":257", "\"a\":16777216", "an integer in 0..16777215"},
        {"\"a\":257", "\"a\":-1", "an integer in 0..16777215"},
        {"\"a\":257", "\"a\":1.0", "an integer in 0..16777215"},
        {"\"a\":257", "\"a\":900", "id 257 of 901 has no piece"},
        {"\"ab\":259", "\"a\":259", "has the ids 257 and 259"},
        {"\"<0x41>\":65", "\"<0x4>\":65", "<0x41> is missing"},
        {"\"\u2581\":256", "\"_\":256", "stands for a blank"},
        {"[\"a\",\"b\"]", "[\"a\",\"c\"]", "merge 0: \"c\" is not in the vocabulary"},
        {"[\"a\",\"b\"]", "[\"b\",\"a\"]", "merge 0: \"ba\" is not in the vocabulary"},
        {"[\"a\",\"b\"]", "[\"a\",\"b\"],[\"a\",\"b\"]", "merge 1 occurs twice"},
        {"[\"a\",\"b\"]", "[\"a\"]", "where ',' should be"},
        {"[\"a\",\"b\"]", "\"ab\"", "merge 0: no blank"},
        {"[\"a\",\"b\"]", "[\"a\",\"b\"],", "where a value should be"},
        {"\"content\":\"<s>\"", "\"content\":\"ab\"", "id 260 is given to"},
        {"\"merges\"", "\"merge\"", "model.merges is missing"},
        {"\"a\":257", "\"\\ud800\":257", "second half of a surrogate pair"},
        {"\"a\":257", "\"\xFF\":257", "is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        char *text = spell("\u2581 a b ab <s>", "[[\"a\",\"b\"]]", "[" ADDED("260", "<s>") "]");
        char *at = strstr(text, edits[i].from);
        assert_non_null(at);
        char *changed = malloc(JSON_ROOM * 2);
        sprintf(changed, "%.*s%s%s", (int)(at - text), text, edits[i].to,
                at + strlen(edits[i].from));
        Err err = {0};
        Tokenizer *t = tokenizer_parse(changed, strlen(changed), &err);
        if (t != NULL || err.code != ERR_INPUT || strstr(err.text, edits[i].message) == NULL)
            fail_msg("%s -> %s gave: %s", edits[i].from, edits[i].to, t ? "a tokenizer" : err.text);
        free(changed);
        free(text);
    }
}

static void an_added_token_that_text_could_build_is_refused(void **state) {
    (void)state;
    char *text = spell("\u2581 a b ab", "[[\"a\",\"b\"]]", "[" ADDED("259", "ab") "]");
    Err err = {0};
    assert_null(tokenizer_parse(text, strlen(text), &err));
    assert_non_null(strstr(err.text, "builds the added token \"ab\" from text"));
    free(text);
}

static void every_cut_off_file_is_refused(void **state) {
    (void)state;
    char *text = spell("\u2581 a b ab <s>", "[[\"a\",\"b\"]]", "[" ADDED("260", "<s>") "]");
    const size_t size = strlen(text);
    for (size_t n = 0; n < size; n++) {
        Err err = {0};
        char *cut = malloc(n + 1); // its own block, so that a sanitizer sees a read behind the end
        memcpy(cut, text, n);
        if (tokenizer_parse(cut, n, &err) != NULL)
            fail_msg("%zu of %zu bytes were accepted", n, size);
        assert_int_equal(err.code, ERR_INPUT);
        free(cut);
    }
    free(text);
}

static void no_mutated_file_does_harm(void **state) {
    (void)state;
    char *text = spell("\u2581 a b ab <s>", "[[\"a\",\"b\"],\"b a\"]", "[" ADDED("260", "<s>") "]");
    const size_t size = strlen(text);
    for (uint64_t k = 0; k < 3000; k++) {
        char *changed = malloc(size);
        memcpy(changed, text, size);
        for (uint64_t i = 0; i <= k % 3; i++)
            changed[rng_below(7, RNG_TEST, k, 2 * i, size)] =
                "\"{}[],:0179ab<>\\u\n\xE2\xFF\0"[rng_below(7, RNG_TEST, k, 2 * i + 1, 21)];
        Err err = {0};
        Tokenizer *t = tokenizer_parse(changed, size, &err);
        if (t != NULL) {
            Ids out = {0};
            tokenizer_encode(t, changed, size, true, &out);
            for (size_t i = 0; i < out.n; i++)
                assert_in_range(out.id[i], 0, tokenizer_vocab(t) - 1);
            ids_free(&out);
        }
        tokenizer_free(t);
        free(changed);
    }
    free(text);
}

static void compressed_and_plain_files_load_alike(void **state) {
    (void)state;
    static const char *const tool[] = {"cat", "zstd -qc", "gzip -c", "xz -c"};
    char *text = spell("\u2581 a b ab", "[[\"a\",\"b\"]]", "[]"), plain[PATH_ROOM],
         packed[PATH_ROOM];
    Err err = {0};
    assert_ok(file_write(path_join(plain, test_dir(), "plain.json"), text, strlen(text), &err),
              err);
    Sha256 hash;
    assert_ok(sha256_bytes(&hash, text, strlen(text), &err), err);
    for (size_t i = 0; i < sizeof tool / sizeof *tool; i++) {
        char command[3 * PATH_ROOM];
        path_join(packed, test_dir(), "packed");
        snprintf(command, sizeof command, "%s %s > %s", tool[i], plain, packed);
        if (system(command) != 0) {
            printf("SKIPPED: %s\n", tool[i]);
            continue;
        }
        Tokenizer *t = tokenizer_load(packed, &err);
        assert_ok(t != NULL, err);
        assert_string_equal(tokenizer_hash(t)->hex, hash.hex);
        assert_int_equal(tokenizer_id(t, "ab"), 259);
        assert_int_equal(tokenizer_vocab(t), 260);
        tokenizer_free(t);
    }
    free(text);
}

static void missing_empty_and_broken_files_are_named(void **state) {
    (void)state;
    char path[PATH_ROOM];
    Err err = {0};
    path_join(path, test_dir(), "tokenizer.json");
    assert_null(tokenizer_load(path, &err));
    assert_int_equal(err.code, ERR_FAILED);
    assert_non_null(strstr(err.text, path));
    static const struct {
        const char *bytes;
        size_t size;
    } broken[] = {
        {"", 0}, {"\x28\xB5\x2F\xFD\x04\x00", 6}, {"\x1F\x8B\x08\x00", 4}, {"[1]", 3}, {"{", 1}};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        err = (Err){0};
        assert_ok(file_write(path, broken[i].bytes, broken[i].size, &err), err);
        assert_null(tokenizer_load(path, &err));
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, path));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_the_scheme_is_refused_by_name),
        cmocka_unit_test(an_added_token_that_text_could_build_is_refused),
        cmocka_unit_test(every_cut_off_file_is_refused),
        cmocka_unit_test(no_mutated_file_does_harm),
        cmocka_unit_test(compressed_and_plain_files_load_alike),
        cmocka_unit_test(missing_empty_and_broken_files_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
