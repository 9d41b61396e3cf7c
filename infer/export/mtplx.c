// infer/export/mtplx.c - builds both halves, carries the measurement along, writes the marker.
#include "infer/export/mtplx.h"

#include <stdio.h>
#include <string.h>

#include "infer/base/hash_cache.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/base/version.h"
#include "infer/export/export_mlx_plan.h"
#include "infer/export/mlx.h"
#include "infer/export/mlx_target.h"
#include "infer/export/mtplx_check.h"
#include "infer/export/prompt_suite.h"
#include "infer/export/tree.h"
#include "infer/model/gemma4_config.h"

enum { CONFIG_LIMIT = 16 << 20 };

static const struct {
    const char *name, *target, *assistant;
} VARIANTS[] = {{"quality", "q8", "q8"}, {"speed", "q4", "q6"}, {"bf16", "bf16", "bf16"}};

static int variant_of(const char *option, Err *err) {
    if (option[0] == '\0') return 0;
    for (int i = 0; i < (int)(sizeof VARIANTS / sizeof *VARIANTS); i++)
        if (strcmp(option, VARIANTS[i].name) == 0) return i;
    err_set(err, ERR_USAGE, "export.to: mtplx has no \"%s\": quality, speed, bf16", option);
    return -1;
}

bool mtplx_check_option(const ExportJob *j, const char *option, Err *err) {
    MlxRecipe r;
    Mix *mix;
    const int v = variant_of(option, err);
    return v >= 0 && export_job_recipe(j, VARIANTS[v].target, "", &r, &mix, err) &&
           export_job_recipe(j, VARIANTS[v].assistant, "", &r, &mix, err);
}

// Files of the run that go into benchmarks/, where they are there.
static const struct {
    const char *from, *to; // to: %lld is the block size
} BENCHMARKS[] = {{"eval/mtplx.json", "held_out-b%lld.json"},
                  {"eval/acceptance.json", "acceptance.json"},
                  {"eval/quantmatrix.json", "quantmatrix.json"}};
static const char SAMPLES[] = "data/eval.jsonl";

bool mtplx_identity(const ExportJob *j, const char *option, json_t *identity, Err *err) {
    char path[PATH_ROOM];
    Sha256 sha;
    json_object_set_new(identity, "mtplx", json_string(option));
    json_object_set_new(identity, "group", json_integer((json_int_t)j->s->export_.group));
    json_object_set_new(identity, "heads", json_boolean(j->s->export_.heads));
    json_object_set_new(identity, "requant", json_string(j->s->export_.requant));
    for (size_t i = 0; i <= sizeof BENCHMARKS / sizeof *BENCHMARKS; i++) {
        const char *name = i == 0 ? SAMPLES : BENCHMARKS[i - 1].from;
        if (!file_exists(path_join(path, j->s->output_dir, name))) continue;
        if (!sha256_file(&sha, path, err)) return false;
        json_object_set_new(identity, name, json_string(sha.hex));
    }
    return true;
}

static bool write_target(const ExportJob *j, int v, const char *dir, char encoding[256], Err *err) {
    MlxRecipe r;
    Mix *mix;
    const Settings *s = j->s;
    return export_job_recipe(j, VARIANTS[v].target, "", &r, &mix, err) && dir_make(dir, err) &&
           mlx_target_write(s->model.target_path, s->model.adapter_path, dir, &r, MLX_SHARD_BYTES,
                            encoding, err);
}

static bool write_assistant(const ExportJob *j, int v, const char *dir, char encoding[256],
                            bool *packed_head, Err *err) {
    MlxRecipe r;
    Mix *mix;
    if (!export_job_recipe(j, VARIANTS[v].assistant, "", &r, &mix, err) || !dir_make(dir, err))
        return false;
    RepoInputs in = export_job_repo(j);
    in.mlx = &r;
    return repo_fill(&in, dir, encoding, packed_head, err);
}

static bool write_suite(const ExportJob *j, const char *dir, Err *err) {
    char from[PATH_ROOM], to[PATH_ROOM];
    int64_t written = 0, left_out = 0;
    const SuiteInputs in = {.samples = path_join(from, j->s->output_dir, SAMPLES),
                            .target_dir = j->s->model.target_path,
                            .chat_template = j->s->data.chat_template,
                            .max_tokens = j->s->regenerate.max_new_tokens};
    if (!file_exists(from)) {
        log_warn("%s: not there, the bundle has no prompt suite", from);
        return true;
    }
    path_join(to, dir, "held_out.jsonl");
    if (!prompt_suite_write(to, &in, &written, &left_out, err)) return false;
    log_info("%s: %lld prompts, %lld left out that are not plain turns", to, (long long)written,
             (long long)left_out);
    return true;
}

