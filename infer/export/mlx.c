// infer/export/mlx.c - an assistant's tensors as inputs of the MLX writer.
#include "infer/export/mlx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/model/gemma4_config.h"

static bool is_ordering(const char *name) {
    return strcmp(name, "masked_embedding.token_ordering") == 0;
}

// I64 -> I32 in place; an id that does not fit would name another token.
static bool narrow(const StTensor *t, void *data, Err *err) {
    if (strcmp(t->dtype, "I32") == 0) return true;
    const char *from = data;
    char *to = data;
    for (int64_t i = 0; i < t->count; i++) {
        int64_t id;
        memcpy(&id, from + i * 8, 8);
        if (id < 0 || id > INT32_MAX)
            return err_set(err, ERR_INPUT, "%s[%lld]: %lld is no token id", t->name, (long long)i,
                           (long long)id);
        const int32_t small = (int32_t)id;
        memcpy(to + i * 4, &small, 4);
    }
    return true;
}

static bool fill_input(MlxInput *in, const StTensor *t, bool ordered, Err *err) {
    const bool ordering = is_ordering(t->name);
    if (strlen(t->name) >= sizeof in->name)
        return err_set(err, ERR_INPUT, "%.64s...: a name of %zu bytes", t->name, strlen(t->name));
    if (strcmp(t->dtype, "U32") == 0)
        return err_set(err, ERR_INPUT, "%s is packed (U32): MLX files are made from floats",
                       t->name);
    if (ordering && strcmp(t->dtype, "I64") != 0 && strcmp(t->dtype, "I32") != 0)
        return err_set(err, ERR_INPUT, "%s: dtype %s, expected I64 or I32", t->name, t->dtype);
    *in = (MlxInput){.rank = t->rank};
    strcpy(in->name, t->name);
    snprintf(in->dtype, sizeof in->dtype, "%s", ordering ? "I32" : t->dtype);
    memcpy(in->dim, t->dim, sizeof in->dim);
    in->head = ordered && (strcmp(t->name, "model.embed_tokens.weight") == 0 ||
                           strcmp(t->name, "masked_embedding.centroids.weight") == 0);
    return true;
}

bool mlx_assistant_inputs(const StFile *stock, bool ordered, MlxInput **in, int *n, Err *err) {
    *n = st_count(stock);
    *in = calloc((size_t)*n + 1, sizeof **in);
    CHECK_MEMORY(*in);
    for (int i = 0; i < *n; i++)
        if (!fill_input(&(*in)[i], st_at(stock, i), ordered, err)) {
            free(*in);
            *in = NULL;
            return err_wrap(err, "%s", st_path(stock));
        }
    return true;
}

// The tensor asked for last, whole, as it goes out.
typedef struct {
    const StFile *stock;
    const HfSource *from;
    int held; // -1: none
    char *data;
} Assistant;

static bool hold(Assistant *a, int i, Err *err) {
    const StTensor *t = st_at(a->stock, i);
    bool have = false;
    if (a->held == i) return true;
    free(a->data);
    a->held = -1;
    if ((a->data = malloc((size_t)t->bytes + 1)) == NULL)
        return err_set(err, ERR_FAILED, "%s: out of memory", t->name);
    if (!a->from->fetch(a->from->ctx, t, a->data, &have, err)) return false;
    if (!have && !st_read(a->stock, t, a->data, err)) return false;
    if (is_ordering(t->name) && !narrow(t, a->data, err)) return false;
    a->held = i;
    return true;
}

static bool assistant_rows(void *ctx, int i, int64_t first, int64_t n, void *out, Err *err) {
    Assistant *a = ctx;
    const StTensor *t = st_at(a->stock, i);
    if (!hold(a, i, err)) return false;
    const int64_t width = is_ordering(t->name) ? 4
                          : t->count > 0       ? t->bytes / t->count
                                               : 0,
                  row = width * (t->rank > 0 ? t->dim[t->rank - 1] : 1);
    memcpy(out, a->data + first * row, (size_t)(n * row));
    return true;
}

void mlx_plan_tell(const MlxPlan *plan, const char *what) {
    if (plan->kept_heads > 0)
        log_info(
            "MLX %s: %d modules of the ordered head stay as they are, since mlx-vlm cannot draft "
            "from packed ones (export.heads=true quantises them too)",
            what, plan->kept_heads);
    if (plan->kept_rows > 0)
        log_info("MLX %s: %d modules stay as they are, their rows are no multiple of the group "
                 "(the first: %s)",
                 what, plan->kept_rows, plan->unfit);
}

bool mlx_assistant_plan(const char *stock_dir, const MlxRecipe *recipe, MlxPlan *plan, Err *err) {
    AssistantConfig config;
    MlxInput *in = NULL;
    int n = 0;
    StFile *stock = st_open(stock_dir, err);
    const bool ok = stock != NULL && assistant_config_load(&config, stock_dir, err) &&
                    mlx_assistant_inputs(stock, config.ordered != 0, &in, &n, err) &&
                    mlx_plan_make(plan, in, n, recipe, MLX_SHARD_BYTES, err);
    free(in);
    st_close(stock);
    return ok;
}

bool mlx_write(const char *stock_dir, const char *out_dir, const HfSource *src,
               const MlxRecipe *recipe, MlxRules *rules, Err *err) {
    AssistantConfig config;
    MlxInput *in = NULL;
    MlxPlan plan = {0};
    int n = 0;
    StFile *stock = st_open(stock_dir, err);
    if (stock == NULL) return false;
    Assistant a = {.stock = stock, .from = src, .held = -1};
    const MlxSource from = {&a, assistant_rows};
    bool ok = assistant_config_load(&config, stock_dir, err) &&
              mlx_assistant_inputs(stock, config.ordered != 0, &in, &n, err) &&
              mlx_plan_make(&plan, in, n, recipe, MLX_SHARD_BYTES, err);
    if (ok) mlx_plan_tell(&plan, recipe->name);
    ok = ok && mlx_write_planned(out_dir, in, &plan, &from, err);
    if (ok) {
        *rules = plan.rules;
        plan.rules = (MlxRules){0};
    }
    mlx_plan_free(&plan);
    free(in);
    free(a.data);
    st_close(stock);
    return ok;
}
