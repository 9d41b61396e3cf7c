// infer/export/export_cmd.c - chooses the checkpoint, asks the gate, writes each format, prints
// hashes.
#include "infer/export/export_cmd.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/hash.h"
#include "infer/base/hash_cache.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/base/stage.h"
#include "infer/export/manifest.h"
#include "infer/export/repo.h"
#include "infer/model/gemma4_config.h"
#include "infer/model/target.h"

enum { ACCEPTANCE_LIMIT = 64 << 20, STATE_LIMIT = 1 << 20 };

typedef struct {
    const Settings *s;
    char drafter[PATH_ROOM], root[PATH_ROOM]; // OUTPUT/export
    char hashes[PATH_ROOM];                   // hash_cache.h
    StFile *weights;
    Sha256 sha;         // of the drafter's model.safetensors
    json_t *acceptance; // NULL: not measured
    json_t *state;      // state.json of the checkpoint, NULL: not one of ours
    int64_t k;
} Job;

static bool is_target(const char *to) {
    return strcmp(to, "target-hf") == 0;
}

static bool wants(const Settings *s, bool target) {
    for (int i = 0; i < s->export_.to.n; i++)
        if (is_target(s->export_.to.item[i]) == target) return true;
    return false;
}

static bool open_checkpoint(Job *j, Err *err) {
    char path[PATH_ROOM];
    if (!dir_exists(j->drafter))
        return err_set(err, ERR_INPUT, "%s: no trained drafter there; run `train` first",
                       j->drafter);
    if (file_exists(path_join(path, j->drafter, "state.json")) &&
        (j->state = json_read_file(path, STATE_LIMIT, err)) == NULL)
        return false;
    if ((j->weights = st_open(j->drafter, err)) == NULL) return false;
    return !file_exists(path_join(path, j->drafter, "model.safetensors")) ||
           sha256_remembered(&j->sha, path, j->hashes, err);
}

// Every byte of a checkpoint is read before it goes out.
static bool checkpoint_whole(const Job *j, Err *err) {
    char path[PATH_ROOM];
    int64_t step;
    return !file_exists(path_join(path, j->drafter, MANIFEST_NAME)) ||
           manifest_verify(j->drafter, NULL, 0, &step, err);
}

static bool open_job(Job *j, const Settings *s, Err *err) {
    char path[PATH_ROOM];
    AssistantConfig stock;
    j->s = s;
    if (s->export_.checkpoint[0] != '\0')
        snprintf(j->drafter, sizeof j->drafter, "%.4000s", s->export_.checkpoint);
    else
        path_join(j->drafter, s->output_dir, "ckpt/best");
    path_join(j->root, s->output_dir, "export");
    path_join(j->hashes, s->output_dir, "hashes.json");
    if (!wants(s, false)) return true;
    if (!assistant_config_load(&stock, s->model.assistant_path, err)) return false;
    j->k = s->export_.draft_tokens > 0 ? s->export_.draft_tokens : stock.draft_tokens;
    if (j->k <= 0) {
        j->k = s->eval.select_k;
        log_info("the stock assistant names no draft length: num_assistant_tokens = eval.select_k "
                 "= %lld",
                 (long long)j->k);
    }
    if (!open_checkpoint(j, err)) return false;
    path_join(path, s->output_dir, "eval/acceptance.json");
    if (file_exists(path) && (j->acceptance = json_read_file(path, ACCEPTANCE_LIMIT, err)) == NULL)
        return false;
    return true;
}

static void close_job(Job *j) {
    st_close(j->weights);
    json_decref(j->acceptance);
    json_decref(j->state);
}

