// eval/eval_cmd.c - captured held-out text -> counts of both drafters -> acceptance.json and a
// table.
#include "eval/eval_cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/cost/recommend.h"
#include "eval/count/quantmatrix.h"
#include "eval/eval_parts.h"
#include "eval/report/report.h"
#include "infer/base/hash_cache.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/base/stage.h"
#include "infer/model/weight_source.h"

enum { JSON_LIMIT = 1 << 30 };

static bool hash_of(const char *cache, const char *path, char hex[65], Err *err) {
    Sha256 h;
    if (!sha256_remembered(&h, path, cache, err)) return false;
    memcpy(hex, h.hex, 65);
    return true;
}

// Name and weights of every drafter.
static json_t *drafters_identity(const Eval *e, Err *err) {
    char hex[65], cache[PATH_ROOM], file[PATH_ROOM];
    hash_cache_path(cache, e->s);
    json_t *o = json_object();
    for (int i = 0; i < e->n; i++) {
        if (!hash_of(cache, weight_source_file(file, e->drafter[i].path), hex, err)) {
            json_decref(o);
            return NULL;
        }
        json_object_set_new(o, e->drafter[i].name, json_string(hex));
    }
    return o;
}

// "measure", "none", or what the file of another device holds.
static bool cost_identity(const Settings *s, char id[80], Err *err) {
    CostTable table;
    Sha256 h;
    if (!eval_cost_read(s, &table, err)) return false;
    if (table.device[0] == '\0') {
        snprintf(id, 80, "%s", s->eval.cost);
        return true;
    }
    if (!sha256_remembered(&h, s->eval.cost, NULL, err)) return false;
    memcpy(id, h.hex, 65);
    return true;
}

// Everything the result depends on.
static json_t *identity_of(const Eval *e, Err *err) {
    char shards[65], cost[80], manifest[PATH_ROOM];
    const Settings *s = e->s;
    path_join(manifest, e->shards_dir, "manifest.json");
    if (!hash_of(NULL, manifest, shards, err) || !cost_identity(s, cost, err)) return NULL;
    json_t *drafters = drafters_identity(e, err), *p = json_array();
    if (drafters == NULL) {
        json_decref(p);
        return NULL;
    }
    for (int i = 0; i < e->sweep_options.p_mins; i++)
        json_array_append_new(p, json_real(e->sweep_options.p_min[i]));
    return json_pack("{ss so sI sI sf sI sI sI sI sI ss ss ss so ss sI}", "shards", shards,
                     "drafters", drafters, "draft_tokens", (json_int_t)s->eval.draft_tokens,
                     "bootstrap", (json_int_t)s->eval.bootstrap, "confidence", s->eval.confidence,
                     "seed", (json_int_t)s->eval.seed, "audit_prompts",
                     (json_int_t)s->eval.audit_prompts, "pos_offset",
                     (json_int_t)s->model.pos_offset, "select_k", (json_int_t)s->eval.select_k,
                     "window_extra", (json_int_t)s->model.window_extra, "embed_scale",
                     s->model.embed_scale, "dtype", s->runtime.dtype, "sampler", e->sampler,
                     "p_min", p, "cost", cost, "cost_context", (json_int_t)s->eval.cost_context);
}

static bool paths(Eval *e, bool dry, Err *err) {
    const char *out = e->s->output_dir;
    split_path(e->shards_dir, e->s, "shards", SPLIT_EVAL, "");
    path_join(e->report, out, "eval/acceptance.json");
    path_join(e->stage, out, "eval/stage.json");
    if (!eval_list_drafters(e, err) || !eval_sweep_options(e, err)) return false;
    char manifest[PATH_ROOM];
    if (!dry && !file_exists(path_join(manifest, e->shards_dir, "manifest.json")))
        return err_set(err, ERR_INPUT, "%s: not there; `capture` makes it", e->shards_dir);
    return true;
}

static void drafters_of(const Eval *e, SweepDrafter out[EVAL_DRAFTERS_MAX]) {
    for (int i = 0; i < e->n; i++)
        out[i] = (SweepDrafter){e->drafter[i].name, e->drafter[i].path, e->drafter[i].assistant};
}

static bool sweep_all(Eval *e, Err *err) {
    SweepDrafter drafter[EVAL_DRAFTERS_MAX];
    const double start = now_s();
    drafters_of(e, drafter);
    if (!sweep_run(e->sweep, drafter, e->n, target_config(e->open.target), &e->source,
                   &e->sweep_options, err))
        return false;
    e->sweep_s = now_s() - start;
    log_info("eval: %d drafter%s on %lld prompts, k = 1..%d, %.1f s", e->n, e->n > 1 ? "s" : "",
             (long long)e->sweep[0].n, e->K, e->sweep_s);
    const int64_t lost = e->sweep[0].pool->impossible;
    if (lost > 0)
        log_info("eval: %lld tokens of the text have no probability in its sampler (features are "
                 "rounded); a draft of them counts as standing",
                 (long long)lost);
    return true;
}

