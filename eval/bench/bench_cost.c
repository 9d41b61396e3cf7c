// eval/bench/bench_cost.c - a random pair of a real shape, timed as eval times a real one.
#include "eval/bench/bench_cost.h"

#include <stdio.h>
#include <stdlib.h>

#include "eval/cost/cost.h"
#include "infer/base/file.h"
#include "infer/base/log.h"

enum { CHUNK = 512, REPETITIONS = 15, SECONDS = 10 };

static bool measure(const Settings *s, Target *t, const Assistant *a, DType dtype, Err *err) {
    CostTable table;
    const CostOptions opt = {.K = (int)s->bench.k,
                             .context = cost_context(CHUNK, s->bench.seq, (int)s->bench.k),
                             .chunk = CHUNK,
                             .repetitions = REPETITIONS,
                             .seconds = SECONDS,
                             .kv_dtype = dtype,
                             .feature_dtype = DT_BF16};
    Device *dev = target_device(t);
    const int64_t graphs = dev_graphs(dev).launched;
    if (!cost_measure(&table, t, a, &opt, err)) return false;
    cost_markdown(stdout, &table);
    if (dev_graphs(dev).launched > graphs) {
        dev_set_graphs(dev, false);
        const bool ok = cost_measure(&table, t, a, &opt, err);
        dev_set_graphs(dev, true);
        if (!ok) return false;
        printf("\nthe same without CUDA graphs, launch by launch\n");
        cost_markdown(stdout, &table);
    }
    printf("\n");
    fflush(stdout);
    return true;
}

static bool with_models(const Settings *s, Device *dev, const char *target, const char *assistant,
                        Err *err) {
    const DType dtype = dev_prefers_bf16(dev) ? DT_BF16 : DT_F32;
    const TargetOptions to = {.dir = target, .adapter = "", .dtype = dtype, .max_rows = CHUNK};
    Target *t = target_open(dev, &to, err);
    Assistant *a = NULL;
    if (t != NULL) {
        const AssistantOptions ao = {.dir = assistant,
                                     .dtype = dtype,
                                     .target_table = target_embedding(t),
                                     .target_scale = target_embed_scale(t)};
        a = assistant_open(dev, &ao, err);
    }
    const bool ok = a != NULL && measure(s, t, a, dtype, err);
    assistant_close(a);
    target_close(t);
    return ok;
}

bool bench_cost(const Settings *s, Device *dev, const PairShape *whole, PairShape shape, Err *err) {
    char top[] = "/tmp/draftsmith-bench-XXXXXX", target[PATH_ROOM], assistant[PATH_ROOM];
    if (mkdtemp(top) == NULL) return err_errno(err, "temporary folder %s", top);
    const bool ok = synthetic_target(path_join(target, top, "target"), &shape, 1, err) &&
                    synthetic_assistant(path_join(assistant, top, "assistant"), &shape, 1, err);
    if (ok) {
        printf("\nround    %s, random weights", shape.name);
        if (shape.layers < whole->layers || shape.vocab < whole->vocab)
            printf(": %lld of %lld layers, %lld of %lld tokens; the ratios are those of this part",
                   (long long)shape.layers, (long long)whole->layers, (long long)shape.vocab,
                   (long long)whole->vocab);
        printf("\n");
    }
    const bool done = ok && with_models(s, dev, target, assistant, err);
    Err ignored = {0};
    if (!dir_remove(top, &ignored)) log_warn("%s", ignored.text);
    return done;
}
