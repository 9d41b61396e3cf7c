// tests/eval/speculative_e2e_test.c - the demo pair with its stock drafter: regenerate and generate
// give what the target gives alone, whatever the number of sequences, greedy and sampled.
#include <math.h>

#include "data/token_sample.h"
#include "tests/eval/verb_run.h"

enum { VOCAB = 8192 };
#define NEAR_TIE 1e-3 // of f32 logits: sums in another order

static const char *const splits[] = {"train", "dev", "eval"};
#define PROMPTS                                                                                    \
    "-q -c tests/smoke.json data.max_samples=16 data.dev_samples=6 data.eval_samples=12 "          \
    "regenerate.max_new_tokens=48 runtime.dtype=f32 "

static char work[PATH_ROOM];
static Sample *plain[2][3]; // greedy, sampled
static int64_t plains[2][3];

static const char *sampler(bool sampled) {
    return sampled ? "regenerate.temperature=0.9 regenerate.samples=2" : "";
}

static void load(const char *dir, int split, Sample **s, int64_t *n) {
    char path[PATH_ROOM], name[32];
    Err err = {0};
    snprintf(name, sizeof name, "regen/%s.jsonl", splits[split]);
    assert_ok(samples_load(path_join(path, dir, name), VOCAB, s, n, &err), err);
}

static char *fresh(const char *name) { // a workspace with the prompts of `work`
    static char dir[PATH_ROOM];
    char *line;
    path_join(dir, test_dir(), name);
    assert_true(asprintf(&line, "rm -rf %s && mkdir %s && cp -r %s/data %s/", dir, dir, work, dir) >
                0);
    assert_int_equal(system(line), 0);
    free(line);
    return dir;
}

static int answer_alone(void **state) {
    (void)state;
    snprintf(work, sizeof work, "%s/plain", test_dir());
    Said s = run("prepare " PROMPTS "output_dir=%s", work);
    for (int sampled = 0; sampled < 2 && s.status == 0; sampled++) {
        s = run("regenerate " PROMPTS "%s --overwrite output_dir=%s", sampler(sampled), work);
        for (int i = 0; i < 3 && s.status == 0; i++)
            load(work, i, &plain[sampled][i], &plains[sampled][i]);
    }
    return s.status != 0 && fprintf(stderr, "%s\n", s.err);
}

static int drop_all(void **state) {
    (void)state;
    for (int i = 0; i < 6; i++) samples_free(plain[i / 3][i % 3], plains[i / 3][i % 3]);
    return 0;
}

// Where a text parts from the target's own, a near tie must have been there.
static int64_t compare(const Sample *a, const Sample *b, const char *what) {
    assert_string_equal(a->id, b->id);
    assert_int_equal(a->sample, b->sample);
    const bool same = a->n == b->n && a->stopped == b->stopped &&
                      memcmp(a->ids, b->ids, (size_t)a->n * sizeof *a->ids) == 0;
    if (!same && (a->min_margin < 0 || a->min_margin > NEAR_TIE))
        fail_msg("%s: the answer to %s differs, smallest margin %.3g", what, a->id, a->min_margin);
    if (same) assert_true(fabs(a->min_margin - b->min_margin) < NEAR_TIE);
    return !same;
}

static void answers_are_those_of_the_target_alone(void **state) {
    (void)state;
    const int slots[] = {1, 3, 8};
    int64_t answers = 0, near = 0;
    for (int i = 0; i < 6; i++) {
        char what[64];
        const bool sampled = i / 3;
        const char *dir = fresh("drafted");
        snprintf(what, sizeof what, "%d slots%s", slots[i % 3], sampled ? ", sampled" : "");
        const Said s = run("regenerate " PROMPTS "%s regenerate.drafter=stock regenerate.batch=%d "
                           "regenerate.draft_tokens=%d regenerate.p_min=%g output_dir=%s",
                           sampler(sampled), slots[i % 3], 2 + i, i % 2 ? 0.0 : 0.2, dir);
        assert_status(s, 0);
        for (int split = 0; split < 3; split++) {
            Sample *got;
            int64_t n;
            load(dir, split, &got, &n);
            assert_int_equal(n, plains[sampled][split]);
            for (int64_t k = 0; k < n; k++)
                near += compare(&plain[sampled][split][k], &got[k], what);
            answers += n;
            samples_free(got, n);
        }
    }
    print_message("%d answers compared, %d differ by a near tie\n", (int)answers, (int)near);
    assert_true(100 * near <= answers);
}

