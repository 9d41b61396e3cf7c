// eval/quant/imatrix.c - squares of the inputs of every matrix, by draft step, added in double.
#include "eval/quant/imatrix.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/quant/step_walk.h"
#include "infer/base/cores.h"
#include "infer/model/gguf_names.h"

enum { INPUTS_MAX = 4 * ASSISTANT_LAYERS_MAX + 2, COLS_AT_ONCE = 64, CHUNK = 512 };

// One tensor that matrices read; gate and up read the same, as the table and post_projection do.
typedef struct {
    int64_t cols;
    double *sum; // (K, cols)
} Input;

typedef struct {
    const Assistant *a;
    const ImatrixOptions *opt;
    Walk *walk;
    void *block; // of the activations
    Arena arena;
    Input input[INPUTS_MAX];
    int inputs;
    double *rows; // (K)
    float *host;  // one tensor of a call
    const WalkChunk *chunk;
} Collector;

bool imatrix_name(char out[IMATRIX_NAME_MAX + 1], const AssistantConfig *c, const char *key) {
    GgufEntry e[GGUF_ENTRIES_MAX];
    const int n = gguf_assistant_tensors(GGUF_UNIVERSAL, c, e);
    for (int i = 0; i < n; i++)
        if (e[i].role != GGUF_VECTOR && strcmp(e[i].key, key) == 0)
            return snprintf(out, IMATRIX_NAME_MAX + 1, "%s", e[i].name) > 0;
    return false;
}

// The tensors that matrices read, in the order of the inputs. Returns their number.
static int list_inputs(const Assistant *a, const StepActs *s, Tensor out[INPUTS_MAX]) {
    int n = 0;
    out[n++] = s->z;
    for (int i = 0; i < a->cfg.text.layers; i++) {
        const LayerActs *l = &s->layer[i];
        out[n++] = l->n_in;
        out[n++] = l->o;
        out[n++] = l->n_ff;
        out[n++] = l->m;
    }
    out[n++] = s->y;
    return n;
}

// Which of them a parameter reads, -1: none (norms, centroids).
static int input_of(const Assistant *a, const AssistantWeights *w, const Tensor *p) {
    const int last = 4 * (int)a->cfg.text.layers + 1;
    if (p == &w->pre) return 0;
    if (p == &w->post || p == &w->table) return last;
    for (int i = 0; i < a->cfg.text.layers; i++) {
        const AssistantLayer *l = &w->layer[i];
        if (p == &l->q_proj) return 4 * i + 1;
        if (p == &l->o_proj) return 4 * i + 2;
        if (p == &l->gate || p == &l->up) return 4 * i + 3;
        if (p == &l->down) return 4 * i + 4;
    }
    return -1;
}

static StepActs take_acts(const Assistant *a, int64_t rows, Arena *arena) {
    StepActs s;
    assistant_acts_take(a, &s, rows, true, arena);
    s.y = tensor_take(arena, a->dtype, rows, a->cfg.text.hidden);
    s.f = tensor_take(arena, a->dtype, rows, a->cfg.backbone);
    return s;
}

static size_t acts_bytes(const Assistant *a, int64_t rows) {
    Arena plan;
    arena_open(&plan, NULL, 0);
    take_acts(a, rows, &plan);
    return plan.peak;
}

// Host values of a tensor in f32.
static const float *fetch(const Collector *c, Tensor t) {
    dev_download(c->a->dev, c->host, t);
    if (t.dtype == DT_BF16) // in place, from the end
        for (int64_t i = tensor_count(t); i-- > 0;) {
            bf16 x;
            memcpy(&x, (const char *)c->host + (size_t)i * sizeof x, sizeof x);
            c->host[i] = bf16_to_f32(x);
        }
    return c->host;
}

// Rows in order whatever the number of threads.
static void add_squares(double *sum, const float *x, int64_t rows, int64_t cols,
                        const uint8_t *valid) {
#pragma omp parallel for num_threads(cores_used())
    for (int64_t c0 = 0; c0 < cols; c0 += COLS_AT_ONCE) {
        const int64_t n = cols - c0 < COLS_AT_ONCE ? cols - c0 : COLS_AT_ONCE;
        for (int64_t r = 0; r < rows; r++) {
            const float *row = x + r * cols + c0;
            for (int64_t i = 0; valid[r] && i < n; i++)
                sum[c0 + i] += (double)row[i] * (double)row[i];
        }
    }
}

static bool collect_step(void *ctx, int j, const StepActs *acts, Err *err) {
    Collector *c = ctx;
    Tensor t[INPUTS_MAX];
    const int64_t rows = c->chunk->rows;
    const uint8_t *valid = c->chunk->valid + j * rows;
    const int n = list_inputs(c->a, acts, t);
    CHECK(n == c->inputs);
    for (int i = 0; i < n; i++)
        add_squares(c->input[i].sum + j * t[i].cols, fetch(c, t[i]), rows, t[i].cols, valid);
    for (int64_t r = 0; r < rows; r++) c->rows[j] += valid[r];
    return dev_sync(c->a->dev, err);
}

