// data/regenerate_cmd.c - `draftsmith regenerate`: the fine-tuned target answers every prompt.
#include "data/regenerate_cmd.h"

#include <stdlib.h>
#include <string.h>

#include "data/drafter.h"
#include "data/regenerate_turns.h"
#include "data/workspace.h"
#include "infer/base/log.h"
#include "infer/base/stage.h"
#include "infer/base/world.h"
#include "infer/model/weight_source.h"

enum {
    GROUPS_OF_BATCH = 8
}; // jobs of a group per slot: what a kill can cost against idle slots at its end

typedef struct {
    const Cli *cli;
    const Settings *s;
    OpenTarget model;
    Assistant *drafter; // NULL: none is wanted, or nothing was to be made yet
    Tokenizer *tokenizer;
    Split split;
    RegenerateOptions opt;
} Work;

static bool drafts(const Settings *s) {
    return strcmp(s->regenerate.drafter, "none") != 0;
}

static int64_t rows_at_once(const Settings *s, bool drafted) {
    const int64_t a_slot = drafted ? s->regenerate.draft_tokens + 1 : 1;
    const int64_t decoded = s->regenerate.batch * a_slot;
    return s->capture.chunk > decoded ? s->capture.chunk : decoded;
}

// Dev and eval are greedy unless asked otherwise: acceptance is counted on text that was made as
// the drafter's target will make it.
static void set_options(Work *w) {
    const Settings *s = w->s;
    const int64_t most = w->model.config.text.max_positions;
    static char what[64];
    snprintf(what, sizeof what, "regenerate %s", split_name(w->split));
    w->opt = (RegenerateOptions){
        .generate = {.slots = s->regenerate.batch,
                     .max_new_tokens = s->regenerate.max_new_tokens,
                     .max_length =
                         most > 0 && most < s->data.max_length ? most : s->data.max_length,
                     .prefill_rows = rows_at_once(s, drafts(s)),
                     .sampler = {.temperature = 0, .top_p = 1, .seed = (uint64_t)s->data.seed},
                     .kv_dtype = w->model.dtype,
                     .keep_rounds = drafts(s)},
        .samples = 1,
        .group = GROUPS_OF_BATCH * s->regenerate.batch,
        .what = what};
    const bool drawn = w->split == SPLIT_TRAIN || !strcmp(s->regenerate.held_out, "sampled");
    if (!drawn || s->regenerate.temperature == 0) return;
    w->opt.generate.sampler.temperature = s->regenerate.temperature;
    w->opt.generate.sampler.top_k = s->regenerate.top_k;
    w->opt.generate.sampler.top_p = s->regenerate.top_p;
    w->opt.samples = s->regenerate.samples;
}

static json_t *ids_json(const int64_t *id, int n) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, json_integer(id[i]));
    return list;
}

// A drafter is not in it: with DRAFT_BEST the target chooses as it does alone.
static json_t *identity_of(const Work *w, const char *prompts, Err *err) {
    const GenerateOptions *g = &w->opt.generate;
    const TargetConfig *c = &w->model.config;
    char sampler[64];
    Sha256 sha;
    if (!sha256_file(&sha, prompts, err)) return NULL;
    sampler_name(sampler, &g->sampler);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "prompts",
                     sha.hex, "target", w->model.fingerprint.hex, "model.embed_scale",
                     w->s->model.embed_scale, "runtime.dtype", dtype_name(w->model.dtype),
                     "sampler", sampler, "samples", (json_int_t)w->opt.samples,
                     "regenerate.max_new_tokens", (json_int_t)g->max_new_tokens, "data.max_length",
                     (json_int_t)g->max_length, "regenerate.batch", (json_int_t)g->slots,
                     "capture.chunk", (json_int_t)rows_at_once(w->s, false), "data.seed",
                     (json_int_t)g->sampler.seed, "stop", ids_json(c->stop, c->nstop),
                     "suppress_tokens", ids_json(c->suppress.id, c->suppress.n));
}

static json_t *result_of(const RegenerateCount *c) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "prompts", (json_int_t)c->prompts,
                     "answers", (json_int_t)c->answers, "tokens", (json_int_t)c->tokens, "stopped",
                     (json_int_t)c->stopped, "cut", (json_int_t)c->cut, "empty",
                     (json_int_t)c->empty, "given", (json_int_t)c->given);
}

