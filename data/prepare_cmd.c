// data/prepare_cmd.c - `draftsmith prepare`: conversations to token samples, split and shuffled.
#include "data/prepare_cmd.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/prepare.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/base/stage.h"

static void print_result(const json_t *result, bool as_json) {
    if (!as_json) {
        prepared_table(result);
        return;
    }
    json_dumpf(result, stdout, JSON_INDENT(2));
    putchar('\n');
}

typedef struct {
    TargetConfig config;
    Sha256 hash;          // of the tokenizer
    Tokenizer *tokenizer; // once there is something to prepare
    ChatTemplate chat;
} Inputs;

static bool inputs_open(Inputs *in, const Settings *s, Err *err) {
    char path[PATH_ROOM];
    *in = (Inputs){0};
    if (!load_target_config(&in->config, s, err)) return false;
    if (s->data.max_length > in->config.text.max_positions)
        return err_set(err, ERR_USAGE,
                       "data.max_length is %lld, the target takes %lld tokens "
                       "(max_position_embeddings; model.max_positions sets another limit)",
                       (long long)s->data.max_length, (long long)in->config.text.max_positions);
    return tokenizer_file_hash(&in->hash, path_join(path, s->model.target_path, "tokenizer.json"),
                               err) &&
           chat_template_load(&in->chat, s->model.target_path, s->data.chat_template, err);
}

// Hashes of the files of one input, and the weights they are mixed with.
static bool identify(json_t *identity, const char *key, const StrList *list, bool held_out,
                     Err *err) {
    Sources sources;
    char name[64];
    if (!sources_open(&sources, key, list, held_out, err)) return false;
    json_t *hashes = sources_hashes(&sources, err);
    if (hashes) json_object_set_new(identity, key, hashes);
    snprintf(name, sizeof name, "%s weights", key);
    if (hashes) json_object_set_new(identity, name, sources_weights(&sources));
    sources_free(&sources);
    return hashes != NULL;
}

// Everything the samples depend on: contents, not paths.
static json_t *identity_of(const Settings *s, const Inputs *in, Err *err) {
    json_t *o = json_object();
    if (!identify(o, "data.train", &s->data.train, false, err) ||
        !identify(o, "data.eval", &s->data.eval, true, err)) {
        json_decref(o);
        return NULL;
    }
    json_t *rest = json_pack(
        "{s:s, s:s, s:f, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:s, s:s, s:s, s:s, s:s}", "tokenizer",
        in->hash.hex, "data.template", chat_template_name(in->chat), "data.dev_fraction",
        s->data.dev_fraction, "data.max_length", (json_int_t)s->data.max_length, "data.max_samples",
        (json_int_t)s->data.max_samples, "data.eval_samples", (json_int_t)s->data.eval_samples,
        "data.dev_samples", (json_int_t)s->data.dev_samples, "data.seed", (json_int_t)s->data.seed,
        "regenerate.answers", s->regenerate.answers, "data.minimum_valid_tokens",
        (json_int_t)s->data.minimum_valid_tokens, "data.turns", s->data.turns, "data.thinking",
        s->data.thinking, "data.prompt_key", s->data.prompt_key, "data.completion_key",
        s->data.completion_key, "data.bad_lines", s->data.bad_lines);
    CHECK(rest != NULL);
    json_object_update(o, rest);
    json_decref(rest);
    return o;
}

static bool write_all(Prepared *p, const Settings *s, const char *stage, const json_t *identity,
                      const json_t *result, Err *err) {
    char path[PATH_ROOM];
    if (!stage_clear(stage, err)) return false;
    for (int i = 0; i < SPLIT_COUNT; i++)
        if (!prepared_save(p, (Split)i, split_path(path, s, "data", (Split)i, ".jsonl"), err))
            return false;
    if (!prepared_commit_rejects(p, err)) return false;
    static const char *const names[] = {
        "train.jsonl",       "dev.jsonl",          "eval.jsonl",      "train_skipped.jsonl",
        "train_error.jsonl", "eval_skipped.jsonl", "eval_error.jsonl"};
    json_t *outputs = json_object();
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof names / sizeof *names; i++)
        ok = stage_note_output(outputs, stage, names[i], err);
    ok = ok && stage_publish_outputs(stage, identity, result, outputs, err);
    json_decref(outputs);
    return ok;
}

static bool prepare(const Cli *cli, Inputs *in, const char *stage, const json_t *identity,
                    Err *err) {
    char dir[PATH_ROOM];
    Prepared p;
    const bool writes = !cli->dry_run && cli->show == 0;
    in->tokenizer = open_tokenizer(cli->s.model.target_path, in->config.text.vocab, err);
    if (in->tokenizer == NULL) return false;
    const PrepareTools tools = prepare_tools(&cli->s, in->tokenizer, in->chat);
    path_join(dir, cli->s.output_dir, "data");
    if (writes && !dir_make(dir, err)) return false;
    if (!prepare_all(&p, &cli->s, &tools, writes ? dir : NULL, err)) return false;
    json_t *result = prepared_json(&p);
    bool ok = true;
    if (cli->show > 0)
        ok = prepared_show(&p, in->tokenizer, cli->show, err);
    else if (writes)
        ok = write_all(&p, &cli->s, stage, identity, result, err);
    if (ok && cli->show == 0) print_result(result, cli->json);
    json_decref(result);
    prepared_free(&p);
    return ok;
}

static bool prepare_run(const Cli *cli, Err *err) {
    char dir[PATH_ROOM], stage[PATH_ROOM];
    Inputs in;
    path_join(stage, path_join(dir, cli->s.output_dir, "data"), "prepare.json");
    json_t *identity = NULL, *result = NULL;
    bool ok = inputs_open(&in, &cli->s, err) && (identity = identity_of(&cli->s, &in, err));
    const bool writes = !cli->dry_run && cli->show == 0;
    const StageState state =
        ok && writes ? stage_state(stage, identity, cli->overwrite, err) : STAGE_ABSENT;
    if (!ok || state == STAGE_ERROR)
        ok = false;
    else if (state == STAGE_ABSENT)
        ok = prepare(cli, &in, stage, identity, err);
    else if ((ok = (result = stage_result(stage, err)) != NULL)) {
        log_info("prepare: done before (%s)", stage);
        print_result(result, cli->json);
    }
    json_decref(result);
    json_decref(identity);
    tokenizer_free(in.tokenizer);
    return ok;
}

const Verb prepare_verb = {
    .name = "prepare",
    .summary = "conversations to token samples; train, dev and eval kept apart by hash",
    .usage =
        "  draftsmith prepare data.train=mine.jsonl.zst=3,general/=1 data.eval=held-out.jsonl\n"
        "  draftsmith prepare --show 3        the rendered text and the mask of three samples\n\n"
        "A source is a JSONL file (.gz, .zst, .xz), a .tar or .zip of them or of WebDataset\n"
        "members, or a folder with train, valid and test files. A line has messages (with tools,\n"
        "tool_calls, reasoning), conversations, turns, prompt and completion, text (rendered), or\n"
        "input_ids and loss_mask; other keys are ignored. A number behind a source is its share\n"
        "of data.max_samples (of what there is, without a limit); without numbers sources are\n"
        "mixed as large as they are. A given answer is dropped, since the target answers itself,\n"
        "unless regenerate.answers=reference; data.turns=every takes all turns of the model.\n"
        "Writes OUTPUT_DIR/data/{train,dev,eval}.jsonl, {train,eval}_{skipped,error}.jsonl with\n"
        "where and why, and prepare.json.",
    .run = prepare_run,
};
