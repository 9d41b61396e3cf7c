// tests/fuzz/corpus_fuzz.c - libFuzzer: any bytes as a file of prompts.
//
// Held: every line is an object or refused with one printable line; read again, and packed by gzip
// or zstd, the same lines; an item that prepare takes keeps its ids in the vocabulary and its mask
// behind the prompt, and is the same chain after it was written and read; turns that share a
// sequence are the turns there are.
#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "data/prepare.h"
#include "infer/base/json.h"
#include "infer/base/utf8.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static PrepareTools tools = {.chat_template = CHAT_SMALL_2026_07};

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    Err err = {0};
    tools.tokenizer = tokenizer_load("configs/demo/base-target/tokenizer.json", &err);
    if (tools.tokenizer != NULL) return 0;
    fprintf(stderr, "%s\n", err.text);
    exit(1);
}

static void printable(const char *text) {
    CHECK(text[0] != '\0' && utf8_valid(text, strlen(text)), "(%s)", text);
    for (; *text; text++) CHECK((unsigned char)*text >= 0x20, "(byte %d)", *text);
}

// A mask: nothing before the first prompt's end, the model's up to the last token.
static void mask_holds(const Sample *s) {
    CHECK(s->n > 0 && s->prompt > 0 && s->prompt <= s->n);
    for (int64_t i = 0; i < s->n; i++) {
        CHECK(s->ids[i] >= 0 && s->ids[i] < tokenizer_vocab(tools.tokenizer));
        CHECK(s->kind[i] < TOKEN_KINDS);
    }
    CHECK(s->prompt == s->n || s->kind[s->n - 1] >= TOKEN_MODEL);
    for (int64_t i = 0; s->prompt == s->n && i < s->n; i++) CHECK(s->kind[i] == TOKEN_CONTEXT);
}

static void written_and_read(const Chain *c) {
    Chain again;
    Err err = {0};
    json_t *o = chain_json(c), *back;
    CHECK(o != NULL, "(a text of the sample is not UTF-8)");
    CHECK(chain_read(&again, o, tokenizer_vocab(tools.tokenizer), "here", &err), "(%s)", err.text);
    CHECK(json_equal(o, back = chain_json(&again)));
    json_decref(o);
    json_decref(back);
    chain_free(&again);
}

static int64_t runs_of(const Sample *s) {
    int64_t n = 0;
    for (int64_t i = 1; i < s->n; i++)
        n += s->kind[i] >= TOKEN_MODEL && s->kind[i - 1] == TOKEN_CONTEXT;
    return n;
}

static void use_item(Dialogue *d, bool given) {
    const Sample like = {.id = "a", .min_margin = -1};
    Err err = {0};
    Item item;
    Hashes h = {0};
    int64_t answers = 0;
    CHECK(item_hashes(&h, d, &err) || err.code == ERR_INPUT, "(%s)", err.text);
    dialogue_rewind(d);
    if (given ? item_given(&item, d, &like, &err) : item_open(&item, d, &like, &err)) {
        for (int64_t i = 0; i < item.n; i++) {
            const Sample *s = &item.chain[i].sample;
            mask_holds(s);
            written_and_read(&item.chain[i]);
            answers += s->prompt < s->n ? runs_of(s) : 1 + item.chain[i].follows;
        }
        CHECK(answers >= h.n || d->left_out > 0, "(%d turns, %d answers)", (int)h.n, (int)answers);
        item_free(&item);
    } else {
        CHECK(err.code == ERR_INPUT && err.text[0] != '\0', "(%s)", err.text);
    }
    free(h.at);
}

// choice: template, thinking, turns.
static void use(const CorpusLine *line, bool given, unsigned choice) {
    PrepareTools with = tools;
    Row row;
    Dialogue d;
    Err err = {0};
    with.chat_template = (ChatTemplate)(choice % 3);
    with.thinking = (Thinking)(choice / 3 % 3);
    with.row.drop_reasoning = with.thinking == THINKING_OFF;
    with.every_turn = choice / 9 % 2;
    with.max_length = 512;
    with.max_bytes = 1 << 14;
    RowVerdict verdict = row_read(&row, line, &with.row, &err);
    if (verdict == ROW_READ) verdict = dialogue_open(&d, &row, &with, &err);
    if (verdict == ROW_READ) {
        use_item(&d, given);
        dialogue_close(&d);
    } else {
        CHECK(err.code == ERR_INPUT && err.text[0] != '\0');
    }
    row_free(&row);
}

// The lines of a file, one JSON text each, and a last line that says how it ended.
static char *lines_of(const void *data, size_t size, bool look) {
    char path[64], *text = NULL;
    size_t n = 0;
    const int fd = memfd_create("prompts", 0);
    CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    FILE *out = open_memstream(&text, &n);
    Err err = {0};
    CorpusLine line = {0};
    Corpus *c = corpus_open(path, &err);
    CorpusStep step = c != NULL ? CORPUS_LINE : CORPUS_BROKEN;
    while (c != NULL && (step = corpus_next(c, &line, &err)) != CORPUS_END) {
        CHECK(step == CORPUS_LINE || err.code == ERR_INPUT);
        if (step != CORPUS_LINE) printable(err.text);
        if (step == CORPUS_BROKEN) break;
        CHECK(json_is_object(line.value) == (step == CORPUS_LINE));
        printable(line.where);
        if (step == CORPUS_LINE) json_dumpf(line.value, out, JSON_COMPACT | JSON_SORT_KEYS);
        fputc('\n', out);
        for (unsigned k = 0; look && step == CORPUS_LINE && k < 2; k++)
            use(&line, k, (unsigned)size + (unsigned)line.line * 5);
        err = (Err){0};
    }
    fprintf(out, step == CORPUS_END ? "whole\n" : "refused\n");
    fclose(out);
    if (c != NULL) CHECK(corpus_skipped(c) >= 0);
    corpus_close(c);
    close(fd);
    return text;
}

static size_t pack(int filter, const void *data, size_t size, char *out, size_t room) {
    size_t used = 0;
    struct archive *a = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    CHECK(archive_write_add_filter(a, filter) == ARCHIVE_OK);
    CHECK(archive_write_set_format_raw(a) == ARCHIVE_OK);
    CHECK(archive_write_open_memory(a, out, room, &used) == ARCHIVE_OK);
    archive_entry_set_filetype(e, AE_IFREG);
    CHECK(archive_write_header(a, e) == ARCHIVE_OK);
    CHECK(archive_write_data(a, data, size) == (la_ssize_t)size);
    CHECK(archive_write_close(a) == ARCHIVE_OK);
    archive_entry_free(e);
    archive_write_free(a);
    return used;
}

// Bytes that begin as JSON lines do are no container, whatever follows.
static bool is_plain(const uint8_t *data, size_t size) {
    return size > 1 && data[0] == '{' && memmem(data, size, "PK", 2) == NULL &&
           memmem(data, size, "ustar", 5) == NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *plain = lines_of(data, size, true);
    if (is_plain(data, size)) {
        const size_t room = 2 * size + (64 << 10);
        char *packed = malloc(room);
        const int filter = size % 2 ? ARCHIVE_FILTER_GZIP : ARCHIVE_FILTER_ZSTD;
        char *same = lines_of(packed, pack(filter, data, size, packed, room), false);
        CHECK(strcmp(plain, same) == 0, "(%s, packed: %s)", plain, same);
        free(same);
        free(packed);
    }
    free(plain);
    return 0;
}