// Why this drafter should not leave the house; "" = nothing speaks against it.
static bool gate_reason(const Job *j, char reason[512], Err *err) {
    Measurement m;
    reason[0] = '\0';
    if (j->acceptance == NULL) {
        snprintf(reason, 512,
                 "%.300s/eval/acceptance.json: this drafter was never measured; run `eval` first",
                 j->s->output_dir);
        return true;
    }
    const char *sha = json_string_value(json_object_get(
        json_object_get(json_object_get(j->acceptance, "drafters"), "trained"), "sha256"));
    if (!measurement_at(&m, j->acceptance, j->k, err)) return false;
    if (sha != NULL && strcmp(sha, j->sha.hex) != 0)
        snprintf(
            reason, 512,
            "eval measured another drafter (SHA-256 %.64s) than this one (%s); run `eval` again",
            sha, j->sha.hex);
    else if (!m.known)
        snprintf(
            reason, 512,
            "eval did not measure the trained drafter at %lld draft tokens; run `eval` with it",
            (long long)j->k);
    else if (m.gain < 0)
        snprintf(reason, 512,
                 "tau(%lld) is %.3f, the stock's is %.3f: gain %+.1f %% (%+.1f to %+.1f %%)",
                 (long long)j->k, m.trained, m.stock, 100 * m.gain, 100 * m.lo, 100 * m.hi);
    return true;
}

static bool gate(const Job *j, Err *err) {
    char reason[512];
    if (!wants(j->s, false)) return true;
    if (!gate_reason(j, reason, err)) return false;
    if (reason[0] == '\0') return true;
    if (!j->s->export_.force)
        return err_set(err, ERR_GATE, "not exported: %s (export.force=true exports all the same)",
                       reason);
    log_warn("exported by force: %s", reason);
    return true;
}

static const char *identity_text(const Job *j, const char *key) {
    const char *text =
        json_string_value(json_object_get(json_object_get(j->state, "identity"), key));
    return text ? text : "";
}

static bool write_drafter(const Job *j, CardFormat format, const char *dir, Err *err) {
    const Settings *s = j->s;
    const json_t *identity = json_object_get(j->state, "identity");
    const RepoInputs in = {
        .stock_dir = s->model.assistant_path,
        .target_dir = s->model.target_path,
        .weights = hf_source_file(j->weights),
        .card = {.format = format,
                 .stock_dir = s->model.assistant_path,
                 .target_dir = s->model.target_path,
                 .adapter_dir = s->model.adapter_path,
                 .target_fingerprint = identity_text(j, "target"),
                 .draft_tokens = j->k,
                 .trained_k = json_integer_value(json_object_get(identity, "train.k")),
                 .steps = json_integer_value(json_object_get(j->state, "step")),
                 .acceptance = j->acceptance}};
    return repo_write(&in, dir, err);
}

static bool write_target(const Settings *s, const char *dir, Err *err) {
    char tmp[PATH_ROOM];
    snprintf(tmp, sizeof tmp, "%.*s.tmp", PATH_ROOM - 8, dir);
    return dir_remove(tmp, err) &&
           target_export(s->model.target_path, s->model.adapter_path, tmp, err) &&
           repo_replace(tmp, dir, err);
}

static bool print_hashes(const char *dir, bool json, json_t *all, Err *err) {
    char path[PATH_ROOM];
    int n = 0;
    char **names = dir_list(dir, &n, err);
    json_t *files = json_object();
    bool ok = names != NULL;
    for (int i = 0; ok && i < n; i++) {
        Sha256 sha;
        ok = sha256_file(&sha, path_join(path, dir, names[i]), err);
        if (ok && !json) printf("%s  %s\n", sha.hex, path);
        if (ok) json_object_set_new(files, names[i], json_string(sha.hex));
    }
    dir_list_free(names, n);
    json_object_set_new(all, dir, files);
    return ok;
}