static bool collect_chunk(void *ctx, const WalkChunk *chunk, Err *err) {
    Collector *c = ctx;
    arena_reset(&c->arena, 0);
    StepActs acts = take_acts(c->a, chunk->rows, &c->arena);
    c->chunk = chunk;
    return walk_roll(c->walk, c->a, chunk, &acts, collect_step, c, err);
}

static void close_collector(Collector *c) {
    walk_close(c->walk);
    if (c->block != NULL) dev_free(c->a->dev, c->block);
    for (int i = 0; i < c->inputs; i++) free(c->input[i].sum);
    free(c->rows);
    free(c->host);
}

static int64_t widest(const Assistant *a, Input input[INPUTS_MAX], int *inputs) {
    Arena plan;
    Tensor t[INPUTS_MAX];
    int64_t most = 0;
    arena_open(&plan, NULL, 0);
    const StepActs acts = take_acts(a, 1, &plan);
    *inputs = list_inputs(a, &acts, t);
    for (int i = 0; i < *inputs; i++) {
        input[i] = (Input){.cols = t[i].cols};
        if (t[i].cols > most) most = t[i].cols;
    }
    return most;
}

size_t imatrix_collect_bytes(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                             const ImatrixOptions *o) {
    Input input[INPUTS_MAX];
    int inputs;
    size_t host = (size_t)(widest(a, input, &inputs) * o->max_anchors) * sizeof(float);
    for (int i = 0; i < inputs; i++) host += (size_t)(input[i].cols * o->K) * sizeof(double);
    return host + acts_bytes(a, o->max_anchors) + walk_bytes(a, tc, src, o->max_anchors);
}

static bool open_collector(Collector *c, const TargetConfig *tc, const SeqSource *src, Err *err) {
    const int K = c->opt->K;
    const int64_t most = widest(c->a, c->input, &c->inputs);
    const size_t bytes = acts_bytes(c->a, c->opt->max_anchors);
    c->rows = calloc((size_t)K, sizeof *c->rows);
    c->host = malloc((size_t)(most * c->opt->max_anchors) * sizeof *c->host);
    bool ok = c->rows != NULL && c->host != NULL;
    for (int i = 0; i < c->inputs; i++) {
        c->input[i].sum = calloc((size_t)(K * c->input[i].cols), sizeof(double));
        ok = ok && c->input[i].sum != NULL;
    }
    if (!ok) return err_set(err, ERR_FAILED, "no memory for %d inputs", c->inputs);
    c->walk = walk_open(c->a, tc, src, K, c->opt->max_anchors, 1, err);
    if (c->walk == NULL || (c->block = dev_alloc(c->a->dev, bytes, err)) == NULL) return false;
    arena_open(&c->arena, c->block, bytes);
    return true;
}

// Means over the steps that read a parameter, step j by reach[j].
static bool add_entry(Imatrix *out, const Collector *c, const char *name, const Input *in,
                      int steps, Err *err) {
    double *mean = calloc((size_t)in->cols, sizeof *mean), rows = 0.0;
    CHECK_MEMORY(mean);
    for (int j = 0; j < steps; j++) {
        rows += c->opt->reach[j] * c->rows[j];
        for (int64_t i = 0; i < in->cols; i++)
            mean[i] += c->opt->reach[j] * in->sum[j * in->cols + i];
    }
    for (int64_t i = 0; i < in->cols; i++) mean[i] /= rows;
    const bool ok = rows > 0.0 && imatrix_set(&out->entry[out->n], name, mean, in->cols, rows, err);
    free(mean);
    out->n += ok;
    return ok || err_set(err, ERR_INPUT, "no draft step to look at");
}

static bool make_entries(Imatrix *out, const Collector *c, Err *err) {
    AssistantParam p[ASSISTANT_PARAMS_MAX];
    AssistantWeights w = c->a->w;
    const int n = assistant_params(&c->a->cfg, &w, p), K = c->opt->K;
    out->entry = calloc((size_t)n, sizeof *out->entry);
    CHECK_MEMORY(out->entry);
    for (int i = 0; i < n; i++) {
        char name[IMATRIX_NAME_MAX + 1];
        const int in = input_of(c->a, &w, p[i].tensor);
        const bool post = p[i].tensor == &w.post; // not called by the last step
        if (in < 0 || (post && K == 1) || !imatrix_name(name, &c->a->cfg, p[i].name)) continue;
        if (!add_entry(out, c, name, &c->input[in], post ? K - 1 : K, err)) return false;
    }
    imatrix_sort(out);
    return true;
}

bool imatrix_collect(Imatrix *out, const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                     const ImatrixOptions *opt, Err *err) {
    Collector c = {.a = a, .opt = opt};
    *out = (Imatrix){.chunk_size = CHUNK};
    snprintf(out->dataset, sizeof out->dataset, "%s", opt->dataset);
    bool ok = open_collector(&c, tc, src, err) && walk_run(c.walk, collect_chunk, &c, err) &&
              make_entries(out, &c, err);
    double rows = 0.0;
    for (int j = 0; ok && j < opt->K; j++) rows += c.rows[j];
    out->chunks = (int64_t)ceil(rows / CHUNK);
    close_collector(&c);
    if (ok) return true;
    imatrix_free(out);
    return err_wrap(err, "imatrix");
}
