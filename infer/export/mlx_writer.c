// infer/export/mlx_writer.c - rows in, packed words, scales and biases out, shard by shard.
//
// The reference order has all words of a file before all scales: a shard's scales and biases wait
// in memory, a sixteenth of the weights at most.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/export/mlx.h"

enum { PIECE_BYTES = 32 << 20, LONG_JOB = 1 << 30 }; // bytes; a long job shows how far it is

typedef struct {
    const MlxInput *in;
    const MlxPlan *plan;
    const MlxSource *src;
    StWriter *w;
    char **scales, **biases; // by input, of modules whose words are written
    Progress progress;       // in MB
    int64_t done;            // bytes
} Job;

static int64_t last_dim(const MlxInput *in) {
    return in->rank > 0 ? in->dim[in->rank - 1] : 1;
}

static int64_t row_count(const MlxInput *in) {
    int64_t n = 1;
    for (int i = 0; i < in->rank - 1; i++) n *= in->dim[i];
    return n;
}

static int64_t width_of(const char *dtype) {
    const char last = dtype[strlen(dtype) - 1]; // the digits of a dtype are its bits
    return last == '4' ? 8 : last == '2' ? 4 : last == '6' ? 2 : 1;
}

// A float whose exponent is all ones is NaN or infinite.
static bool all_finite(const MlxInput *in, const void *data, int64_t n, Err *err) {
    bool ok = true;
    if (strcmp(in->dtype, "BF16") == 0)
        for (int64_t i = 0; i < n; i++) ok &= (((const uint16_t *)data)[i] & 0x7f80) != 0x7f80;
    else if (strcmp(in->dtype, "F16") == 0)
        for (int64_t i = 0; i < n; i++) ok &= (((const uint16_t *)data)[i] & 0x7c00) != 0x7c00;
    else if (strcmp(in->dtype, "F32") == 0)
        for (int64_t i = 0; i < n; i++)
            ok &= (((const uint32_t *)data)[i] & 0x7f800000) != 0x7f800000;
    return ok || err_set(err, ERR_INPUT, "%s holds NaN or infinity", in->name);
}

static bool write_plain(Job *j, int i, Err *err) {
    const MlxInput *in = &j->in[i];
    const int64_t rows = row_count(in), cols = last_dim(in), row = cols * width_of(in->dtype);
    int64_t piece = row > 0 ? PIECE_BYTES / row + 1 : 1;
    if (piece > rows) piece = rows;
    char *data = malloc((size_t)(piece * row) + 1);
    if (data == NULL) return err_set(err, ERR_FAILED, "%s: out of memory", in->name);
    bool ok = true;
    for (int64_t at = 0; ok && at < rows; at += piece) {
        const int64_t n = rows - at < piece ? rows - at : piece;
        ok = j->src->rows(j->src->ctx, i, at, n, data, err) &&
             all_finite(in, data, n * cols, err) && st_writer_data(j->w, data, n * row, err);
    }
    free(data);
    return ok;
}

static float f16_value(uint16_t h) {
    const int e = h >> 10 & 31;
    const float m = (float)(h & 1023);
    const float x = e == 0 ? m * 0x1p-24f : (1 + m * 0x1p-10f) * (float)(1u << e) * 0x1p-15f;
    return h >> 15 ? -x : x;
}

// In place: what MLX quantises is bf16.
static void to_bf16(const char *dtype, void *data, int64_t n) {
    if (strcmp(dtype, "BF16") == 0) return;
    const bool wide = strcmp(dtype, "F32") == 0;
    for (int64_t i = 0; i < n; i++) {
        float x;
        uint16_t h;
        if (wide)
            memcpy(&x, (const char *)data + 4 * i, sizeof x);
        else {
            memcpy(&h, (const char *)data + 2 * i, sizeof h);
            x = f16_value(h);
        }
        const bf16 b = bf16_from_f32(x);
        memcpy((char *)data + 2 * i, &b, sizeof b);
    }
}

static bool write_words(Job *j, int i, Err *err) {
    const MlxInput *in = &j->in[i];
    const MlxScheme *s = &j->plan->scheme[i];
    const int64_t rows = row_count(in), cols = last_dim(in), width = width_of(in->dtype),
                  words = mlx_row_words(s, cols), scales = mlx_row_scale_bytes(s, cols),
                  biases = mlx_has_biases(s) ? 2 * mlx_row_groups(s, cols) : 0;
    int64_t piece = PIECE_BYTES / (cols * width) + 1;
    if (piece > rows) piece = rows;
    char *data = malloc((size_t)(piece * cols * width) + 1);
    uint32_t *out = malloc((size_t)(piece * words) * sizeof *out + 1);
    j->scales[i] = malloc((size_t)(rows * scales) + 1);
    j->biases[i] = malloc((size_t)(rows * biases) + 1);
    bool ok = data != NULL && out != NULL && j->scales[i] != NULL && j->biases[i] != NULL;
    if (!ok) err_set(err, ERR_FAILED, "%s: out of memory", in->name);
    for (int64_t at = 0; ok && at < rows; at += piece) {
        const int64_t n = rows - at < piece ? rows - at : piece;
        ok = j->src->rows(j->src->ctx, i, at, n, data, err);
        if (!ok) break;
        to_bf16(in->dtype, data, n * cols);
        ok = (mlx_encode(s, out, j->scales[i] + at * scales,
                         biases > 0 ? (bf16 *)(j->biases[i] + at * biases) : NULL,
                         (const bf16 *)data, n, cols, err) ||
              err_wrap(err, "%s", in->name)) &&
             st_writer_data(j->w, out, 4 * n * words, err);
    }
    free(data);
    free(out);
    return ok;
}

