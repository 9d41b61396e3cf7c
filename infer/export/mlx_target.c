// infer/export/mlx_target.c - renames the target's tensors, splits its experts, hands rows to the
// writer.
#include "infer/export/mlx_target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/export/companions.h"
#include "infer/export/mlx.h"

enum { CONFIG_LIMIT = 16 << 20 };

bool mlx_target_prefix(const char *dir, const char **prefix, Err *err) {
    char path[PATH_ROOM];
    json_t *config = json_read_file(path_join(path, dir, "config.json"), CONFIG_LIMIT, err);
    if (config == NULL) return false;
    *prefix =
        json_is_object(json_object_get(config, "text_config")) ? "language_model.model." : "model.";
    json_decref(config);
    return true;
}

typedef struct {
    MlxInput *in;
    MlxTargetPart *part;
    int n;
    const char *prefix;
} List;

static bool ends_with(const char *s, const char *tail) {
    const size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

static bool add(List *l, const MergedTensor *t, int source, const char *name, MlxTargetPart part,
                Err *err) {
    MlxInput *in = &l->in[l->n];
    *in = (MlxInput){.rank = t->tensor->rank};
    if (snprintf(in->name, sizeof in->name, "%s%s", l->prefix, name) >= (int)sizeof in->name)
        return err_set(err, ERR_INPUT, "%s: a name too long", t->tensor->name);
    snprintf(in->dtype, sizeof in->dtype, "%s", t->tensor->dtype);
    memcpy(in->dim, t->tensor->dim, sizeof in->dim);
    if (part.rows > 0) in->dim[in->rank - 2] = part.rows;
    // mlx-lm before 0.32 has it in a layer that cannot be quantised
    in->never = strcmp(name, "per_layer_model_projection.weight") == 0;
    in->fixed = ends_with(name, ".router.proj.weight");
    part.source = source;
    l->part[l->n++] = part;
    return true;
}

// "layers.3.experts.gate_up_proj" of a Hugging Face file: gate above, up below, expert by expert.
static bool add_experts(List *l, const MergedTensor *t, int source, size_t stem, bool both,
                        Err *err) {
    static const char *const NAMES[] = {"gate_proj", "up_proj", "down_proj"};
    const int64_t rows = t->tensor->dim[1], half = rows / 2;
    if (both && rows % 2 != 0)
        return err_set(err, ERR_INPUT, "%s: %lld rows an expert do not divide into gate and up",
                       t->tensor->name, (long long)rows);
    for (int i = both ? 0 : 2; i < (both ? 2 : 3); i++) {
        char name[320];
        snprintf(name, sizeof name, "%.*sexperts.switch_glu.%s.weight", (int)stem, t->name,
                 NAMES[i]);
        const MlxTargetPart part = {.rows = both ? half : 0, .skip = i == 1 ? half : 0};
        if (!add(l, t, source, name, part, err)) return false;
    }
    return true;
}

static bool add_tensor(List *l, const MergedTensor *t, int source, Err *err) {
    static const struct {
        const char *tail;
        bool both;
    } EXPERTS[] = {{"experts.gate_up_proj", true},
                   {"experts.gate_up_proj.weight", true},
                   {"experts.down_proj", false},
                   {"experts.down_proj.weight", false}};
    for (size_t i = 0; i < sizeof EXPERTS / sizeof *EXPERTS; i++)
        if (t->tensor->rank == 3 && ends_with(t->name, EXPERTS[i].tail))
            return add_experts(l, t, source, strlen(t->name) - strlen(EXPERTS[i].tail),
                               EXPERTS[i].both, err);
    return add(l, t, source, t->name, (MlxTargetPart){0}, err);
}

bool mlx_target_inputs(const TargetMerged *m, const char *prefix, MlxInput **in,
                       MlxTargetPart **part, int *n, Err *err) {
    const size_t room = 2 * (size_t)target_merged_count(m) + 1;
    List l = {calloc(room, sizeof *l.in), calloc(room, sizeof *l.part), 0, prefix};
    CHECK_MEMORY(l.in);
    CHECK_MEMORY(l.part);
    bool ok = true;
    for (int i = 0; ok && i < target_merged_count(m); i++) {
        const MergedTensor *t = target_merged_at(m, i);
        if (t->kind == MERGED_TEXT) ok = add_tensor(&l, t, i, err);
    }
    if (ok) {
        *in = l.in;
        *part = l.part;
        *n = l.n;
        return true;
    }
    free(l.in);
    free(l.part);
    return false;
}

typedef struct {
    TargetMerged *m;
    const MlxInput *in;
    const MlxTargetPart *part;
} Rows;

static bool target_rows(void *ctx, int i, int64_t first, int64_t n, void *out, Err *err) {
    Rows *r = ctx;
    const MlxTargetPart *p = &r->part[i];
    const StTensor *t = target_merged_at(r->m, p->source)->tensor;
    if (p->rows == 0) return target_merged_rows(r->m, p->source, first, n, out, err);
    const int64_t all = t->dim[t->rank - 2], row = t->bytes / t->count * t->dim[t->rank - 1];
    for (int64_t at = first, end; at < first + n; at = end) {
        end = (at / p->rows + 1) * p->rows;
        if (end > first + n) end = first + n;
        const int64_t from = at / p->rows * all + p->skip + at % p->rows;
        if (!target_merged_rows(r->m, p->source, from, end - at, (char *)out + (at - first) * row,
                                err))
            return false;
    }
    return true;
}

// Members that say that towers are there go: null reads as "none" everywhere.
static bool write_config(const char *dir, const char *out_dir, const TextConfig *text,
                         const MlxRules *rules, Err *err) {
    static const char *const TOWERS[] = {"vision_config", "audio_config"};
    char path[PATH_ROOM];
    json_t *config = json_read_file(path_join(path, dir, "config.json"), CONFIG_LIMIT, err);
    if (config == NULL) return false;
    json_t *members = json_object();
    for (size_t i = 0; i < sizeof TOWERS / sizeof *TOWERS; i++)
        if (json_is_object(json_object_get(config, TOWERS[i])))
            json_object_set_new(members, TOWERS[i], json_null());
    // mlx-lm takes the vocabulary of a nested model from outside it, or assumes Gemma's own
    json_t *vocab = json_object_get(json_object_get(config, "text_config"), "vocab_size");
    if (vocab != NULL && json_object_get(config, "vocab_size") == NULL)
        json_object_set(members, "vocab_size", vocab);
    mlx_rules_put(rules, members);
    const bool ok = carry_config(dir, out_dir, text, members, err);
    json_decref(members);
    json_decref(config);
    return ok;
}

static bool already_packed(const TargetMerged *m, Err *err) {
    for (int i = 0; i < target_merged_count(m); i++) {
        const StTensor *t = target_merged_at(m, i)->tensor;
        if (strcmp(t->dtype, "U32") == 0)
            return !err_set(err, ERR_INPUT, "%s is packed (U32): MLX files are made from floats",
                            t->name);
    }
    return false;
}

// A merged target and the plan of its export.
typedef struct {
    TargetMerged *merged;
    MlxInput *in;
    MlxTargetPart *part;
    MlxPlan plan;
} Planned;

static void planned_close(Planned *p) {
    mlx_plan_free(&p->plan);
    free(p->in);
    free(p->part);
    target_merged_close(p->merged);
}

// Closed by the caller whatever it returns.
static bool planned_open(Planned *p, const char *dir, const char *adapter, const MlxRecipe *recipe,
                         int64_t shard_bytes, Err *err) {
    const char *prefix;
    int n = 0;
    *p = (Planned){.merged = target_merged_open(dir, adapter, err)};
    return p->merged != NULL && !already_packed(p->merged, err) &&
           mlx_target_prefix(dir, &prefix, err) &&
           mlx_target_inputs(p->merged, prefix, &p->in, &p->part, &n, err) &&
           mlx_plan_make(&p->plan, p->in, n, recipe, shard_bytes, err);
}

bool mlx_target_plan(const char *dir, const char *adapter, const MlxRecipe *recipe,
                     int64_t shard_bytes, MlxPlan *plan, Err *err) {
    Planned p;
    const bool ok = planned_open(&p, dir, adapter, recipe, shard_bytes, err);
    if (ok) {
        *plan = p.plan;
        p.plan = (MlxPlan){0};
    }
    planned_close(&p);
    return ok;
}

bool mlx_target_write(const char *dir, const char *adapter, const char *out_dir,
                      const MlxRecipe *recipe, int64_t shard_bytes, char encoding[256], Err *err) {
    Planned p;
    bool ok = planned_open(&p, dir, adapter, recipe, shard_bytes, err);
    if (ok) {
        const MlxPlan *plan = &p.plan;
        Rows rows = {p.merged, p.in, p.part};
        const MlxSource src = {&rows, target_rows};
        mlx_plan_tell(plan, recipe->name);
        log_info("MLX %s: a target of %.2f GB in %d file%s", recipe->name,
                 (double)plan->bytes * 1e-9, plan->shards, plan->shards == 1 ? "" : "s");
        mlx_rules_text(&plan->rules, encoding);
        ok = mlx_write_planned(out_dir, p.in, plan, &src, err) &&
             write_config(dir, out_dir, &target_merged_config(p.merged)->text, &plan->rules, err) &&
             carry_tokenizer(dir, out_dir, err) && carry_generation(dir, out_dir, 0, err);
    }
    planned_close(&p);
    return ok;
}
