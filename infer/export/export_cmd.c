// infer/export/export_cmd.c - the verb: asks the gate, has each format written, prints hashes.
#include "infer/export/export_cmd.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/hash_cache.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/base/stage.h"
#include "infer/export/archive_file.h"
#include "infer/export/export_job.h"
#include "infer/export/tree.h"

static const char *item_at(const ExportJob *j, int i) {
    return j->s->export_.to.item[i];
}

static bool print_hashes(const char *dir, const char *hashes, bool json, json_t *all, Err *err) {
    char path[PATH_ROOM];
    int n = 0;
    char **names = tree_list(dir, &n, err);
    json_t *files = json_object();
    bool ok = names != NULL;
    for (int i = 0; ok && i < n; i++) {
        Sha256 sha;
        ok = sha256_remembered(&sha, path_join(path, dir, names[i]), hashes, err);
        if (ok && !json) printf("%s  %s\n", sha.hex, path);
        if (ok) json_object_set_new(files, names[i], json_string(sha.hex));
    }
    dir_list_free(names, n);
    json_object_set_new(all, dir, files);
    return ok;
}

static bool own_identities(const ExportJob *j, json_t *identity, Err *err) {
    for (int i = 0; i < j->s->export_.to.n; i++) {
        const char *option;
        const ExportFormat *f = export_format(item_at(j, i), &option, err);
        if (f == NULL || (f->identity != NULL && !f->identity(j, option, identity, err)))
            return false;
    }
    return true;
}

// What the folders depend on: exports are cheap and replaced whole, so another identity means a new
// export.
static json_t *job_identity(const ExportJob *j, Err *err) {
    char path[PATH_ROOM];
    const Settings *s = j->s;
    Sha256 acceptance = {""};
    path_join(path, s->output_dir, "eval/acceptance.json");
    if (j->acceptance != NULL && !sha256_file(&acceptance, path, err)) return NULL;
    json_t *to = json_array();
    for (int i = 0; i < s->export_.to.n; i++) json_array_append_new(to, json_string(item_at(j, i)));
    json_t *identity =
        json_pack("{s:o, s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:b}", "to", to, "drafter", j->sha.hex,
                  "acceptance", acceptance.hex, "draft_tokens", (json_int_t)j->k, "fingerprint",
                  j->target.hex, "target", s->model.target_path, "adapter", s->model.adapter_path,
                  "stock", s->model.assistant_path, "force", s->export_.force);
    CHECK_MEMORY(identity);
    if (own_identities(j, identity, err)) return identity;
    json_decref(identity);
    return NULL;
}

static bool write_all(const ExportJob *j, Err *err) {
    char dir[PATH_ROOM];
    bool ok = dir_make(j->root, err);
    for (int i = 0; ok && i < j->s->export_.to.n; i++) {
        const char *option;
        const ExportFormat *f = export_format(item_at(j, i), &option, err);
        ok = f != NULL && (f->write(j, option, export_folder(dir, j, item_at(j, i)), err) ||
                           err_wrap(err, "%s", item_at(j, i)));
    }
    return ok;
}

static bool print_archive(const char *path, bool json, json_t *all, Err *err) {
    Sha256 sha;
    if (path[0] == '\0') return true;
    if (!sha256_file(&sha, path, err)) return false;
    if (!json) printf("%s  %s\n", sha.hex, path);
    json_object_set_new(all, path, json_string(sha.hex));
    return true;
}

static bool print_all(const ExportJob *j, bool json, Err *err) {
    char dir[PATH_ROOM];
    json_t *all = json_object();
    bool ok = print_archive(j->s->export_.archive, json, all, err);
    for (int i = 0; ok && i < j->s->export_.to.n; i++)
        ok = print_hashes(export_folder(dir, j, item_at(j, i)), j->hashes, json, all, err);
    if (ok && json) ok = json_print(all, err);
    json_decref(all);
    return ok;
}

static bool note_all(const ExportJob *j, json_t *outputs, const char *stage, Err *err) {
    char dir[PATH_ROOM], name[PATH_ROOM];
    bool ok = true;
    for (int i = 0; ok && i < j->s->export_.to.n; i++) {
        int n = 0;
        char **names = tree_list(export_folder(dir, j, item_at(j, i)), &n, err);
        ok = names != NULL;
        for (int k = 0; ok && k < n; k++)
            ok = stage_note_output(outputs, stage, path_join(name, path_base(dir), names[k]), err);
        dir_list_free(names, n);
    }
    return ok;
}

// All folders in one file, after they are there.
static bool archive_all(const ExportJob *j, Err *err) {
    const char *path = j->s->export_.archive;
    const int n = j->s->export_.to.n;
    if (path[0] == '\0') return true;
    char(*room)[PATH_ROOM] = malloc((size_t)n * sizeof *room);
    const char **dir = malloc((size_t)n * sizeof *dir);
    CHECK_MEMORY(room);
    CHECK_MEMORY(dir);
    for (int i = 0; i < n; i++) dir[i] = export_folder(room[i], j, item_at(j, i));
    const bool ok = archive_folders(path, dir, n, err);
    free(dir);
    free(room);
    return ok;
}

