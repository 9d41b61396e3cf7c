// infer/format/mlx_model.c - words, scales and biases found for each rule, checked, decoded.
#include "infer/format/mlx_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"

enum { PIECE_BYTES = 16 << 20, CONFIG_LIMIT = 16 << 20 };

struct MlxModel {
    StFile *file;
    MlxRules rules;
    MlxTensor *tensor; // in file order
    int n;
};

static bool ends_with(const char *s, const char *tail, size_t *stem) {
    const size_t n = strlen(s), m = strlen(tail);
    *stem = n >= m ? n - m : 0;
    return n > m && strcmp(s + n - m, tail) == 0;
}

// "module" + tail of the file, NULL = absent.
static const StTensor *beside(const StFile *f, const char *module, const char *tail) {
    char name[MLX_PATH_ROOM + 16];
    snprintf(name, sizeof name, "%s%s", module, tail);
    return st_find(f, name);
}

// The module of a key that ends in tail; false: another kind of key, or longer than modules are.
static bool module_of(const char *key, const char *tail, char module[MLX_PATH_ROOM]) {
    size_t stem;
    if (!ends_with(key, tail, &stem) || stem >= MLX_PATH_ROOM) return false;
    snprintf(module, MLX_PATH_ROOM, "%.*s", (int)stem, key);
    return true;
}

static bool same_lead(const StTensor *a, const StTensor *b) {
    bool same = a->rank == b->rank;
    for (int i = 0; same && i < a->rank - 1; i++) same = a->dim[i] == b->dim[i];
    return same;
}

static bool check_dtype(const StTensor *t, const char *want, Err *err) {
    return strcmp(t->dtype, want) == 0 ||
           err_set(err, ERR_INPUT, "%s is %s, expected %s", t->name, t->dtype, want);
}

// Shapes and dtypes of a quantised module; fills the decoded shape.
static bool check_module(MlxTensor *t, Err *err) {
    const MlxScheme *s = &t->scheme;
    const StTensor *w = t->stored;
    const bool affine = mlx_has_biases(s);
    if (affine != (t->biases != NULL))
        return err_set(err, ERR_INPUT, "%s: mode %s %s biases, the file has %s", t->name,
                       mlx_mode_name(s->mode), affine ? "has" : "has no",
                       t->biases != NULL ? "some" : "none");
    if (!check_dtype(w, "U32", err) || !check_dtype(t->scales, affine ? "BF16" : "U8", err) ||
        (affine && !check_dtype(t->biases, "BF16", err)))
        return false;
    if (w->rank < 2 || !same_lead(w, t->scales) ||
        (affine &&
         (!same_lead(w, t->biases) || t->biases->dim[w->rank - 1] != t->scales->dim[w->rank - 1])))
        return err_set(err, ERR_INPUT, "%s: weight, scales and biases have different rows",
                       t->name);
    const int64_t groups = t->scales->dim[w->rank - 1], words = w->dim[w->rank - 1];
    const int64_t cols = groups <= INT64_MAX / s->group ? groups * s->group : -1;
    if (cols < 1 || mlx_row_words(s, cols) != words)
        return err_set(err, ERR_INPUT,
                       "%s: %lld words and %lld scales a row are not %d bits in groups of %d",
                       t->name, (long long)words, (long long)groups, s->bits, s->group);
    t->rank = w->rank;
    t->count = cols;
    for (int i = 0; i < w->rank - 1; i++) {
        t->dim[i] = w->dim[i];
        t->count *= w->dim[i]; // below the words' own count times 32
    }
    t->dim[w->rank - 1] = cols;
    return true;
}

static void plain_tensor(MlxTensor *t, const StTensor *w) {
    *t = (MlxTensor){.name = w->name, .rank = w->rank, .count = w->count, .stored = w};
    memcpy(t->dim, w->dim, sizeof t->dim);
}