static void print_result(Split split, const json_t *o) {
    long long v[7];
    static const char *const keys[7] = {"prompts", "answers", "tokens", "stopped",
                                        "cut",     "empty",   "given"};
    for (int i = 0; i < 7; i++) v[i] = (long long)json_integer_value(json_object_get(o, keys[i]));
    printf("%-6s %8lld prompts %8lld answers %10lld tokens: %lld ended by themselves, %lld cut, "
           "%lld empty, %lld given "
           "by the data\n",
           split_name(split), v[0], v[1], v[2], v[3], v[4], v[5], v[6]);
}

static void print_speed(const Work *w, const RegenerateCount *c) {
    const Acceptance *a = &c->drafts;
    if (c->made == 0) return;
    log_info("%s: %lld tokens in %.1f s, %.0f tokens/s", w->opt.what, (long long)c->made,
             c->seconds, (double)c->made / (c->seconds + 1e-9));
    if (a->rounds > 0)
        log_info("%s: at most %d drafts a round, %.2f tokens per target step (bonus in, pooled), "
                 "%lld of %lld drafts accepted",
                 w->opt.what, w->opt.generate.draft.k, acceptance_tau(a), (long long)a->accepted,
                 (long long)a->drafted);
}

static const char *drafter_folder(const Settings *s) {
    const bool stock = !strcmp(s->regenerate.drafter, "stock");
    return stock ? s->model.assistant_path : s->regenerate.drafter;
}

// K/V is read where it lies, in the cache's dtype.
static DraftOptions draft_options(const Work *w, const Assistant *a) {
    return (DraftOptions){.assistant = a,
                          .k = (int)w->s->regenerate.draft_tokens,
                          .head = assistant_deployed_head(&a->cfg),
                          .rule = DRAFT_BEST,
                          .p_min = w->s->regenerate.p_min,
                          .feature_dtype = w->model.dtype};
}

static bool open_drafter(Work *w, Err *err) {
    if (!w->drafter && !(w->drafter = drafter_open(&w->model, w->s, drafter_folder(w->s), err)))
        return false;
    w->opt.generate.draft = draft_options(w, w->drafter);
    return true;
}

static bool print_plan(const Work *w, const Chain *chain, int64_t n, Err *err) {
    int64_t open = 0, tokens = 0, longest = 1;
    GenerateOptions generate = w->opt.generate;
    Assistant priced;
    if (drafts(w->s)) {
        if (!drafter_price(&priced, &w->model, w->s, drafter_folder(w->s), err)) return false;
        generate.draft = draft_options(w, &priced);
    }
    for (int64_t i = 0; i < n; i++) {
        const Sample *prompt = &chain[i].sample;
        if (prompt->n > longest) longest = prompt->n;
        if (chain[i].follows > 0) longest = generate.max_length; // turns grow by their answers
        if (prompt->prompt < prompt->n) continue;
        open += 1 + chain[i].follows;
        tokens += prompt->n;
        for (int64_t k = 0; k < chain[i].follows; k++) tokens += chain[i].follow[k].n;
    }
    generate.max_length = regenerate_capacity(&generate, longest);
    printf("%-6s %8lld prompts, %lld answers to make behind %lld prompt tokens, at most %lld "
           "tokens each; %.1f MiB of "
           "buffers\n",
           split_name(w->split), (long long)n, (long long)(open * w->opt.samples),
           (long long)(tokens * w->opt.samples), (long long)w->opt.generate.max_new_tokens,
           (double)generate_bytes(&w->model.config, &generate) / (1 << 20));
    return true;
}

// What only answers that are not there yet need.
static bool load_models(Work *w, Err *err) {
    const Settings *s = w->s;
    if (!load_target(&w->model, s, rows_at_once(s, drafts(s)), err)) return false;
    if (drafts(s) && !open_drafter(w, err)) return false;
    if (!w->tokenizer)
        w->tokenizer = open_tokenizer(s->model.target_path, w->model.config.text.vocab, err);
    w->opt.tokenizer = w->tokenizer;
    return w->tokenizer != NULL;
}

