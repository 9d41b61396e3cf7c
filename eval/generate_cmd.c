// eval/generate_cmd.c - one prompt in, text out; speed and acceptance on stderr.
#include "eval/generate_cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/drafter.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/decode/speculate.h"
#include "infer/text/chat.h"

enum { PREFILL_ROWS = 512 };

typedef struct {
    const Settings *s;
    const char *prompt;
    int k; // drafts a round
    OpenTarget open;
    Assistant *drafter; // NULL when k = 0
    Tokenizer *tok;
    Ids ids; // of the prompt
} Job;

static bool encode_turn(Job *j, Err *err) {
    ChatTokens turn = {0};
    ChatOptions opt = {.generation_prompt = true};
    const char *dir = j->s->model.target_path;
    if (!chat_template_load(&opt.tmpl, dir, j->s->data.chat_template, err)) return false;
    json_t *messages = json_pack("[{ss ss}]", "role", "user", "content", j->prompt);
    if (messages == NULL) return err_set(err, ERR_INPUT, "the prompt is not UTF-8 text");
    const bool ok = chat_encode(&turn, j->tok, messages, NULL, opt, err);
    for (size_t i = 0; ok && i < turn.ids.n; i++) ids_push(&j->ids, turn.ids.id[i]);
    json_decref(messages);
    chat_tokens_free(&turn);
    return ok;
}

static bool encode_prompt(Job *j, Err *err) {
    TargetConfig c;
    if (!target_config_load(&c, j->s->model.target_path, err)) return false;
    if ((j->tok = open_tokenizer(j->s->model.target_path, c.text.vocab, err)) == NULL) return false;
    if (j->s->generate.raw)
        tokenizer_encode(j->tok, j->prompt, strlen(j->prompt), true, &j->ids);
    else if (!encode_turn(j, err))
        return false;
    return j->ids.n > 0 || err_set(err, ERR_INPUT, "the prompt has no token");
}

static bool open_models(Job *j, Err *err) {
    const Settings *s = j->s;
    if (!open_target(&j->open, s, PREFILL_ROWS, err) ||
        !check_positions(&j->open, "of the prompt", (int64_t)j->ids.n, err))
        return false;
    if (j->k == 0) return true;
    const char *dir = s->generate.drafter[0] ? s->generate.drafter : s->model.assistant_path;
    return (j->drafter = drafter_open(&j->open, s, dir, err)) != NULL;
}

static void print_speed(const Job *j, const SpeculateResult *r) {
    const double seconds = r->target_s + r->drafter_s;
    const int64_t tokens = r->n - r->first;
    log_info("%lld prompt tokens in %.2f s; %lld tokens in %.2f s (%.1f tok/s)%s",
             (long long)r->first, r->prefill_s, (long long)tokens, seconds,
             seconds > 0 ? (double)(tokens - 1) / seconds : 0.0,
             r->stopped ? "" : ", cut at generate.max_new_tokens");
    if (j->k == 0) return;
    Acceptance a = {0};
    speculate_count(&a, r);
    log_info("at most %d drafts a round: %.2f tokens per target step over %lld rounds (bonus in), "
             "%lld of "
             "%lld drafts "
             "accepted; target %.2f s, drafter %.2f s",
             j->k, acceptance_tau(&a), (long long)a.rounds, (long long)a.accepted,
             (long long)a.drafted, r->target_s, r->drafter_s);
}

static json_t *result_json(const Job *j, const SpeculateResult *r, const char *text) {
    Acceptance a = {0};
    speculate_count(&a, r);
    return json_pack("{ss sI sI si sI sf sI sI sf sf sf sb}", "text", text, "prompt_tokens",
                     (json_int_t)r->first, "tokens", (json_int_t)(r->n - r->first), "draft_tokens",
                     j->k, "rounds", (json_int_t)a.rounds, "tokens_per_target_step",
                     acceptance_tau(&a), "drafted", (json_int_t)a.drafted, "accepted",
                     (json_int_t)a.accepted, "prefill_s", r->prefill_s, "target_s", r->target_s,
                     "drafter_s", r->drafter_s, "stopped", r->stopped);
}

