// train/train_setup.c - opens models and splits, and writes down what a run depends on.
#include "train/train_setup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/held_out.h"
#include "infer/base/hash_cache.h"
#include "infer/base/world.h"

enum { DEV_ANCHORS = 2048, DEV_TOKENS = 16384 };

// Settings of `train` that may change between the parts of one run: none of them changes a weight.
static bool may_change(const char *name) {
    static const char *const names[] = {"stream", "dev_every", "save_every", "keep"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return true;
    return false;
}

static void put(json_t *o, const char *key, const char *text) {
    json_object_set_new(o, key, json_string(text));
}

// cache: of hashes, NULL for files that are small or ours
static bool put_hash(json_t *o, const char *key, const char *path, const char *cache, Err *err) {
    Sha256 sha;
    if (!sha256_remembered(&sha, path, cache, err)) return false;
    put(o, key, sha.hex);
    return true;
}

static DType train_dtype(const TrainSetup *t) {
    const char *name = t->s->train.dtype;
    if (strcmp(name, "auto") == 0) return dev_prefers_bf16(t->model.dev) ? DT_BF16 : DT_F32;
    return strcmp(name, "f32") == 0 ? DT_F32 : DT_BF16;
}

// Of the teacher; left out where there are none.
static void put_suppressed(json_t *o, const Suppress *s) {
    json_t *list = s->n > 0 ? json_array() : NULL;
    for (int i = 0; i < s->n; i++) json_array_append_new(list, json_integer(s->id[i]));
    if (list) json_object_set_new(o, "suppress_tokens", list);
}

// The data are the answers they were captured from, so that stream and shards are the same run.
static bool make_identity(TrainSetup *t, Err *err) {
    const Settings *s = t->s;
    char path[PATH_ROOM], dir[PATH_ROOM], cache[PATH_ROOM];
    const char *key;
    json_t *o = t->identity = json_object(), *all = settings_json(s), *value;
    json_object_foreach(json_object_get(all, "train"), key, value) {
        char name[96];
        snprintf(name, sizeof name, "train.%s", key);
        if (!may_change(key)) json_object_set(o, name, value);
    }
    json_decref(all);
    put(o, "train.dtype", dtype_name(train_dtype(t)));
    put(o, "runtime.dtype", dtype_name(t->model.dtype));
    put(o, "device", t->model.dev->kind);
    put(o, "target", t->model.fingerprint.hex);
    put(o, "tokenizer", shards_meta(t->shards[SPLIT_DEV])->tokenizer);
    put(o, "model.embed_scale", s->model.embed_scale);
    put_suppressed(o, &t->model.config.suppress);
    json_object_set_new(o, "model.pos_offset", json_integer(s->model.pos_offset));
    json_object_set_new(o, "model.window_extra", json_integer(s->model.window_extra));
    json_object_set_new(o, "eval.select_k", json_integer(s->eval.select_k));
    // Ranks share a step's sequences: what they are does not depend on how many ranks there are.
    json_object_set_new(o, "train.batch_sequences",
                        json_integer(s->train.batch_sequences * world_size()));
    path_join(path, s->model.assistant_path, "model.safetensors");
    if (!put_hash(o, "stock assistant", path, hash_cache_path(cache, s), err)) return false;
    split_path(path, s, "regen", SPLIT_TRAIN, ".jsonl");
    if (!file_exists(path)) // shards brought from elsewhere
        path_join(path, split_path(dir, s, "shards", SPLIT_TRAIN, ""), "manifest.json");
    return put_hash(o, "training data", path, NULL, err);
}

static void machine_line(void *ctx, const char *name, const char *value) {
    put(ctx, name, value);
}

static bool open_split(TrainSetup *t, Split split, Err *err) {
    char dir[PATH_ROOM];
    const TextConfig *c = &t->model.config.text;
    ShardMeta want = {.hidden = c->hidden, .vocab = c->vocab};
    memcpy(want.target, t->model.fingerprint.hex, sizeof want.target);
    split_path(dir, t->s, "shards", split, "");
    if (!dir_exists(dir)) return err_set(err, ERR_INPUT, "%s: not there; `capture` makes it", dir);
    if ((t->shards[split] = shards_open(dir, &want, err)) == NULL) return false;
    if (shards_count(t->shards[split]) > 0) return true;
    return err_set(
        err, ERR_INPUT, "%s: no sequences%s", dir,
        split == SPLIT_DEV ? "; the best checkpoint is chosen on them (data.dev_fraction)" : "");
}

static int64_t own_index(int64_t i) {
    return i * world_size() + world_rank();
}

static int64_t own_length(void *ctx, int64_t i) {
    const SeqSource *all = ctx;
    return all->length(all->ctx, own_index(i));
}

static int64_t own_anchors(void *ctx, int64_t i, Err *err) {
    const SeqSource *all = ctx;
    return all->anchors(all->ctx, own_index(i), err);
}

static bool own_read(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    const SeqSource *all = ctx;
    return all->read(all->ctx, own_index(i), out, err);
}

// Dealt out one by one.
static SeqSource own_part(SeqSource *all) {
    const int64_t left = all->count - world_rank();
    return (SeqSource){.ctx = all,
                       .count = left > 0 ? (left + world_size() - 1) / world_size() : 0,
                       .bytes_per_token = all->bytes_per_token,
                       .length = own_length,
                       .anchors = own_anchors,
                       .read = own_read};
}

static bool open_sources(TrainSetup *t, Err *err) {
    const Settings *s = t->s;
    char path[PATH_ROOM];
    t->dev = shards_source(t->shards[SPLIT_DEV]);
    t->own_dev = own_part(&t->dev);
    if (!s->train.stream) {
        if (!open_split(t, SPLIT_TRAIN, err)) return false;
        t->train = shards_source(t->shards[SPLIT_TRAIN]);
        return true;
    }
    split_path(path, s, "regen", SPLIT_TRAIN, ".jsonl");
    if (!file_exists(path))
        return err_set(err, ERR_INPUT, "%s: not there; `regenerate` makes it", path);
    t->stream = stream_open(t->model.target, path, s->capture.chunk, t->model.dtype, err);
    if (t->stream == NULL) return false;
    t->train = stream_source(t->stream);
    return true;
}

static bool open_assistant(TrainSetup *t, Err *err) {
    const Settings *s = t->s;
    const AssistantOptions opt = {.dir = s->model.assistant_path,
                                  .dtype = train_dtype(t),
                                  .target_table = target_embedding(t->model.target),
                                  .target_scale = target_embed_scale(t->model.target),
                                  .pos_offset = (int)s->model.pos_offset,
                                  .window_extra = (int)s->model.window_extra};
    if ((t->assistant = assistant_open(t->model.dev, &opt, err)) == NULL) return false;
    return pair_check(&t->model.config, &t->assistant->cfg, err);
}

// The deployed head, by the first rule of the text that the dev split holds.
static bool open_measurer(TrainSetup *t, Err *err) {
    const Head head = assistant_deployed_head(&t->assistant->cfg);
    MeasureOptions opt = {.K = (int)t->s->eval.select_k,
                          .max_anchors = DEV_ANCHORS,
                          .pack_tokens = DEV_TOKENS,
                          .reached = true};
    opt.head[head] = true;
    opt.sampler = held_out_sampler(t->s);
    if (opt.sampler.temperature > 0) opt.target = t->model.target;
    measure_rules(&opt.sampler, t->dev_rule);
    t->measure_bytes = measurer_bytes(t->assistant, &t->model.config, &t->own_dev, &opt);
    t->measurer = measurer_open(t->assistant, &t->model.config, &t->own_dev, &opt, err);
    t->measured = calloc((size_t)t->dev.count, sizeof *t->measured);
    if (t->measurer != NULL && t->measured == NULL)
        return err_set(err, ERR_FAILED, "out of memory");
    return t->measurer != NULL;
}

bool train_setup_identify(TrainSetup *t, const Settings *s, Err *err) {
    *t = (TrainSetup){.s = s};
    if (s->model.assistant_path[0] == '\0')
        return err_set(err, ERR_USAGE,
                       "model.assistant_path is empty: train starts from the stock assistant");
    char dir[PATH_ROOM];
    return identify_target(&t->model, s, err) && open_split(t, SPLIT_DEV, err) &&
           held_out_check(s, shards_meta(t->shards[SPLIT_DEV]),
                          split_path(dir, s, "shards", SPLIT_DEV, ""), err) &&
           make_identity(t, err);
}

bool train_setup_open(TrainSetup *t, Err *err) {
    // Of the target only the table is needed, which makes the teacher's logits.
    const int64_t rows = t->s->train.stream ? t->s->capture.chunk : 0;
    memory_plan(&t->memory);
    t->memory.device = (int64_t)dev_own_memory(t->model.dev);
    if (!load_target(&t->model, t->s, rows, err) || !open_assistant(t, err) ||
        !open_sources(t, err) || !open_measurer(t, err))
        return false;
    if (!check_source(&t->model, &t->train, "training data", err) ||
        !check_source(&t->model, &t->dev, "dev split", err))
        return false;
    t->machine = json_object();
    char ranks[16];
    snprintf(ranks, sizeof ranks, "%d", world_size());
    put(t->machine, "ranks", ranks);
    dev_describe(t->model.dev, machine_line, t->machine);
    return true;
}

void train_setup_close(TrainSetup *t) {
    measurer_close(t->measurer);
    free(t->measured);
    stream_close(t->stream);
    for (int i = 0; i < SPLIT_COUNT; i++) shards_close(t->shards[i]);
    assistant_close(t->assistant);
    close_target(&t->model);
    json_decref(t->identity);
    json_decref(t->machine);
    *t = (TrainSetup){0};
}

// Counts of the whole split, on every rank.
static bool measure_dev(TrainSetup *t, const Assistant *a, Err *err) {
    const int N = world_size();
    if (N == 1) return measurer_run(t->measurer, a, t->measured, NULL, err);
    const int64_t each = (t->dev.count + N - 1) / N;
    const size_t bytes = (size_t)each * sizeof(Measured);
    Measured *mine = calloc((size_t)each, sizeof *mine), *all = malloc((size_t)N * bytes);
    CHECK_MEMORY(mine);
    CHECK_MEMORY(all);
    const bool ok = world_agree(measurer_run(t->measurer, a, mine, NULL, err), err) &&
                    world_gather(mine, bytes, all, err);
    for (int64_t i = 0; ok && i < t->dev.count; i++) t->measured[i] = all[i % N * each + i / N];
    free(mine);
    free(all);
    return ok;
}

static bool dev_tau(void *ctx, const Assistant *a, double tau[DRAFT_MAX + 1], SourceMeans *by,
                    Err *err) {
    TrainSetup *t = ctx;
    const Head head = assistant_deployed_head(&a->cfg);
    const int k = (int)t->s->eval.select_k;
    if (!measure_dev(t, a, err)) return false;
    for (int i = 1; i <= k; i++)
        tau[i] = step_tau(measured_sum(t->measured, t->dev.count, t->dev_rule[0], head, i));
    for (int64_t i = 0; i < t->dev.count; i++) {
        const Measured *m = &t->measured[i];
        const StepCount c = m->k[t->dev_rule[0]][head][k];
        source_means_add(by, m->source, c.tokens, c.rounds);
    }
    return true;
}

TrainerOptions train_setup_options(TrainSetup *t) {
    return (TrainerOptions){.dev = t->model.dev,
                            .assistant = t->assistant,
                            .target = &t->model.config,
                            .settings = t->s,
                            .source = &t->train,
                            .measure = {t, dev_tau},
                            .identity = t->identity,
                            .machine = t->machine,
                            .target_bytes = target_bytes(t->model.target) +
                                            (t->stream ? stream_bytes(t->stream) : 0),
                            .kept_bytes = t->stream ? stream_host_bytes(t->stream) : 0,
                            .memory = t->memory,
                            .measure_bytes = t->measure_bytes};
}
