// tests/fuzz/tokenizer_fuzz.c - libFuzzer: any bytes as text, any bytes as tokenizer.json.
//
// clang -fsanitize=fuzzer,address,undefined with the sources of infer/text and infer/base.
// TOKENIZER names the vocabulary (default: the demo's). Held: no crash; every id in range; no
// control token from text encoded without them; decode(encode(x)) = x for UTF-8 without U+2581,
// which decodes to a blank.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/tokenizer.h"
#include "infer/text/tokenizer_table.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static Tokenizer *vocabulary;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    Err err = {0};
    const char *path = getenv("TOKENIZER");
    vocabulary = tokenizer_load(path ? path : "configs/demo/base-target/tokenizer.json", &err);
    if (vocabulary == NULL) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return 0;
}

static void text(const char *s, size_t size, bool special) {
    Ids ids = {0};
    tokenizer_encode(vocabulary, s, size, special, &ids);
    for (size_t i = 0; i < ids.n; i++) {
        CHECK(ids.id[i] >= 0 && ids.id[i] < tokenizer_vocab(vocabulary), "id %d", ids.id[i]);
        CHECK(special || !tokenizer_is_special(vocabulary, ids.id[i]), "control token %d",
              ids.id[i]);
    }
    size_t back_size;
    char *back = tokenizer_decode(vocabulary, ids.id, ids.n, false, &back_size);
    if (utf8_valid(s, size) && memmem(s, size, "\u2581", 3) == NULL)
        CHECK(back_size == size && memcmp(back, s, size) == 0, "the text does not come back");
    free(back);
    ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    text((const char *)data, size, true);
    text((const char *)data, size, false);
    Err err = {0};
    Tokenizer *t = tokenizer_parse((const char *)data, size, &err);
    if (t != NULL) {
        Ids ids = {0};
        tokenizer_encode(t, (const char *)data, size, true, &ids);
        ids_free(&ids);
    }
    tokenizer_free(t);
    return 0;
}
