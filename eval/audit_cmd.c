// eval/audit_cmd.c - every gate on a pair: prompts are decoded live, simulated from captured
// features and rolled out as in training; wirings are compared, samples tested, files looked at.
#include "eval/audit_cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/audit/alignment.h"
#include "eval/audit/audit.h"
#include "eval/audit/audit_pair.h"
#include "eval/audit/frozen.h"
#include "eval/audit/sampler_check.h"
#include "eval/audit/speed.h"
#include "eval/audit/wiring.h"
#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/base/log.h"

enum { WIRING_ANCHORS = 24, UNDECIDED_ROWS = 96, CHECKS = 5, SPEED_PROMPTS = 8 };

typedef struct {
    const Settings *s;
    AuditPair pair;
    Audit audit;
    Wiring wiring;
    Alignment *alignment;
    Speed speed[2]; // of greedy text, of sampled text
    int speeds;     // that were measured
    int64_t prompts, skipped;
    Sample *text; // (texts) the first ones, for the speed of sweeps
    int64_t texts;
    int32_t *begin; // (begin_n) the beginning of the first text, behind which samples are drawn
    int64_t begin_n;
    char begin_id[128];
} Run;

// Where the first text's next tokens are least certain, behind its prompt if that is short: most
// can differ there.
static void keep_begin(Run *r, const char *id, const SpeculateResult *text) {
    const int64_t from = text->first <= UNDECIDED_ROWS ? text->first : UNDECIDED_ROWS / 2;
    int64_t best = from;
    for (int64_t n = from; n < from + UNDECIDED_ROWS && n + DRAWS_TOKENS <= text->n; n++)
        if (r->pair.gap[n] < r->pair.gap[best]) best = n; // of the token behind the first one drawn
    r->begin = malloc((size_t)best * sizeof *r->begin);
    CHECK_MEMORY(r->begin);
    memcpy(r->begin, text->ids, (size_t)best * sizeof *r->begin);
    r->begin_n = best;
    snprintf(r->begin_id, sizeof r->begin_id, "%s", id);
}

// The text's first rejections and margins, from a capture.
static bool simulate(Run *r, const SpeculateResult *plain, int32_t *L, int32_t *drafts,
                     float *margin, Err *err) {
    AuditPair *p = &r->pair;
    if (!audit_pair_capture(p, plain->ids, plain->n, err) ||
        !simulator_drafts(p->sim, p->drafter, &p->pack, 0, plain->ids, plain->n, plain->first,
                          p->head, drafts, margin, err))
        return false;
    acceptance_lengths(L, drafts, plain->n - plain->first - 1, p->K, plain->ids, plain->n,
                       plain->first);
    return true;
}

static bool compare_text(Run *r, const char *id, const SpeculateResult *plain, int32_t *L,
                         int32_t *drafts, float *margin, Err *err) {
    AuditPair *p = &r->pair;
    const AuditText text = {.id = id,
                            .ids = plain->ids,
                            .n = plain->n,
                            .first = plain->first,
                            .stopped = plain->stopped,
                            .K = p->K,
                            .L = L,
                            .margin = margin};
    const AlignText align = {.pack = &p->pack,
                             .pre_norm = tensor_rows(p->pre_norm, 0, plain->n),
                             .ids = plain->ids,
                             .n = plain->n,
                             .first = plain->first};
    return simulate(r, plain, L, drafts, margin, err) &&
           audit_decode(&r->audit, p->spec, &text, p->head, err) &&
           audit_pair_look(p, plain->ids, plain->n, err) &&
           alignment_add(r->alignment, &align, err) &&
           wiring_compare(&r->wiring, p->drafter, &p->pack, plain->ids, plain->n, plain->first,
                          p->K, WIRING_ANCHORS, r->audit.near_tie, err);
}

