// infer/export/mix.c - the file of a mixture of types, and what a type costs.
#include "infer/export/mix.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/checked.h"
#include "infer/base/json.h"

enum { MIX_LIMIT = 64 << 20, PLAIN_BITS = 16 };

const char *mix_format_name(MixFormat f) {
    return f == MIX_MLX ? "mlx" : "gguf";
}

MixType mix_mlx(int bits, int group) {
    return (MixType){.format = MIX_MLX, .mlx = {MLX_AFFINE, bits, group, false}};
}

MixType mix_gguf(GgmlType type) {
    return (MixType){.format = MIX_GGUF, .type = type};
}

bool mix_type_plain(const MixType *t) {
    return t->format == MIX_MLX ? t->mlx.bits == PLAIN_BITS && t->mlx.mode == MLX_AFFINE
                                : t->type == GGML_BF16 || t->type == GGML_F32;
}

void mix_type_name(char out[32], const MixType *t) {
    if (t->format == MIX_GGUF)
        snprintf(out, 32, "%s", ggml_type(t->type)->name);
    else if (t->mlx.mode == MLX_AFFINE)
        snprintf(out, 32, "%d", t->mlx.bits);
    else
        snprintf(out, 32, "%s", mlx_mode_name(t->mlx.mode));
}

int64_t mix_type_bytes(const MixType *t, int64_t rows, int64_t cols) {
    int64_t row, all;
    if (t->format == MIX_GGUF) {
        row = ggml_row_bytes(t->type, cols);
    } else if (mix_type_plain(t)) {
        row = 2 * cols;
    } else {
        const int64_t words = mlx_row_words(&t->mlx, cols),
                      scales = mlx_row_scale_bytes(&t->mlx, cols);
        if (words < 0 || scales < 0) return -1;
        row = 4 * words + scales * (mlx_has_biases(&t->mlx) ? 2 : 1);
    }
    return row >= 0 && mul_fits(row, rows, &all) ? all : -1;
}

void mix_free(Mix *m) {
    if (m == NULL) return;
    free(m->module);
    free(m);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const MixModule *)a)->module, ((const MixModule *)b)->module);
}

const MixModule *mix_find(const Mix *m, const char *module) {
    for (int i = 0; i < m->n; i++)
        if (strcmp(m->module[i].module, module) == 0) return &m->module[i];
    return NULL;
}