// What a key of the file is: a weight (added), or a part of one (passed over).
static bool add_tensor(MlxModel *m, const StTensor *w, Err *err) {
    char module[MLX_PATH_ROOM];
    const bool part =
        module_of(w->name, ".scales", module) || module_of(w->name, ".biases", module);
    if (part && beside(m->file, module, ".weight") == NULL)
        return err_set(err, ERR_INPUT, "%s has no %s.weight", w->name, module);
    if (part && beside(m->file, module, ".scales") == NULL)
        return err_set(err, ERR_INPUT, "%s has no %s.scales", w->name, module);
    if (part) return true;
    MlxTensor *t = &m->tensor[m->n++];
    plain_tensor(t, w);
    if (!module_of(w->name, ".weight", module)) return true;
    const MlxRule *rule = mlx_rules_find(&m->rules, module);
    t->scales = beside(m->file, module, ".scales");
    t->biases = beside(m->file, module, ".biases");
    const bool said = rule != NULL && !rule->keep;
    if (t->scales == NULL && strcmp(w->dtype, "U32") == 0)
        return err_set(err, ERR_INPUT, "%s is packed (U32) and has no scales", w->name);
    if (t->scales == NULL)
        return !said || err_set(err, ERR_INPUT,
                                "config.json quantises %s, the file has no scales of it", module);
    if (rule != NULL && rule->keep)
        return err_set(err, ERR_INPUT, "config.json keeps %s, the file has scales of it", module);
    if (!m->rules.present)
        return err_set(err, ERR_INPUT, "%s.scales, and config.json has no quantization", module);
    t->quantised = true;
    t->scheme = rule != NULL ? rule->scheme : m->rules.root;
    return check_module(t, err);
}

// A rule that quantises something that is not there would make strict loaders fail.
static bool check_rules(const MlxModel *m, Err *err) {
    for (int i = 0; i < m->rules.n; i++) {
        const MlxRule *r = &m->rules.rule[i];
        if (!r->keep && beside(m->file, r->module, ".scales") == NULL)
            return err_set(err, ERR_INPUT, "config.json quantises %s, the file has no scales of it",
                           r->module);
    }
    return true;
}

MlxModel *mlx_model_of(StFile *file, const json_t *config, Err *err) {
    MlxModel *m = calloc(1, sizeof *m);
    CHECK_MEMORY(m);
    m->file = file;
    m->tensor = calloc((size_t)st_count(file) + 1, sizeof *m->tensor);
    CHECK_MEMORY(m->tensor);
    bool ok = mlx_rules_read(&m->rules, config, err);
    for (int i = 0; ok && i < st_count(file); i++) ok = add_tensor(m, st_at(file, i), err);
    if (ok && check_rules(m, err)) return m;
    mlx_model_close(m);
    return NULL;
}

MlxModel *mlx_model_open(const char *dir, Err *err) {
    char path[PATH_ROOM];
    json_t *config = json_read_file(path_join(path, dir, "config.json"), CONFIG_LIMIT, err);
    if (config == NULL) return NULL;
    StFile *file = st_open(dir, err);
    MlxModel *m = file != NULL ? mlx_model_of(file, config, err) : NULL;
    if (file != NULL && m == NULL) err_wrap(err, "%s", dir);
    json_decref(config);
    return m;
}

void mlx_model_close(MlxModel *m) {
    if (m == NULL) return;
    st_close(m->file);
    mlx_rules_free(&m->rules);
    free(m->tensor);
    free(m);
}

const StFile *mlx_model_file(const MlxModel *m) {
    return m->file;
}
const MlxRules *mlx_model_rules(const MlxModel *m) {
    return &m->rules;
}
int mlx_model_count(const MlxModel *m) {
    return m->n;
}
const MlxTensor *mlx_model_at(const MlxModel *m, int i) {
    CHECK(i >= 0 && i < m->n);
    return &m->tensor[i];
}

const MlxTensor *mlx_model_find(const MlxModel *m, const char *name) {
    for (int i = 0; i < m->n; i++)
        if (strcmp(m->tensor[i].name, name) == 0) return &m->tensor[i];
    return NULL;
}