static bool check_text(Run *r, const char *id, const SpeculateResult *plain, Err *err) {
    const int64_t anchors = plain->n - plain->first - 1;
    if (anchors < 1) return true;
    const size_t cells = (size_t)(anchors * r->pair.K);
    int32_t *L = malloc((size_t)anchors * sizeof *L), *drafts = malloc(cells * sizeof *drafts);
    float *margin = malloc(cells * sizeof *margin);
    bool ok = L && drafts && margin;
    if (!ok) err_set(err, ERR_FAILED, "no memory for %lld anchors", (long long)anchors);
    ok = ok && compare_text(r, id, plain, L, drafts, margin, err);
    if (ok && r->begin == NULL && plain->n > UNDECIDED_ROWS / 2 + DRAWS_TOKENS)
        keep_begin(r, id, plain);
    if (ok && r->texts < SPEED_PROMPTS) ok = speed_text(&r->text[r->texts++], id, plain, err);
    free(L);
    free(drafts);
    free(margin);
    return ok;
}

static bool check_prompt(Run *r, const CorpusLine *line, Err *err) {
    Sample item = {0};
    SpeculateResult plain = {0};
    uint64_t hash;
    Err why = {0};
    if (!prepare_item(&item, &hash, line, "", &r->pair.tools, false, &why) &&
        why.code == ERR_INPUT) {
        r->skipped++; // prepare says of every item why
        return true;
    }
    bool ok = why.code == ERR_NONE || err_set(err, why.code, "%s", why.text);
    const int64_t room = r->s->data.max_length - item.n, most = r->s->regenerate.max_new_tokens;
    if (ok) {
        const SpeculateOptions opt = {.max_new_tokens = room < most ? room : most};
        ok = speculate(r->pair.spec, &opt, item.ids, item.n, &plain, err) &&
             check_text(r, item.id, &plain, err);
        r->prompts += ok;
    }
    if (!ok) err_wrap(err, "%s", line->where);
    speculate_result_free(&plain);
    sample_free(&item);
    return ok;
}

static bool check_file(Run *r, const char *path, Progress *p, Err *err) {
    CorpusLine line;
    CorpusStep got = CORPUS_END;
    Corpus *c = corpus_open(path, err);
    bool ok = c != NULL;
    while (ok && r->prompts < r->s->eval.audit_prompts &&
           (got = corpus_next(c, &line, err)) == CORPUS_LINE) {
        ok = check_prompt(r, &line, err);
        progress_at(p, r->prompts, "");
        if (ok && stop_requested()) ok = err_set(err, ERR_STOPPED, "stopped");
    }
    corpus_close(c);
    return ok && got >= CORPUS_END;
}

static bool check_files(Run *r, Err *err) {
    Progress p;
    Sources sources;
    if (!sources_open(&sources, "data.eval", &r->s->data.eval, true, err)) return false;
    bool ok = true;
    progress_start(&p, "audit", "prompts", r->s->eval.audit_prompts);
    for (int i = 0; i < sources.n; i++)
        for (int k = 0; k < sources.item[i].files && ok; k++)
            ok = check_file(r, sources.item[i].file[k], &p, err);
    progress_end(&p, r->prompts, "");
    sources_free(&sources);
    return ok && (r->prompts > 0 || err_set(err, ERR_INPUT, "data.eval holds no usable prompt"));
}

// That of the answers; T = 1 where they are greedy.
static Sampler sampler_of(const Settings *s) {
    return (Sampler){.temperature = s->regenerate.temperature > 0 ? s->regenerate.temperature : 1.0,
                     .top_k = s->regenerate.top_k,
                     .top_p = s->regenerate.top_p,
                     .seed = 1};
}

static json_t *check_sampler(const Run *r, Err *err) {
    const SamplerJob job = {.target = r->pair.open.target,
                            .assistant = r->pair.drafter,
                            .kv_dtype = r->pair.open.dtype,
                            .feature_dtype = DT_BF16,
                            .rows = r->pair.rows,
                            .sampler = sampler_of(r->s),
                            .id = r->begin_id,
                            .prompt = r->begin,
                            .n = r->begin_n,
                            .draws = r->begin ? r->s->eval.audit_draws : 0};
    if (r->begin == NULL) log_warn("audit: no text is long enough to draw samples behind");
    return sampler_check(&job, err);
}

// Of the first texts, greedy and sampled.
static bool check_speed(Run *r, Err *err) {
    const Sampler greedy = {0}, sampler = sampler_of(r->s);
    if (r->texts == 0) return true;
    if (!speed_measure(&r->speed[r->speeds++], &r->pair, r->text, r->texts, &greedy, err))
        return false;
    return r->s->eval.audit_draws == 0 ||
           speed_sampled(&r->speed[r->speeds++], &r->pair, r->text, r->texts, &sampler, err);
}