static bool read_word(char *out, size_t room, const json_t *o, const char *key, Err *err) {
    const char *text = "";
    if (!json_get_str(o, key, &text, err)) return false;
    if (strlen(text) >= room)
        return err_set(err, ERR_INPUT, "%s is longer than %zu bytes", key, room - 1);
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static bool read_mlx(MlxScheme *s, const json_t *o, Err *err) {
    int64_t bits = 0, group = 64;
    const char *mode = "affine";
    if (!json_get_i64(o, "bits", &bits, err) || !json_get_str(o, "mode", &mode, err)) return false;
    *s = (MlxScheme){.mode = MLX_AFFINE};
    if (!mlx_mode_named(mode, &s->mode)) return err_set(err, ERR_INPUT, "no mode \"%s\"", mode);
    if (s->mode != MLX_AFFINE) {
        *s = mlx_scheme(s->mode);
        if (bits == 0) bits = s->bits;
        group = s->group;
    }
    if (!json_get_i64(o, "group_size", &group, err)) return false;
    if (bits < 0 || bits > PLAIN_BITS || group < 0 || group > 1024)
        return err_set(err, ERR_INPUT, "bits %lld, group_size %lld", (long long)bits,
                       (long long)group);
    s->bits = (int)bits;
    s->group = (int)group;
    Err why = {0};
    if ((s->mode == MLX_AFFINE && bits == PLAIN_BITS) || mlx_scheme_check(s, &why)) return true;
    return err_set(err, ERR_INPUT, "%s", why.text);
}

static bool read_module(MixModule *m, MixFormat format, const char *name, const json_t *o,
                        Err *err) {
    const char *type = "";
    const size_t n = strlen(name), suffix = strlen(".weight");
    *m = (MixModule){.type.format = format, .kl = NAN, .lost = NAN};
    if (n == 0 || n >= sizeof m->module)
        return err_set(err, ERR_INPUT, "a module path of %zu bytes", n);
    if (n > suffix && strcmp(name + n - suffix, ".weight") == 0)
        return err_set(err, ERR_INPUT, "a tensor, not a module: leave \".weight\" out");
    memcpy(m->module, name, n + 1);
    if (!json_is_object(o)) return err_set(err, ERR_INPUT, "not an object");
    if (!json_get_f64(o, "kl", &m->kl, err) || !json_get_f64(o, "lost_tokens", &m->lost, err))
        return false;
    if (format == MIX_MLX) return read_mlx(&m->type.mlx, o, err);
    if (!json_get_str(o, "type", &type, err)) return false;
    const GgmlTypeInfo *info = ggml_type_named(type);
    if (info == NULL || info->type == GGML_I32)
        return err_set(err, ERR_INPUT, "no type \"%s\" of ggml", type);
    m->type.type = info->type;
    return true;
}

static bool read_modules(Mix *m, const json_t *o, Err *err) {
    const char *name;
    json_t *value;
    if (!json_is_object(o) || json_object_size(o) == 0)
        return err_set(err, ERR_INPUT, "no modules named");
    m->module = calloc(json_object_size(o), sizeof *m->module);
    CHECK_MEMORY(m->module);
    json_object_foreach((json_t *)o, name, value) {
        if (!read_module(&m->module[m->n], m->format, name, value, err))
            return err_wrap(err, "module %s", name);
        m->n++;
    }
    qsort(m->module, (size_t)m->n, sizeof *m->module, by_name);
    return true;
}

static bool read_head(Mix *m, const json_t *o, Err *err) {
    char kind[32] = "", format[32] = "", model[32] = "";
    int64_t high = 0, low = 0;
    if (!json_is_object(o) || !read_word(kind, sizeof kind, o, "kind", err) ||
        strcmp(kind, "mix") != 0)
        return err_set(err, ERR_INPUT, "not a mixture: \"kind\" is \"%s\", expected \"mix\"", kind);
    if (!read_word(format, sizeof format, o, "format", err) ||
        !read_word(model, sizeof model, o, "model", err) ||
        !read_word(m->method, sizeof m->method, o, "method", err) ||
        !read_word(m->reference, sizeof m->reference, o, "reference", err) ||
        !read_word(m->weights, sizeof m->weights, o, "weights_sha256", err) ||
        !json_get_f64(o, "target_bpw", &m->target_bpw, err) ||
        !json_get_f64(o, "achieved_bpw", &m->achieved_bpw, err) ||
        !json_get_f64(o, "bits_per_weight", &m->bits_per_weight, err) ||
        !json_get_i64(o, "bytes", &m->bytes, err) || !json_get_i64(o, "n_high_bits", &high, err) ||
        !json_get_i64(o, "n_low_bits", &low, err))
        return false;
    if (strcmp(format, "mlx") != 0 && strcmp(format, "gguf") != 0)
        return err_set(err, ERR_INPUT, "format is \"%s\", expected mlx or gguf", format);
    if (strcmp(model, "assistant") != 0 && strcmp(model, "target") != 0)
        return err_set(err, ERR_INPUT, "model is \"%s\", expected assistant or target", model);
    m->format = format[0] == 'm' ? MIX_MLX : MIX_GGUF;
    m->target = model[0] == 't';
    m->high = (int)high;
    m->low = (int)low;
    return true;
}

Mix *mix_read(const char *path, Err *err) {
    json_t *o = json_read_file(path, MIX_LIMIT, err);
    if (o == NULL) return NULL;
    Mix *m = calloc(1, sizeof *m);
    CHECK_MEMORY(m);
    const bool ok = read_head(m, o, err) && read_modules(m, json_object_get(o, "modules"), err);
    json_decref(o);
    if (ok) return m;
    err_wrap(err, "%s", path);
    mix_free(m);
    return NULL;
}

static json_t *module_json(const MixModule *m) {
    const MixType *t = &m->type;
    json_t *o = t->format == MIX_GGUF ? json_pack("{ss}", "type", ggml_type(t->type)->name)
                                      : json_pack("{si si ss}", "bits", t->mlx.bits, "group_size",
                                                  t->mlx.group, "mode", mlx_mode_name(t->mlx.mode));
    if (!isnan(m->kl)) json_object_set_new(o, "kl", json_real(m->kl));
    if (!isnan(m->lost)) json_object_set_new(o, "lost_tokens", json_real(m->lost));
    return o;
}

bool mix_write(const char *path, const Mix *m, Err *err) {
    json_t *modules = json_object();
    for (int i = 0; i < m->n; i++)
        json_object_set_new(modules, m->module[i].module, module_json(&m->module[i]));
    json_t *o = json_pack("{ss ss ss ss ss ss sf sf sf sI si si so}", "kind", "mix", "model",
                          m->target ? "target" : "assistant", "format", mix_format_name(m->format),
                          "method", m->method, "reference", m->reference, "weights_sha256",
                          m->weights, "target_bpw", m->target_bpw, "achieved_bpw", m->achieved_bpw,
                          "bits_per_weight", m->bits_per_weight, "bytes", (json_int_t)m->bytes,
                          "n_high_bits", m->high, "n_low_bits", m->low, "modules", modules);
    CHECK_MEMORY(o);
    const bool ok = json_write_file(path, o, err);
    json_decref(o);
    return ok;
}
