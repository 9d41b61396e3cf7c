// data/capture_cmd.c - `draftsmith capture`: hidden states and shared K/V of every answer, into
// shards.
#include "data/capture_cmd.h"

#include <stdlib.h>
#include <string.h>

#include "data/capture.h"
#include "data/workspace.h"
#include "infer/base/log.h"
#include "infer/base/memory.h"
#include "infer/base/stage.h"
#include "infer/base/world.h"

typedef struct {
    const Cli *cli;
    const Settings *s;
    OpenTarget model;
    Tokenizer *tokenizer;
    Split split;
    char samples[PATH_ROOM], dir[PATH_ROOM], stage[PATH_ROOM];
    ShardMeta meta;
    CapturePlan plan;
    MemoryPlan base;   // before the target is loaded
    int64_t announced; // memory: the largest of the splits that are captured
} Work;

// Everything the bytes of the shards depend on; the hash of it is the shards' configuration.
static json_t *identity_of(Work *w, Err *err) {
    Sha256 sha;
    if (!sha256_file(&sha, w->samples, err)) return NULL;
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I}", "samples", sha.hex, "target", w->meta.target,
                     "model.embed_scale", w->s->model.embed_scale, "runtime.dtype",
                     dtype_name(w->model.dtype), "capture.chunk", (json_int_t)w->s->capture.chunk,
                     "capture.shard_mib", (json_int_t)w->s->capture.shard_mib);
}

// sampler: that of the first answer not given by the data; the shards hold it per sequence, too.
static bool fill_meta(Work *w, const json_t *identity, const Sample *sample, int64_t n, Err *err) {
    char *text = json_dumps(identity, JSON_COMPACT | JSON_SORT_KEYS), path[PATH_ROOM];
    Sha256 config, chat = {""};
    CHECK_MEMORY(text);
    bool ok = sha256_bytes(&config, text, strlen(text), err);
    free(text);
    path_join(path, w->s->model.target_path, "chat_template.jinja");
    if (ok && file_exists(path)) ok = sha256_file(&chat, path, err);
    strcpy(w->meta.config, ok ? config.hex : "");
    strcpy(w->meta.chat_template, ok ? chat.hex : "");
    strcpy(w->meta.tokenizer, tokenizer_hash(w->tokenizer)->hex);
    strcpy(w->meta.sampler, n > 0 ? sample[0].sampler : "");
    for (int64_t i = 0; i < n; i++) {
        if (!strcmp(sample[i].sampler, "reference")) continue;
        strcpy(w->meta.sampler, sample[i].sampler);
        break;
    }
    return ok;
}

static bool room_on_disk(const Work *w, int64_t bytes, int shards, Err *err) {
    const int64_t padding = (int64_t)shards * (8 << 20); // the last chunk of every dataset
    const int64_t need = bytes + padding;
    const int64_t have = disk_free_bytes(w->s->output_dir);
    if (have < 0 || need <= have) return true;
    return err_set(err, ERR_FAILED, "%s: shards need %.1f MiB, the disk has %.1f MiB free", w->dir,
                   (double)need / (1 << 20), (double)have / (1 << 20));
}

static int64_t all_bytes(const Work *w) {
    return shard_bytes(&w->meta, w->plan.tokens, w->plan.states);
}

static bool capture_missing(Work *w, ShardWriter *out, Err *err) {
    const CapturePlan *p = &w->plan;
    const int next = shard_writer_next(out);
    int64_t there = 0;
    char what[64];
    if (next > p->shards)
        return err_set(err, ERR_INPUT, "%s: %d shards where %d belong", w->dir, next, p->shards);
    for (int i = 0; i < next; i++) there += capture_shard_bytes(p, i, &w->meta);
    if (next)
        log_info("capture %s: %d of %d shards were there", split_name(w->split), next, p->shards);
    bool ok = world_rank() > 0 || room_on_disk(w, all_bytes(w) - there, p->shards - next, err);
    Capturer *c =
        ok ? capturer_open(w->model.target, p, w->s->capture.chunk, w->model.dtype, err) : NULL;
    if (!world_agree(c != NULL, err)) {
        capturer_close(c);
        return false;
    }
    snprintf(what, sizeof what, "capture %s", split_name(w->split));
    ok = capture_shards(p, c, out, what, err);
    capturer_close(c);
    return ok && shard_writer_finish(out, p->shards, err);
}

// Bytes of a token in the mean: only some have a hidden state.
static int64_t bytes_each(const Work *w) {
    const int64_t n = w->plan.tokens;
    return n > 0 ? (all_bytes(w) + n / 2) / n : shard_bytes_per_token(&w->meta);
}