static bool wiring_passed(const Run *r) {
    return r->wiring.worst <= wiring_tolerance(r->pair.open.dtype) && r->wiring.choices_differ == 0;
}

static bool wiring_gate(const Run *r, Err *err) {
    if (wiring_passed(r)) return true;
    return err_set(err, ERR_GATE,
                   "training forward: largest difference from inference %.3g, allowed %.0e; %lld "
                   "of %lld choices differ",
                   r->wiring.worst, wiring_tolerance(r->pair.open.dtype),
                   (long long)r->wiring.choices_differ, (long long)r->wiring.choices);
}

static json_t *wiring_json(const Run *r) {
    return json_pack("{sI sf sf sI sI sb}", "values", (json_int_t)r->wiring.values, "worst",
                     r->wiring.worst, "tolerance", wiring_tolerance(r->pair.open.dtype), "choices",
                     (json_int_t)r->wiring.choices, "choices_differ",
                     (json_int_t)r->wiring.choices_differ, "passed", wiring_passed(r));
}

// What did not hold, in the order of the report; all of it in one line.
static bool gates(const Run *r, const json_t *frozen, const json_t *sampler, json_t *failures,
                  Err *err) {
    Err one[CHECKS] = {{0}};
    char all[sizeof err->text] = "";
    int failed = 0;
    const bool passed[CHECKS] = {
        frozen_gate(frozen, &one[0]), wiring_gate(r, &one[1]), audit_gate(&r->audit, &one[2]),
        alignment_gate(r->alignment, &one[3]), sampler_gate(sampler, &one[4])};
    for (int i = 0; i < CHECKS; i++) {
        if (passed[i]) continue;
        const size_t at = strlen(all);
        snprintf(all + at, sizeof all - at, "%s%s", failed++ ? "; " : "", one[i].text);
        json_array_append_new(failures, json_string(one[i].text));
    }
    return failed == 0 || err_set(err, ERR_GATE, "%s", all);
}

static json_t *report_json(const Run *r, const char *dir, json_t *frozen, json_t *sampler,
                           json_t *failures) {
    return json_pack("{ss ss sI sI sb sO so so so sO sO so}", "drafter", dir, "dtype",
                     dtype_name(r->pair.open.dtype), "prompts", (json_int_t)r->prompts,
                     "prompts_skipped", (json_int_t)r->skipped, "passed",
                     json_array_size(failures) == 0, "failures", failures, "training_forward",
                     wiring_json(r), "live",
                     audit_json(&r->audit, r->pair.head == HEAD_CENTROID ? "centroid" : "dense"),
                     "alignment", alignment_json(r->alignment), "sampler", sampler, "frozen",
                     frozen, "speed", speed_json(r->speed, r->speeds));
}

static void report_markdown(FILE *out, const Run *r, const json_t *o) {
    const json_t *failures = json_object_get(o, "failures");
    size_t i;
    json_t *f;
    fprintf(out,
            "Audit of %s, %s, %lld prompts (%lld cannot be used)\n\n"
            "Training forward beside single-anchor inference: %lld values, largest difference "
            "%.2g (allowed %.0e); "
            "%lld choices, %lld differ: %s\n",
            json_string_value(json_object_get(o, "drafter")), dtype_name(r->pair.open.dtype),
            (long long)r->prompts, (long long)r->skipped, (long long)r->wiring.values,
            r->wiring.worst, wiring_tolerance(r->pair.open.dtype), (long long)r->wiring.choices,
            (long long)r->wiring.choices_differ, wiring_passed(r) ? "passed" : "FAILED");
    audit_markdown(out, json_object_get(o, "live"));
    alignment_markdown(out, json_object_get(o, "alignment"));
    sampler_markdown(out, json_object_get(o, "sampler"));
    frozen_markdown(out, json_object_get(o, "frozen"));
    speed_markdown(out, json_object_get(o, "speed"));
    fprintf(out, "\nAudit: %s\n", json_array_size(failures) == 0 ? "passed" : "FAILED");
    json_array_foreach(failures, i, f) fprintf(out, "- %s\n", json_string_value(f));
}

