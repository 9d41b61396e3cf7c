// eval/quant/target_sensitivity.c - one module at a time is stored, read back in its place, and
// compared over the calibration text.
#include "eval/quant/target_sensitivity.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "eval/quant/roundtrip.h"
#include "eval/quant/row_kl.h"
#include "infer/base/cli.h"
#include "infer/base/log.h"

enum { LOGIT_BYTES = 128 << 20 };

typedef struct {
    Target *t;
    const SeqSource *src;
    const TargetSensitivityOptions *opt;
    KvCache *kv;
    void *memory;
    Tensor hidden; // F32 (max_rows, B)
    RowKl kl;
    float *reference; // host (rows, B): states of the target as it is, all sequences
    int64_t rows;     // of all sequences
    int32_t *ids;     // (max_tokens)
    double *row;      // KL of a block
    // The module at hand
    float *value;
    char *saved;
} Work;

static int64_t tokens_of(const SeqSource *src, const TargetSensitivityOptions *o, int64_t i) {
    const int64_t n = src->length(src->ctx, i);
    return n < o->max_tokens ? n : o->max_tokens;
}

static void take_device(const Target *t, const TargetSensitivityOptions *o, Tensor *hidden,
                        RowKl *kl, Arena *arena) {
    const TextConfig *c = &target_config(t)->text;
    *hidden = tensor_take(arena, DT_F32, o->max_rows, c->hidden);
    row_kl_take(kl, row_kl_rows(c->vocab, o->max_rows, LOGIT_BYTES), c->vocab, arena);
}

static size_t device_bytes(const Target *t, const TargetSensitivityOptions *o) {
    Arena plan;
    Tensor hidden;
    RowKl kl;
    arena_open(&plan, NULL, 0);
    take_device(t, o, &hidden, &kl, &plan);
    return plan.peak;
}

static int64_t expert_count(const TargetModule *m) {
    return m->experts > 0 ? m->experts : 1;
}

static int64_t params_of(const TargetModule *m) {
    return expert_count(m) * tensor_count(m->first);
}

static int64_t largest(const TargetModule *m, int n) {
    int64_t most = 1;
    for (int i = 0; i < n; i++)
        if (params_of(&m[i]) > most) most = params_of(&m[i]);
    return most;
}

static TargetModule *list_modules(const Target *t, int *n) {
    *n = target_modules(t, NULL);
    TargetModule *m = calloc((size_t)*n + 1, sizeof *m);
    CHECK_MEMORY(m);
    target_modules(t, m);
    return m;
}

size_t target_sensitivity_bytes(const Target *t, const SeqSource *src,
                                const TargetSensitivityOptions *o) {
    const TargetConfig *c = target_config(t);
    int n;
    int64_t rows = 0;
    TargetModule *m = list_modules(t, &n);
    const int64_t module = largest(m, n);
    free(m);
    for (int64_t i = 0; i < src->count; i++) rows += tokens_of(src, o, i);
    return device_bytes(t, o) + (size_t)(rows * c->text.hidden) * sizeof(float) +
           (size_t)module * 2 * sizeof(float) +
           (size_t)kv_bytes(&c->text, 1, o->max_tokens, o->max_rows, false, DT_F32);
}

static bool open_work(Work *w, int64_t module, Err *err) {
    const TargetConfig *c = target_config(w->t);
    Device *dev = target_device(w->t);
    const size_t bytes = device_bytes(w->t, w->opt);
    for (int64_t i = 0; i < w->src->count; i++) w->rows += tokens_of(w->src, w->opt, i);
    w->reference = malloc((size_t)(w->rows * c->text.hidden) * sizeof *w->reference);
    w->ids = malloc((size_t)w->opt->max_tokens * sizeof *w->ids);
    w->value = malloc((size_t)module * sizeof *w->value);
    w->saved = malloc((size_t)module * sizeof *w->value);
    if (!w->reference || !w->ids || !w->value || !w->saved)
        return err_set(err, ERR_FAILED, "no memory for %lld states and a module of %lld weights",
                       (long long)w->rows, (long long)module);
    w->kv = kv_open(dev, &c->text, 1, w->opt->max_tokens, w->opt->max_rows, false, DT_F32, err);
    if (w->kv == NULL || (w->memory = dev_alloc(dev, bytes, err)) == NULL) return false;
    Arena arena;
    arena_open(&arena, w->memory, bytes);
    take_device(w->t, w->opt, &w->hidden, &w->kl, &arena);
    w->row = malloc((size_t)w->kl.rows * sizeof *w->row);
    CHECK_MEMORY(w->row);
    return row_kl_open(&w->kl, dev, err);
}

