// infer/export/export_mlx_plan.c - recipe, plan, sizes; no weight is read.
#include "infer/export/export_mlx_plan.h"

#include "infer/export/mlx.h"
#include "infer/export/mlx_target.h"

bool export_plan_assistant(ExportPlan *p, const ExportJob *j, const char *option,
                           const char *folder, Err *err) {
    MlxRecipe r;
    Mix *mix;
    MlxPlan m = {0};
    if (!export_job_recipe(j, option, "", &r, &mix, err)) return false;
    const bool ok = mlx_assistant_plan(j->s->model.assistant_path, &r, &m, err) &&
                    export_plan_mlx(p, folder, &m, err);
    mlx_plan_free(&m);
    mlx_recipe_free(&r);
    mix_free(mix);
    return ok;
}

bool export_plan_target(ExportPlan *p, const ExportJob *j, const char *option, const char *folder,
                        Err *err) {
    const char *prefix;
    const Settings *s = j->s;
    MlxRecipe r;
    Mix *mix;
    MlxPlan m = {0};
    if (!mlx_target_prefix(s->model.target_path, &prefix, err) ||
        !export_job_recipe(j, option, prefix, &r, &mix, err))
        return false;
    const bool ok = mlx_target_plan(s->model.target_path, s->model.adapter_path, &r,
                                    MLX_SHARD_BYTES, &m, err) &&
                    export_plan_mlx(p, folder, &m, err);
    mlx_plan_free(&m);
    mlx_recipe_free(&r);
    mix_free(mix);
    return ok;
}