static bool print_result(const Cli *cli, const Job *j, const SpeculateResult *r, Err *err) {
    size_t size;
    char *text =
        tokenizer_decode(j->tok, r->ids + r->first, (size_t)(r->n - r->first), true, &size);
    bool ok = true;
    if (text == NULL) return err_set(err, ERR_FAILED, "no memory for the text");
    if (cli->json) {
        json_t *o = result_json(j, r, text);
        ok = json_print(o, err);
        json_decref(o);
    } else {
        fwrite(text, 1, size, stdout);
        putchar('\n');
    }
    free(text);
    if (ok) print_speed(j, r);
    return ok;
}

static DraftRule rule_of(const char *name) {
    return !strcmp(name, "best")     ? DRAFT_BEST
           : !strcmp(name, "strict") ? DRAFT_STRICT
                                     : DRAFT_REJECTION;
}

// As regenerate draws.
static Sampler sampler_of(const Settings *s) {
    return (Sampler){.temperature = s->regenerate.temperature,
                     .top_k = s->regenerate.top_k,
                     .top_p = s->regenerate.top_p,
                     .seed = (uint64_t)s->data.seed};
}

static bool decode(const Cli *cli, Job *j, Err *err) {
    const int64_t n = (int64_t)j->ids.n, most = j->s->generate.max_new_tokens;
    const SpeculatorOptions so = {.k_max = j->k,
                                  .capacity = n + most + j->k,
                                  .chunk = PREFILL_ROWS,
                                  .feature_dtype = DT_BF16,
                                  .kv_dtype = j->open.dtype,
                                  .sampled = j->s->regenerate.temperature > 0};
    const SpeculateOptions opt = {.k = j->k,
                                  .max_new_tokens = most,
                                  .rule = rule_of(j->s->generate.draft_rule),
                                  .p_min = j->s->generate.p_min,
                                  .sampler = sampler_of(j->s),
                                  .head = j->k ? assistant_deployed_head(&j->drafter->cfg)
                                               : HEAD_DENSE};
    SpeculateResult r = {0};
    Speculator *s = speculator_open(j->open.target, j->drafter, &so, err);
    const bool ok =
        s != NULL && speculate(s, &opt, j->ids.id, n, &r, err) && print_result(cli, j, &r, err);
    speculate_result_free(&r);
    speculator_close(s);
    return ok;
}

static bool generate_cmd_run(const Cli *cli, Err *err) {
    Job j = {.s = &cli->s,
             .prompt = cli->nargs > 0 ? cli->args[0] : cli->s.generate.prompt,
             .k = (int)cli->s.generate.draft_tokens};
    if (j.prompt[0] == '\0')
        return err_set(err, ERR_USAGE, "no prompt: give it as an argument or as generate.prompt");
    if (cli->s.model.assistant_path[0] == '\0' && cli->s.generate.drafter[0] == '\0') j.k = 0;
    bool ok = encode_prompt(&j, err);
    if (ok && cli->dry_run)
        printf("generate: %zu prompt tokens, at most %lld new ones, %d drafts a round\n", j.ids.n,
               (long long)cli->s.generate.max_new_tokens, j.k);
    else
        ok = ok && open_models(&j, err) && decode(cli, &j, err);
    assistant_close(j.drafter);
    close_target(&j.open);
    tokenizer_free(j.tok);
    ids_free(&j.ids);
    return ok;
}

const Verb generate_verb = {
    .name = "generate",
    .summary = "text from the target, with or without a drafter",
    .usage =
        "  draftsmith generate \"Gib als JSON aus: paket.\"              with the stock assistant\n"
        "  draftsmith generate generate.draft_tokens=0 \"Hallo\"        the target alone\n"
        "  draftsmith generate generate.drafter=runs/demo/export/hf \"Hallo\"\n"
        "  draftsmith generate regenerate.temperature=0.7 data.seed=3 \"Hallo\"  sampled as "
        "regenerate samples",
    .max_args = 1,
    .run = generate_cmd_run,
};
