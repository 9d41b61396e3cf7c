// infer/export/export_job.c - opens the checkpoint and its measurement, asks the gate.
#include "infer/export/export_job.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/hash_cache.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/export/manifest.h"
#include "infer/model/gemma4_config.h"
#include "infer/model/target.h"

enum { ACCEPTANCE_LIMIT = 64 << 20, STATE_LIMIT = 1 << 20 };

static bool open_checkpoint(ExportJob *j, Err *err) {
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

// The drafter goes out with the target's tokenizer, for that target: width, vocabulary and K/V must
// be its own.
static bool load_pair(const Settings *s, AssistantConfig *stock, Err *err) {
    TargetConfig *target = malloc(sizeof *target); // large: every layer's kind
    CHECK_MEMORY(target);
    const bool ok = assistant_config_load(stock, s->model.assistant_path, err) &&
                    target_config_load(target, s->model.target_path, err) &&
                    pair_check(target, stock, err);
    free(target);
    return ok;
}

static bool open_drafter(ExportJob *j, Err *err) {
    char path[PATH_ROOM];
    AssistantConfig stock;
    const Settings *s = j->s;
    if (!load_pair(s, &stock, err)) return false;
    j->k = s->export_.draft_tokens > 0 ? s->export_.draft_tokens : stock.draft_tokens;
    if (j->k <= 0) {
        j->k = s->eval.select_k;
        log_info("the stock assistant names no draft length: num_assistant_tokens = eval.select_k "
                 "= %lld",
                 (long long)j->k);
    }
    if (!open_checkpoint(j, err)) return false;
    path_join(path, s->output_dir, "eval/acceptance.json");
    return !file_exists(path) ||
           (j->acceptance = json_read_file(path, ACCEPTANCE_LIMIT, err)) != NULL;
}

bool export_job_open(ExportJob *j, const Settings *s, Err *err) {
    bool drafter = false, target = false;
    *j = (ExportJob){.s = s};
    if (s->export_.checkpoint[0] != '\0')
        snprintf(j->drafter, sizeof j->drafter, "%.4000s", s->export_.checkpoint);
    else
        path_join(j->drafter, s->output_dir, "ckpt/best");
    path_join(j->root, s->output_dir, "export");
    path_join(j->hashes, s->output_dir, "hashes.json");
    for (int i = 0; i < s->export_.to.n; i++) {
        const char *option;
        const ExportFormat *f = export_format(s->export_.to.item[i], &option, err);
        if (f == NULL || (f->check != NULL && !f->check(j, option, err))) return false;
        drafter |= f->drafter;
        target |= f->target;
    }
    if (drafter && !open_drafter(j, err)) return false;
    return !target || target_fingerprint(&j->target, s->model.target_path, s->model.adapter_path,
                                         dir_exists(s->output_dir) ? j->hashes : NULL, err);
}

void export_job_close(ExportJob *j) {
    st_close(j->weights);
    json_decref(j->acceptance);
    json_decref(j->state);
}

bool export_job_whole(const ExportJob *j, Err *err) {
    char path[PATH_ROOM];
    int64_t step;
    return !file_exists(path_join(path, j->drafter, MANIFEST_NAME)) ||
           manifest_verify(j->drafter, NULL, 0, &step, err);
}

// Why this drafter should not leave the house; "" = nothing speaks against it.
static bool gate_reason(const ExportJob *j, char reason[512], Err *err) {
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

bool export_job_gate(const ExportJob *j, Err *err) {
    char reason[512];
    if (j->weights == NULL) return true; // targets alone
    if (!gate_reason(j, reason, err)) return false;
    if (reason[0] == '\0') return true;
    if (!j->s->export_.force)
        return err_set(err, ERR_GATE, "not exported: %s (export.force=true exports all the same)",
                       reason);
    log_warn("exported by force: %s", reason);
    return true;
}

static const char *identity_text(const ExportJob *j, const char *key) {
    const char *text =
        json_string_value(json_object_get(json_object_get(j->state, "identity"), key));
    return text ? text : "";
}

CardFacts export_job_card(const ExportJob *j, CardKind kind) {
    const Settings *s = j->s;
    const json_t *identity = json_object_get(j->state, "identity");
    return (CardFacts){.kind = kind,
                       .encoding = "",
                       .stock_dir = s->model.assistant_path,
                       .target_dir = s->model.target_path,
                       .adapter_dir = s->model.adapter_path,
                       .target_fingerprint =
                           j->target.hex[0] != '\0' ? j->target.hex : identity_text(j, "target"),
                       .draft_tokens = j->k,
                       .trained_k = json_integer_value(json_object_get(identity, "train.k")),
                       .steps = json_integer_value(json_object_get(j->state, "step")),
                       .acceptance = j->acceptance,
                       .drafter_sha = j->sha.hex,
                       .hashes = j->hashes};
}

RepoInputs export_job_repo(const ExportJob *j) {
    return (RepoInputs){.stock_dir = j->s->model.assistant_path,
                        .target_dir = j->s->model.target_path,
                        .weights = hf_source_file(j->weights),
                        .card = export_job_card(j, CARD_HF)};
}

// The file of a mixture: as set, else the one that `eval` leaves.
static bool mix_path(const ExportJob *j, bool target, char path[PATH_ROOM], Err *err) {
    const Settings *s = j->s;
    const char *given = target ? s->export_.target_mix : s->export_.mix;
    if (given[0] != '\0')
        snprintf(path, PATH_ROOM, "%.4000s", given);
    else if (!file_exists(path_join(path, s->output_dir,
                                    target ? "eval/mix-target.json" : "eval/mix-mlx.json")))
        return err_set(err, ERR_USAGE, "mixed: %s names no mixture and there is no %s",
                       target ? "export.target_mix" : "export.mix", path);
    return true;
}

static Requant requant_of(const char *text) {
    return strcmp(text, "auto") == 0    ? REQUANT_AUTO
           : strcmp(text, "never") == 0 ? REQUANT_NEVER
                                        : REQUANT_ALWAYS;
}

bool export_job_recipe(const ExportJob *j, const char *option, const char *prefix, MlxRecipe *r,
                       Mix **mix, Err *err) {
    char path[PATH_ROOM];
    const Settings *s = j->s;
    *mix = NULL;
    *r = (MlxRecipe){0};
    if (strcmp(option, "mixed") != 0) {
        if (!mlx_recipe_named(r, option[0] != '\0' ? option : "bf16", s->export_.group, err))
            return false;
    } else if (!mix_path(j, prefix[0] != '\0', path, err) || (*mix = mix_read(path, err)) == NULL ||
               !(mlx_recipe_mix(r, *mix, prefix, err) || err_wrap(err, "%s", path))) {
        mix_free(*mix);
        *mix = NULL;
        return false;
    }
    r->heads = s->export_.heads;
    r->requant = requant_of(s->export_.requant);
    return true;
}

bool export_job_mix_sha(const ExportJob *j, bool target, Sha256 *sha, Err *err) {
    char path[PATH_ROOM];
    return mix_path(j, target, path, err) && sha256_file(sha, path, err);
}
