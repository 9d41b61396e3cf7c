// tests/data/hostile_lines.h - lines of every shape, spoiled; prepare over a file in a child whose
// memory is measured.
#ifndef TESTS_HOSTILE_LINES_H
#define TESTS_HOSTILE_LINES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "infer/base/log.h"
#include "infer/base/rng.h"
#include "tests/data/prepare_helper.h"

#define USER "{\"role\":\"user\",\"content\":\"What is package 37?\"}"
#define SAID "{\"role\":\"assistant\",\"content\":\"A library for sound.\"}"
#define CALLS                                                                                      \
    "{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"look\",\"tool_calls\":["     \
    "{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"find\",\"arguments\":"          \
    "\"{\\\"q\\\": \\\"x\\\", \\\"n\\\": 3}\"}}]}"

static const char *const rows[] = {
    "{\"id\":\"a\",\"category\":\"en\",\"messages\":[" USER "," SAID "]}",
    "{\"messages\":[{\"role\":\"system\",\"content\":\"Be terse.\"}," USER "," SAID "," USER "]}",
    "{\"conversations\":[{\"from\":\"human\",\"value\":\"Hi <turn|>\"},{\"from\":\"gpt\","
    "\"value\":\"Yo\"}]}",
    "{\"conversations\":[" USER "," SAID "]}",
    "{\"messages\":[" USER "," CALLS ",{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":"
    "{\"hits\":[1,2.5,null,true,\"z\"]}}," SAID "],\"tools\":[{\"type\":\"function\","
    "\"function\":{\"name\":\"find\",\"description\":\"d\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{\"q\":{\"type\":\"string\"}}}}}]}",
    "{\"messages\":[" USER "," CALLS ",{\"role\":\"tool\",\"content\":\"none\"}]}",
    "{\"prompt\":\"Translate: Haus\",\"completion\":\"house\"}",
    "{\"question_id\":81,\"category\":\"writing\",\"sub_category\":\"b\",\"turns\":[\"One\","
    "\"Two\",\"Three\"]}",
    "{\"text\":\"<bos><|turn>user\\nHi<turn|>\\n<|turn>model\\n<|channel>thought\\nhm\\n<channel|>"
    "Yo<turn|>\\n<|turn>user\\nGo<turn|>\\n<|turn>model\\nOk<turn|>\\n\"}",
    "{\"input_ids\":[2,15,100,16,15,200,300,16],\"loss_mask\":[0,0,0,0,0,1,1,1]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
    "{\"type\":\"text\",\"text\":\"b\"}]}," SAID "]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"url\":\"x\"}]}]}",
};
enum { ROWS = sizeof rows / sizeof *rows, LINE_ROOM = 1 << 14 };

static const char *const pieces[] = {"null",
                                     "true",
                                     "-1",
                                     "1e999",
                                     "99999999999999999999999",
                                     "\"\"",
                                     "[]",
                                     "{}",
                                     "\"\\u0000\"",
                                     "\"\\ud800\"",
                                     "\\",
                                     "\"",
                                     "{",
                                     "}",
                                     "[",
                                     "]",
                                     ",",
                                     ":",
                                     "\xff",
                                     "\xe2\x82",
                                     "<turn|>",
                                     "<|turn>",
                                     "<|image|>",
                                     "<|\\\"|>",
                                     "messages",
                                     "\"tool\"",
                                     "\"content\":",
                                     "0.5",
                                     "\"user\"",
                                     "\x01",
                                     "[[[[[[[[",
                                     "\"model\"",
                                     "\\u202e",
                                     "8192",
                                     "\"tools\":\"[1]\",",
                                     "\t \r"};
enum { PIECES = sizeof pieces / sizeof *pieces };

typedef struct {
    uint64_t seed, line, n;
} Draw;
static size_t draw(Draw *d, size_t below) {
    return (size_t)rng_below(d->seed, RNG_TEST, d->line, d->n++, below);
}

static size_t spoil(Draw *d, char *line, size_t n) {
    const size_t at = draw(d, n + 1), rest = n - at;
    switch (draw(d, 6)) {
    case 0: // a byte
        if (at < n) line[at] = (char)draw(d, 256);
        return n;
    case 1: { // a piece put in
        const char *p = pieces[draw(d, PIECES)];
        const size_t size = strlen(p);
        if (n + size >= LINE_ROOM) return n;
        memmove(line + at + size, line + at, rest);
        memcpy(line + at, p, size);
        return n + size;
    }
    case 2: { // a span taken out
        const size_t size = rest ? draw(d, rest < 40 ? rest : 40) : 0;
        memmove(line + at, line + at + size, rest - size);
        return n - size;
    }
    case 3: { // a span said twice
        const size_t size = rest ? draw(d, rest < 200 ? rest : 200) : 0;
        if (n + size >= LINE_ROOM) return n;
        memmove(line + at + size, line + at, rest);
        return n + size;
    }
    case 4: { // the end of another row
        const char *other = rows[draw(d, ROWS)];
        const size_t size = strlen(other), from = draw(d, size + 1);
        if (at + size - from >= LINE_ROOM) return n;
        memcpy(line + at, other + from, size - from);
        return at + size - from;
    }
    default: // cut
        return draw(d, 8) ? n : at;
    }
}

