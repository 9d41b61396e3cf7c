// tests/data/regenerate_e2e_test.c - answers of the demo target: resumable, same bytes, kinds,
// limits.
//
// Everything that runs a model does so in a child: OpenMP does not survive a fork.
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/regenerate.h"
#include "data/workspace.h"
#include "infer/base/cli.h"
#include "infer/base/hash.h"
#include "infer/base/log.h"
#include "infer/text/chat.h"
#include "tests/testing.h"

#define TARGET "configs/demo/base-target"
enum { PROMPTS = 24 };

// Prompts in the shape of the template, with made-up words.
static Sample *make_prompts(const Tokenizer *t) {
    Sample *p = calloc(PROMPTS, sizeof *p);
    for (int i = 0; i < PROMPTS; i++) {
        char text[256];
        Ids ids = {0};
        snprintf(text, sizeof text,
                 "<bos><|turn>user\nDescribe package number %d.%s<turn|>\n<|turn>model\n", i * 37,
                 i % 3 ? "" : " Be brief, please.");
        tokenizer_encode(t, text, strlen(text), true, &ids);
        snprintf(p[i].id, sizeof p[i].id, "p%d", i);
        p[i].ids = ids.id;
        p[i].n = p[i].prompt = (int64_t)ids.n;
        p[i].kind = calloc(ids.n, 1);
        p[i].min_margin = -1;
    }
    p[5].prompt = p[5].n - 3; // an answer that the data gave
    memset(p[5].kind + p[5].prompt, TOKEN_MODEL, 3);
    strcpy(p[5].sampler, "reference");
    return p;
}

static bool anew; // of the next child

// 0 = done, else the error's code. Counts are left beside the output.
static int child(const char *out, double temperature, int samples, const char *identity) {
    Err err = {0};
    char dtype[] = "runtime.dtype=f32", target[] = "model.target_path=" TARGET,
         adapter[] = "model.adapter_path=", threads[] = "runtime.threads=1", counts[PATH_ROOM];
    char *const list[] = {dtype, target, adapter, threads};
    Settings s;
    OpenTarget m;
    RegenerateCount c;
    log_set_quiet(true);
    signals_install();
    if (!settings_load(&s, NULL, list, 4, &err) || !open_target(&m, &s, 64, &err)) return 90;
    Tokenizer *t = open_tokenizer(TARGET, 8192, &err);
    Sample *p = make_prompts(t);
    const RegenerateOptions opt = {
        .generate = {.slots = 3,
                     .max_new_tokens = 10,
                     .max_length = 200,
                     .prefill_rows = 64,
                     .sampler = {.temperature = temperature, .top_k = 20, .top_p = 0.95, .seed = 3},
                     .kv_dtype = DT_F32},
        .samples = samples,
        .group = 6,
        .tokenizer = t,
        .identity = identity,
        .anew = anew,
        .what = "test"};
    if (regenerate(m.target, p, PROMPTS, &opt, out, &c, &err)) {
        snprintf(counts, sizeof counts, "%s.counts", out);
        if (!file_write(counts, &c, sizeof c, &err)) return 91;
        return 0;
    }
    return err.code;
}

static int run_killed(const char *out, double temperature, int samples, const char *identity,
                      int signal, int ms) {
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) _exit(child(out, temperature, samples, identity));
    int status;
    if (signal) {
        usleep((useconds_t)ms * 1000);
        kill(pid, signal);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int lines_of(const char *path) {
    Err err = {0};
    size_t size;
    char *text = file_exists(path) ? file_read(path, 1 << 24, &size, &err) : NULL;
    int n = 0;
    for (char *p = text; p && (p = strchr(p, '\n')); p++) n++;
    free(text);
    return n;
}

// Kills a run as soon as its journal has `lines` lines. false: it was done before that was seen.
static bool run_killed_at(const char *out, double temperature, const char *identity, int lines) {
    char journal[PATH_ROOM];
    int status = 0;
    snprintf(journal, sizeof journal, "%s.journal", out);
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) _exit(child(out, temperature, 1, identity));
    while (lines_of(journal) < lines)
        if (waitpid(pid, &status, WNOHANG) == pid || usleep(500) != 0) return false;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status);
}

static char *file_in(const char *name) {
    static char path[4][PATH_ROOM];
    static int turn;
    return path_join(path[turn++ % 4], test_dir(), name);
}

static RegenerateCount counts_of(const char *out) {
    char path[PATH_ROOM];
    Err err = {0};
    size_t size;
    snprintf(path, sizeof path, "%s.counts", out);
    RegenerateCount *data = (RegenerateCount *)file_read(path, 4096, &size, &err), c;
    assert_ok(data, err);
    c = *data;
    free(data);
    return c;
}

