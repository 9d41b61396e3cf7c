// data/prepare_cmd.c - `draftsmith prepare`: conversations to token samples, split and shuffled.
#include "data/prepare_cmd.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/prepare.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/base/stage.h"

typedef struct {
    TargetConfig config;
    Sha256 hash;          // of the tokenizer
    Tokenizer *tokenizer; // once there is something to prepare
    PrepareTools tools;
} Inputs;

static bool inputs_open(Inputs *in, const Settings *s, Err *err) {
    char path[PATH_ROOM];
    *in = (Inputs){0};
    return target_config_load(&in->config, s->model.target_path, err) &&
           tokenizer_file_hash(&in->hash, path_join(path, s->model.target_path, "tokenizer.json"),
                               err) &&
           chat_template_load(&in->tools.chat_template, s->model.target_path, s->data.chat_template,
                              err);
}

static json_t *hashes(const StrList *files, Err *err) {
    json_t *list = json_array();
    for (int i = 0; i < files->n; i++) {
        Sha256 sha;
        if (!file_exists(files->item[i])) {
            err_set(err, ERR_INPUT, "%s: %s", files->item[i],
                    dir_exists(files->item[i])          ? "a folder, expected a JSONL file"
                    : access(files->item[i], F_OK) == 0 ? "not a regular file"
                                                        : "no such file");
        } else if (sha256_file(&sha, files->item[i], err)) {
            json_array_append_new(list, json_string(sha.hex));
            continue;
        }
        json_decref(list);
        return NULL;
    }
    return list;
}

// Everything the samples depend on: contents, not paths.
static json_t *identity_of(const Settings *s, const Inputs *in, Err *err) {
    json_t *train = hashes(&s->data.train, err), *eval = train ? hashes(&s->data.eval, err) : NULL;
    if (!eval) {
        json_decref(train);
        return NULL;
    }
    return json_pack("{s:o, s:o, s:s, s:s, s:f, s:I, s:I, s:I, s:I, s:I, s:s}", "data.train", train,
                     "data.eval", eval, "tokenizer", in->hash.hex, "data.template",
                     chat_template_name(in->tools.chat_template), "data.dev_fraction",
                     s->data.dev_fraction, "data.max_length", (json_int_t)s->data.max_length,
                     "data.max_samples", (json_int_t)s->data.max_samples, "data.eval_samples",
                     (json_int_t)s->data.eval_samples, "data.dev_samples",
                     (json_int_t)s->data.dev_samples, "data.seed", (json_int_t)s->data.seed,
                     "regenerate.answers", s->regenerate.answers);
}

static long long number(const json_t *o, const char *a, const char *b) {
    return (long long)json_integer_value(json_object_get(json_object_get(o, a), b));
}

static void print_result(const json_t *result, bool as_json) {
    if (as_json) {
        json_dumpf(result, stdout, JSON_INDENT(2));
        putchar('\n');
        return;
    }
    static const char *const inputs[] = {"train", "eval"};
    for (int i = 0; i < SPLIT_COUNT; i++) {
        const json_t *o = json_object_get(json_object_get(result, "splits"), split_name((Split)i));
        printf("%-6s %8lld prompts %10lld tokens\n", split_name((Split)i),
               (long long)json_integer_value(json_object_get(o, "prompts")),
               (long long)json_integer_value(json_object_get(o, "tokens")));
    }
    for (int i = 0; i < 2; i++)
        printf("data.%-5s in %lld = out %lld + skipped %lld (too long %lld, also in data.eval "
               "%lld, repeated %lld, "
               "beyond the limit %lld) + failed %lld\n",
               inputs[i], number(result, inputs[i], "in"), number(result, inputs[i], "out"),
               number(result, inputs[i], "skipped"), number(result, inputs[i], "too_long"),
               number(result, inputs[i], "in_eval"), number(result, inputs[i], "duplicate"),
               number(result, inputs[i], "over_limit"), number(result, inputs[i], "failed"));
}