static bool write_benchmarks(const ExportJob *j, const char *dir, Err *err) {
    char from[PATH_ROOM], to[PATH_ROOM], name[64];
    bool ok = dir_make(dir, err);
    for (size_t i = 0; ok && i < sizeof BENCHMARKS / sizeof *BENCHMARKS; i++) {
        if (!file_exists(path_join(from, j->s->output_dir, BENCHMARKS[i].from))) continue;
        snprintf(name, sizeof name, BENCHMARKS[i].to, (long long)j->k + 1);
        ok = file_copy(from, path_join(to, dir, name), err);
    }
    return ok && write_suite(j, dir, err);
}

// {"quantization": {...}} as a half's config.json has its default; {} of bf16.
static json_t *half_json(const char *half, Err *err) {
    MlxRules rules = {0};
    if (!mlx_rules_load(&rules, half, err)) return NULL;
    json_t *o = json_object();
    if (rules.present)
        json_object_set_new(o, "quantization",
                            json_pack("{s:i, s:i, s:s}", "bits", rules.root.bits, "group_size",
                                      rules.root.group, "mode", mlx_mode_name(rules.root.mode)));
    mlx_rules_free(&rules);
    return o;
}

// What MTPLX reads as a fall-back for the sampler, and what was measured at this block size.
static json_t *benchmark_json(const ExportJob *j, const char *target, Err *err) {
    char path[PATH_ROOM];
    Measurement m;
    json_t *g =
        json_read_file(path_join(path, target, "generation_config.json"), CONFIG_LIMIT, err);
    if (g == NULL || !measurement_at(&m, j->acceptance, j->k, err)) {
        json_decref(g);
        return NULL;
    }
    json_t *o = json_object();
    static const char *const SAMPLER[] = {"temperature", "top_p", "top_k"};
    for (int i = 0; i < 3; i++) json_object_set(o, SAMPLER[i], json_object_get(g, SAMPLER[i]));
    json_object_set_new(o, "block_size", json_integer((json_int_t)j->k + 1));
    if (m.known) {
        json_object_set_new(o, "tokens_per_target_step", json_real(m.trained));
        json_object_set_new(o, "tokens_per_target_step_stock", json_real(m.stock));
        json_object_set_new(o, "measured_on", json_string("the unquantised pair"));
    }
    json_decref(g);
    return o;
}

// "snapshots/<revision>" of a hub cache path; "" = unknown.
static const char *revision_of(const char *dir, char out[64]) {
    const char *at = strstr(dir, "/snapshots/");
    out[0] = '\0';
    if (at != NULL) snprintf(out, 64, "%.*s", (int)strcspn(at + 11, "/"), at + 11);
    return out;
}

static json_t *model_json(const char *dir) {
    char name[256], revision[64];
    card_model_name(dir, name);
    json_t *o = json_pack("{s:s}", "name", name);
    if (revision_of(dir, revision)[0] != '\0')
        json_object_set_new(o, "revision", json_string(revision));
    return o;
}

// Hashes of a half's weight files, by their path in the bundle.
static bool hash_half(const ExportJob *j, const char *dir, const char *half, json_t *all,
                      Err *err) {
    char folder[PATH_ROOM], path[PATH_ROOM], name[PATH_ROOM];
    int n = 0;
    char **files = hf_weight_files(path_join(folder, dir, half), &n, err);
    bool ok = files != NULL;
    for (int i = 0; ok && i < n; i++) {
        Sha256 sha;
        ok = sha256_remembered(&sha, path_join(path, folder, files[i]), j->hashes, err);
        if (ok) json_object_set_new(all, path_join(name, half, files[i]), json_string(sha.hex));
    }
    dir_list_free(files, n);
    return ok;
}