// A row whose first text is its own.
static size_t numbered(char *line, const char *row, int64_t i) {
    static const char *const starts[] = {"content\":\"", "value\":\"", "prompt\":\"",
                                         "turns\":[\"",  "text\":\"",  "user\\n"};
    for (size_t k = 0; k < sizeof starts / sizeof *starts; k++) {
        const char *at = strstr(row, starts[k]);
        if (!at) continue;
        at += strlen(starts[k]);
        return (size_t)sprintf(line, "%.*s%lld %s", (int)(at - row), row, (long long)i, at);
    }
    return (size_t)sprintf(line, "%s", row);
}

// n lines, most of them spoiled; their number that is not blank. Seeded.
static inline int64_t spoiled_lines(const char *path, int64_t n, uint64_t seed) {
    FILE *f = fopen(path, "wb");
    char *line = malloc(LINE_ROOM);
    int64_t told = 0;
    assert_true(f && line);
    for (int64_t i = 0; i < n; i++) {
        Draw d = {seed, (uint64_t)i, 0};
        size_t size = numbered(line, rows[draw(&d, ROWS)], i);
        for (size_t k = draw(&d, 4); k > 0; k--) size = spoil(&d, line, size);
        bool blank = true;
        for (size_t k = 0; k < size; k++) {
            if (line[k] == '\n') line[k] = ' ';
            blank = blank && strchr(" \t\r", line[k]) && line[k];
        }
        told += !blank;
        fwrite(line, 1, size, f);
        putc('\n', f);
    }
    free(line);
    assert_int_equal(fclose(f), 0);
    return told;
}

// How a child ended that prepared one file.
typedef struct {
    int code;       // 0 = prepared, else the error's code; -1: it crashed
    char said[512]; // the refusal
    int64_t in, out, skipped, failed;
    int64_t samples; // whose masks were looked at
    int64_t peak;    // resident bytes; 0: not measured, under sanitizers
} Outcome;

// What every sample must hold, whatever it came from.
static bool look_at(void *ctx, const char *line, size_t size, Err *err) {
    Outcome *o = ctx;
    Chain c;
    json_t *value = chat_json_read(line, size, err);
    CHECK(value && chain_read(&c, value, 8192, "sample", err), "(%s)", err->text);
    const Sample *s = &c.sample;
    CHECK(s->prompt > 0 && s->kind[0] == TOKEN_CONTEXT);
    CHECK(s->prompt == s->n || s->kind[s->n - 1] >= TOKEN_MODEL);
    for (int64_t i = 0; s->prompt == s->n && i < s->n; i++) CHECK(s->kind[i] == TOKEN_CONTEXT);
    for (int64_t i = 1; i < s->n; i++) // an answer ends before its context goes on
        CHECK(s->kind[i] != TOKEN_CONTEXT || s->kind[i - 1] == TOKEN_CONTEXT || s->ids[i - 1] > 1);
    chain_free(&c);
    json_decref(value);
    o->samples++;
    return true;
}

static void run(Outcome *o, const char *path, const char *answers) {
    char kind[64];
    Err err = {0};
    Prepared p;
    snprintf(kind, sizeof kind, "regenerate.answers=%s", answers);
    const char *more[] = {"data.bad_lines=count", "data.turns=every", kind, NULL};
    Settings s = settings(path, NULL, more);
    const PrepareTools with = tools(&s);
    if (!prepare_all(&p, &s, &with, NULL, &err)) {
        o->code = err.code;
        snprintf(o->said, sizeof o->said, "%.500s", err.text);
        return;
    }
    prepared_check(&p);
    const PrepareCount c = prepared_sum(&p, INPUT_TRAIN);
    *o = (Outcome){.in = c.in, .out = c.out, .skipped = prepare_skipped(&c), .failed = c.failed};
    for (int i = 0; i < SPLIT_COUNT; i++)
        CHECK(prepared_lines(&p, (Split)i, look_at, o, &err), "(%s)", err.text);
    prepared_free(&p);
    settings_free(&s);
}

// Prepares `path` as data.train in a child, bad lines counted, every turn taken; looks at every
// sample it would write.
static inline Outcome prepare_in_child(const char *path, const char *answers) {
    Outcome o = {0};
    struct rusage usage = {0};
    int fd[2], status = 0;
    assert_int_equal(pipe(fd), 0);
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        log_set_quiet(true);
        if (freopen("/dev/null", "w", stderr) == NULL) _exit(97);
        run(&o, path, answers);
        if (write(fd[1], &o, sizeof o) != (ssize_t)sizeof o) _exit(98);
        _exit(0);
    }
    close(fd[1]);
    const bool told = read(fd[0], &o, sizeof o) == (ssize_t)sizeof o;
    close(fd[0]);
    assert_int_equal(wait4(pid, &status, 0, &usage), pid);
    if (!told || !WIFEXITED(status) || WEXITSTATUS(status) != 0) o.code = -1;
#ifndef __SANITIZE_ADDRESS__
    o.peak = (int64_t)usage.ru_maxrss * 1024;
#endif
    return o;
}

#endif
