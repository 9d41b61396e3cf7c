// eval/bench/bench_export.c - each mix by itself, as separate runs of a quantiser would take it,
// and all of them as the exporter does it: a tensor is encoded once for each type that it has
// anywhere.
#include "eval/bench/bench_export.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/peer.h"
#include "infer/base/cores.h"
#include "infer/base/file.h"
#include "infer/base/log.h"
#include "infer/export/gguf_mix.h"
#include "infer/format/safetensors.h"
#include "infer/model/gemma4_config.h"

static const double LEAST_SECONDS = 1.0; // as in tests/peer_quantise.py

typedef struct {
    AssistantConfig config;
    GgufEntry entry[GGUF_ENTRIES_MAX]; // those with weights
    int64_t at[GGUF_ENTRIES_MAX];      // where a tensor begins, in elements
    int n;
    int64_t weights;
    float *x;
    uint8_t *q; // room for any tensor in any type but F32
    GgufMix mix[GGUF_MIXES_MAX];
    int mixes;
} Bench;

static bool matrix(const GgufEntry *e) {
    return e->role != GGUF_VECTOR;
}

static bool plan(Bench *b, Err *err) {
    GgufEntry all[GGUF_ENTRIES_MAX];
    const int n = gguf_assistant_tensors(GGUF_UNIVERSAL, &b->config, all);
    for (int i = 0; i < n; i++) {
        if (!matrix(&all[i])) continue;
        b->entry[b->n] = all[i];
        b->at[b->n++] = b->weights;
        b->weights += all[i].dim[0] * all[i].dim[1];
    }
    const char *const *name;
    b->mixes = gguf_mix_all(&name);
    for (int i = 0; i < b->mixes; i++)
        if (!gguf_mix_named(&b->mix[i], name[i], err)) return false;
    return true;
}

static bool fill(Bench *b, const char *dir, Err *err) {
    b->x = malloc((size_t)b->weights * sizeof *b->x);
    b->q = calloc((size_t)b->weights, 2); // no block type takes more than F16
    if (b->x == NULL || b->q == NULL)
        return err_set(err, ERR_FAILED, "out of memory for %" PRId64 " weights", b->weights);
    StFile *f = st_open(dir, err);
    bool ok = f != NULL;
    for (int i = 0; ok && i < b->n; i++) {
        const StTensor *t = st_find(f, b->entry[i].key);
        CHECK(t != NULL && t->count == b->entry[i].dim[0] * b->entry[i].dim[1]);
        ok = st_read_f32(f, t, b->x + b->at[i], err);
    }
    st_close(f);
    memset(b->q, 1, 2 * (size_t)b->weights); // pages are there before the clock starts
    return ok;
}

static GgmlType type_of(const Bench *b, int mix, int tensor) {
    return gguf_mix_type(&b->mix[mix], &b->entry[tensor], b->config.text.layers);
}

// Encodes tensor i as a mix wants it.
static bool encode(Bench *b, int mix, int i, int64_t *bytes, Err *err) {
    const GgmlType type = type_of(b, mix, i);
    const int64_t rows = b->entry[i].dim[1], cols = b->entry[i].dim[0];
    *bytes += rows * ggml_row_bytes(type, cols);
    return ggml_encode(type, b->q, b->x + b->at[i], rows, cols, NULL, err);
}

// One mix, every tensor.
static bool mix_once(Bench *b, int mix, int64_t *bytes, Err *err) {
    *bytes = 0;
    for (int i = 0; i < b->n; i++)
        if (!encode(b, mix, i, bytes, err)) return false;
    return true;
}

// Every mix, each tensor once for each of its types.
static bool all_once(Bench *b, int64_t *bytes, Err *err) {
    for (int i = 0; i < b->n; i++)
        for (int m = 0; m < b->mixes; m++) {
            int first = 0;
            while (type_of(b, first, i) != type_of(b, m, i)) first++;
            if (first == m && !encode(b, m, i, bytes, err)) return false;
        }
    return true;
}

// The best of `repeat` passes, and of as many as a second takes: other users of the machine only
// ever add to a time. mix -1: all of them.
static bool best_pass(Bench *b, int mix, int64_t repeat, double *best, int64_t *bytes, Err *err) {
    double spent = 0.0;
    *best = INFINITY;
    for (int64_t r = 0; r < repeat || spent < LEAST_SECONDS; r++) {
        const double begin = now_s();
        if (!(mix < 0 ? all_once(b, bytes, err) : mix_once(b, mix, bytes, err))) return false;
        const double seconds = now_s() - begin;
        spent += seconds;
        *best = fmin(*best, seconds);
    }
    return true;
}

