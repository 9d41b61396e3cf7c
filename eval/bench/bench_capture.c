// eval/bench/bench_capture.c - operations are counted as the peer counts them: matrix products of
// all layers, attention at the rows that are visible, no logits.
#include "eval/bench/bench_capture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/peer.h"
#include "infer/base/cores.h"
#include "infer/base/file.h"
#include "infer/base/log.h"
#include "infer/base/rng.h"
#include "infer/model/features.h"
#include "infer/tensor/ceiling.h"

typedef struct {
    Target *t;
    KvCache *kv;
    FeaturePack pack;
    Tensor hidden, best, id;
    void *block;
    int32_t *ids;
    int64_t batch, seq;
    DType dtype;
    size_t free_before; // memory of the device
} Bench;

static void bench_close(Bench *b, Device *dev) {
    kv_close(b->kv);
    target_close(b->t);
    dev_free(dev, b->block);
    free(b->ids);
}

static bool bench_open(Bench *b, Device *dev, const char *dir, const PairShape *shape, Err *err) {
    const TargetOptions opt = {
        .dir = dir, .adapter = "", .dtype = b->dtype, .max_rows = b->batch * b->seq};
    if ((b->t = target_open(dev, &opt, err)) == NULL) return false;
    const TargetConfig *c = target_config(b->t);
    const int64_t rows = b->batch * b->seq;
    b->kv = kv_open(dev, &c->text, (int)b->batch, b->seq + 64, b->seq, true, b->dtype, err);
    b->ids = malloc((size_t)rows * sizeof *b->ids);
    if (b->kv == NULL || b->ids == NULL)
        return err_set(err, ERR_FAILED, "out of memory for %lld rows", (long long)rows);
    for (int64_t i = 0; i < rows; i++)
        b->ids[i] = (int32_t)rng_below(3, RNG_INIT, 0, (uint64_t)i, (uint64_t)shape->vocab);
    const size_t bytes =
        features_bytes(c, rows, DT_BF16) + (size_t)(rows * c->text.hidden) * 4 + 8 * ARENA_ALIGN;
    if ((b->block = dev_alloc(dev, bytes, err)) == NULL) return false;
    Arena arena;
    arena_open(&arena, b->block, bytes);
    features_take(&b->pack, c, rows, DT_BF16, &arena);
    b->hidden = tensor_take(&arena, DT_F32, rows, c->text.hidden);
    b->best = tensor_take(&arena, DT_F32, 1, 2);
    b->id = tensor_take(&arena, DT_I32, 1, 2);
    return true;
}

static bool capture_once(void *ctx, double *seconds, Err *err) {
    Bench *b = ctx;
    Device *dev = target_device(b->t);
    TargetPiece piece[64];
    CHECK(b->batch <= 64);
    const double begin = now_s();
    for (int i = 0; i < b->batch; i++) {
        kv_clear(b->kv, i);
        piece[i] = (TargetPiece){.slot = i, .count = b->seq};
    }
    target_forward(b->t, b->kv, piece, (int)b->batch, b->ids, b->hidden, NULL);
    features_clear(&b->pack);
    for (int i = 0; i < b->batch; i++) {
        features_begin(&b->pack);
        features_append(&b->pack, dev, b->t, b->kv, i, 0, b->seq,
                        tensor_rows(b->hidden, i * b->seq, b->seq));
    }
    if (!dev_sync(dev, err)) return false;
    *seconds = now_s() - begin;
    return true;
}

// Products a row takes, and bytes of weights a decoded token reads (head included).
static double row_flop(const TextConfig *c, double *weights, double *attn, int64_t seq) {
    double n = c->ple ? (double)(c->layers * c->ple * c->hidden) : 0.0;
    *attn = 0.0;
    for (int i = 0; i < c->layers; i++) {
        const double q = (double)(c->heads * layer_head_dim(c, i)),
                     kv = (double)(layer_kv_heads(c, i) * layer_head_dim(c, i));
        const bool v = !(c->k_eq_v && c->kind[i] == LAYER_FULL);
        n += 2.0 * q * (double)c->hidden + 3.0 * (double)(c->hidden * layer_inter(c, i)) +
             2.0 * (double)(c->ple * c->hidden);
        if (layer_owns_kv(c, i)) n += (v ? 2.0 : 1.0) * kv * (double)c->hidden;
        *attn +=
            4.0 * q *
            (c->kind[i] == LAYER_FULL ? (double)seq / 2 : fmin((double)c->window, (double)seq / 2));
    }
    *weights = n + (double)(c->vocab * c->hidden);
    return 2.0 * n;
}

// Decodes `steps` tokens of one sequence behind a full prompt.
static bool decode_some(Bench *b, Device *dev, int steps, double *seconds, Err *err) {
    const double begin = now_s();
    for (int i = 0; i < steps; i++) {
        const TargetPiece one = {.slot = 0, .count = 1};
        const Tensor h = tensor_rows(b->hidden, 0, 1);
        target_step(b->t, b->kv, &one, 1, b->ids + i, h, b->best, b->id);
    }
    if (!dev_sync(dev, err)) return false;
    *seconds = (now_s() - begin) / steps;
    return true;
}

