// tests/eval/audit/audit_sampler_e2e_test.c - samples of the pair with every rule pass; draws with
// another distribution, and a rule that is not exact, are named.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/audit/sampler_check.h"
#include "tests/infer/decode/mini_pair.h"

enum { PROMPT = 19, DRAWS = 600 };

static MiniPair pair;

static int open_pair(void **state) {
    (void)state;
    pair = mini_pair_open();
    return 0;
}
static int close_pair(void **state) {
    (void)state;
    mini_pair_close(&pair);
    return 0;
}

static SamplerJob job_of(const int32_t *prompt) {
    return (SamplerJob){.target = pair.target,
                        .assistant = pair.assistant,
                        .kv_dtype = DT_F32,
                        .feature_dtype = DT_F32,
                        .rows = MINI_ROWS,
                        .sampler = {.temperature = 1.0, .top_k = 6, .top_p = 0.95},
                        .id = "p7",
                        .prompt = prompt,
                        .n = PROMPT,
                        .draws = DRAWS};
}

static void all_rules_pass_on_the_pair(void **state) {
    (void)state;
    int32_t prompt[PROMPT];
    char *text = NULL;
    size_t size, i;
    json_t *r;
    Err err = {0};
    mini_fitted(prompt, PROMPT);
    const SamplerJob job = job_of(prompt);
    json_t *o = sampler_check(&job, &err);
    assert_ok(o != NULL && sampler_gate(o, &err), err);
    assert_true(json_is_true(json_object_get(o, "passed")));
    const json_t *rules = json_object_get(json_object_get(o, "draws"), "rules");
    assert_int_equal(json_array_size(rules), 3);
    json_array_foreach(rules, i, r) {
        const double accepted = json_number_value(json_object_get(r, "accepted"));
        assert_true(accepted > DRAWS / 8.0);
        assert_true(accepted < json_number_value(json_object_get(r, "drafted")));
        assert_true(json_integer_value(json_array_get(json_object_get(r, "cells"), 0)) > 3);
    }
    FILE *f = open_memstream(&text, &size);
    sampler_markdown(f, o);
    fclose(f);
    assert_non_null(strstr(text, "behind 19 tokens of p7, T=1,top_k=6,top_p=0.95"));
    assert_non_null(strstr(text, "| rejection |"));
    free(text);
    json_decref(o);
}

// The drafts' own temperature gets into the text: what a wrong residual or a wrong p does.
static void a_biased_rule_is_named(void **state) {
    (void)state;
    int32_t prompt[PROMPT];
    Err err = {0};
    Draws plain, biased;
    GenerateOptions opt = {.slots = 16,
                           .max_new_tokens = DRAWS_TOKENS,
                           .max_length = PROMPT + DRAWS_TOKENS,
                           .prefill_rows = MINI_ROWS,
                           .sampler = {.temperature = 1.0, .top_k = 6, .top_p = 0.95, .seed = 1},
                           .kv_dtype = DT_F32,
                           .keep_rounds = true};
    mini_fitted(prompt, PROMPT);
    const SamplerJob job = job_of(prompt);
    json_t *o = sampler_check(&job, &err);
    assert_ok(o != NULL, err);
    assert_ok(draws_make(pair.target, &opt, prompt, PROMPT, DRAWS, &plain, &err), err);
    opt.sampler.temperature = 0.4;
    opt.sampler.seed = 2;
    assert_ok(draws_make(pair.target, &opt, prompt, PROMPT, DRAWS, &biased, &err), err);
    sampler_compare(json_object_get(json_object_get(o, "draws"), "rules"), "planted", &plain,
                    &biased);
    assert_false(sampler_gate(o, &err));
    assert_int_equal(err.code, ERR_GATE);
    assert_non_null(strstr(err.text, "with rule planted the tokens are not distributed"));
    draws_free(&plain);
    draws_free(&biased);
    json_decref(o);
}

static void an_inexact_rule_is_named(void **state) {
    (void)state;
    Err err = {0};
    json_t *o = json_pack("{s{sb sf sf}}", "enumeration", "passed", 0, "worst", 1e-16,
                          "worst_of_rounds", 3e-3);
    assert_false(sampler_gate(o, &err));
    assert_int_equal(err.code, ERR_GATE);
    assert_non_null(strstr(err.text, "off by 0.003 in the enumerated rule"));
    json_decref(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_rules_pass_on_the_pair),
        cmocka_unit_test(a_biased_rule_is_named),
        cmocka_unit_test(an_inexact_rule_is_named),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