static json_t *provenance_json(const ExportJob *j, const char *dir, const char *why, Err *err) {
    const Settings *s = j->s;
    const CardFacts card = export_job_card(j, CARD_MTPLX);
    json_t *sha = json_object();
    if (!hash_half(j, dir, "target", sha, err) || !hash_half(j, dir, "assistant", sha, err)) {
        json_decref(sha);
        return NULL;
    }
    json_t *o = json_pack("{s:s, s:o, s:s, s:o, s:s, s:I, s:I, s:o, s:b}", "tool",
                          "draftsmith " PROGRAM_VERSION, "target", model_json(s->model.target_path),
                          "target_fingerprint", j->target.hex, "stock_assistant",
                          model_json(s->model.assistant_path), "drafter_sha256", j->sha.hex,
                          "trained_k", (json_int_t)card.trained_k, "recommended_k",
                          (json_int_t)j->k, "sha256", sha, "mtplx_runnable", why[0] == '\0');
    CHECK_MEMORY(o);
    if (s->model.adapter_path[0] != '\0')
        json_object_set_new(o, "adapter", model_json(s->model.adapter_path));
    if (why[0] != '\0') json_object_set_new(o, "mtplx_reason", json_string(why));
    return o;
}

static bool write_marker(const ExportJob *j, int v, const char *dir, const char *why, Err *err) {
    char target[PATH_ROOM], assistant[PATH_ROOM], path[PATH_ROOM];
    path_join(target, dir, "target");
    path_join(assistant, dir, "assistant");
    json_t *o = json_pack("{s:{s:s, s:s}}", "layout", "target", "target", "assistant", "assistant");
    if (strcmp(VARIANTS[v].name, "bf16") != 0)
        json_object_set_new(o, "variant", json_string(VARIANTS[v].name));
    const struct {
        const char *key;
        json_t *value;
    } part[] = {{"target", half_json(target, err)},
                {"assistant", half_json(assistant, err)},
                {"benchmark", benchmark_json(j, target, err)},
                {"provenance", provenance_json(j, dir, why, err)}};
    bool ok = true;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        ok = ok && part[i].value != NULL;
        if (part[i].value != NULL) json_object_set_new(o, part[i].key, part[i].value);
    }
    ok = ok && json_write_file(path_join(path, dir, "mtplx_pair.json"), o, err);
    json_decref(o);
    return ok;
}

static bool build(const ExportJob *j, int v, const char *dir, Err *err) {
    char path[PATH_ROOM], why[256], encoding[560], half[2][256] = {"", ""};
    AssistantConfig stock;
    CardFacts card = export_job_card(j, CARD_MTPLX);
    if (!assistant_config_load(&stock, j->s->model.assistant_path, err) ||
        !write_target(j, v, path_join(path, dir, "target"), half[0], err) ||
        !write_assistant(j, v, path_join(path, dir, "assistant"), half[1], &card.packed_head,
                         err) ||
        !write_benchmarks(j, path_join(path, dir, "benchmarks"), err) ||
        !mtplx_runnable(dir, why, sizeof why, err))
        return false;
    if (why[0] != '\0') log_warn("MTPLX does not run this pair: %s", why);
    snprintf(encoding, sizeof encoding, "target %s; assistant %s", half[0], half[1]);
    card.encoding = encoding;
    card.ordered = stock.ordered != 0;
    card.quantised = strcmp(VARIANTS[v].assistant, "bf16") != 0;
    card.mtplx_runnable = why[0] == '\0';
    card.weights = "assistant/model.safetensors";
    return write_marker(j, v, dir, why, err) &&
           (mtplx_check_bundle(dir, err) || err_wrap(err, "the bundle does not pass its check")) &&
           card_write(dir, &card, err) && dir_sync(dir, err);
}

bool mtplx_write(const ExportJob *j, const char *option, const char *dir, Err *err) {
    char tmp[PATH_ROOM];
    Err ignored = {0};
    const int v = variant_of(option, err);
    if (v < 0 || repo_begin(tmp, dir, err) == NULL) return false;
    if (build(j, v, tmp, err) && repo_replace(tmp, dir, err)) return true;
    if (!dir_remove(tmp, &ignored)) log_warn("%s: left behind: %s", tmp, ignored.text);
    return false;
}

bool mtplx_plan(const ExportJob *j, const char *option, ExportPlan *p, Err *err) {
    const int v = variant_of(option, err);
    return v >= 0 && export_plan_target(p, j, VARIANTS[v].target, "target", err) &&
           export_plan_assistant(p, j, VARIANTS[v].assistant, "assistant", err);
}