static json_t *result_of(const Work *w) {
    return json_pack("{s:I, s:I, s:I, s:i, s:I, s:I, s:I, s:I}", "sequences", (json_int_t)w->plan.n,
                     "tokens", (json_int_t)w->plan.tokens, "states", (json_int_t)w->plan.states,
                     "shards", w->plan.shards, "bytes_per_token", (json_int_t)bytes_each(w),
                     "bytes_per_state", (json_int_t)shard_bytes_per_state(&w->meta), "bytes",
                     (json_int_t)all_bytes(w), "left_out", (json_int_t)w->plan.left_out);
}

static long long whole(const json_t *o, const char *key) {
    return (long long)json_integer_value(json_object_get(o, key));
}

static void print_result(Split split, const json_t *o) {
    const bool all = json_object_get(o, "states") == NULL; // a capture of an earlier version
    printf("%-6s %8lld sequences %10lld tokens, %lld of them with a hidden state, %lld bytes each "
           "in the mean = %.1f MiB in %lld shards; %lld left out (no answer of two tokens)\n",
           split_name(split), whole(o, "sequences"), whole(o, "tokens"),
           whole(o, all ? "tokens" : "states"), whole(o, "bytes_per_token"),
           (double)whole(o, "bytes") / (1 << 20), whole(o, "shards"), whole(o, "left_out"));
}

static MemoryPlan memory_of(const Work *w, const Sample *sample, int64_t n) {
    const CapturePlan *p = &w->plan;
    MemoryPlan m = w->base;
    int64_t texts = n * (int64_t)sizeof *sample;
    for (int64_t i = 0; i < n; i++)
        texts += sample[i].n * (int64_t)(sizeof *sample[i].ids + sizeof *sample[i].kind);
    m.device = (int64_t)dev_own_memory(w->model.dev);
    memory_add_tensors(&m, "target", (int64_t)target_bytes(w->model.target));
    memory_add_tensors(&m, "kernels", (int64_t)dev_scratch_bytes(w->model.dev));
    memory_add(&m, "texts", texts);
    memory_add_tensors(
        &m, "K/V and rows of a chunk",
        (int64_t)capturer_bytes(w->model.target, p, w->s->capture.chunk, w->model.dtype));
    memory_add(&m, "rows coming down",
               (int64_t)capturer_host_bytes(w->model.target, w->s->capture.chunk));
    memory_add(&m, "shards under way", capture_held_bytes(p, &w->meta, world_size()));
    return m;
}

// Prices the run: sizes from the plan, time from capturing the first group.
static bool dry_run(Work *w, const MemoryPlan *memory, Err *err) {
    const CapturePlan *p = &w->plan;
    json_t *result = result_of(w);
    print_result(w->split, result);
    json_decref(result);
    printf("       memory: ");
    memory_print(stdout, memory);
    printf("\n");
    if (p->groups == 0) return true;
    CapturedSeq seq[PACK_SEQS_MAX];
    Capturer *c = capturer_open(w->model.target, p, w->s->capture.chunk, w->model.dtype, err);
    if (!c) return false;
    double seconds = 0;
    bool ok = true;
    // the first call warms caches and kernels; beside a long sequence that is little
    const int turns = p->longest > w->s->capture.chunk ? 1 : 2;
    for (int turn = 0; turn < turns && ok; turn++) {
        const double from = now_s();
        ok = capturer_run(c, 0, -1, seq, err);
        seconds = now_s() - from;
        for (int64_t i = 0; i < p->group[1] && ok; i++) captured_free(&seq[i]);
    }
    int64_t rows = 0;
    for (int64_t i = 0; i < p->group[1]; i++) rows += p->seq[i]->n;
    if (ok)
        printf("       time: about %.0f s at %.0f tokens/s\n",
               seconds * (double)p->tokens / (double)rows, (double)rows / seconds);
    capturer_close(c);
    return ok;
}

static bool write_shards(Work *w, Err *err) {
    char marker[PATH_ROOM];
    const bool first = world_rank() == 0;
    const bool clear =
        !first || ((!w->cli->overwrite || dir_remove(w->dir, err)) && dir_make(w->dir, err) &&
                   stage_clear(path_join(marker, "", w->stage), err));
    if (!world_agree(clear, err)) return false;
    log_info("capture %s: %lld tokens, %lld with a hidden state, %lld bytes each in the mean, "
             "%.1f MiB",
             split_name(w->split), (long long)w->plan.tokens, (long long)w->plan.states,
             (long long)bytes_each(w), (double)all_bytes(w) / (1 << 20));
    ShardWriter *out = shard_writer_open(w->dir, &w->meta, err);
    if (!out)
        return err && err->code == ERR_INPUT
                   ? err_wrap(err, "an unfinished capture of something else (--overwrite "
                                   "removes it)")
                   : false;
    const bool ok = capture_missing(w, out, err);
    shard_writer_close(out);
    return ok;
}

// What only a capture that is not done yet needs.
static bool load_models(Work *w, Err *err) {
    if (w->tokenizer) return true;
    w->tokenizer = open_tokenizer(w->s->model.target_path, w->model.config.text.vocab, err);
    if (!w->tokenizer) return false;
    memory_plan(&w->base);
    return load_target(&w->model, w->s, w->s->capture.chunk, err);
}

