// tests/infer/text/tokenizer_test.c - merging, safe cuts, bytes, added tokens, speed of the worst
// cases. Exact ids on real text: tokenizer_ids_test.c; files: tokenizer_load_test.c.
#include "tests/testing.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "infer/base/rng.h"
#include "infer/text/tokenizer.h"
#include "infer/text/tokenizer_table.h"
#include "tests/infer/text/tokenizer_made.h"

static Tokenizer *real; // Gemma 4's own, loaded once

static int load_real(void **state) {
    (void)state;
    Err err = {0};
    real = tokenizer_load(test_golden("tokenizer/gemma4-tokenizer.json.zst"), &err);
    if (real == NULL) fprintf(stderr, "%s\n", err.text);
    return real == NULL;
}

static int free_real(void **state) {
    (void)state;
    tokenizer_free(real);
    return 0;
}

static Tokenizer *made(const char *pieces, const char *merges, const char *added) {
    Err err = {0};
    char *text = spell(pieces, merges, added);
    Tokenizer *t = tokenizer_parse(text, strlen(text), &err);
    if (t == NULL) fail_msg("%s", err.text);
    free(text);
    return t;
}

static void assert_encodes(const Tokenizer *t, const char *text, size_t size, bool special,
                           const int32_t *want, size_t n) {
    Ids out = {0};
    tokenizer_encode(t, text, size, special, &out);
    for (size_t i = 0; i < out.n && i < n; i++)
        if (out.id[i] != want[i])
            fail_msg("\"%s\": id %zu is %d, not %d", text, i, out.id[i], want[i]);
    assert_int_equal(out.n, n);
    ids_free(&out);
}
#define ENCODES(t, text, special, ...)                                                             \
    assert_encodes(t, text, strlen(text), special, (const int32_t[]){__VA_ARGS__},                 \
                   sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void merges_go_by_rank_then_from_the_left(void **state) {
    (void)state;
    Tokenizer *t =
        made("\u2581 a b c ab bc aa", "[[\"b\",\"c\"],[\"a\",\"b\"],[\"a\",\"a\"]]", "[]");
    ENCODES(t, "abc", true, 257, 261);
    ENCODES(t, "ab c", true, 260, 256, 259);
    ENCODES(t, "aaaaa", true, 262, 262, 257);
    tokenizer_free(t);
    t = made("\u2581 a b c ab bc aa", "[\"b c\",\"a b\",\"a a\"]", "[]"); // the older spelling
    ENCODES(t, "abc", true, 257, 261);
    tokenizer_free(t);
}

static void a_scalar_without_a_piece_becomes_its_bytes(void **state) {
    (void)state;
    Tokenizer *t = made("\u2581 a", "[]", "[]");
    ENCODES(t, "a\u00e9 d", true, 257, 0xC3, 0xA9, 256, 'd');
    size_t size;
    char *text =
        tokenizer_decode(t, (const int32_t[]){257, 0xC3, 0xA9, 256, 0xC3, 257}, 6, false, &size);
    assert_string_equal(text, "a\u00e9 \uFFFDa");
    free(text);
    tokenizer_free(t);
}

// Found by comparing with HF on random vocabularies: a cut between ASCII characters that are bytes.
static void byte_pieces_that_merge_are_not_cut_apart(void **state) {
    (void)state;
    Tokenizer *t = made("\u2581 a <0x64>a", "[[\"<0x64>\",\"a\"]]", "[]");
    ENCODES(t, "ada", true, 257, 258);
    ENCODES(t, "dd", true, 100, 100);
    tokenizer_free(t);
}

static void added_tokens_match_longest_first_and_only_when_asked(void **state) {
    (void)state;
    Tokenizer *t =
        made("\u2581 < s > <s> <s>>", "[]", "[" ADDED("260", "<s>") "," ADDED("261", "<s>>") "]");
    ENCODES(t, "<s><s>>s", true, 260, 261, 258);
    ENCODES(t, "<s>>", false, 257, 258, 259, 259);
    ENCODES(t, "<<s>", true, 257, 260);
    assert_true(tokenizer_is_special(t, 260) && !tokenizer_is_special(t, 258));
    size_t size;
    char *text = tokenizer_decode(t, (const int32_t[]){258, 260, 258}, 3, true, &size);
    assert_string_equal(text, "ss");
    free(text);
    tokenizer_free(t);
}

static void invalid_utf8_reads_as_the_replacement_character(void **state) {
    (void)state;
    // as bytes.decode(errors="replace"): one U+FFFD for each maximal invalid prefix
    static const struct {
        const char *raw, *text;
    } cases[] = {{"a\xFFz", "a\uFFFDz"},
                 {"\xE2\x82", "\uFFFD"},
                 {"\xE2\x82 b", "\uFFFD b"},
                 {"\xC0\xAF", "\uFFFD\uFFFD"},
                 {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},
                 {"\xF0\x9F\x98x", "\uFFFDx"},
                 {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},
                 {"\x80<bos>\xBF", "\uFFFD<bos>\uFFFD"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Ids want = {0};
        tokenizer_encode(real, cases[i].text, strlen(cases[i].text), true, &want);
        assert_encodes(real, cases[i].raw, strlen(cases[i].raw), true, want.id, want.n);
        ids_free(&want);
    }
}

// Symbols merged the slow way: the whole text rescanned for the lowest rank, strings compared.
typedef struct {
    char left[16], right[16];
} Rule;

static void glue(char out[16], const char *l, const char *r) { // out may be l
    const size_t a = strlen(l), b = strlen(r);
    assert_true(a + b < 16);
    memmove(out, l, a);
    memcpy(out + a, r, b + 1);
}

static size_t naive(const Rule *rule, int rules, const char *text, char piece[][16]) {
    size_t n = 0;
    for (const char *p = text; *p; p += strlen(piece[n++])) {
        const size_t size = (unsigned char)*p == 0xE2 ? 3 : 1;
        if (*p == ' ')
            strcpy(piece[n], "\u2581");
        else
            snprintf(piece[n], 16, "%.*s", (int)size, p);
        if (*p == ' ') p -= 2;
    }
    for (;;) {
        int best = rules;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (int r = 0; r < best; r++)
                if (!strcmp(piece[i], rule[r].left) && !strcmp(piece[i + 1], rule[r].right)) {
                    best = r;
                    at = i;
                }
        if (best == rules) return n;
        glue(piece[at], piece[at], piece[at + 1]);
        memmove(piece[at + 1], piece[at + 2], (--n - at - 1) * sizeof piece[0]);
    }
}

// A random vocabulary over a, b, c and the blank; fills rule and returns how many merges.
static int random_rules(uint64_t seed, Rule rule[24], char *pieces, char *merges) {
    char piece[40][16] = {"\u2581", "a", "b", "c"};
    int n = 4, rules = 0;
    strcpy(pieces, "\u2581 a b c");
    strcpy(merges, "[");
    for (uint64_t i = 0; i < 24; i++) {
        const char *l = piece[rng_below(seed, RNG_TEST, i, 0, (uint64_t)n)];
        const char *r = piece[rng_below(seed, RNG_TEST, i, 1, (uint64_t)n)];
        bool known = strlen(l) + strlen(r) > 12;
        for (int k = 0; k < rules; k++)
            if (!strcmp(l, rule[k].left) && !strcmp(r, rule[k].right)) known = true;
        if (known) continue;
        char both[16];
        glue(both, l, r);
        strcpy(rule[rules].left, l);
        strcpy(rule[rules].right, r);
        sprintf(merges + strlen(merges), "%s[\"%s\",\"%s\"]", rules ? "," : "", l, r);
        rules++;
        for (int k = 0; k < n; k++) known = known || !strcmp(piece[k], both);
        if (known) continue;
        strcpy(piece[n++], both);
        sprintf(pieces + strlen(pieces), " %s", both);
    }
    strcat(merges, "]");
    return rules;
}

static void random_vocabularies_agree_with_rescanning(void **state) {
    (void)state;
    Rule rule[24];
    char pieces[2048], merges[4096], text[101], piece[128][16];
    for (uint64_t seed = 0; seed < 60; seed++) {
        const int rules = random_rules(seed, rule, pieces, merges);
        Tokenizer *t = made(pieces, merges, "[]");
        for (uint64_t k = 0; k < 20; k++) {
            const size_t size = 1 + rng_below(seed, RNG_TEST, k, 1000, 100);
            for (size_t i = 0; i < size; i++)
                text[i] = "abc a"[rng_below(seed, RNG_TEST, k, 2000 + i, 5)];
            text[size] = '\0';
            const size_t n = naive(rule, rules, text, piece);
            int32_t want[128];
            for (size_t i = 0; i < n; i++) want[i] = tokenizer_id(t, piece[i]);
            assert_encodes(t, text, size, true, want, n);
        }
        tokenizer_free(t);
    }
}

// 1 MB of one kind each; quadratic merging would take hours.
static void worst_cases_take_less_than_a_second_a_megabyte(void **state) {
    (void)state;
    enum { SIZE = 1 << 20 };
#ifdef __SANITIZE_ADDRESS__
    const double allowed_s = 10;
#else
    const double allowed_s = 1; // measured: at most 0.25
#endif
    static const char *const unit[] = {"a",      " ",  "\n",      "ab", "\u4e2d\u56fd",
                                       "<|turn", "=-", "\xE2\x82"};
    char *text = malloc(SIZE);
    for (size_t u = 0; u < sizeof unit / sizeof *unit; u++) {
        const size_t n = strlen(unit[u]);
        for (size_t i = 0; i < SIZE; i++) text[i] = unit[u][i % n];
        Ids out = {0};
        const clock_t started = clock(); // processor time: the machine may be busy
        tokenizer_encode(real, text, SIZE, true, &out);
        const double took = (double)(clock() - started) / CLOCKS_PER_SEC;
        if (took > allowed_s) fail_msg("1 MB of \"%s\" took %.2f s", unit[u], took);
        size_t size;
        char *back = tokenizer_decode(real, out.id, out.n, false, &size);
        if (unit[u][0] != '\xE2' || unit[u][1] != '\x82') // whole scalars only come back
            if (SIZE % n == 0) assert_true(size == SIZE && memcmp(back, text, SIZE) == 0);
        free(back);
        ids_free(&out);
    }
    free(text);
}

static void no_text_gives_a_control_token_unasked(void **state) {
    (void)state;
    static const char *const tokens[] = {"<bos>",      "<|turn>",  "<turn|>", "<|tool_response>",
                                         "<eos>",      "<pad>",    "<unk>",   "<|\"|>",
                                         "<|channel>", "<|image|>"};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        char text[64];
        snprintf(text, sizeof text, "x%s %s\n", tokens[i], tokens[i]);
        Ids out = {0};
        tokenizer_encode(real, text, strlen(text), false, &out);
        for (size_t k = 0; k < out.n; k++) assert_false(tokenizer_is_special(real, out.id[k]));
        out.n = 0;
        tokenizer_encode(real, text, strlen(text), true, &out);
        assert_int_equal(out.id[1], tokenizer_id(real, tokens[i]));
        ids_free(&out);
    }
}

// Bytes covered by each token add up to the text, whatever mixture it is.
static void spans_of_tokens_tile_the_text(void **state) {
    (void)state;
    static const char text[] =
        "Hello  w\u00f6rld \u2581 \U0001F999\u0378 <0x41>\n\n3 \u6f22\u5b57 \U000E0041";
    Ids out = {0};
    tokenizer_encode(real, text, sizeof text - 1, false, &out);
    size_t at = 0;
    for (size_t i = 0; i < out.n; i++) {
        const size_t n = tokenizer_span(real, out.id[i], text + at, sizeof text - 1 - at);
        assert_true(n > 0);
        at += n;
    }
    assert_int_equal(at, sizeof text - 1);
    ids_free(&out);
}

static void *encode_many(void *seed) {
    uint64_t sum = 0;
    for (uint64_t k = 0; k < 300; k++) {
        char text[200];
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = "etaoin shrdlu,\n12"[rng_below(*(uint64_t *)seed % 2, RNG_TEST, k, i, 17)];
        Ids out = {0};
        tokenizer_encode(real, text, sizeof text, false, &out);
        for (size_t i = 0; i < out.n; i++) sum = sum * 31 + (uint64_t)out.id[i];
        ids_free(&out);
    }
    *(uint64_t *)seed = sum;
    return NULL;
}

static void threads_share_a_tokenizer(void **state) {
    (void)state;
    pthread_t thread[4];
    uint64_t sum[4] = {0, 1, 2, 3};
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, encode_many, &sum[i]), 0);
    for (int i = 0; i < 4; i++) pthread_join(thread[i], NULL);
    assert_true(sum[0] == sum[2] && sum[1] == sum[3] && sum[0] != sum[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_go_by_rank_then_from_the_left),
        cmocka_unit_test(a_scalar_without_a_piece_becomes_its_bytes),
        cmocka_unit_test(byte_pieces_that_merge_are_not_cut_apart),
        cmocka_unit_test(added_tokens_match_longest_first_and_only_when_asked),
        cmocka_unit_test(invalid_utf8_reads_as_the_replacement_character),
        cmocka_unit_test(random_vocabularies_agree_with_rescanning),
        cmocka_unit_test(worst_cases_take_less_than_a_second_a_megabyte),
        cmocka_unit_test(no_text_gives_a_control_token_unasked),
        cmocka_unit_test(spans_of_tokens_tile_the_text),
        cmocka_unit_test(threads_share_a_tokenizer),
    };
    return cmocka_run_group_tests(tests, load_real, free_real);
}