// Spans of one kind each, under the name of the kind: what the loss sees is everything but context.
static void show_sample(const Sample *s, const Tokenizer *t) {
    static const char *const kinds[] = {"context", "model", "thought", "call"};
    int64_t supervised = 0;
    for (int64_t i = 0; i < s->n; i++) supervised += s->kind[i] >= TOKEN_MODEL;
    printf("=== %s  category %s  source %s  %lld tokens, %lld supervised%s\n", s->id,
           s->category[0] ? s->category : "-", s->source, (long long)s->n, (long long)supervised,
           s->prompt == s->n ? ", the answer will be the target's own" : "");
    for (int64_t from = 0, i = 1; i <= s->n; i++) {
        if (i < s->n && s->kind[i] == s->kind[from]) continue;
        size_t size;
        char *text = tokenizer_decode(t, s->ids + from, (size_t)(i - from), false, &size);
        CHECK_MEMORY(text);
        printf("--- %s, %lld tokens\n", kinds[s->kind[from]], (long long)(i - from));
        fwrite(text, 1, size, stdout);
        if (size == 0 || text[size - 1] != '\n') putchar('\n');
        free(text);
        from = i;
    }
}

static void show(const Prepared *p, const Tokenizer *t, int64_t n) {
    for (int split = 0; split < SPLIT_COUNT && n > 0; split++)
        for (int64_t i = 0; i < p->split[split].n && n > 0; i++, n--)
            show_sample(&p->split[split].sample[i], t);
}

static bool write_rejected(const Settings *s, const json_t *rejected, Err *err) {
    char dir[PATH_ROOM], path[PATH_ROOM];
    OutFile f;
    size_t i;
    json_t *line;
    if (!out_open(&f, path_join(path, path_join(dir, s->output_dir, "data"), "rejected.jsonl"),
                  err))
        return false;
    json_array_foreach(rejected, i, line) {
        char *text = json_dumps(line, JSON_COMPACT);
        CHECK_MEMORY(text);
        out_printf(&f, "%s\n", text);
        free(text);
    }
    return out_commit(&f, err);
}

static bool write_all(const Prepared *p, const Settings *s, const char *stage,
                      const json_t *identity, const json_t *result, Err *err) {
    char path[PATH_ROOM];
    if (!dir_make(path_join(path, s->output_dir, "data"), err) || !stage_clear(stage, err))
        return false;
    for (int i = 0; i < SPLIT_COUNT; i++)
        if (!samples_save(split_path(path, s, "data", (Split)i, ".jsonl"), p->split[i].sample,
                          p->split[i].n, err))
            return false;
    if (!write_rejected(s, p->rejected, err)) return false;
    static const char *const names[] = {"train.jsonl", "dev.jsonl", "eval.jsonl", "rejected.jsonl"};
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
    Prepared p;
    in->tokenizer = open_tokenizer(cli->s.model.target_path, in->config.text.vocab, err);
    if (in->tokenizer == NULL) return false;
    in->tools.tokenizer = in->tokenizer;
    if (!prepare_all(&p, &cli->s, &in->tools, err)) return false;
    json_t *result = prepared_json(&p);
    bool ok = true;
    if (cli->show > 0) {
        show(&p, in->tokenizer, cli->show);
    } else {
        ok = cli->dry_run || write_all(&p, &cli->s, stage, identity, result, err);
        if (ok) print_result(result, cli->json);
    }
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
        "  draftsmith prepare data.train=mine.jsonl.zst data.eval=held-out.jsonl\n"
        "  draftsmith prepare --show 3        the rendered text and the mask of three samples\n\n"
        "Items are {\"messages\": [...]} with optional id, category and tools. A final assistant "
        "turn is\n"
        "dropped, since the target answers itself, unless regenerate.answers=reference.\n"
        "Writes OUTPUT_DIR/data/{train,dev,eval}.jsonl, rejected.jsonl and prepare.json.",
    .run = prepare_run,
};