// What the folders depend on: exports are cheap and replaced whole, so another identity means a new
// export.
static json_t *job_identity(const Job *j, Err *err) {
    char path[PATH_ROOM];
    const Settings *s = j->s;
    Sha256 acceptance = {""}, target = {""};
    if (wants(s, true) &&
        !target_fingerprint(&target, s->model.target_path, s->model.adapter_path, j->hashes, err))
        return NULL;
    json_t *to = json_array();
    for (int i = 0; i < s->export_.to.n; i++)
        json_array_append_new(to, json_string(s->export_.to.item[i]));
    path_join(path, s->output_dir, "eval/acceptance.json");
    if (j->acceptance != NULL && !sha256_file(&acceptance, path, err)) {
        json_decref(to);
        return NULL;
    }
    return json_pack("{s:o, s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:b}", "to", to, "drafter",
                     j->sha.hex, "acceptance", acceptance.hex, "draft_tokens", (json_int_t)j->k,
                     "fingerprint", target.hex, "target", s->model.target_path, "adapter",
                     s->model.adapter_path, "stock", s->model.assistant_path, "force",
                     s->export_.force);
}

static bool write_all(const Job *j, Err *err) {
    char dir[PATH_ROOM];
    const Settings *s = j->s;
    bool ok = dir_make(j->root, err);
    for (int i = 0; ok && i < s->export_.to.n; i++) {
        const char *to = s->export_.to.item[i];
        path_join(dir, j->root, to);
        if (is_target(to))
            ok = write_target(s, dir, err);
        else
            ok = write_drafter(j, strcmp(to, "mlx") == 0 ? CARD_MLX : CARD_HF, dir, err);
    }
    return ok;
}

static bool print_all(const Job *j, bool json, Err *err) {
    char dir[PATH_ROOM];
    json_t *all = json_object();
    bool ok = true;
    for (int i = 0; ok && i < j->s->export_.to.n; i++)
        ok = print_hashes(path_join(dir, j->root, j->s->export_.to.item[i]), json, all, err);
    if (ok && json) ok = json_print(all, err);
    json_decref(all);
    return ok;
}

static bool note_all(const Job *j, json_t *outputs, const char *stage, Err *err) {
    char dir[PATH_ROOM], name[PATH_ROOM];
    bool ok = true;
    for (int i = 0; ok && i < j->s->export_.to.n; i++) {
        const char *to = j->s->export_.to.item[i];
        int n = 0;
        char **names = dir_list(path_join(dir, j->root, to), &n, err);
        ok = names != NULL;
        for (int k = 0; ok && k < n; k++)
            ok = stage_note_output(outputs, stage, path_join(name, to, names[k]), err);
        dir_list_free(names, n);
    }
    return ok;
}

static bool run_job(const Job *j, const Cli *cli, Err *err) {
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
        ok = checkpoint_whole(j, err) && stage_clear(stage, err) && write_all(j, err) &&
             note_all(j, outputs, stage, err) &&
             stage_publish_outputs(stage, identity, NULL, outputs, err);
    json_decref(outputs);
    ok = ok && print_all(j, cli->json, err);
    json_decref(identity);
    return ok;
}

static bool export_run(const Cli *cli, Err *err) {
    const Settings *s = &cli->s;
    Job j = {0};
    bool ok =
        s->export_.to.n > 0 || err_set(err, ERR_USAGE, "export.to: empty; hf, mlx or target-hf");
    ok = ok && open_job(&j, s, err) && gate(&j, err);
    if (ok && cli->dry_run) {
        for (int i = 0; i < s->export_.to.n; i++)
            printf("would write %s/%s\n", j.root, s->export_.to.item[i]);
        if (j.k > 0) printf("drafter %s, num_assistant_tokens %lld\n", j.drafter, (long long)j.k);
    } else if (ok) {
        ok = run_job(&j, cli, err);
    }
    close_job(&j);
    return ok;
}

const Verb export_verb = {
    .name = "export",
    .summary =
        "write the trained drafter (and the merged target) as repositories that runtimes load",
    .usage =
        "  draftsmith export -c configs/demo.json\n"
        "  draftsmith export output_dir=runs/mine export.to=hf export.draft_tokens=7\n\n"
        "Takes OUTPUT/ckpt/best (or export.checkpoint), writes OUTPUT/export/{hf,mlx,target-hf}.\n"
        "Refused (exit 4) when eval/acceptance.json shows the drafter below the stock one.",
    .max_args = 0,
    .run = export_run,
};