static bool check_lengths(const Work *w, const Sample *sample, int64_t n, Err *err) {
    for (int64_t i = 0; i < n; i++)
        if (!check_positions(&w->model, sample[i].id, sample[i].n, err))
            return err_wrap(err, "%s", w->samples);
    return true;
}

static bool plan_and_run(Work *w, const json_t *identity, json_t **result, Err *err) {
    Sample *sample;
    int64_t n;
    bool ok =
        load_models(w, err) && samples_load(w->samples, (int32_t)w->meta.vocab, &sample, &n, err);
    if (!world_agree(ok, err)) return false; // what another rank still holds goes with it
    MemoryPlan memory = {0};
    ok = check_lengths(w, sample, n, err) && fill_meta(w, identity, sample, n, err) &&
         capture_plan(&w->plan, sample, n, w->s->capture.chunk, &w->meta,
                      w->s->capture.shard_mib << 20, err);
    ok = world_agree(ok, err);
    if (ok) memory = memory_of(w, sample, n);
    ok = ok && memory_fits(&memory, err);
    if (memory_announced(&memory) > w->announced) w->announced = memory_announced(&memory);
    if (ok && w->cli->dry_run) {
        ok = dry_run(w, &memory, err);
    } else if (ok) {
        ok = write_shards(w, err);
        *result = ok ? result_of(w) : NULL;
        ok = ok && (world_rank() > 0 || stage_publish(w->stage, identity, *result, err));
        ok = world_agree(ok, err);
    }
    capture_plan_free(&w->plan);
    samples_free(sample, n);
    return ok;
}

// Rank 0 looks, and every rank goes by what it has found.
static bool look(const Work *w, const json_t *identity, bool *done, Err *err) {
    StageState state = STAGE_ABSENT;
    if (!w->cli->dry_run && world_rank() == 0)
        state = stage_state(w->stage, identity, w->cli->overwrite, err);
    *done = state == STAGE_DONE && shards_complete(w->dir);
    return world_agree(state != STAGE_ERROR, err) && world_share(done, sizeof *done, err);
}

static bool capture_split(Work *w, json_t *all, Err *err) {
    split_path(w->samples, w->s, "regen", w->split, ".jsonl");
    split_path(w->dir, w->s, "shards", w->split, "");
    path_join(w->stage, w->dir, "capture.json");
    if (!file_exists(w->samples))
        return world_agree(
            err_set(err, ERR_INPUT, "%s: not there; `regenerate` makes it", w->samples), err);
    w->meta = capture_meta(&w->model.config, &w->model.fingerprint);
    json_t *identity = identity_of(w, err), *result = NULL;
    bool done = false, ok = world_agree(identity != NULL, err) && look(w, identity, &done, err);
    if (ok && done) {
        log_info("capture %s: done before (%s)", split_name(w->split), w->stage);
        ok = (result = stage_result(w->stage, err)) != NULL;
    } else if (ok) {
        ok = plan_and_run(w, identity, &result, err);
    }
    json_decref(identity);
    if (ok && result && !w->cli->json) print_result(w->split, result);
    if (result) json_object_set_new(all, split_name(w->split), result);
    return ok;
}

static bool capture_run(const Cli *cli, Err *err) {
    Work w = {.cli = cli, .s = &cli->s};
    json_t *all = json_object();
    memory_begin();
    bool ok = identify_target(&w.model, w.s, err);
    for (int i = 0; i < SPLIT_COUNT && ok; i++) {
        w.split = (Split)i;
        if (w.split == SPLIT_TRAIN && w.s->train.stream) {
            log_info("capture train: left to the trainer (train.stream)");
            continue;
        }
        ok = capture_split(&w, all, err);
    }
    ok = ok && (cli->dry_run || world_rank() > 0 ||
                memory_record(w.s->output_dir, "capture", w.announced, err));
    if (ok && cli->json && !cli->dry_run) {
        json_dumpf(all, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(all);
    tokenizer_free(w.tokenizer);
    close_target(&w.model);
    return ok;
}

const Verb capture_verb = {
    .name = "capture",
    .summary = "hidden states and shared K/V of every answer, into shards",
    .usage = "  draftsmith capture --dry-run                     tokens, bytes, memory, time\n"
             "  draftsmith capture --shard-mib 256               shards of about 256 MiB\n\n"
             "Reads OUTPUT_DIR/regen/*.jsonl, writes OUTPUT_DIR/shards/{train,dev,eval}/. An "
             "interrupted run goes on\n"
             "at the first missing shard and ends in the same bytes. With train.stream=true the "
             "training split is\n"
             "captured by the trainer instead.",
    .run = capture_run,
    .stops = true,
    .ranks = true,
};
