// infer/model/source_mlx.c - weights of a quantised MLX folder, decoded as MLX on a CPU does.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/format/mlx_model.h"
#include "infer/model/weight_source.h"

static bool recognises(const char *path) {
    Err quiet = {0};
    char config[PATH_ROOM];
    MlxRules rules = {0};
    if (!dir_exists(path) || !file_exists(path_join(config, path, "config.json"))) return false;
    // A block that is wrong is one all the same: opening it says what is wrong.
    const bool readable = mlx_rules_load(&rules, path, &quiet);
    const bool is = rules.present || (!readable && strstr(quiet.text, "quantization") != NULL);
    mlx_rules_free(&rules);
    return is;
}

static bool config(const char *path, AssistantConfig *c, Err *err) {
    return assistant_config_load(c, path, err);
}

static void close_model(void *ctx) {
    mlx_model_close(ctx);
}

static void *open_model(const char *path, Err *err) {
    MlxModel *m = mlx_model_open(path, err);
    if (m == NULL || mlx_model_find(m, "lm_head.weight") == NULL) return m;
    err_set(err, ERR_INPUT, "%s: lm_head.weight: a quantised assistant's head is its table", path);
    mlx_model_close(m);
    return NULL;
}

// "affine 4 bit g64", "mxfp4"
static void scheme_text(const MlxScheme *s, char *out, size_t room) {
    if (s->mode == MLX_AFFINE)
        snprintf(out, room, "affine %d bit g%d", s->bits, s->group);
    else
        snprintf(out, room, "%s", mlx_mode_name(s->mode));
}

static int64_t stored_bytes(const MlxTensor *t) {
    return t->stored->bytes + (t->scales ? t->scales->bytes : 0) +
           (t->biases ? t->biases->bytes : 0);
}

static bool find(void *ctx, const char *key, SourceTensor *out) {
    const MlxTensor *t = mlx_model_find(ctx, key);
    if (t == NULL) return false;
    if (t->quantised)
        scheme_text(&t->scheme, out->type, sizeof out->type);
    else
        snprintf(out->type, sizeof out->type, "%s", t->stored->dtype);
    out->rank = t->rank;
    memcpy(out->dim, t->dim, sizeof out->dim);
    out->count = t->count;
    out->bytes = stored_bytes(t);
    out->at = t;
    return true;
}

static bool read_floats(void *ctx, const SourceTensor *t, DType dtype, void *out, Err *err) {
    if (!mlx_model_read(ctx, t->at, out, err)) return false;
    for (int64_t i = 0; dtype == DT_BF16 && i < t->count; i++) { // in place, behind the reader
        const bf16 x = bf16_from_f32(((const float *)out)[i]);
        memcpy((char *)out + (size_t)i * sizeof x, &x, sizeof x);
    }
    return true;
}

static bool read_ints(void *ctx, const SourceTensor *t, int64_t *out, Err *err) {
    const MlxTensor *m = t->at;
    const bool wide = strcmp(t->type, "I64") == 0;
    if (!wide && strcmp(t->type, "I32") != 0)
        return err_set(err, ERR_INPUT, "%s is %s, expected I64 or I32", t->key, t->type);
    if (!st_read(mlx_model_file(ctx), m->stored, out, err)) return false;
    for (int64_t i = t->count; !wide && i-- > 0;) { // in place, from the end
        int32_t x;
        memcpy(&x, (const char *)out + (size_t)i * sizeof x, sizeof x);
        out[i] = x;
    }
    return true;
}

// One scheme: its name, and the table where that is kept; several: the mean width.
static void label(const MlxModel *m, char *out, size_t room) {
    const MlxTensor *first = NULL;
    bool same = true;
    double bits = 0, weights = 0;
    for (int i = 0; i < mlx_model_count(m); i++) {
        const MlxTensor *t = mlx_model_at(m, i);
        if (!t->quantised) continue;
        if (first == NULL) first = t;
        same = same && mlx_scheme_same(&first->scheme, &t->scheme);
        bits += (double)t->scheme.bits * (double)t->count;
        weights += (double)t->count;
    }
    const MlxTensor *table = mlx_model_find(m, "model.embed_tokens.weight");
    char scheme[24] = "nothing quantised";
    if (first != NULL && same)
        scheme_text(&first->scheme, scheme, sizeof scheme);
    else if (first != NULL)
        snprintf(scheme, sizeof scheme, "mixed %.2f bit", bits / weights);
    snprintf(out, room, "%s%s%s", scheme, table != NULL && !table->quantised ? ", table " : "",
             table != NULL && !table->quantised ? table->stored->dtype : "");
}

static void info(void *ctx, ArtifactInfo *out) {
    snprintf(out->format, sizeof out->format, "MLX");
    label(ctx, out->label, sizeof out->label);
    for (int i = 0; i < mlx_model_count(ctx); i++) out->bytes += stored_bytes(mlx_model_at(ctx, i));
}

const SourceKind source_mlx = {
    .recognises = recognises,
    .config = config,
    .open = open_model,
    .close = close_model,
    .find = find,
    .read = read_floats,
    .read_ints = read_ints,
    .info = info,
};
