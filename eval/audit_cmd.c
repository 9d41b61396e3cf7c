// eval/audit_cmd.c - prompts are decoded live, simulated from captured features, and rolled out as
// in training: three shapes of one forward, which have to agree.
#include "eval/audit_cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/drafter.h"
#include "data/prepare.h"
#include "eval/audit.h"
#include "eval/wiring.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/decode/simulate.h"

enum { WIRING_ANCHORS = 24 };

typedef struct {
    const Settings *s;
    int K;
    int64_t capacity;
    OpenTarget open;
    int64_t rows; // of one target call
    Assistant *drafter;
    Head head;
    Tokenizer *tok;
    PrepareTools tools;
    Speculator *spec;
    Simulator *sim;
    KvCache *kv; // of the capture beside the live decoder
    void *block;
    FeaturePack pack;
    Tensor hidden; // (max_rows, B)
    Audit audit;
    Wiring wiring;
    int64_t prompts, skipped;
} Run;

static bool open_models(Run *r, const char *dir, Err *err) {
    const Settings *s = r->s;
    ChatTemplate chat;
    r->rows = s->capture.chunk > r->K + 1 ? s->capture.chunk : r->K + 1;
    if (!open_target(&r->open, s, r->rows, err)) return false;
    r->tok = open_tokenizer(s->model.target_path, target_config(r->open.target)->text.vocab, err);
    if (r->tok == NULL ||
        !chat_template_load(&chat, s->model.target_path, s->data.chat_template, err))
        return false;
    r->tools = prepare_tools(s, r->tok, chat);
    return (r->drafter = drafter_open(&r->open, s, dir, err)) != NULL;
}

static bool open_buffers(Run *r, Err *err) {
    const TargetConfig *tc = target_config(r->open.target);
    const SpeculatorOptions so = {.k_max = r->K,
                                  .capacity = r->capacity,
                                  .chunk = r->rows,
                                  .feature_dtype = DT_BF16,
                                  .kv_dtype = r->open.dtype};
    Arena arena;
    r->head = assistant_deployed_head(&r->drafter->cfg);
    arena_open(&arena, NULL, 0);
    for (int pass = 0; pass < 2; pass++) { // priced, then filled
        features_take(&r->pack, tc, r->capacity, DT_BF16, &arena);
        r->hidden = tensor_take(&arena, DT_F32, r->rows, tc->text.hidden);
        if (pass == 1) break;
        if ((r->block = dev_alloc(r->open.dev, arena.peak, err)) == NULL) return false;
        arena_open(&arena, r->block, arena.peak);
    }
    return (r->kv = kv_open(r->open.dev, &tc->text, 1, r->capacity, r->rows, false, r->open.dtype,
                            err)) &&
           (r->spec = speculator_open(r->open.target, r->drafter, &so, err)) &&
           (r->sim = simulator_open(r->drafter, 1024, r->K, err));
}

static void close_run(Run *r) {
    simulator_close(r->sim);
    speculator_close(r->spec);
    kv_close(r->kv);
    if (r->block != NULL) dev_free(r->open.dev, r->block);
    assistant_close(r->drafter);
    close_target(&r->open);
    tokenizer_free(r->tok);
}

// What a capture of this text holds, in r->pack.
static void capture(Run *r, const int32_t *ids, int64_t n) {
    kv_clear(r->kv, 0);
    features_clear(&r->pack);
    features_begin(&r->pack);
    for (int64_t at = 0; at < n; at += r->rows) {
        const TargetPiece piece = {.count = n - at < r->rows ? n - at : r->rows};
        const Tensor hidden = tensor_rows(r->hidden, 0, piece.count);
        target_forward(r->open.target, r->kv, &piece, 1, ids + at, hidden, NULL);
        features_append(&r->pack, r->open.dev, r->open.target, r->kv, 0, at, piece.count, hidden);
    }
}