// A drafter does not make a finished stage another one; its speed and acceptance are said.
static void the_stage_is_the_same_with_a_drafter(void **state) {
    (void)state;
    const char *dir = fresh("stage");
    Said s = run("regenerate -c tests/smoke.json data.max_samples=16 data.dev_samples=6 "
                 "data.eval_samples=12 regenerate.max_new_tokens=48 regenerate.drafter=stock "
                 "output_dir=%s",
                 dir);
    assert_status(s, 0);
    assert_non_null(strstr(s.err, "tokens per target step (bonus in, pooled)"));
    assert_non_null(strstr(s.err, "tokens/s"));
    char before[96], *regen;
    assert_true(asprintf(&regen, "%s/regen", dir) > 0);
    snprintf(before, sizeof before, "%s", tree_sum(regen));
    s = run("regenerate -c tests/smoke.json data.max_samples=16 data.dev_samples=6 "
            "data.eval_samples=12 regenerate.max_new_tokens=48 output_dir=%s",
            dir);
    assert_status(s, 0);
    assert_non_null(strstr(s.err, "done before"));
    assert_string_equal(tree_sum(regen), before);
    free(regen);
}

static void a_drafter_that_is_none_is_refused(void **state) {
    (void)state;
    const char *dir = fresh("refused");
    Said s = run("regenerate " PROMPTS "regenerate.drafter=%s/nowhere output_dir=%s", dir, dir);
    assert_status(s, 2);
    assert_non_null(strstr(s.err, "regenerate.drafter: no folder "));
    // a drafter of another pair
    assert_status(run("regenerate " PROMPTS
                      "regenerate.drafter=tests/golden/e2b/assistant-fitted output_dir=%s",
                      dir),
                  3);
}

static char *text_of(const char *more) {
    const Said s = run("generate --json -q runtime.dtype=f32 regenerate.temperature=0.8 "
                       "generate.max_new_tokens=48 %s 'Was ist der Zweck von bash?'",
                       more);
    assert_status(s, 0);
    json_t *o = documents(s.out);
    char *text = strdup(json_string_value(at(o, "0.text")));
    assert_true(text[0] != '\0');
    json_decref(o);
    return text;
}

static void generate_samples_with_a_drafter(void **state) {
    (void)state;
    char *alone = text_of("generate.draft_tokens=0"),
         *best = text_of("generate.draft_tokens=5 generate.draft_rule=best"),
         *strict = text_of("generate.draft_tokens=3 generate.draft_rule=strict"),
         *drawn = text_of("generate.draft_tokens=5"), *again = text_of("generate.draft_tokens=5"),
         *other = text_of("generate.draft_tokens=5 data.seed=9");
    assert_string_equal(best, alone);
    assert_string_equal(strict, alone);
    assert_string_equal(again, drawn);
    assert_string_not_equal(other, drawn);
    char *const all[] = {alone, best, strict, drawn, again, other};
    for (int i = 0; i < 6; i++) free(all[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_the_target_alone),
        cmocka_unit_test(the_stage_is_the_same_with_a_drafter),
        cmocka_unit_test(a_drafter_that_is_none_is_refused),
        cmocka_unit_test(generate_samples_with_a_drafter),
    };
    return cmocka_run_group_tests(tests, answer_alone, drop_all);
}
