// infer/export/mlx_plan.c - which scheme each module gets, what is stored for it, and where.
#include "infer/export/mlx_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t elements_of(const MlxInput *in) {
    int64_t n = 1;
    for (int i = 0; i < in->rank; i++) n *= in->dim[i];
    return n;
}

// The module of a weight that could be quantised: a matrix, or a stack of them.
static bool module_of(const MlxInput *in, char module[MLX_PATH_ROOM]) {
    const size_t n = strlen(in->name), tail = strlen(".weight");
    if (in->rank < 2 || n <= tail || strcmp(in->name + n - tail, ".weight") != 0) return false;
    snprintf(module, MLX_PATH_ROOM, "%.*s", (int)(n - tail), in->name);
    return true;
}

static bool is_float(const char *dtype) {
    return strcmp(dtype, "BF16") == 0 || strcmp(dtype, "F32") == 0 || strcmp(dtype, "F16") == 0;
}

static void set_requant(MlxScheme *s, Requant r) {
    s->requant =
        s->mode == MLX_AFFINE && (r == REQUANT_ALWAYS || (r == REQUANT_AUTO && s->bits == 8));
}

// Whether a module is quantised, and how.
static bool choose(MlxPlan *p, const MlxInput *in, const char *module, const MlxRecipe *r,
                   MlxScheme *s) {
    const MlxRule *own = mlx_rules_find(&r->own, module);
    if (!r->quantise || in->never || (own != NULL && own->keep)) return false;
    if (in->head && !r->heads) {
        p->kept_heads++;
        return false;
    }
    *s = own != NULL ? own->scheme : r->root;
    if (in->fixed && own == NULL) *s = (MlxScheme){.mode = MLX_AFFINE, .bits = 8, .group = 64};
    set_requant(s, r->requant);
    if (mlx_row_words(s, in->dim[in->rank - 1]) < 0 || elements_of(in) % 64 != 0) {
        if (p->kept_rows++ == 0) snprintf(p->unfit, sizeof p->unfit, "%s", module);
        return false;
    }
    return true;
}

static void add_rule(MlxPlan *p, const char *module, bool quantised, const MlxScheme *s,
                     const MlxRecipe *r) {
    if (!r->quantise) return;
    if (!quantised)
        mlx_rules_add(&p->rules, module, true, s);
    else if (r->own.n > 0 || !mlx_scheme_same(s, &r->root)) // mixed: every module is named
        mlx_rules_add(&p->rules, module, false, s);
}

static void add_output(MlxPlan *p, const MlxInput *in, int input, MlxPart part, const char *dtype,
                       int64_t last, int64_t width) {
    static const char *const TAIL[] = {"", "", ".scales", ".biases"};
    MlxOutput *o = &p->out[p->n++];
    const bool other = part == MLX_SCALES || part == MLX_BIASES;
    const int stem = (int)strlen(in->name) - (other ? (int)strlen(".weight") : 0);
    *o = (MlxOutput){.part = part, .input = input, .rank = in->rank, .bytes = width};
    snprintf(o->name, sizeof o->name, "%.*s%s", stem, in->name, TAIL[part]);
    snprintf(o->dtype, sizeof o->dtype, "%s", dtype);
    for (int i = 0; i < in->rank; i++) {
        o->dim[i] = part != MLX_PLAIN && i == in->rank - 1 ? last : in->dim[i];
        o->bytes *= o->dim[i];
    }
}

static int64_t dtype_width(const char *dtype) {
    static const struct {
        const char *name;
        int64_t bytes;
    } WIDTH[] = {{"I64", 8}, {"U64", 8},  {"F64", 8}, {"F32", 4}, {"I32", 4},
                 {"U32", 4}, {"BF16", 2}, {"F16", 2}, {"I16", 2}, {"U16", 2},
                 {"U8", 1},  {"I8", 1},   {"BOOL", 1}};
    for (size_t i = 0; i < sizeof WIDTH / sizeof *WIDTH; i++)
        if (strcmp(dtype, WIDTH[i].name) == 0) return WIDTH[i].bytes;
    return -1;
}