// Sizes beside acceptance, where more than the pair of drafters is measured.
static void put_matrix(const Eval *e, json_t *report, const SweepIntervals *intervals,
                       int select_k) {
    ArtifactInfo artifact[EVAL_DRAFTERS_MAX];
    const QuantMatrix m = {.sweep = e->sweep,
                           .artifact = artifact,
                           .n = e->n,
                           .intervals = intervals,
                           .select_k = select_k};
    if (e->s->eval.drafters.n == 0) return;
    for (int d = 0; d < e->n; d++) artifact[d] = e->drafter[d].artifact;
    json_object_set_new(report, "quant_matrix", quantmatrix_json(&m));
}

static json_t *measure(Eval *e, Err *err) {
    char manifest[65], path[PATH_ROOM];
    path_join(path, e->shards_dir, "manifest.json");
    AcceptanceReport r = {.sweep = e->sweep,
                          .n = e->n,
                          .sampler = e->sampler,
                          .capture = manifest,
                          .select_k = e->s->eval.select_k < e->K ? (int)e->s->eval.select_k : e->K,
                          .how = {.resamples = e->s->eval.bootstrap,
                                  .confidence = e->s->eval.confidence,
                                  .seed = (uint64_t)e->s->eval.seed}};
    if (!hash_of(NULL, path, manifest, err) || !sweep_all(e, err)) return NULL;
    SweepIntervals *intervals =
        sweep_intervals(e->sweep, e->n, e->sweep[0].rules, &SWEEP_WHOLE, &r.how, err);
    r.intervals = intervals;
    json_t *report = intervals != NULL ? acceptance_json(&r, err) : NULL;
    if (report != NULL) put_matrix(e, report, intervals, r.select_k);
    sweep_intervals_free(intervals);
    return report;
}

// Measuring and the audit come one after the other: the larger one counts.
static void plan_memory(Eval *e) {
    const TargetConfig *tc = target_config(e->open.target);
    SweepDrafter drafter[EVAL_DRAFTERS_MAX];
    size_t drafters = 0;
    drafters_of(e, drafter);
    for (int i = 0; i < e->n; i++) drafters += assistant_bytes(drafter[i].assistant);
    const size_t audit = eval_audit_bytes(e), cost = eval_cost_bytes(e),
                 sweep = sweep_bytes(drafter, e->n, tc, &e->source, &e->sweep_options),
                 quant = eval_quant_bytes(e), counts = cost > sweep ? cost : sweep,
                 most = quant > counts ? quant : counts;
    e->memory.device = (int64_t)dev_own_memory(e->open.dev);
    memory_add_tensors(&e->memory, "target", (int64_t)target_bytes(e->open.target));
    memory_add_tensors(&e->memory, "drafters", (int64_t)drafters);
    memory_add_tensors(&e->memory, "kernels", (int64_t)dev_scratch_bytes(e->open.dev));
    memory_add_tensors(&e->memory, audit > most ? "live audit" : "sequences and anchors of a call",
                       (int64_t)(audit > most ? audit : most));
}

// Without a trained drafter: whether one is worth training.
static void print_hint(const json_t *report) {
    const json_t *stock =
        json_object_get(json_object_get(json_object_get(report, "drafters"), "stock"),
                        json_string_value(json_array_get(json_object_get(report, "rules"), 0)));
    const double u1 = json_number_value(json_array_get(json_object_get(stock, "u_all"), 0));
    printf("\nNo trained drafter yet. The stock drafter's first token is right at %.0f %% of all "
           "anchors; on text of "
           "the target it was trained for, a drafter usually reaches 85 to 90 %%. %s\n",
           100 * u1, u1 < 0.8 ? "Retraining should pay." : "Little can be gained by retraining.");
}

static bool print_report(const Cli *cli, const json_t *report, Err *err) {
    if (cli->json) return json_print(report, err);
    acceptance_markdown(stdout, report, false);
    if (!recommendations_markdown(stdout, report, false, err)) return false;
    if (json_object_get(report, "paired") == NULL) print_hint(report);
    const json_t *audit = json_object_get(report, "audit");
    if (audit != NULL) audit_markdown(stdout, audit);
    return true;
}

static bool dry_run(Eval *e, Err *err) {
    if (!shards_complete(e->shards_dir)) {
        printf("eval: no capture in %s yet; it would measure k = 1..%d there\n", e->shards_dir,
               e->K);
        return true;
    }
    if (!eval_open(e, err)) return false;
    plan_memory(e);
    int64_t tokens = 0;
    const int64_t n = e->source.count;
    for (int64_t i = 0; i < n; i++) tokens += shards_length(e->shards, i);
    printf("eval: %lld sequences, %lld tokens, text: %s; at most %lld drafter steps of one token "
           "each;",
           (long long)n, (long long)tokens, e->sampler, (long long)(tokens * e->K * e->n));
    for (int i = 0; i < e->n; i++)
        printf("%s %s: %s", i ? "," : "", e->drafter[i].name, e->drafter[i].path);
    printf("\n");
    printf("memory: ");
    memory_print(stdout, &e->memory);
    printf("\n");
    return true;
}

