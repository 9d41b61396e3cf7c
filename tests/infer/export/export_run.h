// tests/infer/export/export_run.h - an output folder that looks like a finished run, and the verb
// on it. Bodies are here because every test is one binary.
#ifndef TESTS_EXPORT_RUN_H
#define TESTS_EXPORT_RUN_H

#include "tests/testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/export/export_cmd.h"

#define STOCK "configs/demo/stock-assistant"

// Runs the verb on an output folder; its stdout goes to /dev/null.
static inline bool export_to(const char *out, const char *const *more, Err *err) {
    char output[PATH_ROOM + 16];
    char *set[12] = {output};
    int n = 1;
    while (more != NULL && *more != NULL) set[n++] = (char *)*more++;
    snprintf(output, sizeof output, "output_dir=%s", out);
    Cli cli = {.verb = "export"};
    if (!settings_load(&cli.s, NULL, set, n, err)) return false;
    fflush(stdout);
    const int saved = dup(1);
    assert_non_null(freopen("/dev/null", "w", stdout));
    const bool ok = export_verb.run(&cli, err);
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    settings_free(&cli.s);
    return ok;
}

// An output folder whose best checkpoint is the stock assistant; gain < -1: never measured.
static inline const char *new_run(double gain, const char *sha) {
    static char out[PATH_ROOM];
    static int count;
    char name[32], path[PATH_ROOM], command[4 * PATH_ROOM];
    Err err = {0};
    snprintf(name, sizeof name, "run%d", count++);
    path_join(out, test_dir(), name);
    snprintf(command, sizeof command, "mkdir -p %s/ckpt %s/eval && cp -r " STOCK " %s/ckpt/best",
             out, out, out);
    assert_int_equal(system(command), 0);
    if (gain < -1) return out;
    json_t *o = json_pack("{s:[i,i], s:i, s:i, s:{s:{s:{s:s, s:[f,f]}}, s:{s:{s:s, s:[f,f]}}}, "
                          "s:{s:{s:[f,f], s:[[f,f],[f,f]]}}}",
                          "draft_tokens", 1, 6, "prompts", 200, "tokens", 9000, "drafters", "stock",
                          "greedy", "head", "centroid", "tau", 1.5, 2.0, "trained", "greedy",
                          "head", "centroid", "tau", 1.5, 2.0 * (1 + gain), "paired", "greedy",
                          "gain", 0.0, gain, "ci", -0.1, 0.1, gain - 0.1, gain + 0.1);
    assert_non_null(o);
    if (sha != NULL)
        json_object_set_new(json_object_get(json_object_get(o, "drafters"), "trained"), "sha256",
                            json_string(sha));
    assert_ok(json_write_file(path_join(path, out, "eval/acceptance.json"), o, &err), err);
    json_decref(o);
    return out;
}

#endif
