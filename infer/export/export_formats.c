// infer/export/export_formats.c - the table of formats.
#include <stdio.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/export/export_gguf.h"
#include "infer/export/export_mlx_plan.h"
#include "infer/export/mlx_target.h"
#include "infer/export/mtplx.h"
#include "infer/model/target.h"

// What was half built goes when a format fails.
static bool finish(bool ok, const char *tmp, const char *dir, Err *err) {
    Err ignored = {0};
    if (ok && repo_replace(tmp, dir, err)) return true;
    if (!dir_remove(tmp, &ignored)) log_warn("%s: left behind: %s", tmp, ignored.text);
    return false;
}

static bool write_hf(const ExportJob *j, const char *option, const char *dir, Err *err) {
    (void)option;
    const RepoInputs in = export_job_repo(j);
    return repo_write(&in, dir, err);
}

static bool check_recipe(const ExportJob *j, const char *option, const char *prefix, Err *err) {
    MlxRecipe r;
    Mix *mix;
    if (!export_job_recipe(j, option, prefix, &r, &mix, err)) return false;
    mlx_recipe_free(&r);
    mix_free(mix);
    return true;
}

static bool check_mlx(const ExportJob *j, const char *option, Err *err) {
    return check_recipe(j, option, "", err);
}

static bool check_target_mlx(const ExportJob *j, const char *option, Err *err) {
    return check_recipe(j, option, "model.", err);
}

static bool write_mlx(const ExportJob *j, const char *option, const char *dir, Err *err) {
    MlxRecipe r;
    Mix *mix;
    if (!export_job_recipe(j, option, "", &r, &mix, err)) return false;
    RepoInputs in = export_job_repo(j);
    in.mlx = &r;
    const bool ok = repo_write(&in, dir, err);
    mlx_recipe_free(&r);
    mix_free(mix);
    return ok;
}

static bool plan_hf(const ExportJob *j, const char *option, ExportPlan *p, Err *err) {
    (void)option;
    return export_plan_mirror(p, j->s->model.assistant_path, err);
}

static bool plan_target_hf(const ExportJob *j, const char *option, ExportPlan *p, Err *err) {
    (void)option;
    return export_plan_mirror(p, j->s->model.target_path, err);
}

static bool plan_mlx(const ExportJob *j, const char *option, ExportPlan *p, Err *err) {
    return export_plan_assistant(p, j, option, "", err);
}

static bool plan_target_mlx(const ExportJob *j, const char *option, ExportPlan *p, Err *err) {
    return export_plan_target(p, j, option, "", err);
}

static bool identity_of(const ExportJob *j, const char *option, bool target, json_t *identity,
                        Err *err) {
    const Settings *s = j->s;
    Sha256 sha;
    json_object_set_new(identity, "group", json_integer((json_int_t)s->export_.group));
    json_object_set_new(identity, "heads", json_boolean(s->export_.heads));
    json_object_set_new(identity, "requant", json_string(s->export_.requant));
    if (strcmp(option, "mixed") != 0) return true;
    if (!export_job_mix_sha(j, target, &sha, err)) return false;
    json_object_set_new(identity, target ? "target_mix" : "mix", json_string(sha.hex));
    return true;
}

static bool identity_mlx(const ExportJob *j, const char *option, json_t *identity, Err *err) {
    return identity_of(j, option, false, identity, err);
}

static bool identity_target_mlx(const ExportJob *j, const char *option, json_t *identity,
                                Err *err) {
    return identity_of(j, option, true, identity, err);
}

static bool write_target_hf(const ExportJob *j, const char *option, const char *dir, Err *err) {
    (void)option;
    char tmp[PATH_ROOM];
    const Settings *s = j->s;
    const CardFacts card = export_job_card(j, CARD_TARGET_HF);
    return repo_begin(tmp, dir, err) != NULL &&
           finish(target_export(s->model.target_path, s->model.adapter_path, tmp, err) &&
                      card_write(tmp, &card, err) && dir_sync(tmp, err),
                  tmp, dir, err);
}

static bool write_target_mlx(const ExportJob *j, const char *option, const char *dir, Err *err) {
    char tmp[PATH_ROOM], encoding[256] = "", base[256];
    const char *prefix;
    const Settings *s = j->s;
    MlxRecipe r;
    Mix *mix;
    CardFacts card = export_job_card(j, CARD_TARGET_MLX);
    if (!mlx_target_prefix(s->model.target_path, &prefix, err) ||
        !export_job_recipe(j, option, prefix, &r, &mix, err))
        return false;
    card.encoding = encoding;
    card_model_name(s->model.target_path, base);
    const bool ok = repo_begin(tmp, dir, err) != NULL &&
                    finish(mlx_target_write(s->model.target_path, s->model.adapter_path, tmp, &r,
                                            MLX_SHARD_BYTES, encoding, err) &&
                               (mix == NULL || mlx_recipe_metadata(&r, tmp, base, err)) &&
                               card_write(tmp, &card, err) && dir_sync(tmp, err),
                           tmp, dir, err);
    mlx_recipe_free(&r);
    mix_free(mix);
    return ok;
}

#define MLX_OPTIONS "q8|q6|q5|q4|q3|q2|mxfp4|mxfp8|nvfp4|mixed"
static const ExportFormat FORMATS[] = {
    {"hf", NULL, true, false, NULL, write_hf, plan_hf, NULL},
    {"mlx", MLX_OPTIONS, true, false, check_mlx, write_mlx, plan_mlx, identity_mlx},
    {"target-hf", NULL, false, true, NULL, write_target_hf, plan_target_hf, NULL},
    {"target-mlx", MLX_OPTIONS, false, true, check_target_mlx, write_target_mlx, plan_target_mlx,
     identity_target_mlx},
    {"gguf", GGUF_OPTIONS, true, false, export_gguf_check, export_gguf_write, export_gguf_plan,
     export_gguf_identity},
    {"gguf-ik", GGUF_OPTIONS, true, false, export_gguf_check, export_gguf_ik_write,
     export_gguf_ik_plan, export_gguf_identity},
    {"mtplx", "quality|speed|bf16", true, true, mtplx_check_option, mtplx_write, mtplx_plan,
     mtplx_identity},
};

const ExportFormat *export_format(const char *item, const char **option, Err *err) {
    const size_t n = strcspn(item, ":");
    *option = item[n] == ':' ? item + n + 1 : item + n;
    for (size_t i = 0; i < sizeof FORMATS / sizeof *FORMATS; i++) {
        const ExportFormat *f = &FORMATS[i];
        if (strlen(f->name) != n || strncmp(f->name, item, n) != 0) continue;
        if (item[n] == ':' && (f->options == NULL || **option == '\0')) {
            err_set(err, ERR_USAGE, "export.to: \"%s\", %s takes %s", item, f->name,
                    f->options != NULL ? f->options : "nothing behind it");
            return NULL;
        }
        return f;
    }
    err_set(err, ERR_USAGE, "export.to: \"%s\" is no format", item);
    return NULL;
}

char *export_folder(char out[PATH_ROOM], const ExportJob *j, const char *item) {
    char name[256];
    snprintf(name, sizeof name, "%s", item);
    for (char *p = name; *p != '\0'; p++)
        if (*p == ':') *p = '-';
    return path_join(out, j->root, name);
}
