// train/train_bench.c - rollout forward and backward, clip and AdamW on random weights at real
// shapes.
//
// Operations are counted as the peers count them: matrix products of one teacher pass per row, and
// forward plus backward of the assistant per anchor and step; what we recompute does not count.
#include "train/train_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/peer.h"
#include "infer/base/file.h"
#include "infer/base/log.h"
#include "infer/tensor/ceiling.h"
#include "train/bench_step.h"

static double step_flop(const Bench *b, const BenchCase *c) {
    const PairShape *s = c->shape;
    const TextConfig *t = &b->a->cfg.text;
    double body = 3.0 * (double)s->hidden * (double)t->hidden, attn = 0.0;
    for (int i = 0; i < t->layers; i++) {
        const double q = (double)(t->heads * layer_head_dim(t, i));
        const double rows =
            t->kind[i] == LAYER_FULL ? (double)c->seq / 2 : fmin((double)t->window, (double)c->seq);
        body += 2.0 * q * (double)t->hidden + 3.0 * (double)t->hidden * (double)layer_inter(t, i);
        attn += 4.0 * q * rows;
    }
    const double head = (double)s->vocab * (double)t->hidden;
    return 2.0 * (double)s->vocab * (double)s->hidden * (double)(c->batch * c->seq) +
           (double)(b->batch.rows * c->K) * (6.0 * (body + head) + 3.0 * attn);
}

typedef struct {
    Bench b;
    int64_t steps;
} Steps;

static bool step_once(void *ctx, double *seconds, Err *err) {
    Steps *s = ctx;
    return bench_step(&s->b, NULL, ++s->steps, seconds, err);
}

static void print_step(const Bench *b, const BenchCase *c, RunTime ours, RunTime peer) {
    const double rate = step_flop(b, c) / ours.mean / 1e6;
    const double ceiling = device_gemm_peak(b->dev, c->dtype);
    printf("train    %-5s %-5s %lld x %lld, K %d   %9.1f ms (best %.1f)   %8.1f GFLOP/s   "
           "%5.1f %% of GEMM %.1f GFLOP/s   %.0f anchors/s",
           c->shape->name, dtype_name(c->dtype), (long long)c->batch, (long long)c->seq, c->K,
           ours.mean, ours.best, rate, 100.0 * rate / ceiling, ceiling,
           1e3 * (double)b->batch.rows / ours.mean);
    peer_print(peer, ours);
    printf("\n");
    fflush(stdout);
}

static bool measure(const BenchCase *c, const Cli *cli, const char *dir, Err *err) {
    Steps s = {0};
    Bench *b = &s.b;
    RunTime ours, peer;
    char k[32];
    b->dev = dev_open(cli->s.runtime.device, (int)cli->s.runtime.threads, err);
    if (b->dev == NULL) return false;
    const size_t before = device_memory_free(b->dev);
    snprintf(k, sizeof k, "--k %d", c->K);
    const PeerJob job = {"rollout_torch.py", "step",   k,      c->shape->name,
                         c->dtype,           c->batch, c->seq, b->dev->kind};
    const bool ok =
        bench_open(b, c, dir, err) && peer_race(&cli->s, &job, step_once, &s, &ours, &peer, err);
    if (ok) {
        ours.memory = device_memory_taken(b->dev, before);
        print_step(b, c, ours, peer);
    }
    bench_close(b);
    dev_close(b->dev);
    return ok;
}

static bool wanted(const Settings *s, const char *name) {
    return strcmp(s->bench.shapes, "all") == 0 || strcmp(s->bench.shapes, name) == 0;
}

static bool run_shape(const Cli *cli, const char *name, int64_t batch, int64_t seq, Err *err) {
    if (!wanted(&cli->s, name)) return true;
    char top[PATH_ROOM];
    bool ok = bench_pair(top, pair_shape(name), err);
    const DType dtypes[2] = {DT_F32, DT_BF16};
    for (int i = 0; ok && i < 2; i++) {
        const bool chosen = strcmp(cli->s.train.dtype, "auto") == 0 ||
                            (strcmp(cli->s.train.dtype, "f32") == 0) == (i == 0);
        const BenchCase c = {pair_shape(name), batch, seq, (int)cli->s.bench.k, dtypes[i]};
        if (chosen) ok = measure(&c, cli, top, err);
    }
    Err ignored = {0};
    if (!dir_remove(top, &ignored)) log_warn("%s", ignored.text);
    return ok;
}

static bool run(const Cli *cli, Err *err) {
    return run_shape(cli, "demo", 4, 512, err) && run_shape(cli, "e4b", 1, cli->s.bench.seq, err);
}

const Verb train_bench_verb = {
    .name = "bench", .summary = "speed of a training step", .usage = "", .run = run};