static void close_work(Work *w) {
    kv_close(w->kv);
    row_kl_close(&w->kl);
    if (w->memory != NULL) dev_free(target_device(w->t), w->memory);
    free(w->reference);
    free(w->ids);
    free(w->row);
    free(w->value);
    free(w->saved);
}

// The states of n rows behind the final norm, against those kept: adds their KL to *sum.
static bool compare(Work *w, Tensor hidden, const float *kept, double *sum, Err *err) {
    Device *dev = target_device(w->t);
    const int64_t B = hidden.cols;
    for (int64_t at = 0; at < hidden.rows; at += w->kl.rows) {
        const int64_t n = hidden.rows - at < w->kl.rows ? hidden.rows - at : w->kl.rows;
        const Tensor now = tensor_rows(hidden, at, n);
        target_logits(w->t, tensor_rows(w->kl.z[1], 0, n), now);
        dev_upload(dev, now, kept + at * B);
        target_logits(w->t, tensor_rows(w->kl.z[0], 0, n), now);
        row_kl_teacher(&w->kl, n);
        if (!row_kl_student(&w->kl, n, w->row, err)) return false;
        for (int64_t i = 0; i < n; i++) *sum += w->row[i];
    }
    return true;
}

// Runs all sequences. sum NULL: keeps their states; else compares with those kept.
static bool run(Work *w, double *sum, Err *err) {
    Device *dev = target_device(w->t);
    const int64_t B = w->hidden.cols;
    int64_t row = 0;
    for (int64_t i = 0; i < w->src->count; i++) {
        CapturedSeq c = {0};
        const int64_t n = tokens_of(w->src, w->opt, i);
        if (!w->src->read(w->src->ctx, i, &c, err)) return false;
        memcpy(w->ids, c.sample.ids, (size_t)n * sizeof *w->ids);
        captured_free(&c);
        kv_clear(w->kv, 0);
        for (int64_t at = 0; at < n; at += w->opt->max_rows) {
            const int64_t more = n - at < w->opt->max_rows ? n - at : w->opt->max_rows;
            const TargetPiece piece = {.count = more};
            const Tensor hidden = tensor_rows(w->hidden, 0, more);
            float *kept = w->reference + row * B;
            target_forward(w->t, w->kv, &piece, 1, w->ids + at, hidden, NULL);
            if (sum == NULL) dev_download(dev, kept, hidden);
            if (!(sum == NULL ? dev_sync(dev, err) : compare(w, hidden, kept, sum, err)))
                return false;
            row += more;
        }
    }
    return true;
}

static Tensor expert_of(const TargetModule *m, int64_t e) {
    Tensor t = m->first;
    t.data = (char *)t.data + (size_t)(e * m->stride * t.ld) * dtype_size(t.dtype);
    return t;
}

// Host bytes of the module: out of the device (save), or back.
static bool move_module(Work *w, const TargetModule *m, bool save, Err *err) {
    Device *dev = target_device(w->t);
    const size_t one = tensor_bytes(m->first);
    for (int64_t e = 0; e < expert_count(m); e++) {
        char *host = w->saved + (size_t)e * one;
        if (save)
            dev_download(dev, host, expert_of(m, e));
        else
            dev_upload(dev, expert_of(m, e), host);
    }
    return dev_sync(dev, err);
}