static bool run_job(const ExportJob *j, const Cli *cli, Err *err) {
    char stage[PATH_ROOM];
    Err other = {0};
    json_t *identity = job_identity(j, err);
    if (identity == NULL) return false;
    path_join(stage, j->root, "stage.json");
    bool ok = true;
    json_t *outputs = json_object();
    if (stage_state(stage, identity, cli->overwrite, &other) == STAGE_DONE)
        log_info("export: %s is up to date", j->root);
    else
        ok = export_job_whole(j, err) && stage_clear(stage, err) && write_all(j, err) &&
             note_all(j, outputs, stage, err) &&
             stage_publish_outputs(stage, identity, NULL, outputs, err);
    json_decref(outputs);
    ok = ok && archive_all(j, err) && print_all(j, cli->json, err);
    json_decref(identity);
    return ok;
}

static bool print_item(const ExportJob *j, const char *item, int64_t *total, Err *err) {
    char dir[PATH_ROOM];
    const char *option;
    ExportPlan p = {0};
    const ExportFormat *f = export_format(item, &option, err);
    const bool ok = f != NULL && (f->plan(j, option, &p, err) || err_wrap(err, "%s", item));
    if (ok) printf("would write %s\n", export_folder(dir, j, item));
    for (int i = 0; ok && i < p.n; i++)
        printf("%16lld bytes  %s\n", (long long)p.file[i].bytes, p.file[i].name);
    *total += export_plan_bytes(&p);
    export_plan_free(&p);
    return ok;
}

static bool print_plan(const ExportJob *j, Err *err) {
    int64_t total = 0;
    bool ok = true;
    for (int i = 0; ok && i < j->s->export_.to.n; i++)
        ok = print_item(j, item_at(j, i), &total, err);
    if (!ok) return false;
    const char *archive = j->s->export_.archive;
    if (archive[0] != '\0') printf("would pack all of it into %s\n", archive);
    printf("%.1f MB of weights%s; configuration, tokenizer and card beside them\n",
           (double)total * 1e-6, archive[0] != '\0' ? ", twice" : "");
    if (j->k > 0) printf("drafter %s, num_assistant_tokens %lld\n", j->drafter, (long long)j->k);
    return true;
}

static bool export_run(const Cli *cli, Err *err) {
    const Settings *s = &cli->s;
    ExportJob j = {0};
    bool ok = s->export_.to.n > 0 ||
              err_set(err, ERR_USAGE, "export.to: empty; hf, mlx, mlx:q8, target-hf, mtplx, ...");
    ok = ok && (s->export_.archive[0] == '\0' || archive_name_check(s->export_.archive, err));
    ok = ok && export_job_open(&j, s, err) && export_job_gate(&j, err);
    if (ok) ok = cli->dry_run ? print_plan(&j, err) : run_job(&j, cli, err);
    export_job_close(&j);
    return ok;
}

const Verb export_verb = {
    .name = "export",
    .summary =
        "write the trained drafter (and the merged target) as repositories that runtimes load",
    .usage =
        "  draftsmith export -c configs/demo.json\n"
        "  draftsmith export output_dir=runs/mine export.to=hf,mlx:q4 export.draft_tokens=7\n\n"
        "Takes OUTPUT/ckpt/best (or export.checkpoint), writes one folder an item of export.to\n"
        "below OUTPUT/export, its name with '-' for ':'.\n"
        "  hf           the drafter as the stock assistant's own files\n"
        "  mlx          for MLX runtimes in bf16; mlx:q8, q6, q5, q4, q3, q2 (export.group),\n"
        "               mlx:mxfp4, mxfp8, nvfp4; mlx:mixed by the widths of export.mix\n"
        "  target-hf    the target with its adapter merged\n"
        "  target-mlx   the same for mlx-lm, text only; target-mlx:q8 ... as above\n"
        "  gguf:all     for llama.cpp and ik_llama.cpp in twelve types from one reading; "
        "gguf:TYPE\n"
        "               one (BF16 F16 Q8_0 Q6_K Q5_K_M Q5_K_S Q4_K_M Q4_K_S IQ4_NL IQ4_XS MXFP4\n"
        "               Q3_K_L Q3_K_M Q3_K_S MXFP4_MOE), -head4 behind it: the head at Q4_K;\n"
        "               gguf:mixed by the types of export.gguf_mix; export.imatrix=FILE\n"
        "  gguf-ik:all  the same for ik_llama.cpp of before June 2026\n"
        "  mtplx        an MTPLX pair bundle: mtplx:quality (8 bit both, the default),\n"
        "               mtplx:speed (target 4 bit, drafter 6 bit), mtplx:bf16\n"
        "--dry-run prints the bytes of every weight file.\n"
        "Refused (exit 4) when eval/acceptance.json shows the drafter below the stock one.",
    .max_args = 0,
    .run = export_run,
};
