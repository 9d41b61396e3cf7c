// infer/export/export_job.h - what every format is made from: the checkpoint, its measurement, the
// settings; and the table of formats.
#ifndef EXPORT_EXPORT_JOB_H
#define EXPORT_EXPORT_JOB_H

#include "infer/base/hash.h"
#include "infer/base/settings.h"
#include "infer/export/export_plan.h"
#include "infer/export/repo.h"

typedef struct {
    const Settings *s;
    char drafter[PATH_ROOM], root[PATH_ROOM]; // the checkpoint; OUTPUT/export
    char hashes[PATH_ROOM];                   // hash_cache.h
    StFile *weights;                          // of the drafter, NULL: no format asked for it
    Sha256 sha;                               // of the drafter's model.safetensors
    Sha256 target;      // fingerprint, "" where no format asked for the target
    json_t *acceptance; // NULL: not measured
    json_t *state;      // state.json of the checkpoint, NULL: not one of ours
    int64_t k;
} ExportJob;

// A row of the table of formats: `export.to` items are NAME or NAME:OPTION.
typedef struct {
    const char *name, *options; // for people: "mlx", "q8|q4|..." (NULL: it takes none)
    bool drafter, target;       // what it is made from
    // Refuses an option (ERR_USAGE) before anything is written. NULL: any of `options` will do.
    bool (*check)(const ExportJob *j, const char *option, Err *err);
    // Builds `dir` whole (repo_begin, repo_replace). option "": none given.
    bool (*write)(const ExportJob *j, const char *option, const char *dir, Err *err);
    // Adds what `write` would write.
    bool (*plan)(const ExportJob *j, const char *option, ExportPlan *p, Err *err);
    // Beyond the job's own identity: what of the settings and files the output depends on. May be
    // NULL.
    bool (*identity)(const ExportJob *j, const char *option, json_t *identity, Err *err);
} ExportFormat;

// The format of an item and its option ("" = none); NULL with err set (ERR_USAGE).
MUST_CHECK const ExportFormat *export_format(const char *item, const char **option, Err *err);
// The folder of an item below root: "mlx:q8" -> "mlx-q8". Returns out.
char *export_folder(char out[PATH_ROOM], const ExportJob *j, const char *item);

MUST_CHECK bool export_job_open(ExportJob *j, const Settings *s, Err *err);
void export_job_close(ExportJob *j);
// ERR_GATE where the drafter should not leave the house, unless export.force.
MUST_CHECK bool export_job_gate(const ExportJob *j, Err *err);
// Every byte of a checkpoint is read before it goes out.
MUST_CHECK bool export_job_whole(const ExportJob *j, Err *err);
// What a drafter's repository is built from; its card but for what the format fills in.
RepoInputs export_job_repo(const ExportJob *j);
CardFacts export_job_card(const ExportJob *j, CardKind kind);
// The recipe of an MLX export by the option of its item ("" = bf16) and the settings; `mixed` reads
// export.mix (eval/mix-mlx.json), or with a prefix, which its names get, export.target_mix
// (eval/mix-target.json): *mix is the caller's to free.
MUST_CHECK bool export_job_recipe(const ExportJob *j, const char *option, const char *prefix,
                                  MlxRecipe *r, Mix **mix, Err *err);
MUST_CHECK bool export_job_mix_sha(const ExportJob *j, bool target, Sha256 *sha, Err *err);

#endif
