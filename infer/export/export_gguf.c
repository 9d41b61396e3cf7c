// infer/export/export_gguf.c - a folder of GGUF files with their card, from a job of the exporter.
#include "infer/export/export_gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/export/gguf_importance.h"
#include "infer/export/gguf_mixed.h"
#include "infer/export/gguf_repo.h"

// What an option comes to.
typedef struct {
    GgufMix mix[GGUF_MIXES_MAX];
    int n;
    Mix *file; // of "mixed"
    GgufPin *pin;
} Choice;

static void choice_free(Choice *c) {
    mix_free(c->file);
    free(c->pin);
}

static bool choose_mixed(Choice *c, const ExportJob *j, Err *err) {
    AssistantConfig config;
    const char *path = j->s->export_.gguf_mix;
    if (path[0] == '\0')
        return err_set(err, ERR_USAGE, "gguf:mixed: export.gguf_mix names no mixture");
    if (!assistant_config_load(&config, j->s->model.assistant_path, err) ||
        (c->file = mix_read(path, err)) == NULL)
        return false;
    c->pin = calloc((size_t)c->file->n + 1, sizeof *c->pin);
    CHECK_MEMORY(c->pin);
    c->n = 1;
    return gguf_mix_of(&c->mix[0], c->pin, c->file, &config, err) || err_wrap(err, "%s", path);
}

// Freed by the caller whatever it returns.
static bool choose(Choice *c, const ExportJob *j, const char *option, Err *err) {
    memset(c, 0, sizeof *c);
    if (option[0] == '\0')
        return err_set(err, ERR_USAGE, "export.to: \"gguf\" needs a type, as in gguf:all");
    if (strcmp(option, "mixed") == 0) return choose_mixed(c, j, err);
    return gguf_option(option, c->mix, &c->n, err);
}

bool export_gguf_check(const ExportJob *j, const char *option, Err *err) {
    Choice c;
    const bool ok = choose(&c, j, option, err);
    choice_free(&c);
    return ok;
}

bool export_gguf_identity(const ExportJob *j, const char *option, json_t *identity, Err *err) {
    const Settings *s = j->s;
    Sha256 sha;
    json_object_set_new(identity, "name", json_string(s->export_.name));
    if (strcmp(option, "mixed") == 0) {
        if (!sha256_file(&sha, s->export_.gguf_mix, err)) return false;
        json_object_set_new(identity, "gguf_mix", json_string(sha.hex));
    }
    if (s->export_.imatrix[0] != '\0') {
        if (!sha256_file(&sha, s->export_.imatrix, err)) return false;
        json_object_set_new(identity, "imatrix", json_string(sha.hex));
    }
    return true;
}

// What the drafter's files are called: export.name, else the fine-tune's name, else the target's.
static void drafter_name(const ExportJob *j, char out[256]) {
    const Settings *s = j->s;
    char full[256];
    if (s->export_.name[0] != '\0') {
        snprintf(out, 256, "%.255s", s->export_.name);
        return;
    }
    card_model_name(s->model.adapter_path[0] != '\0' ? s->model.adapter_path : s->model.target_path,
                    full);
    snprintf(out, 256, "%s", path_base(full));
}

static void encoding_text(const Choice *c, const char *imatrix, char out[256]) {
    size_t at = 0;
    for (int i = 0; i < c->n && at < 200; i++)
        at += (size_t)snprintf(out + at, 256 - at, "%s%s", i ? ", " : "", c->mix[i].name);
    if (imatrix[0] != '\0') snprintf(out + at, 256 - at, "; with an imatrix");
}

// What the files are made from, the mixes apart.
typedef struct {
    char name[256], base[256];
    AssistantConfig config;
    GgufImatrix imatrix;
    GgufRepoInputs repo;
} Inputs;