// Room for the packed form of some rows.
typedef struct {
    uint32_t *words;
    void *scales;
    bf16 *biases, *out;
} Packed;

static void packed_free(Packed *p) {
    free(p->words);
    free(p->scales);
    free(p->biases);
    free(p->out);
}

static bool read_packed(const MlxModel *m, const MlxTensor *t, Packed *p, int64_t first, int64_t n,
                        float *out, Err *err) {
    const int64_t cols = t->dim[t->rank - 1], words = 4 * mlx_row_words(&t->scheme, cols),
                  scales = mlx_row_scale_bytes(&t->scheme, cols),
                  groups = mlx_row_groups(&t->scheme, cols);
    if (!st_read_part(m->file, t->stored, first * words, n * words, p->words, err) ||
        !st_read_part(m->file, t->scales, first * scales, n * scales, p->scales, err))
        return false;
    if (t->biases != NULL &&
        !st_read_part(m->file, t->biases, first * groups * 2, n * groups * 2, p->biases, err))
        return false;
    if (!mlx_decode(&t->scheme, p->out, p->words, p->scales, p->biases, n, cols, err))
        return err_wrap(err, "%s", t->name);
    for (int64_t i = 0; i < n * cols; i++) out[i] = bf16_to_f32(p->out[i]);
    return true;
}

static bool decode_rows(const MlxModel *m, const MlxTensor *t, int64_t first, int64_t n, float *out,
                        Err *err) {
    const int64_t cols = t->dim[t->rank - 1];
    int64_t piece = PIECE_BYTES / (2 * cols) + 1;
    if (piece > n) piece = n;
    Packed p = {
        .words = malloc((size_t)(piece * 4 * mlx_row_words(&t->scheme, cols)) + 1),
        .scales = malloc((size_t)(piece * mlx_row_scale_bytes(&t->scheme, cols)) + 1),
        .biases =
            t->biases ? malloc((size_t)(piece * 2 * mlx_row_groups(&t->scheme, cols)) + 1) : NULL,
        .out = malloc((size_t)(piece * cols) * sizeof *p.out + 1),
    };
    bool ok = p.words != NULL && p.scales != NULL && p.out != NULL &&
              (t->biases == NULL || p.biases != NULL);
    if (!ok) err_set(err, ERR_FAILED, "%s: out of memory", t->name);
    for (int64_t at = 0; ok && at < n; at += piece) {
        const int64_t rows = n - at < piece ? n - at : piece;
        ok = read_packed(m, t, &p, first + at, rows, out + at * cols, err);
    }
    packed_free(&p);
    return ok;
}

// Some rows of a plain tensor as a tensor of its own.
static StTensor row_slice(const StTensor *t, int64_t first, int64_t n, int64_t cols) {
    StTensor s = *t;
    const int64_t row = t->count > 0 ? t->bytes / t->count * cols : 0;
    s.rank = 2;
    s.dim[0] = n;
    s.dim[1] = cols;
    s.count = n * cols;
    s.bytes = n * row;
    s.offset = t->offset + first * row;
    return s;
}

bool mlx_model_rows(const MlxModel *m, const MlxTensor *t, int64_t first, int64_t n, float *out,
                    Err *err) {
    const int64_t cols = t->rank > 0 ? t->dim[t->rank - 1] : 1;
    CHECK(first >= 0 && n >= 0 && (first + n) * cols <= t->count);
    if (n == 0) return true;
    if (t->quantised) return decode_rows(m, t, first, n, out, err);
    const StTensor part = row_slice(t->stored, first, n, cols);
    return st_read_f32(m->file, &part, out, err);
}

bool mlx_model_read(const MlxModel *m, const MlxTensor *t, float *out, Err *err) {
    const int64_t cols = t->rank > 0 ? t->dim[t->rank - 1] : 1;
    return mlx_model_rows(m, t, 0, cols > 0 ? t->count / cols : 0, out, err);
}