// report.html and its kin beside acceptance.json.
static bool write_pages(const Eval *e, const json_t *report, Err *err) {
    char dir[PATH_ROOM], metrics[PATH_ROOM];
    path_join(metrics, e->s->output_dir, "metrics.jsonl");
    if (!report_write(report, metrics, path_join(dir, e->s->output_dir, "eval"), err)) return false;
    log_info("eval: %s/report.html", dir);
    return true;
}

// quantmatrix.json by itself: what a bundle's benchmarks take.
static bool write_matrix(const Eval *e, const json_t *report, Err *err) {
    char path[PATH_ROOM];
    const json_t *matrix = json_object_get(report, "quant_matrix");
    path_join(path, e->s->output_dir, "eval/quantmatrix.json");
    return matrix == NULL || json_write_file(path, matrix, err);
}

static bool make_report(Eval *e, const Cli *cli, const json_t *identity, Err *err) {
    char dir[PATH_ROOM];
    Audit audit;
    audit_start(&audit, e->K, 0.0);
    json_t *report = NULL, *outputs = json_object();
    bool ok = stage_clear(e->stage, err) &&
              dir_make(path_join(dir, e->s->output_dir, "eval"), err) && eval_open(e, err);
    if (ok) plan_memory(e);
    ok = ok && memory_fits(&e->memory, err) && (report = measure(e, err)) != NULL &&
         eval_cost(e, report, err);
    if (ok) audit_start(&audit, e->K, audit_near_tie(e->open.dtype));
    ok = ok && eval_audit(e, &audit, report, err) && json_write_file(e->report, report, err) &&
         write_matrix(e, report, err) && write_pages(e, report, err);
    ok = ok && print_report(cli, report, err);
    ok = ok && audit_gate(&audit, err) &&
         stage_note_output(outputs, e->stage, "acceptance.json", err) &&
         memory_record(e->s->output_dir, "eval", memory_announced(&e->memory), err) &&
         stage_publish_outputs(e->stage, identity, NULL, outputs, err);
    json_decref(outputs);
    json_decref(report);
    return ok;
}

static bool eval_run(const Cli *cli, Err *err) {
    Eval *e = calloc(1, sizeof *e);
    CHECK_MEMORY(e);
    e->s = &cli->s;
    e->K = (int)cli->s.eval.draft_tokens;
    json_t *identity = NULL, *report = NULL;
    Err other = {0};
    memory_begin();
    bool ok = paths(e, cli->dry_run, err);
    if (ok && cli->dry_run) {
        ok = dry_run(e, err);
        goto end;
    }
    if (!ok || (identity = identity_of(e, err)) == NULL) {
        ok = false;
        goto end;
    }
    const StageState state = stage_state(e->stage, identity, cli->overwrite, &other);
    if (state == STAGE_DONE && (report = json_read_file(e->report, JSON_LIMIT, &other)) != NULL) {
        log_info("eval: %s is up to date", e->report);
        char page[PATH_ROOM];
        const bool there = file_exists(path_join(page, e->s->output_dir, "eval/report.html"));
        ok = (there || write_pages(e, report, err)) && print_report(cli, report, err) &&
             eval_quant(e, cli->overwrite, err);
        goto end;
    }
    // Another drafter or capture is the usual reason to measure again: no harm, nothing is lost.
    if (other.code != ERR_NONE) log_info("eval: measuring again: %s", other.text);
    ok = make_report(e, cli, identity, err) && eval_quant(e, cli->overwrite, err);
end:
    json_decref(identity);
    json_decref(report);
    eval_close(e);
    free(e);
    return ok;
}

const Verb eval_verb = {
    .name = "eval",
    .summary = "tokens per target step of the stock and the trained drafter on held-out text",
    .usage =
        "  draftsmith eval -c configs/demo.json                    the best checkpoint beside "
        "the stock\n"
        "  draftsmith eval -c configs/demo.json eval.drafter=DIR   another drafter, or none "
        "yet: the stock alone\n"
        "  draftsmith eval -c configs/demo.json eval.drafters=q8=DIR,q4=x.gguf   any number of "
        "drafters beside them\n"
        "  draftsmith eval -c configs/demo.json eval.imatrix=true eval.sensitivity=mlx,gguf   "
        "what exporters quantise by\n"
        "  draftsmith eval ... regenerate.held_out=sampled regenerate.temperature=1   "
        "sampled text, exact rejection sampling",
    .run = eval_run,
    .stops = true,
};
