// tests/eval/verb_run.h - the program itself, run as people run it, on a workspace of a few
// prompts.
#ifndef TESTS_VERB_RUN_H
#define TESTS_VERB_RUN_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "tests/testing.h"

// All of the pipeline in a few seconds; k of export is the stock's 6, which eval does not measure.
#define SMALL                                                                                      \
    "-q -c tests/smoke.json data.max_samples=8 data.dev_samples=3 data.eval_samples=5 "            \
    "regenerate.max_new_tokens=32 train.steps=3 train.k=3 train.anchors=32 eval.draft_tokens=3 "   \
    "eval.bootstrap=100 "

// What a run left: the texts are static, valid until the next run.
typedef struct {
    int status;
    const char *out, *err;
} Said;

static inline char *run_text(const char *name) {
    char path[PATH_ROOM];
    size_t size;
    Err err = {0};
    char *text = file_read(path_join(path, test_dir(), name), 1 << 26, &size, &err);
    assert_ok(text != NULL, err);
    return text;
}

// draftsmith ARGUMENTS, as a shell reads them.
__attribute__((format(printf, 1, 2))) static inline Said run(const char *fmt, ...) {
    static char *out, *err;
    char arguments[4096], *line;
    const char *program = getenv("DRAFTSMITH");
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(arguments, sizeof arguments, fmt, ap);
    va_end(ap);
    assert_true(asprintf(&line, "OMP_WAIT_POLICY=passive %s %s >%s/stdout 2>%s/stderr </dev/null",
                         program ? program : "./draftsmith", arguments, test_dir(),
                         test_dir()) > 0);
    const int status = system(line);
    free(line);
    free(out);
    free(err);
    out = run_text("stdout");
    err = run_text("stderr");
    return (Said){WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), out, err};
}

#define assert_status(said, code)                                                                  \
    do {                                                                                           \
        const Said said_ = (said);                                                                 \
        if (said_.status != (code))                                                                \
            fail_msg("exit code %d, expected %d: %s", said_.status, (int)(code), said_.err);       \
    } while (0)

// The documents on stdout as one array (verbs that are several stages print one each).
static inline json_t *documents(const char *text) {
    json_t *all = json_array();
    while (*text != '\0') {
        json_error_t e;
        json_t *one = json_loads(text, JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, &e);
        if (one == NULL) fail_msg("not JSON: %s at %.80s", e.text, text);
        json_array_append_new(all, one);
        text += e.position;
        text += strspn(text, " \n");
    }
    return all;
}

// The member at "a.b.0.c"; a missing one fails the test.
static inline json_t *at(const json_t *o, const char *path) {
    char copy[256];
    snprintf(copy, sizeof copy, "%s", path);
    for (char *save = NULL, *p = strtok_r(copy, ".", &save); p != NULL;
         p = strtok_r(NULL, ".", &save)) {
        o = json_is_array(o) ? json_array_get(o, (size_t)atoi(p)) : json_object_get(o, p);
        if (o == NULL) fail_msg("no %s", path);
    }
    return (json_t *)o;
}

static inline double number(const json_t *o, const char *path) {
    if (!json_is_number(at(o, path))) fail_msg("%s is no number", path);
    return json_number_value(at(o, path));
}

static inline json_t *read_json(const char *dir, const char *name) {
    char path[PATH_ROOM];
    Err err = {0};
    json_t *o = json_read_file(path_join(path, dir, name), 1 << 26, &err);
    assert_ok(o != NULL, err);
    return o;
}

// Names, sizes, times and contents of everything under a folder (a missing one: a sum, too).
static inline const char *tree_sum(const char *dir) {
    static char sum[2][80];
    static int turn;
    char line[2 * PATH_ROOM + 200], *to = sum[turn ^= 1];
    snprintf(line, sizeof line,
             "{ find %s -printf '%%p %%y %%s %%T@ %%l\\n' | LC_ALL=C sort; "
             "find %s -type f -print0 | LC_ALL=C sort -z | xargs -0 cat; } 2>&1 | sha256sum",
             dir, dir);
    FILE *p = popen(line, "r");
    assert_non_null(p);
    assert_non_null(fgets(to, sizeof sum[0], p));
    pclose(p);
    return to;
}

#endif
