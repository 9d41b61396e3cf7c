// tests/train/tiny_run.h - a whole training run on the e2b miniature and made-up captured
// sequences, small enough to be killed and resumed dozens of times. Bodies are here because every
// test is one binary.
#ifndef TESTS_TINY_RUN_H
#define TESTS_TINY_RUN_H

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/measure.h"
#include "infer/base/cli.h"
#include "infer/base/hash.h"
#include "infer/base/rng.h"
#include "infer/text/chat.h"
#include "tests/infer/model/golden_pair.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

enum { TINY_SEQS = 11, TINY_DEV = 3 };

// What goes wrong, and when: counted in reads of training sequences (4 a step).
typedef struct {
    int64_t nan_at, term_at, full_from, full_to; // -1: never
    int64_t slow_us;                             // per read, so that kills fall everywhere
} TinyFault;
static const TinyFault NO_FAULT = {-1, -1, -1, -1, 0};
static const char *tiny_core = "Haswell"; // what the run believes to compute on

typedef struct {
    Pair pair;
    Settings s;
    SeqSource train, dev;
    Measurer *measurer;
    json_t *identity, *machine;
    TinyFault fault;
    int64_t reads;
} Tiny;

// Tiny operators on busy machines spend their time in OpenMP's spinning; it reads this when it
// loads.
static void tiny_passive(char **argv) {
    if (getenv("OMP_WAIT_POLICY") != NULL) return;
    setenv("OMP_WAIT_POLICY", "passive", 1);
    execv("/proc/self/exe", argv);
}

static int64_t tiny_length(void *ctx, int64_t i) {
    (void)ctx;
    return 14 + i * 7 % 12;
}

static int64_t tiny_anchors(void *ctx, int64_t i, Err *err) {
    (void)err;
    return tiny_length(ctx, i) - 5; // T = 4 .. n - 2
}