// Bytes a second: of a copy inside a GPU; of a CPU, read by a sum over a block far larger than any
// cache.
static double memory_bandwidth(Device *dev) {
    if (strcmp(dev->kind, "cpu") != 0) return device_copy_ceiling(dev, (size_t)2 << 30);
    const int64_t n = (int64_t)1 << 26; // 512 MiB of doubles
    double *x = malloc((size_t)n * sizeof *x), best = 0.0, sink = 0.0;
    if (x == NULL) return 0.0;
#pragma omp parallel for num_threads(cores_used()) schedule(static)
    for (int64_t i = 0; i < n; i++) x[i] = (double)i;
    for (int r = 0; r < 3; r++) {
        double sum = 0.0;
        const double begin = now_s();
#pragma omp parallel for simd num_threads(cores_used()) schedule(static) reduction(+ : sum)
        for (int64_t i = 0; i < n; i++) sum += x[i];
        const double s = now_s() - begin;
        best = fmax(best, (double)n * 8.0 / s);
        sink += sum;
    }
    free(x);
    return sink != 0.0 ? best : 0.0;
}

// Where steps go to the device as graphs, the same launch by launch beside it.
static bool print_decode(Bench *b, Device *dev, const PairShape *shape, double weights, Err *err) {
    enum { WARM = 4, STEPS = 28 };
    double t, plain = 0.0;
    const int64_t graphs = dev_graphs(dev).launched;
    if (!decode_some(b, dev, WARM, &t, err) || !decode_some(b, dev, STEPS, &t, err)) return false;
    const bool as_graphs = dev_graphs(dev).launched > graphs;
    if (as_graphs) {
        dev_set_graphs(dev, false);
        const bool ok = decode_some(b, dev, STEPS, &plain, err);
        dev_set_graphs(dev, true);
        if (!ok) return false;
    }
    const double bytes = weights * (double)dtype_size(b->dtype), bandwidth = memory_bandwidth(dev);
    printf("decode   %-5s %-5s batch 1, %lld layers      %9.1f ms   %8.1f tokens/s   %5.1f %% of "
           "%s %.1f GB/s",
           shape->name, dtype_name(b->dtype), (long long)shape->layers, 1e3 * t, 1.0 / t,
           100.0 * bytes / t / bandwidth, strcmp(dev->kind, "cpu") == 0 ? "reading" : "copying",
           bandwidth / 1e9);
    if (as_graphs) printf("   launch by launch %.1f ms", 1e3 * plain);
    printf("\n");
    fflush(stdout);
    return true;
}

static bool print_capture(const Settings *s, Device *dev, Bench *b, const PairShape *shape,
                          Err *err) {
    double attn, weights;
    char extra[96];
    RunTime ours, peer;
    snprintf(extra, sizeof extra, "--layers %lld --vocab %lld", (long long)shape->layers,
             (long long)shape->vocab);
    const PeerJob job = {"capture_torch.py", "batch",  extra,  shape->name,
                         b->dtype,           b->batch, b->seq, dev->kind};
    if (!peer_race(s, &job, capture_once, b, &ours, &peer, err)) return false;
    ours.memory = device_memory_taken(dev, b->free_before);
    const double rows = (double)(b->batch * b->seq);
    const double flop =
        rows * (row_flop(&target_config(b->t)->text, &weights, &attn, b->seq) + attn);
    const double rate = flop / ours.mean / 1e6, ceiling = device_gemm_peak(dev, b->dtype);
    printf("capture  %-5s %-5s %lld x %lld, %lld layers   %9.1f ms (best %.1f)   %8.1f GFLOP/s   "
           "%5.1f %% of GEMM %.1f GFLOP/s   %.0f tokens/s",
           shape->name, dtype_name(b->dtype), (long long)b->batch, (long long)b->seq,
           (long long)shape->layers, ours.mean, ours.best, rate, 100.0 * rate / ceiling, ceiling,
           1e3 * rows / ours.mean);
    peer_print(peer, ours);
    printf("\n");
    return print_decode(b, dev, shape, weights, err);
}

bool bench_capture(const Settings *s, Device *dev, PairShape shape, DType dtype, int64_t batch,
                   int64_t seq, Err *err) {
    char top[] = "/tmp/draftsmith-bench-XXXXXX";
    if (mkdtemp(top) == NULL) return err_errno(err, "temporary folder %s", top);
    Bench b = {.batch = batch, .seq = seq, .dtype = dtype};
    b.free_before = device_memory_free(dev);
    const bool ok = synthetic_target(top, &shape, 1, err) &&
                    bench_open(&b, dev, top, &shape, err) && print_capture(s, dev, &b, &shape, err);
    bench_close(&b, dev);
    Err ignored = {0};
    if (!dir_remove(top, &ignored)) log_warn("%s", ignored.text);
    return ok;
}
