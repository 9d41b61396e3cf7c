// eval/eval_cmd.c - captured held-out text -> counts of both drafters -> acceptance.json and a
// table.
#include "eval/eval_cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/capture.h"
#include "data/drafter.h"
#include "eval/acceptance_json.h"
#include "eval/audit.h"
#include "eval/sweep.h"
#include "infer/base/hash_cache.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/base/memory.h"
#include "infer/base/stage.h"

enum { JSON_LIMIT = 64 << 20 };

typedef struct {
    const Settings *s;
    int K;
    char shards_dir[PATH_ROOM], trained_path[PATH_ROOM], report[PATH_ROOM], stage[PATH_ROOM];
    OpenTarget open;
    int64_t rows; // of one target call
    ShardSet *shards;
    SeqSource source;
    Assistant *drafter[2]; // stock, trained (NULL: none)
    Sweep sweep[2];
    MemoryPlan memory;
} Eval;

static bool hash_of(const char *cache, const char *dir, const char *file, char hex[65], Err *err) {
    char path[PATH_ROOM];
    Sha256 h;
    if (!sha256_remembered(&h, path_join(path, dir, file), cache, err)) return false;
    memcpy(hex, h.hex, 65);
    return true;
}

// Everything the result depends on.
static json_t *identity_of(const Eval *e, Err *err) {
    char shards[65], stock[65], trained[65] = "", cache[PATH_ROOM];
    const Settings *s = e->s;
    hash_cache_path(cache, s);
    if (!hash_of(NULL, e->shards_dir, "manifest.json", shards, err) ||
        !hash_of(cache, s->model.assistant_path, "model.safetensors", stock, err))
        return NULL;
    if (e->trained_path[0] && !hash_of(cache, e->trained_path, "model.safetensors", trained, err))
        return NULL;
    return json_pack("{ss ss ss sI sI sf sI sI sI sI sI ss ss}", "shards", shards, "stock", stock,
                     "trained", trained, "draft_tokens", (json_int_t)s->eval.draft_tokens,
                     "bootstrap", (json_int_t)s->eval.bootstrap, "confidence", s->eval.confidence,
                     "seed", (json_int_t)s->eval.seed, "audit_prompts",
                     (json_int_t)s->eval.audit_prompts, "pos_offset",
                     (json_int_t)s->model.pos_offset, "select_k", (json_int_t)s->eval.select_k,
                     "window_extra", (json_int_t)s->model.window_extra, "embed_scale",
                     s->model.embed_scale, "dtype", s->runtime.dtype);
}

static bool paths(Eval *e, bool dry, Err *err) {
    const char *out = e->s->output_dir;
    split_path(e->shards_dir, e->s, "shards", SPLIT_EVAL, "");
    path_join(e->report, out, "eval/acceptance.json");
    path_join(e->stage, out, "eval/stage.json");
    if (e->s->model.assistant_path[0] == '\0')
        return err_set(err, ERR_USAGE,
                       "model.assistant_path is empty: eval compares with the stock assistant");
    if (!drafter_trained_path(e->s, e->trained_path, err)) return false;
    char manifest[PATH_ROOM];
    if (!dry && !file_exists(path_join(manifest, e->shards_dir, "manifest.json")))
        return err_set(err, ERR_INPUT, "%s: not there; `capture` makes it", e->shards_dir);
    return true;
}

static bool open_models(Eval *e, Err *err) {
    const Settings *s = e->s;
    e->rows = s->capture.chunk > e->K + 1 ? s->capture.chunk : e->K + 1;
    ShardMeta want = {0};
    if (!identify_target(&e->open, s, err)) return false;
    memcpy(want.target, e->open.fingerprint.hex, sizeof want.target);
    want.hidden = e->open.config.text.hidden;
    want.vocab = e->open.config.text.vocab;
    if ((e->shards = shards_open(e->shards_dir, &want, err)) == NULL) return false;
    e->source = shards_source(e->shards);
    if (e->source.count == 0) return err_set(err, ERR_INPUT, "%s holds no sequence", e->shards_dir);
    if (!check_source(&e->open, &e->source, e->shards_dir, err)) return false;
    memory_plan(&e->memory);
    if (!load_target(&e->open, s, e->rows, err)) return false;
    e->drafter[0] = drafter_open(&e->open, s, s->model.assistant_path, err);
    if (e->drafter[0] == NULL || e->trained_path[0] == '\0') return e->drafter[0] != NULL;
    return (e->drafter[1] = drafter_open(&e->open, s, e->trained_path, err)) != NULL;
}

static void close_all(Eval *e) {
    for (int i = 0; i < 2; i++) {
        sweep_free(&e->sweep[i]);
        assistant_close(e->drafter[i]);
    }
    shards_close(e->shards);
    close_target(&e->open);
}

