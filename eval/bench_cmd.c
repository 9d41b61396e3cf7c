// eval/bench_cmd.c - which shapes and dtypes are run, and the ceilings they are compared with.
#include "eval/bench_cmd.h"

#include <stdio.h>
#include <string.h>

#include "eval/bench/bench_capture.h"
#include "eval/bench/bench_cost.h"
#include "eval/bench/bench_export.h"
#include "eval/bench/bench_text.h"
#include "infer/tensor/ceiling.h"

// The products of a layer are the same in a shorter stack, and capture forms no logits: a prefix of
// the real shape shows its speed in a few seconds and a few GB. The peer runs the same prefix.
enum { LAYERS_RUN = 12, VOCAB_RUN = 32768 };

static PairShape shortened(const PairShape *s) {
    PairShape out = *s;
    if (out.layers > LAYERS_RUN) out.layers = LAYERS_RUN / s->period * s->period;
    if (out.shared > out.layers - out.period) out.shared = out.layers - out.period;
    if (s->shared == 0) out.shared = 0;
    if (s->layers == out.layers) out.shared = s->shared;
    if (out.vocab > VOCAB_RUN) out.vocab = VOCAB_RUN;
    return out;
}

static bool run_shape(const Cli *cli, Device *dev, const char *name, int64_t batch, int64_t seq,
                      Err *err) {
    const Settings *s = &cli->s;
    if (strcmp(s->bench.shapes, "all") != 0 && strcmp(s->bench.shapes, name) != 0) return true;
    const PairShape shape = shortened(pair_shape(name));
    const DType dtypes[2] = {DT_F32, DT_BF16};
    for (int i = 0; i < 2; i++)
        if (!bench_capture(s, dev, shape, dtypes[i], batch, seq, err)) return false;
    return bench_cost(s, dev, pair_shape(name), shape, err);
}

static bool run(const Cli *cli, Err *err) {
    const Settings *s = &cli->s;
    if (cli->dry_run) {
        printf(
            "bench: capture, decoding, rounds of drafts, training, encoding, quantising: %s, %s\n",
            s->bench.shapes, s->bench.peers ? "peers beside them" : "no peers");
        return true;
    }
    Device *dev = dev_open(s->runtime.device, (int)s->runtime.threads, err);
    if (dev == NULL) return false;
    dev_set_graphs(dev, s->runtime.graphs);
    if (strcmp(s->bench.shapes, "export") == 0) {
        const bool done = bench_export(s, pair_shape("e4b"), err);
        dev_close(dev);
        return done;
    }
    printf("ceiling  GEMM, best shape: f32 %.1f GFLOP/s, bf16 %.1f GFLOP/s (%s, %d threads)\n",
           device_gemm_peak(dev, DT_F32), device_gemm_peak(dev, DT_BF16), dev->kind, dev->threads);
    if (strcmp(dev->kind, "cpu") != 0)
        printf("ceiling  copy inside the device: %.1f GB/s, read and written\n",
               device_copy_ceiling(dev, (size_t)2 << 30) / 1e9);
    fflush(stdout);
    const bool ok =
        run_shape(cli, dev, "demo", 4, 512, err) &&
        run_shape(cli, dev, "e4b", 1, s->bench.seq, err) && bench_text(s, err) &&
        (strcmp(s->bench.shapes, "all") != 0 || bench_export(s, pair_shape("e4b"), err));
    dev_close(dev);
    return ok;
}

const Verb bench_verb = {
    .name = "bench",
    .summary =
        "speed of capture, decoding, training and encoding as shares of this machine's ceilings; "
        "what a round of drafts costs; how long the weights of all GGUF files take",
    .usage = "  draftsmith bench bench.shapes=demo\n"
             "  draftsmith bench bench.peers=true bench.python=python3 bench.peer_path=DIR "
             "bench.peer_tokenizer=tests/peer_tokenizer.py\n"
             "  draftsmith bench bench.shapes=export bench.peers=true bench.python=PYTHON\n"
             "  mpirun -np 2 draftsmith bench bench.shapes=demo      parallel efficiency of "
             "training\n",
    .run = run,
    .ranks = true,
};
