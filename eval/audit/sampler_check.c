// eval/audit/sampler_check.c - four sets of draws behind one prompt, of which three have drafts.
#include "eval/audit/sampler_check.h"

#include <string.h>

#include "data/regenerate.h"
#include "infer/decode/exactness.h"

enum { PAIRS = 100000, ROUNDS = 60, SLOTS = 16 };
static const double exact = 1e-12, least_p = 1e-6;
static const uint64_t seed_plain = 1, seed_drafted = 2, seed_pairs = 11;

static json_t *enumerate(void) {
    const double pair = exactness_of_pairs(&exact_own_rule, PAIRS, seed_pairs),
                 joint = exactness_of_rounds(verify_round, ROUNDS, seed_pairs);
    return json_pack("{si sf si sf sf sb}", "pairs", PAIRS, "worst", pair, "rounds", ROUNDS,
                     "worst_of_rounds", joint, "allowed", exact, "passed",
                     pair <= exact && joint <= exact);
}

void sampler_compare(json_t *rules, const char *rule, const Draws *plain, const Draws *drafted) {
    const DrawsTest t = draws_compare(plain, drafted);
    json_t *chi2 = json_array(), *cells = json_array(), *p = json_array();
    for (int i = 0; i < DRAWS_TABLES; i++) {
        json_array_append_new(chi2, json_real(t.chi2[i]));
        json_array_append_new(cells, json_integer(t.cells[i]));
        json_array_append_new(p, json_real(t.p[i]));
    }
    json_array_append_new(
        rules, json_pack("{ss sf so so so sI sI sb}", "rule", rule, "p", t.least, "chi2", chi2,
                         "cells", cells, "p_of_tables", p, "drafted", (json_int_t)drafted->drafted,
                         "accepted", (json_int_t)drafted->accepted, "passed", t.least >= least_p));
}

static GenerateOptions options(const SamplerJob *job) {
    const int64_t fit = job->rows / (DRAWS_MOST + 1);
    GenerateOptions opt = {.slots = fit < 1       ? 1
                                    : fit < SLOTS ? fit
                                                  : SLOTS,
                           .max_new_tokens = DRAWS_TOKENS,
                           .max_length = job->n + DRAWS_TOKENS,
                           .prefill_rows = job->rows,
                           .sampler = job->sampler,
                           .kv_dtype = job->kv_dtype,
                           .keep_rounds = true,
                           .draft = {.k = DRAWS_MOST,
                                     .head = assistant_deployed_head(&job->assistant->cfg),
                                     .feature_dtype = job->feature_dtype}};
    opt.sampler.seed = seed_plain;
    return opt;
}

static bool draw_rules(const SamplerJob *job, json_t *rules, Err *err) {
    static const struct {
        DraftRule rule;
        const char *name;
    } all[] = {{DRAFT_REJECTION, "rejection"}, {DRAFT_BEST, "best"}, {DRAFT_STRICT, "strict"}};
    GenerateOptions opt = options(job);
    Draws plain, drafted;
    if (!draws_make(job->target, &opt, job->prompt, job->n, job->draws, &plain, err)) return false;
    opt.draft.assistant = job->assistant;
    opt.sampler.seed = seed_drafted;
    bool ok = true;
    for (int i = 0; ok && i < 3; i++) {
        opt.draft.rule = all[i].rule;
        ok = draws_make(job->target, &opt, job->prompt, job->n, job->draws, &drafted, err) ||
             err_wrap(err, "rule %s", all[i].name);
        if (!ok) break;
        sampler_compare(rules, all[i].name, &plain, &drafted);
        draws_free(&drafted);
    }
    draws_free(&plain);
    return ok;
}

static bool all_passed(const json_t *rules) {
    size_t i;
    json_t *r;
    json_array_foreach(rules, i, r) if (!json_is_true(json_object_get(r, "passed"))) return false;
    return true;
}

json_t *sampler_check(const SamplerJob *job, Err *err) {
    char name[64];
    json_t *rules = json_array(), *enumeration, *out = NULL;
    CHECK(job->sampler.temperature > 0);
    sampler_name(name, &job->sampler);
    if (job->draws == 0 || draw_rules(job, rules, err)) {
        enumeration = enumerate();
        const bool passed =
            json_is_true(json_object_get(enumeration, "passed")) && all_passed(rules);
        out = json_pack("{sb so s{ss ss sI sI sf sf sO}}", "passed", passed, "enumeration",
                        enumeration, "draws", "sampler", name, "prompt", job->id, "prompt_tokens",
                        (json_int_t)job->n, "answers", (json_int_t)job->draws, "least_p", least_p,
                        "finds_total_variation", job->draws ? draws_finds(job->draws) : 1.0,
                        "rules", rules);
    }
    json_decref(rules);
    return out;
}

static double real(const json_t *o, const char *key) {
    return json_number_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key) {
    return json_string_value(json_object_get(o, key));
}

bool sampler_gate(const json_t *check, Err *err) {
    const json_t *e = json_object_get(check, "enumeration"), *d = json_object_get(check, "draws");
    size_t i;
    json_t *r;
    if (!json_is_true(json_object_get(e, "passed")))
        return err_set(err, ERR_GATE,
                       "sampler: a probability is off by %.2g in the enumerated rule, allowed %.0e",
                       real(e, "worst") > real(e, "worst_of_rounds") ? real(e, "worst")
                                                                     : real(e, "worst_of_rounds"),
                       exact);
    json_array_foreach(json_object_get(d, "rules"), i, r) if (
        !json_is_true(json_object_get(
            r, "passed"))) return err_set(err, ERR_GATE,
                                          "sampler: with rule %s the tokens are not distributed as "
                                          "without a "
                                          "drafter (chi-square, p = %.2g over %.0f answers)",
                                          text(r, "rule"), real(r, "p"), real(d, "answers"));
    return true;
}

void sampler_markdown(FILE *out, const json_t *check) {
    const json_t *e = json_object_get(check, "enumeration"), *d = json_object_get(check, "draws");
    size_t i;
    json_t *r;
    fprintf(out,
            "\nSampler: rejection rule enumerated over %.0f pairs and all paths of %.0f rounds, "
            "largest error %.2g and %.2g (allowed %.0e): %s\n",
            real(e, "pairs"), real(e, "rounds"), real(e, "worst"), real(e, "worst_of_rounds"),
            exact, json_is_true(json_object_get(e, "passed")) ? "passed" : "FAILED");
    if (real(d, "answers") == 0) {
        fprintf(out, "Draws with and without the drafter: skipped, eval.audit_draws is 0\n");
        return;
    }
    fprintf(out,
            "\nDraws with and without the drafter: %.0f answers each behind %.0f tokens of %s, %s; "
            "a total variation of %.2f would be found\n\n"
            "| rule | drafts accepted | p | |\n|---|---|---|---|\n",
            real(d, "answers"), real(d, "prompt_tokens"), text(d, "prompt"), text(d, "sampler"),
            real(d, "finds_total_variation"));
    json_array_foreach(json_object_get(d, "rules"), i, r)
        fprintf(out, "| %s | %.0f of %.0f | %.2g | %s |\n", text(r, "rule"), real(r, "accepted"),
                real(r, "drafted"), real(r, "p"),
                json_is_true(json_object_get(r, "passed")) ? "passed" : "FAILED");
}