static bool answer_split(Work *w, const char *prompts, const char *out, const char *stage,
                         const json_t *identity, json_t **result, Err *err) {
    Chain *chain;
    int64_t n;
    RegenerateCount count;
    if (!world_agree(chains_load(prompts, (int32_t)w->model.config.text.vocab, &chain, &n, err),
                     err))
        return false;
    if (w->cli->dry_run) {
        const bool printed = print_plan(w, chain, n, err);
        chains_free(chain, n);
        return printed;
    }
    char *text = json_dumps(identity, JSON_COMPACT | JSON_SORT_KEYS), dir[PATH_ROOM];
    const bool first = world_rank() == 0;
    w->opt.identity = text;
    w->opt.anew = w->cli->overwrite;
    bool ok = load_models(w, err) && dir_make(path_join(dir, w->s->output_dir, "regen"), err) &&
              (!first || stage_clear(stage, err));
    ok = world_agree(ok, err) && regenerate_turns(w->model.target, chain, n, &w->opt,
                                                  w->split == SPLIT_TRAIN, out, &count, err);
    if (ok) {
        print_speed(w, &count);
        if (count.resumed)
            log_info("%s: %lld answers were there", w->opt.what, (long long)count.resumed);
        *result = result_of(&count);
        ok = world_agree(!first || stage_publish(stage, identity, *result, err), err);
    }
    free(text);
    chains_free(chain, n);
    return ok;
}

static bool regenerate_split(Work *w, json_t *all, Err *err) {
    char prompts[PATH_ROOM], out[PATH_ROOM], stage[PATH_ROOM];
    split_path(prompts, w->s, "data", w->split, ".jsonl");
    split_path(out, w->s, "regen", w->split, ".jsonl");
    split_path(stage, w->s, "regen", w->split, ".json");
    if (!world_agree(file_exists(prompts) ||
                         err_set(err, ERR_INPUT, "%s: not there; `prepare` makes it", prompts),
                     err))
        return false;
    set_options(w);
    json_t *identity = identity_of(w, prompts, err), *result = NULL;
    StageState state = STAGE_ABSENT; // as rank 0 finds it
    if (identity && !w->cli->dry_run && world_rank() == 0)
        state = stage_state(stage, identity, w->cli->overwrite, err);
    bool ok = world_agree(identity && state != STAGE_ERROR, err) &&
              world_share(&state, sizeof state, err);
    if (!ok) state = STAGE_ERROR;
    if (state == STAGE_ABSENT) ok = answer_split(w, prompts, out, stage, identity, &result, err);
    if (state == STAGE_DONE) {
        log_info("regenerate %s: done before (%s)", split_name(w->split), stage);
        ok = (result = stage_result(stage, err)) != NULL;
    }
    json_decref(identity);
    if (ok && result && !w->cli->json) print_result(w->split, result);
    if (result) json_object_set_new(all, split_name(w->split), result);
    return ok;
}

static bool regenerate_run(const Cli *cli, Err *err) {
    const Settings *s = &cli->s;
    Work w = {.cli = cli, .s = s};
    if (drafts(s) && !weight_source_is(drafter_folder(s)))
        return err_set(
            err, ERR_USAGE,
            "regenerate.drafter: no folder %s (none, stock, a folder or a drafter's file)",
            drafter_folder(s));
    json_t *all = json_object();
    bool ok = identify_target(&w.model, s, err);
    for (int i = 0; i < SPLIT_COUNT && ok; i++) {
        w.split = (Split)i;
        ok = regenerate_split(&w, all, err);
    }
    if (ok && cli->json && !cli->dry_run) {
        json_dumpf(all, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(all);
    tokenizer_free(w.tokenizer);
    assistant_close(w.drafter);
    close_target(&w.model);
    return ok;
}

const Verb regenerate_verb = {
    .name = "regenerate",
    .summary = "the fine-tuned target answers every prompt",
    .usage = "  draftsmith regenerate                                    greedy\n"
             "  draftsmith regenerate regenerate.temperature=0.7 --samples 4   four answers to "
             "each training prompt\n"
             "  draftsmith regenerate regenerate.drafter=stock           the same answers, by "
             "speculative decoding\n\n"
             "Reads OUTPUT_DIR/data/*.jsonl, writes OUTPUT_DIR/regen/*.jsonl in the same order. An "
             "interrupted run\n"
             "goes on where it was and ends in the same bytes. Dev and eval are answered greedily "
             "unless\n"
             "regenerate.held_out=sampled, and by the target even where "
             "regenerate.answers=reference keeps\n"
             "given answers.",
    .run = regenerate_run,
    .stops = true,
    .ranks = true,
};