// What is left of the saved module in a type goes where it lies.
static bool put_type(Work *w, const TargetModule *m, const MixType *type, Err *err) {
    Device *dev = target_device(w->t);
    const int64_t count = tensor_count(m->first);
    for (int64_t e = 0; e < expert_count(m); e++) {
        const char *host = w->saved + (size_t)e * tensor_bytes(m->first);
        float *x = w->value + e * count;
        if (m->first.dtype == DT_F32)
            memcpy(x, host, (size_t)count * sizeof *x);
        else
            for (int64_t i = 0; i < count; i++) x[i] = bf16_to_f32(((const bf16 *)host)[i]);
        if (!roundtrip(type, x, m->first.rows, m->first.cols, NULL, err)) return false;
        if (m->first.dtype == DT_BF16)
            for (int64_t i = 0; i < count; i++) { // in place, behind the reader
                const bf16 h = bf16_from_f32(x[i]);
                memcpy((char *)x + (size_t)i * sizeof h, &h, sizeof h);
            }
        dev_upload(dev, expert_of(m, e), x);
    }
    return dev_sync(dev, err);
}

static bool measure_module(Work *w, const TargetModule *m, TargetModuleSensitivity *out, Err *err) {
    static const int bits[TARGET_WIDTHS] = {4, 8};
    *out = (TargetModuleSensitivity){.params = params_of(m)};
    memcpy(out->module, m->name, sizeof out->module);
    if (!move_module(w, m, true, err)) return false;
    bool ok = true;
    for (int i = 0; ok && i < TARGET_WIDTHS; i++) {
        MixType type = mix_mlx(bits[i], 64);
        double sum = 0.0;
        type.mlx.requant = bits[i] == 8;
        out->bytes[i] = mix_type_bytes(&type, expert_count(m) * m->first.rows, m->first.cols);
        ok = put_type(w, m, &type, err) && run(w, &sum, err);
        out->kl[i] = sum / (double)w->rows;
    }
    Err lost = {0};
    const bool back = move_module(w, m, false, ok ? err : &lost);
    if (ok) log_info("KL of %s: 4 bits %.3g, 8 bits %.3g", m->name, out->kl[0], out->kl[1]);
    return ok && back;
}

TargetModuleSensitivity *target_sensitivity(Target *t, const SeqSource *src,
                                            const TargetSensitivityOptions *opt, int *n, Err *err) {
    int modules;
    TargetModule *m = list_modules(t, &modules);
    TargetModuleSensitivity *out = calloc((size_t)modules + 1, sizeof *out);
    CHECK_MEMORY(out);
    Work w = {.t = t, .src = src, .opt = opt};
    *n = 0;
    bool ok = open_work(&w, largest(m, modules), err) && run(&w, NULL, err);
    for (int i = 0; ok && i < modules; i++) {
        if (opt->only != NULL && fnmatch(opt->only, m[i].name, 0) != 0) continue;
        if (m[i].first.cols % 64 != 0) {
            log_info("%s: rows of %lld weights are no multiple of the group; it stays as it is",
                     m[i].name, (long long)m[i].first.cols);
            continue;
        }
        ok = stop_requested()
                 ? err_set(err, ERR_STOPPED, "stopped")
                 : measure_module(&w, &m[i], &out[*n], err) || err_wrap(err, "%s", m[i].name);
        *n += ok;
    }
    close_work(&w);
    free(m);
    if (ok) return out;
    free(out);
    err_wrap(err, "sensitivity of the target");
    return NULL;
}

json_t *target_sensitivity_json(const Target *t, const TargetModuleSensitivity *m, int n) {
    json_t *layers = json_array(), *embeddings = json_pack("[s]", "embed_tokens");
    if (target_config(t)->text.ple > 0)
        json_array_append_new(embeddings, json_string("embed_tokens_per_layer"));
    for (int i = 0; i < n; i++)
        json_array_append_new(layers, json_pack("{ss s{sf sf} sI s{s{sI sI}}}", "layer_name",
                                                m[i].module, "sensitivities", "4", m[i].kl[0], "8",
                                                m[i].kl[1], "param_count", (json_int_t)m[i].params,
                                                "metadata", "bytes", "4", (json_int_t)m[i].bytes[0],
                                                "8", (json_int_t)m[i].bytes[1]));
    json_t *o = json_pack("{ss ss ss so so}", "kind", "sensitivity", "model", "target", "format",
                          "mlx", "embeddings", embeddings, "layers", layers);
    CHECK_MEMORY(o);
    return o;
}