static void file_size_limit(bool on) {
    const struct rlimit limit = {on ? 4096 : RLIM_INFINITY, RLIM_INFINITY};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void *tiny_rows(uint64_t stream, int64_t rows, int64_t width) {
    bf16 *x = malloc((size_t)(rows * width) * sizeof *x);
    for (int64_t i = 0; i < rows * width; i++)
        x[i] = bf16_from_f32(0.5f * rng_normal(7, RNG_TEST, stream, (uint64_t)i));
    return x;
}

// Tokens follow one rule, and the hidden state points at the next token's row of the target's head.
static bool tiny_make(Tiny *t, int64_t i, CapturedSeq *out) {
    const int64_t n = tiny_length(NULL, i), B = t->pair.tc.text.hidden;
    *out = (CapturedSeq){.sample = {.prompt = 4, .n = n, .stopped = true}};
    snprintf(out->sample.id, sizeof out->sample.id, "seq-%lld", (long long)i);
    snprintf(out->sample.source, sizeof out->sample.source, i % 3 ? "mine" : "general");
    out->sample.ids = malloc((size_t)n * sizeof(int32_t));
    out->sample.kind = malloc((size_t)n);
    for (int64_t r = 0, id = 3 + i * 31 % 200; r < n; r++, id = (id * 5 + 7) % 200 + 3) {
        out->sample.ids[r] = (int32_t)id;
        out->sample.kind[r] = r < 4 ? TOKEN_CONTEXT : TOKEN_MODEL;
    }
    bf16 *hidden = tiny_rows((uint64_t)i * 8, n, B);
    for (int64_t r = 0; r + 1 < n; r++)
        for (int64_t c = 0; c < B; c++)
            hidden[r * B + c] =
                bf16_from_f32(40.0f * test_get(t->pair.table, out->sample.ids[r + 1], c));
    out->hidden = hidden;
    for (int kind = 0; kind < 2; kind++) {
        out->k[kind] = tiny_rows((uint64_t)(i * 8 + 1 + kind), n, t->pair.pack.kv_width[kind]);
        out->v[kind] = tiny_rows((uint64_t)(i * 8 + 3 + kind), n, t->pair.pack.kv_width[kind]);
    }
    return true;
}

static bool tiny_read_train(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    (void)err;
    Tiny *t = ctx;
    const int64_t at = t->reads++;
    if (t->fault.slow_us > 0) usleep((useconds_t)t->fault.slow_us);
    if (at == t->fault.term_at) raise(SIGTERM);
    if (at == t->fault.full_from) file_size_limit(true);
    if (at == t->fault.full_to) file_size_limit(false);
    tiny_make(t, i, out);
    if (t->fault.nan_at >= 0 && at >= t->fault.nan_at)
        for (int64_t c = 0; c < tiny_length(NULL, i) * t->pair.tc.text.hidden; c++)
            ((bf16 *)out->hidden)[c].bits = 0x7fc0;
    return true;
}

static bool tiny_read_dev(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    (void)err;
    return tiny_make(ctx, 100 + i, out);
}

static bool tiny_tau(void *ctx, const Assistant *a, double tau[DRAFT_MAX + 1], SourceMeans *by,
                     Err *err) {
    Tiny *t = ctx;
    Measured m[TINY_DEV];
    if (!measurer_run(t->measurer, a, m, NULL, err)) return false;
    const Head head = assistant_deployed_head(&a->cfg);
    const int at = (int)t->s.eval.select_k;
    for (int i = 0; i < TINY_DEV; i++) {
        const StepCount c = m[i].k[RULE_GREEDY][head][at];
        source_means_add(by, m[i].source, c.tokens, c.rounds);
    }
    for (int k = 1; k <= at; k++)
        tau[k] = step_tau(measured_sum(m, TINY_DEV, RULE_GREEDY, head, k));
    return true;
}

// more: overrides like "train.ema=0.9", ended by NULL.
static void tiny_open(Tiny *t, const char *dir, const char *const *more) {
    Err err = {0};
    char output[PATH_ROOM], stock[PATH_ROOM];
    char *set[40] = {output,
                     stock,
                     "train.k=3",
                     "train.steps=12",
                     "train.batch_sequences=4",
                     "train.dev_every=3",
                     "train.save_every=3",
                     "train.keep=100",
                     "train.lr=0.003",
                     "eval.select_k=3",
                     "train.anchors=0",
                     "eval.draft_tokens=3"};
    int n = 12;
    while (more != NULL && *more != NULL) set[n++] = (char *)*more++;
    snprintf(output, sizeof output, "output_dir=%s", dir);
    snprintf(stock, sizeof stock, "model.assistant_path=%s", test_golden("e2b/assistant-fitted"));
    *t = (Tiny){.fault = NO_FAULT};
    assert_ok(settings_load(&t->s, NULL, set, n, &err), err);
    assert_ok(dir_make(dir, &err), err);
    t->pair = pair_open("e2b", "assistant-fitted", false, 0, 0);
    t->train = (SeqSource){.ctx = t,
                           .count = TINY_SEQS,
                           .length = tiny_length,
                           .anchors = tiny_anchors,
                           .read = tiny_read_train};
    t->dev = (SeqSource){.ctx = t,
                         .count = TINY_DEV,
                         .length = tiny_length,
                         .anchors = tiny_anchors,
                         .read = tiny_read_dev};
    const MeasureOptions mo = {.K = 3, .head = {true, true}, .max_anchors = 64, .pack_tokens = 64};
    t->measurer = measurer_open(t->pair.a, &t->pair.tc, &t->dev, &mo, &err);
    if (t->measurer == NULL) fail_msg("%s", err.text);
    t->identity =
        json_pack("{s:I, s:s}", "train.k", (json_int_t)t->s.train.k, "train.loss", t->s.train.loss);
    t->machine = json_pack("{s:s}", "OpenBLAS core", tiny_core);
}

static TrainerOptions tiny_options(Tiny *t) {
    return (TrainerOptions){.dev = test_env()->dev,
                            .assistant = t->pair.a,
                            .target = &t->pair.tc,
                            .settings = &t->s,
                            .source = &t->train,
                            .measure = {t, tiny_tau},
                            .identity = t->identity,
                            .machine = t->machine};
}

static Trainer *tiny_trainer(Tiny *t, Err *err) {
    const TrainerOptions opt = tiny_options(t);
    return trainer_open(&opt, err);
}

static void tiny_close(Tiny *t) {
    measurer_close(t->measurer);
    json_decref(t->identity);
    json_decref(t->machine);
    pair_close(&t->pair);
    settings_free(&t->s);
}

// One process' worth of training; the error stays in err.
static bool tiny_run(const char *dir, const char *const *more, TinyFault fault, TrainResult *r,
                     Err *err) {
    Tiny t;
    tiny_open(&t, dir, more);
    t.fault = fault;
    Trainer *trainer = tiny_trainer(&t, err);
    const bool ok = trainer != NULL && trainer_run(trainer, r, err);
    trainer_close(trainer);
    tiny_close(&t);
    return ok;
}

// SHA-256 of a checkpoint's weights and state, joined.
static inline void tiny_hash(const char *dir, int64_t step, char out[130]) {
    char root[PATH_ROOM], ckpt[PATH_ROOM], path[PATH_ROOM];
    Err err = {0};
    Sha256 a, b;
    ckpt_path(ckpt, path_join(root, dir, "ckpt"), step);
    assert_ok(ckpt_verify(ckpt, &err), err);
    assert_ok(sha256_file(&a, path_join(path, ckpt, "model.safetensors"), &err), err);
    assert_ok(sha256_file(&b, path_join(path, ckpt, "state.safetensors"), &err), err);
    snprintf(out, 130, "%s %s", a.hex, b.hex);
}

static const char *tiny_dir(const char *name) {
    static char path[8][PATH_ROOM];
    static int turn;
    return path_join(path[turn++ % 8], test_dir(), name);
}

#endif
