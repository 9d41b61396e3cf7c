// tests/data/prepare_helper.h - settings over made inputs, and what prepare would write of them.
#ifndef TESTS_PREPARE_HELPER_H
#define TESTS_PREPARE_HELPER_H

#include <stdlib.h>
#include <string.h>

#include "data/prepare.h"
#include "tests/testing.h"

#define TARGET "configs/demo/base-target"

static inline PrepareTools tools(const Settings *s) {
    static Tokenizer *t;
    Err err = {0};
    if (!t) t = open_tokenizer(TARGET, 8192, &err);
    assert_ok(t, err);
    return prepare_tools(s, t, CHAT_SMALL_2026_07);
}

// {"id", "messages": [user, assistant]}; answer NULL: none. Returns the end.
static inline char *item(char *out, const char *id, const char *user, const char *answer) {
    out += sprintf(out, "{\"id\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}", id,
                   user);
    if (answer) out += sprintf(out, ",{\"role\":\"assistant\",\"content\":\"%s\"}", answer);
    return out + sprintf(out, "]}\n");
}

static inline char *save(const char *name, const char *text) {
    static char path[8][PATH_ROOM];
    static int turn;
    Err err = {0};
    char *p = path_join(path[turn++ % 8], test_dir(), name);
    assert_ok(file_write(p, text, strlen(text), &err), err);
    return p;
}

// Two inputs, NULL = none, and further settings up to a NULL. Caller frees with settings_free.
static inline Settings settings(const char *train, const char *eval, const char *const *more) {
    Settings s;
    Err err = {0};
    char input[3][4 * PATH_ROOM], *list[24];
    int n = 0;
    snprintf(input[0], sizeof input[0], "data.train=%s", train ? train : "");
    snprintf(input[1], sizeof input[1], "data.eval=%s", eval ? eval : "");
    snprintf(input[2], sizeof input[2], "output_dir=%s/out", test_dir());
    // the defaults are the demo's: its caps on samples would hide what is counted here
    list[n++] = "data.max_samples=0";
    list[n++] = "data.dev_samples=0";
    list[n++] = "data.dev_fraction=0.3";
    for (int i = 0; i < 3; i++) list[n++] = input[i];
    for (; more && *more; more++) list[n++] = (char *)*more;
    assert_ok(settings_load(&s, NULL, list, n, &err), err);
    return s;
}

static inline Prepared prepared(const Settings *s) {
    const PrepareTools with = tools(s);
    Prepared p;
    Err err = {0};
    assert_ok(prepare_all(&p, s, &with, NULL, &err), err);
    prepared_check(&p);
    return p;
}

// What a split would hold as a file; freed with chains_free.
typedef struct {
    Chain *chain;
    int64_t n;
} Written;
static inline Written written(Prepared *p, Split split) {
    char path[PATH_ROOM];
    Err err = {0};
    Written w;
    assert_ok(prepared_save(p, split, path_join(path, test_dir(), "written.jsonl"), &err), err);
    assert_ok(chains_load(path, 8192, &w.chain, &w.n, &err), err);
    return w;
}

#endif