// Closed by the caller whatever it returns.
static bool inputs_open(Inputs *in, const ExportJob *j, GgufDialect d, Err *err) {
    const char *imatrix = j->s->export_.imatrix;
    const RepoInputs repo = export_job_repo(j);
    memset(in, 0, sizeof *in);
    drafter_name(j, in->name);
    card_model_name(repo.stock_dir, in->base);
    in->repo = (GgufRepoInputs){.stock_dir = repo.stock_dir,
                                .target_dir = repo.target_dir,
                                .name = in->name,
                                .base_model = in->base,
                                .weights = repo.weights};
    if (!assistant_config_load(&in->config, repo.stock_dir, err)) return false;
    if (imatrix[0] == '\0') return true;
    in->repo.importance = &in->imatrix.importance;
    return gguf_imatrix_open(&in->imatrix, imatrix, d, &in->config, err);
}

static void inputs_close(Inputs *in) {
    gguf_imatrix_close(&in->imatrix);
}

static bool write_card(const ExportJob *j, const Choice *c, const Inputs *in, GgufDialect d,
                       const char *dir, Err *err) {
    char encoding[256] = "", file[256];
    bool wide;
    const AssistantConfig written = gguf_written_config(d, &in->config, &wide);
    CardFacts card = export_job_card(j, d == GGUF_IK ? CARD_GGUF_IK : CARD_GGUF);
    encoding_text(c, j->s->export_.imatrix, encoding);
    card.encoding = encoding;
    card.ordered = in->config.ordered != 0;
    card.width = in->config.text.hidden;
    card.padded_width = wide ? written.text.hidden : 0;
    card.weights = c->n == 1 ? gguf_file_name(file, in->name, c->mix[0].name) : NULL;
    return card_write(dir, &card, err);
}

static bool fill(const ExportJob *j, const Choice *c, GgufDialect d, const char *dir, Err *err) {
    Inputs in;
    const bool ok = inputs_open(&in, j, d, err) &&
                    gguf_repo_files(&in.repo, d, c->mix, c->n, dir, err) &&
                    write_card(j, c, &in, d, dir, err) && dir_sync(dir, err);
    inputs_close(&in);
    return ok;
}

static bool plan(const ExportJob *j, const char *option, GgufDialect d, ExportPlan *p, Err *err) {
    char file[256];
    int64_t bytes[GGUF_MIXES_MAX];
    Choice c;
    Inputs in = {0};
    const bool ok = choose(&c, j, option, err) && inputs_open(&in, j, d, err) &&
                    gguf_repo_bytes(&in.repo, d, c.mix, c.n, bytes, err);
    for (int i = 0; ok && i < c.n; i++)
        export_plan_add(p, "", gguf_file_name(file, in.name, c.mix[i].name), bytes[i]);
    inputs_close(&in);
    choice_free(&c);
    return ok;
}

static bool write_folder(const ExportJob *j, const char *option, GgufDialect d, const char *dir,
                         Err *err) {
    char tmp[PATH_ROOM];
    Choice c;
    Err ignored = {0};
    bool ok = choose(&c, j, option, err) && repo_begin(tmp, dir, err) != NULL;
    if (ok) {
        ok = fill(j, &c, d, tmp, err) && repo_replace(tmp, dir, err);
        if (!ok && !dir_remove(tmp, &ignored)) log_warn("%s: left behind: %s", tmp, ignored.text);
    }
    choice_free(&c);
    return ok;
}

bool export_gguf_write(const ExportJob *j, const char *option, const char *dir, Err *err) {
    return write_folder(j, option, GGUF_UNIVERSAL, dir, err);
}

bool export_gguf_ik_write(const ExportJob *j, const char *option, const char *dir, Err *err) {
    return write_folder(j, option, GGUF_IK, dir, err);
}

bool export_gguf_plan(const ExportJob *j, const char *option, ExportPlan *p, Err *err) {
    return plan(j, option, GGUF_UNIVERSAL, p, err);
}

bool export_gguf_ik_plan(const ExportJob *j, const char *option, ExportPlan *p, Err *err) {
    return plan(j, option, GGUF_IK, p, err);
}