static void answers_come_in_the_order_of_the_prompts(void **state) {
    (void)state;
    const char *out = file_in("a.jsonl");
    Err err = {0};
    Sample *s;
    int64_t n, tokens = 0, stopped = 0;
    assert_int_equal(run_killed(out, 0, 1, "a", 0, 0), 0);
    assert_ok(samples_load(out, 8192, &s, &n, &err), err);
    assert_int_equal(n, PROMPTS);
    for (int i = 0; i < n; i++) {
        char id[16];
        snprintf(id, sizeof id, "p%d", i);
        assert_string_equal(s[i].id, id);
        assert_string_equal(s[i].sampler, i == 5 ? "reference" : "greedy");
        assert_true(s[i].n - s[i].prompt <= 10 && s[i].n > s[i].prompt);
        if (i != 5) assert_true(s[i].min_margin >= 0);
        if (i != 5 && !s[i].stopped)
            assert_int_equal(s[i].n - s[i].prompt, 10); // cut, kept, flagged
        for (int64_t k = s[i].prompt; k < s[i].n; k++) assert_int_equal(s[i].kind[k], TOKEN_MODEL);
        tokens += s[i].n - s[i].prompt;
        stopped += s[i].stopped;
    }
    const RegenerateCount c = counts_of(out);
    assert_int_equal(c.prompts, PROMPTS);
    assert_int_equal(c.answers, PROMPTS);
    assert_int_equal(c.given, 1);
    assert_int_equal(c.tokens, tokens);
    assert_int_equal(c.stopped, stopped);
    assert_int_equal(c.cut, PROMPTS - stopped);
    samples_free(s, n);
    char journal[PATH_ROOM];
    snprintf(journal, sizeof journal, "%s.journal", out);
    assert_false(file_exists(journal));
}

static void kills_and_stops_do_not_change_the_bytes(void **state) {
    (void)state;
    const char *whole = file_in("whole.jsonl");
    Err err = {0};
    Sha256 want, got;
    assert_int_equal(run_killed(whole, 0.8, 2, "a", 0, 0), 0);
    assert_ok(sha256_file(&want, whole, &err), err);
    int killed = 0, stopped = 0;
    int64_t resumed = 0;
    for (int turn = 0; turn < 3; turn++) {
        char name[32];
        snprintf(name, sizeof name, "k%d.jsonl", turn);
        const char *out = file_in(name);
        int rc = -1;
        for (int tries = 0; rc != 0 && tries < 6; tries++) {
            const int how = tries > 3 ? 0 : turn % 2 ? SIGTERM : SIGKILL;
            rc = run_killed(out, 0.8, 2, "a", how, 150 + 70 * turn + 250 * tries);
            killed += rc < 0;
            stopped += rc == ERR_STOPPED;
            assert_true(rc <= 0 || rc == ERR_STOPPED);
        }
        assert_int_equal(rc, 0);
        assert_ok(sha256_file(&got, out, &err), err);
        assert_string_equal(got.hex, want.hex);
        resumed += counts_of(out).resumed;
    }
    print_message("%d kills, %d stops, %d answers taken from journals\n", killed, stopped,
                  (int)resumed);
    assert_true(killed > 0);
}

static void a_journal_of_other_settings_is_not_used_nor_lost_unasked(void **state) {
    (void)state;
    const char *out = file_in("other.jsonl"), *want = file_in("a.jsonl");
    char journal[PATH_ROOM];
    Err err = {0};
    snprintf(journal, sizeof journal, "%s.journal", out);
    for (int try = 0; try < 20 && !run_killed_at(out, 0.8, "sampled", 2); try++)
        unlink(out); // it was faster than the signal
    const int lines = lines_of(journal);
    assert_true(lines >= 2);
    assert_int_equal(run_killed(out, 0, 1, "a", 0, 0), ERR_USAGE);
    assert_int_equal(lines_of(journal), lines);
    anew = true;
    assert_int_equal(run_killed(out, 0, 1, "a", 0, 0), 0);
    anew = false;
    assert_int_equal(counts_of(out).resumed, 0);
    Sha256 x, y;
    assert_ok(sha256_file(&x, out, &err), err);
    assert_ok(sha256_file(&y, want, &err), err);
    assert_string_equal(x.hex, y.hex);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_come_in_the_order_of_the_prompts),
        cmocka_unit_test(kills_and_stops_do_not_change_the_bytes),
        cmocka_unit_test(a_journal_of_other_settings_is_not_used_nor_lost_unasked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