static bool write_waiting(Job *j, char **waiting, const MlxOutput *o, Err *err) {
    CHECK(*waiting != NULL); // words come first
    const bool ok = st_writer_data(j->w, *waiting, o->bytes, err);
    free(*waiting);
    *waiting = NULL;
    return ok;
}

static const MlxOutput *output_named(const MlxPlan *p, const char *name) {
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->out[i].name, name) == 0) return &p->out[i];
    CHECK(false, "%s was not planned", name);
}

static bool write_output(Job *j, const MlxOutput *o, Err *err) {
    switch (o->part) {
    case MLX_WORDS:
        return write_words(j, o->input, err);
    case MLX_SCALES:
        return write_waiting(j, &j->scales[o->input], o, err);
    case MLX_BIASES:
        return write_waiting(j, &j->biases[o->input], o, err);
    default:
        return write_plain(j, o->input, err);
    }
}

static bool declare(StWriter *w, const MlxPlan *plan, int shard, Err *err) {
    for (int i = 0; i < plan->n; i++) {
        const MlxOutput *o = &plan->out[i];
        if (o->shard == shard && !st_writer_declare(w, o->name, o->dtype, o->rank, o->dim, err))
            return false;
    }
    st_writer_metadata(w, "format", "mlx");
    return true;
}

bool mlx_shard_bytes(const MlxPlan *plan, int shard, int64_t *bytes, Err *err) {
    StWriter *w = st_writer_open(NULL, err);
    const bool ok =
        w != NULL && declare(w, plan, shard, err) && st_writer_file_bytes(w, bytes, err);
    st_writer_drop(w);
    return ok;
}

static bool write_shard(Job *j, const char *out_dir, int shard, Err *err) {
    char path[PATH_ROOM], name[64];
    j->w = st_writer_open(path_join(path, out_dir, mlx_shard_name(j->plan, shard, name)), err);
    if (j->w == NULL) return false;
    bool ok = declare(j->w, j->plan, shard, err) && st_writer_begin(j->w, err);
    for (int i = 0; ok && i < st_writer_count(j->w); i++) {
        const MlxOutput *o = output_named(j->plan, st_writer_order(j->w, i)->name);
        ok = write_output(j, o, err);
        j->done += o->bytes;
        if (j->plan->bytes > LONG_JOB) progress_at(&j->progress, j->done / 1000000, name);
    }
    if (ok) return st_writer_commit(j->w, err);
    st_writer_drop(j->w);
    return false;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const MlxOutput *const *)a)->name, (*(const MlxOutput *const *)b)->name);
}

// {"metadata": {"total_size": n}, "weight_map": {name: file, ...}}, names ascending, indent 4.
static bool write_index(const MlxPlan *p, const char *out_dir, Err *err) {
    char path[PATH_ROOM], name[64];
    const MlxOutput **order = malloc(((size_t)p->n + 1) * sizeof *order);
    json_t *map = json_object();
    CHECK_MEMORY(order);
    CHECK_MEMORY(map);
    for (int i = 0; i < p->n; i++) order[i] = &p->out[i];
    qsort(order, (size_t)p->n, sizeof *order, by_name);
    for (int i = 0; i < p->n; i++)
        json_object_set_new(map, order[i]->name,
                            json_string(mlx_shard_name(p, order[i]->shard, name)));
    free(order);
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)p->bytes,
                              "weight_map", map);
    char *text = index ? json_dumps(index, JSON_INDENT(4)) : NULL;
    json_decref(index);
    CHECK_MEMORY(text);
    const bool ok = file_write(path_join(path, out_dir, "model.safetensors.index.json"), text,
                               strlen(text), err);
    free(text);
    return ok;
}

static bool enough_room(const char *out_dir, const MlxPlan *p, Err *err) {
    const int64_t room = disk_free_bytes(out_dir);
    return room < 0 || room > p->bytes ||
           err_set(err, ERR_FAILED, "%s: %.2f GB are to be written, %.2f GB are free", out_dir,
                   (double)p->bytes * 1e-9, (double)room * 1e-9);
}

bool mlx_write_planned(const char *out_dir, const MlxInput *in, const MlxPlan *plan,
                       const MlxSource *src, Err *err) {
    int inputs = 0;
    for (int i = 0; i < plan->n; i++)
        if (plan->out[i].input >= inputs) inputs = plan->out[i].input + 1;
    Job j = {.in = in, .plan = plan, .src = src};
    j.scales = calloc((size_t)inputs + 1, sizeof *j.scales);
    j.biases = calloc((size_t)inputs + 1, sizeof *j.biases);
    CHECK_MEMORY(j.scales);
    CHECK_MEMORY(j.biases);
    bool ok = enough_room(out_dir, plan, err);
    progress_start(&j.progress, "export", "MB", plan->bytes / 1000000);
    for (int s = 0; ok && s < plan->shards; s++) ok = write_shard(&j, out_dir, s, err);
    if (plan->bytes > LONG_JOB) progress_end(&j.progress, j.done / 1000000, "");
    ok = ok && write_index(plan, out_dir, err);
    for (int i = 0; i < inputs; i++) {
        free(j.scales[i]);
        free(j.biases[i]);
    }
    free(j.scales);
    free(j.biases);
    return ok;
}