static json_t *measure(Eval *e, Err *err) {
    static const char *const names[] = {"stock", "trained"};
    const char *const dirs[] = {e->s->model.assistant_path, e->trained_path};
    SweepIntervals *intervals = malloc(sizeof *intervals);
    json_t *report = NULL;
    int n = 0;
    CHECK_MEMORY(intervals);
    for (; n < 2 && e->drafter[n] != NULL; n++) {
        const double start = now_s();
        if (!sweep_run(&e->sweep[n], names[n], dirs[n], e->drafter[n],
                       target_config(e->open.target), &e->source, e->K, err))
            goto end;
        log_info("eval: %s drafter on %lld prompts, k = 1..%d, %.1f s", names[n],
                 (long long)e->sweep[n].n, e->K, now_s() - start);
    }
    const AcceptanceReport r = {.sweep = e->sweep,
                                .n = n,
                                .intervals = intervals,
                                .sampler = shards_meta(e->shards)->sampler,
                                .select_k =
                                    e->s->eval.select_k < e->K ? (int)e->s->eval.select_k : e->K,
                                .how = {.resamples = e->s->eval.bootstrap,
                                        .confidence = e->s->eval.confidence,
                                        .seed = (uint64_t)e->s->eval.seed}};
    if (sweep_intervals(intervals, e->sweep, n, &SWEEP_WHOLE, &r.how, err))
        report = acceptance_json(&r, err);
end:
    free(intervals);
    return report;
}

// One captured sequence: the simulator's lengths, then live decoding of its prompt.
static bool audit_sequence(Eval *e, Audit *audit, Measurer *m, Speculator *s, const Assistant *a,
                           const CapturedSeq *c, Err *err) {
    const Sample *x = &c->sample;
    const Head head = assistant_deployed_head(&a->cfg);
    const int64_t anchors = x->n - x->prompt - 1;
    if (anchors < 1) return true;
    int32_t *L = malloc((size_t)anchors * sizeof *L),
            *drafts = malloc((size_t)(anchors * e->K) * sizeof *drafts);
    float *margin = malloc((size_t)(anchors * e->K) * sizeof *margin);
    bool ok = L && drafts && margin;
    if (!ok) err_set(err, ERR_FAILED, "no memory for %lld anchors", (long long)anchors);
    ok = ok && measurer_lengths(m, a, c, head, L, drafts, margin, err);
    const AuditText text = {.id = x->id,
                            .ids = x->ids,
                            .n = x->n,
                            .first = x->prompt,
                            .stopped = x->stopped,
                            .K = e->K,
                            .L = L,
                            .margin = margin};
    ok = ok && audit_decode(audit, s, &text, head, err);
    free(L);
    free(drafts);
    free(margin);
    return ok;
}

static int64_t audit_count(const Eval *e) {
    return e->s->eval.audit_prompts < e->source.count ? e->s->eval.audit_prompts : e->source.count;
}

static void audit_options(const Eval *e, const Assistant *a, SpeculatorOptions *so,
                          MeasureOptions *mo) {
    int64_t capacity = 0;
    for (int64_t i = 0; i < audit_count(e); i++) {
        const int64_t n = shards_length(e->shards, i);
        if (n > capacity) capacity = n;
    }
    *so = (SpeculatorOptions){.k_max = e->K,
                              .capacity = capacity + e->K,
                              .chunk = e->rows,
                              .feature_dtype = DT_BF16,
                              .kv_dtype = e->open.dtype};
    *mo = (MeasureOptions){.K = e->K, .head = {true, a->cfg.ordered}, .max_anchors = 1024};
}

static const Assistant *audited(const Eval *e) {
    return e->drafter[1] != NULL ? e->drafter[1] : e->drafter[0];
}

static bool can_audit(const Eval *e) {
    return audit_count(e) > 0 && strcmp(shards_meta(e->shards)->sampler, "greedy") == 0;
}

// Measuring and the audit come one after the other: the larger one counts.
static void plan_memory(Eval *e) {
    const TargetConfig *tc = target_config(e->open.target);
    size_t drafters = 0, most = 0, audit = 0;
    for (int i = 0; i < 2 && e->drafter[i] != NULL; i++) {
        const size_t sweep = sweep_bytes(e->drafter[i], tc, &e->source, e->K);
        drafters += assistant_bytes(e->drafter[i]);
        if (sweep > most) most = sweep;
    }
    if (can_audit(e)) {
        SpeculatorOptions so;
        MeasureOptions mo;
        audit_options(e, audited(e), &so, &mo);
        audit = measurer_bytes(audited(e), tc, &e->source, &mo) +
                speculator_bytes(e->open.target, audited(e), &so);
    }
    memory_add(&e->memory, "target", (int64_t)target_bytes(e->open.target));
    memory_add(&e->memory, "drafters", (int64_t)drafters);
    memory_add(&e->memory, "kernels", (int64_t)dev_scratch_bytes(e->open.dev));
    memory_add(&e->memory, audit > most ? "live audit" : "sequences and anchors of a call",
               (int64_t)(audit > most ? audit : most));
}