// Beside eval's figures where there are any.
static bool keep_report(const Settings *s, const json_t *o, Err *err) {
    char dir[PATH_ROOM], path[PATH_ROOM];
    return !dir_exists(path_join(dir, s->output_dir, "eval")) ||
           json_write_file(path_join(path, dir, "audit.json"), o, err);
}

static bool report(const Cli *cli, const Run *r, const char *dir, json_t *frozen, json_t *sampler,
                   Err *err) {
    Err gate = {0};
    json_t *failures = json_array();
    const bool passed = gates(r, frozen, sampler, failures, &gate);
    json_t *o = report_json(r, dir, frozen, sampler, failures);
    bool ok = keep_report(&cli->s, o, err);
    if (ok && cli->json)
        ok = json_print(o, err);
    else if (ok)
        report_markdown(stdout, r, o);
    json_decref(o);
    json_decref(failures);
    return ok && (passed || err_set(err, gate.code, "%s", gate.text));
}

// Patterns of train.freeze say what this run left alone, not what another trainer did.
static json_t *check_frozen(const Settings *s, const char *dir, Err *err) {
    static const StrList none = {0};
    const bool ours = s->eval.drafter[0] == '\0';
    return frozen_check(dir, s->model.assistant_path, ours ? &s->train.freeze : &none, err);
}

static bool audit_all(const Cli *cli, Run *r, const char *dir, Err *err) {
    json_t *frozen = check_frozen(r->s, dir, err), *sampler = NULL;
    bool ok = frozen != NULL && audit_pair_open(&r->pair, r->s, dir, err) &&
              (r->alignment = alignment_open(r->pair.drafter, target_config(r->pair.open.target),
                                             r->pair.capacity, err)) != NULL;
    r->text = calloc(SPEED_PROMPTS, sizeof *r->text);
    CHECK_MEMORY(r->text);
    if (ok) audit_start(&r->audit, r->pair.K, audit_near_tie(r->pair.open.dtype));
    ok = ok && check_files(r, err) && (sampler = check_sampler(r, err)) != NULL;
    ok = ok && check_speed(r, err) && report(cli, r, dir, frozen, sampler, err);
    alignment_close(r->alignment);
    audit_pair_close(&r->pair);
    json_decref(frozen);
    json_decref(sampler);
    samples_free(r->text, r->texts);
    free(r->begin);
    return ok;
}

static bool audit_run(const Cli *cli, Err *err) {
    char dir[PATH_ROOM];
    const Settings *s = &cli->s;
    if (!drafter_trained_path(s, dir, err)) return false;
    if (dir[0] == '\0') snprintf(dir, sizeof dir, "%s", s->model.assistant_path);
    if (dir[0] == '\0' || s->data.eval.n == 0)
        return err_set(err, ERR_USAGE,
                       "audit needs a drafter (model.assistant_path) and prompts (data.eval)");
    if (cli->dry_run) {
        printf("audit: %lld prompts, k = 0..%lld, %lld draws, drafter %s\n",
               (long long)s->eval.audit_prompts, (long long)s->eval.draft_tokens,
               (long long)s->eval.audit_draws, dir);
        return true;
    }
    Run *r = calloc(1, sizeof *r);
    CHECK_MEMORY(r);
    r->s = s;
    const bool ok = audit_all(cli, r, dir, err);
    free(r);
    return ok;
}

const Verb audit_verb = {
    .name = "audit",
    .summary = "gates on a given pair: wiring of the drafter file, simulator against live "
               "decoding, sampler, frozen weights",
    .usage = "  draftsmith audit -c configs/demo.json                       the best checkpoint, "
             "else the stock\n"
             "  draftsmith audit eval.drafter=DIR eval.audit_prompts=50     another drafter, more "
             "prompts\n"
             "\n"
             "All checks run before the verdict; exit code 4 names what failed. The report is\n"
             "Markdown, with --json JSON; the JSON is also kept as OUTPUT_DIR/eval/audit.json\n"
             "where eval has been there.",
    .run = audit_run,
    .stops = true,
};
