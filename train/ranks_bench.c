// train/ranks_bench.c - parallel efficiency: the same step by one rank alone and by all at once.
//
// Every rank has as many sequences in both, so that all together should take as long as one alone.
// What is lost is the sum of the gradients, and what ranks of one machine take from each other.
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/log.h"
#include "infer/base/world.h"
#include "train/bench_step.h"
#include "train/train_bench.h"

typedef struct {
    Bench bench;
    BenchCase which;
    AllReduce *reduce; // NULL while one works alone
    double step_s;     // mean of `repeat`
    int64_t repeat, step;
} Timed;

static bool time_steps(void *ctx, Err *err) {
    Timed *t = ctx;
    double s, sum = 0;
    for (int64_t i = 0; i < t->repeat; i++) {
        if (!bench_step(&t->bench, t->reduce, ++t->step, &s, err)) return false;
        sum += s;
    }
    t->step_s = sum / (double)t->repeat;
    return true;
}

static bool time_sum(Timed *t, double *seconds, Err *err) {
    const double begun = now_s();
    for (int64_t i = 0; i < t->repeat; i++)
        if (!all_reduce_start(t->reduce, t->bench.optimizer.grad, err) ||
            !all_reduce_finish(t->reduce, err))
            return false;
    *seconds = (now_s() - begun) / (double)t->repeat;
    return true;
}

// The slowest rank is the one that counts.
static bool slowest(double *x, Err *err) {
    const int N = world_size();
    double *all = malloc((size_t)N * sizeof *all);
    CHECK_MEMORY(all);
    const bool ok = world_gather(x, sizeof *x, all, err);
    for (int r = 0; r < N && ok; r++)
        if (all[r] > *x) *x = all[r];
    free(all);
    return ok;
}

static bool measure(Timed *t, Err *err) {
    double warm, alone, together, sum;
    if (!world_agree(bench_step(&t->bench, NULL, ++t->step, &warm, err), err) ||
        !world_alone(time_steps, t, err))
        return false;
    alone = t->step_s;
    if ((t->reduce = all_reduce_open(t->bench.dev, err)) == NULL) return false;
    if (!time_steps(t, err) || !time_sum(t, &sum, err)) return false;
    together = t->step_s;
    if (!slowest(&together, err) || !slowest(&sum, err)) return false;
    const BenchCase *c = &t->which;
    const double rows = (double)t->bench.batch.rows;
    printf("ranks    %-5s %-5s %lld x %lld each, K %d   1 alone %.1f ms   %d together %.1f ms, of "
           "it %.1f for %.1f MiB of gradients (%s, %d threads each)   %.0f anchors/s   parallel "
           "efficiency %.1f %%\n",
           c->shape->name, dtype_name(c->dtype), (long long)c->batch, (long long)c->seq, c->K,
           1e3 * alone, world_size(), 1e3 * together, 1e3 * sum,
           (double)tensor_bytes(t->bench.optimizer.grad) / 1048576.0, t->bench.dev->kind,
           t->bench.dev->threads, rows * world_size() / together, 100.0 * alone / together);
    fflush(stdout);
    return true;
}

static bool run_case(const Cli *cli, const BenchCase *c, Err *err) {
    char dir[PATH_ROOM];
    Timed t = {.which = *c, .repeat = cli->s.bench.repeat};
    Bench *b = &t.bench;
    Err ignored = {0};
    bool ok = bench_pair(dir, c->shape, err) &&
              (b->dev = dev_open(cli->s.runtime.device, (int)cli->s.runtime.threads, err)) &&
              bench_open(b, c, dir, err);
    ok = world_agree(ok, err) && measure(&t, err);
    all_reduce_close(t.reduce);
    bench_close(b);
    if (b->dev) dev_close(b->dev);
    if (!dir_remove(dir, &ignored)) log_warn("%s", ignored.text);
    return ok;
}

static bool run(const Cli *cli, Err *err) {
    static const struct {
        const char *name;
        int64_t batch, seq; // seq 0: bench.seq
    } shapes[] = {{"demo", 4, 512}, {"e4b", 1, 0}};
    const Settings *s = &cli->s;
    const DType dtype = strcmp(s->train.dtype, "bf16") == 0 ? DT_BF16 : DT_F32;
    log_info("bench: of several ranks their parallel efficiency; start it alone for all else");
    for (int i = 0; i < 2; i++) {
        const BenchCase c = {pair_shape(shapes[i].name), shapes[i].batch,
                             shapes[i].seq ? shapes[i].seq : s->bench.seq, (int)s->bench.k, dtype};
        const bool wanted =
            !strcmp(s->bench.shapes, "all") || !strcmp(s->bench.shapes, shapes[i].name);
        if (wanted && !run_case(cli, &c, err)) return false;
    }
    return true;
}

const Verb ranks_bench_verb = {
    .name = "bench", .summary = "parallel efficiency", .usage = "", .run = run};