// Simulates the plain text and compares it with live rounds and with the training forward.
static bool check_text(Run *r, const char *id, const SpeculateResult *plain, Err *err) {
    const int64_t anchors = plain->n - plain->first - 1;
    if (anchors < 1) return true;
    const size_t cells = (size_t)(anchors * r->K);
    int32_t *L = malloc((size_t)anchors * sizeof *L), *drafts = malloc(cells * sizeof *drafts);
    float *margin = malloc(cells * sizeof *margin);
    bool ok = L && drafts && margin;
    if (!ok) err_set(err, ERR_FAILED, "no memory for %lld anchors", (long long)anchors);
    if (ok) capture(r, plain->ids, plain->n);
    ok = ok && simulator_drafts(r->sim, r->drafter, &r->pack, 0, plain->ids, plain->n, plain->first,
                                r->head, drafts, margin, err);
    if (ok) acceptance_lengths(L, drafts, anchors, r->K, plain->ids, plain->n, plain->first);
    const AuditText text = {.id = id,
                            .ids = plain->ids,
                            .n = plain->n,
                            .first = plain->first,
                            .stopped = plain->stopped,
                            .K = r->K,
                            .L = L,
                            .margin = margin};
    ok = ok && audit_decode(&r->audit, r->spec, &text, r->head, err) &&
         wiring_compare(&r->wiring, r->drafter, &r->pack, plain->ids, plain->n, plain->first, r->K,
                        WIRING_ANCHORS, r->audit.near_tie, err);
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
    if (!prepare_item(&item, &hash, line, "", &r->tools, false, &why) && why.code == ERR_INPUT) {
        r->skipped++; // prepare says of every item why
        return true;
    }
    bool ok = why.code == ERR_NONE || err_set(err, why.code, "%s", why.text);
    const int64_t room = r->s->data.max_length - item.n, most = r->s->regenerate.max_new_tokens;
    if (ok) {
        const SpeculateOptions opt = {.max_new_tokens = room < most ? room : most};
        ok = speculate(r->spec, &opt, item.ids, item.n, &plain, err) &&
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

static bool wiring_passed(const Run *r) {
    return r->wiring.worst <= wiring_tolerance(r->open.dtype) && r->wiring.choices_differ == 0;
}

static bool print_audit(const Cli *cli, const Run *r, const char *dir, Err *err) {
    json_t *live = audit_json(&r->audit, r->head == HEAD_CENTROID ? "centroid" : "dense");
    json_t *o = json_pack("{ss ss s{sI sf sf sI sI sb} sO}", "drafter", dir, "dtype",
                          dtype_name(r->open.dtype), "training_forward", "values",
                          (json_int_t)r->wiring.values, "worst", r->wiring.worst, "tolerance",
                          wiring_tolerance(r->open.dtype), "choices", (json_int_t)r->wiring.choices,
                          "choices_differ", (json_int_t)r->wiring.choices_differ, "passed",
                          wiring_passed(r), "live", live);
    bool ok = true;
    if (cli->json) {
        ok = json_print(o, err);
    } else {
        printf("Audit of %s, %s, %lld prompts (%lld cannot be used)\n\n"
               "Training forward beside single-anchor inference: %lld values, largest difference "
               "%.2g (allowed %.0e); "
               "%lld choices, %lld differ: %s\n",
               dir, dtype_name(r->open.dtype), (long long)r->prompts, (long long)r->skipped,
               (long long)r->wiring.values, r->wiring.worst, wiring_tolerance(r->open.dtype),
               (long long)r->wiring.choices, (long long)r->wiring.choices_differ,
               wiring_passed(r) ? "passed" : "FAILED");
        audit_markdown(stdout, live);
    }
    json_decref(o);
    json_decref(live);
    return ok;
}

static bool gates(const Run *r, Err *err) {
    if (!wiring_passed(r))
        return err_set(
            err, ERR_GATE,
            "training forward: largest difference from inference %.3g, allowed %.0e; %lld of "
            "%lld choices differ",
            r->wiring.worst, wiring_tolerance(r->open.dtype), (long long)r->wiring.choices_differ,
            (long long)r->wiring.choices);
    return audit_gate(&r->audit, err);
}

static bool audit_run(const Cli *cli, Err *err) {
    char dir[PATH_ROOM];
    Run *r = calloc(1, sizeof *r);
    CHECK_MEMORY(r);
    r->s = &cli->s;
    r->K = (int)cli->s.eval.draft_tokens;
    r->capacity = cli->s.data.max_length + r->K;
    bool ok = drafter_trained_path(&cli->s, dir, err);
    if (ok && dir[0] == '\0') snprintf(dir, sizeof dir, "%s", cli->s.model.assistant_path);
    if (ok && (dir[0] == '\0' || cli->s.data.eval.n == 0))
        ok = err_set(err, ERR_USAGE,
                     "audit needs a drafter (model.assistant_path) and prompts (data.eval)");
    if (ok && cli->dry_run) {
        printf("audit: %lld prompts, k = 0..%d, drafter %s\n", (long long)cli->s.eval.audit_prompts,
               r->K, dir);
    } else if (ok) {
        ok = open_models(r, dir, err) && open_buffers(r, err);
        if (ok) audit_start(&r->audit, r->K, audit_near_tie(r->open.dtype));
        ok = ok && check_files(r, err);
        ok = ok && print_audit(cli, r, dir, err) && gates(r, err);
    }
    close_run(r);
    free(r);
    return ok;
}

const Verb audit_verb = {
    .name = "audit",
    .summary =
        "wiring and exactness gates on a given pair: training forward, simulator, live decoding",
    .usage = "  draftsmith audit -c configs/demo.json                       the best checkpoint, "
             "else the stock\n"
             "  draftsmith audit eval.drafter=DIR eval.audit_prompts=50     another drafter, more "
             "prompts",
    .run = audit_run,
    .stops = true,
};