static bool add_input(MlxPlan *p, const MlxInput *in, int i, const MlxRecipe *r, Err *err) {
    char module[MLX_PATH_ROOM];
    MlxScheme s = {0};
    const bool weight = module_of(in, module);
    p->elements += elements_of(in);
    if (dtype_width(in->dtype) < 0)
        return err_set(err, ERR_INPUT, "%s: MLX reads no %s", in->name, in->dtype);
    p->quantised[i] = weight && is_float(in->dtype) && choose(p, in, module, r, &s);
    if (weight) add_rule(p, module, p->quantised[i], &s, r);
    if (!p->quantised[i]) {
        add_output(p, in, i, MLX_PLAIN, in->dtype, 0, dtype_width(in->dtype));
        return true;
    }
    const int64_t cols = in->dim[in->rank - 1], groups = mlx_row_groups(&s, cols);
    const bool affine = mlx_has_biases(&s);
    p->scheme[i] = s;
    p->weights += elements_of(in);
    p->bits += s.bits * (double)elements_of(in);
    add_output(p, in, i, MLX_WORDS, "U32", mlx_row_words(&s, cols), 4);
    add_output(p, in, i, MLX_SCALES, affine ? "BF16" : "U8", groups, affine ? 2 : 1);
    if (affine) add_output(p, in, i, MLX_BIASES, "BF16", groups, 2);
    return true;
}

// Greedy, in the order given; what belongs to one module stays together.
static void split(MlxPlan *p, int64_t shard_bytes) {
    int64_t used = 0;
    int shard = 0;
    for (int i = 0; i < p->n;) {
        int64_t next = 0;
        int end = i;
        for (; end < p->n && p->out[end].input == p->out[i].input; end++) next += p->out[end].bytes;
        if (used > 0 && used + next > shard_bytes) {
            shard++;
            used = 0;
        }
        used += next;
        p->bytes += next;
        for (; i < end; i++) p->out[i].shard = shard;
    }
    p->shards = shard + 1;
}

static bool all_found(const MlxRecipe *r, const MlxInput *in, int n, Err *err) {
    for (int k = 0; k < r->own.n; k++) {
        char module[MLX_PATH_ROOM];
        bool found = false;
        for (int i = 0; i < n && !found; i++)
            found = module_of(&in[i], module) && strcmp(module, r->own.rule[k].module) == 0;
        if (!found)
            return err_set(err, ERR_INPUT, "%s: the model has no module %s", r->name,
                           r->own.rule[k].module);
    }
    return true;
}

bool mlx_plan_make(MlxPlan *p, const MlxInput *in, int n, const MlxRecipe *r, int64_t shard_bytes,
                   Err *err) {
    *p = (MlxPlan){.rules = {.root = r->root}};
    p->out = calloc(3 * (size_t)n + 1, sizeof *p->out);
    p->scheme = calloc((size_t)n + 1, sizeof *p->scheme);
    p->quantised = calloc((size_t)n + 1, sizeof *p->quantised);
    CHECK_MEMORY(p->out);
    CHECK_MEMORY(p->scheme);
    CHECK_MEMORY(p->quantised);
    bool ok = all_found(r, in, n, err);
    for (int i = 0; ok && i < n; i++) ok = add_input(p, &in[i], i, r, err);
    if (ok) {
        split(p, shard_bytes);
        p->rules.present = p->weights > 0;
        if (p->weights > 0) p->bits /= (double)p->weights;
        return true;
    }
    mlx_plan_free(p);
    return false;
}

void mlx_plan_free(MlxPlan *p) {
    free(p->out);
    free(p->scheme);
    free(p->quantised);
    mlx_rules_free(&p->rules);
    *p = (MlxPlan){0};
}

const char *mlx_shard_name(const MlxPlan *p, int shard, char out[64]) {
    if (p->shards == 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05d-of-%05d.safetensors", shard + 1, p->shards);
    return out;
}