static bool audit_all(Eval *e, Audit *audit, const Assistant *a, Err *err) {
    const int64_t count = audit_count(e);
    SpeculatorOptions so;
    MeasureOptions mo;
    audit_options(e, a, &so, &mo);
    Measurer *m = measurer_open(a, target_config(e->open.target), &e->source, &mo, err);
    Speculator *s = m != NULL ? speculator_open(e->open.target, a, &so, err) : NULL;
    bool ok = s != NULL;
    Progress p;
    if (ok) progress_start(&p, "audit", "prompts", count);
    for (int64_t i = 0; ok && i < count; i++) {
        CapturedSeq c = {0};
        ok = shards_read(e->shards, i, &c, err) && audit_sequence(e, audit, m, s, a, &c, err);
        captured_free(&c);
        if (ok) progress_at(&p, i + 1, "");
        if (ok && stop_requested())
            ok = err_set(err, ERR_STOPPED, "eval: stopped in the live audit");
    }
    if (ok) progress_end(&p, count, "");
    speculator_close(s);
    measurer_close(m);
    return ok;
}

// Live decoding with the trained drafter (the stock one when there is no other) on the captured
// prompts.
static bool audit_live(Eval *e, Audit *audit, json_t *report, Err *err) {
    const Assistant *a = audited(e);
    if (audit_count(e) == 0) return true;
    if (!can_audit(e)) {
        log_warn("eval: the text in %s is \"%s\", not the target's greedy text: tokens per step "
                 "hold for that "
                 "text only, and no live audit is possible",
                 e->shards_dir, shards_meta(e->shards)->sampler);
        return true;
    }
    if (!audit_all(e, audit, a, err)) return err_wrap(err, "live audit");
    json_object_set_new(report, "audit",
                        audit_json(audit, assistant_deployed_head(&a->cfg) == HEAD_CENTROID
                                              ? "centroid"
                                              : "dense"));
    return true;
}

// Without a trained drafter: whether one is worth training.
static void print_hint(const json_t *report) {
    const json_t *stock =
        json_object_get(json_object_get(json_object_get(report, "drafters"), "stock"), "greedy");
    const double u1 = json_number_value(json_array_get(json_object_get(stock, "u_all"), 0));
    printf("\nNo trained drafter yet. The stock drafter's first token is right at %.0f %% of all "
           "anchors; on text of "
           "the target it was trained for, a drafter usually reaches 85 to 90 %%. %s\n",
           100 * u1, u1 < 0.8 ? "Retraining should pay." : "Little can be gained by retraining.");
}

static bool print_report(const Cli *cli, const json_t *report, Err *err) {
    if (cli->json) return json_print(report, err);
    acceptance_markdown(stdout, report);
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
    if (!open_models(e, err)) return false;
    plan_memory(e);
    int64_t tokens = 0;
    const int64_t n = e->source.count;
    for (int64_t i = 0; i < n; i++) tokens += shards_length(e->shards, i);
    printf("eval: %lld sequences, %lld tokens; stock %s, trained %s; at most %lld drafter steps of "
           "one token each\n",
           (long long)n, (long long)tokens, e->s->model.assistant_path,
           e->trained_path[0] ? e->trained_path : "(none)",
           (long long)(tokens * e->K * (e->trained_path[0] ? 2 : 1)));
    printf("memory: ");
    memory_print(stdout, &e->memory);
    printf("\n");
    return true;
}

static bool make_report(Eval *e, const Cli *cli, const json_t *identity, Err *err) {
    char dir[PATH_ROOM];
    Audit audit;
    audit_start(&audit, e->K, 0.0);
    json_t *report = NULL, *outputs = json_object();
    bool ok = stage_clear(e->stage, err) &&
              dir_make(path_join(dir, e->s->output_dir, "eval"), err) && open_models(e, err);
    if (ok) plan_memory(e);
    ok = ok && (report = measure(e, err)) != NULL;
    if (ok) audit_start(&audit, e->K, audit_near_tie(e->open.dtype));
    ok = ok && audit_live(e, &audit, report, err) && json_write_file(e->report, report, err);
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
        ok = print_report(cli, report, err);
        goto end;
    }
    // Another drafter or capture is the usual reason to measure again: no harm, nothing is lost.
    if (other.code != ERR_NONE) log_info("eval: measuring again: %s", other.text);
    ok = make_report(e, cli, identity, err);
end:
    json_decref(identity);
    json_decref(report);
    close_all(e);
    free(e);
    return ok;
}

const Verb eval_verb = {
    .name = "eval",
    .summary = "tokens per target step of the stock and the trained drafter on held-out text",
    .usage = "  draftsmith eval -c configs/demo.json                    the best checkpoint beside "
             "the stock\n"
             "  draftsmith eval -c configs/demo.json eval.drafter=DIR   another drafter, or none "
             "yet: the stock alone",
    .run = eval_run,
    .stops = true,
};