// The tensors as floats in one file, and a line "MIX TYPE OFFSET ROWS COLUMNS" for each to be
// encoded.
static bool write_job(const Bench *b, const char *data, const char *list, Err *err) {
    const size_t room = (size_t)(b->mixes * b->n) * 96;
    char *text = malloc(room);
    if (text == NULL) return err_set(err, ERR_FAILED, "out of memory for %zu bytes", room);
    size_t used = 0;
    for (int m = 0; m < b->mixes; m++)
        for (int i = 0; i < b->n; i++)
            used += (size_t)snprintf(text + used, room - used,
                                     "%s %d %" PRId64 " %" PRId64 " %" PRId64 "\n", b->mix[m].name,
                                     (int)type_of(b, m, i), b->at[i] * (int64_t)sizeof *b->x,
                                     b->entry[i].dim[1], b->entry[i].dim[0]);
    CHECK(used < room);
    const bool ok = file_write(list, text, used, err) &&
                    file_write(data, b->x, (size_t)b->weights * sizeof *b->x, err);
    free(text);
    return ok;
}

// Seconds of every mix, as the peer took them; *ran = false: the peer is not to be had.
static bool peer(const Settings *s, Bench *b, const char *dir, double *seconds, bool *ran,
                 Err *err) {
    char data[PATH_ROOM], list[PATH_ROOM], args[4 * PATH_ROOM];
    const char *field[GGUF_MIXES_MAX];
    Err missing = {0};
    path_join(data, dir, "weights.f32");
    path_join(list, dir, "list.txt");
    for (int i = 0; i < b->mixes; i++) field[i] = b->mix[i].name;
    if (!write_job(b, data, list, err)) return false;
    snprintf(args, sizeof args, "'%s' '%s' '%s' %d %" PRId64 "%s%s%s", s->bench.peer_quantise, data,
             list, cores_used(), s->bench.repeat, *s->bench.peer_ggml ? " '" : "",
             s->bench.peer_ggml, *s->bench.peer_ggml ? "'" : "");
    *ran = peer_call(s, args, field, b->mixes, seconds, &missing);
    if (*ran || missing.code != ERR_USAGE)
        return *ran || err_set(err, missing.code, "%s", missing.text);
    printf("quantise peer skipped: %s\n", missing.text);
    return true;
}

static bool measure(const Settings *s, Bench *b, const PairShape *shape, const char *dir,
                    Err *err) {
    double ours[GGUF_MIXES_MAX], theirs[GGUF_MIXES_MAX], shared, sum[2] = {0};
    int64_t bytes[GGUF_MIXES_MAX], written = 0;
    bool ran = false;
    for (int m = 0; m < b->mixes; m++)
        if (!best_pass(b, m, s->bench.repeat, &ours[m], &bytes[m], err)) return false;
    if (!best_pass(b, -1, s->bench.repeat, &shared, &written, err)) return false;
    if (s->bench.peers && !peer(s, b, dir, theirs, &ran, err)) return false;
    for (int m = 0; m < b->mixes; m++) {
        sum[0] += ours[m];
        printf("quantise %-5s %-7s %6.1f MiB, %d threads   %8.3f s   %6.2f GB/s of f32 weights",
               shape->name, b->mix[m].name, (double)bytes[m] / 0x1p20, cores_used(), ours[m],
               4.0 * (double)b->weights / ours[m] / 1e9);
        if (ran) printf("   ggml %7.3f s: %.1fx", theirs[m], theirs[m] / ours[m]);
        if (ran) sum[1] += theirs[m];
        printf("\n");
    }
    printf("quantise %-5s all %d of %.1f M weights       %8.3f s, each type once %.3f s",
           shape->name, b->mixes, (double)b->weights / 1e6, sum[0], shared);
    if (ran) printf("   ggml %7.3f s: %.1fx", sum[1], sum[1] / sum[0]);
    printf("\n");
    fflush(stdout);
    return true;
}

bool bench_export(const Settings *s, const PairShape *shape, Err *err) {
    char top[] = "/tmp/draftsmith-bench-XXXXXX";
    if (mkdtemp(top) == NULL) return err_errno(err, "temporary folder %s", top);
    Bench *b = calloc(1, sizeof *b);
    CHECK_MEMORY(b);
    const bool ok = synthetic_assistant(top, shape, 1, err) &&
                    assistant_config_load(&b->config, top, err) && plan(b, err) &&
                    fill(b, top, err) && measure(s, b, shape, top, err);
    free(b->x);
    free(b->q);
    free(b);
    Err ignored = {0};
    if (!dir_remove(top, &ignored)) log_warn("%s", ignored.text);
    return ok;
}
