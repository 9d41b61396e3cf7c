// eval/eval_quant.c - what `eval` makes for the exporters on request: importance of columns,
// sensitivities of modules, mixtures of types.
#include <stdlib.h>
#include <string.h>

#include "eval/eval_parts.h"
#include "eval/quant/imatrix.h"
#include "eval/quant/sensitivity_json.h"
#include "eval/quant/target_sensitivity.h"
#include "infer/base/hash_cache.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/base/stage.h"
#include "infer/model/weight_source.h"

enum { QUANT_ANCHORS = 512, QUANT_TOKENS = 4096, TARGET_TOKENS = 512, REPORT_LIMIT = 64 << 20 };

static bool wants(const Settings *s, const char *what) {
    for (int i = 0; i < s->eval.sensitivity.n; i++)
        if (strcmp(s->eval.sensitivity.item[i], what) == 0) return true;
    return false;
}

// The trained drafter, else the stock one.
static const EvalDrafter *subject(const Eval *e) {
    const bool trained = e->n > 1 && strcmp(e->drafter[1].name, "trained") == 0;
    return &e->drafter[trained ? 1 : 0];
}

static int draft_length(const Eval *e) {
    return e->s->eval.select_k < e->K ? (int)e->s->eval.select_k : e->K;
}

static SensitivityOptions options(const Eval *e, MixFormat format, const Imatrix *importance) {
    const Sampler *s = &e->calibration.sampler;
    return (SensitivityOptions){.format = format,
                                .k = draft_length(e),
                                .sampler = *s,
                                .target = s->temperature > 0 ? e->open.target : NULL,
                                .importance = importance,
                                .max_anchors = QUANT_ANCHORS,
                                .pack_tokens = QUANT_TOKENS};
}

static TargetSensitivityOptions target_options(const Eval *e) {
    return (TargetSensitivityOptions){.max_tokens = TARGET_TOKENS, .max_rows = e->rows};
}

size_t eval_quant_bytes(const Eval *e) {
    if (!eval_quant_wanted(e)) return 0;
    const SensitivityOptions o = options(e, MIX_GGUF, NULL);
    const ImatrixOptions im = {.K = o.k, .max_anchors = o.max_anchors};
    const TargetConfig *tc = target_config(e->open.target);
    const Assistant *a = subject(e)->assistant;
    const size_t one = imatrix_collect_bytes(a, tc, &e->calibration.source, &im),
                 two = sensitivity_bytes(a, tc, &e->calibration.source, &o);
    const TargetSensitivityOptions to = target_options(e);
    const size_t three = wants(e->s, "target")
                             ? target_sensitivity_bytes(e->open.target, &e->calibration.source, &to)
                             : 0;
    return one > two ? (one > three ? one : three) : (two > three ? two : three);
}

static char *in_eval(char out[PATH_ROOM], const Eval *e, const char *name) {
    char dir[PATH_ROOM];
    return path_join(out, path_join(dir, e->s->output_dir, "eval"), name);
}

// What every one of these files depends on. importance: the imatrix used, "" = none.
static json_t *identity_of(const Eval *e, const char *what, const char *importance, Err *err) {
    char path[PATH_ROOM], cache[PATH_ROOM], manifest[PATH_ROOM], shards[PATH_ROOM];
    Sha256 weights, calibration;
    const Settings *s = e->s;
    const Split split = strcmp(s->eval.calibrate_on, "train") == 0 ? SPLIT_TRAIN : SPLIT_DEV;
    path_join(manifest, split_path(shards, s, "shards", split, ""), "manifest.json");
    if (!file_exists(manifest)) {
        err_set(err, ERR_INPUT, "%s: not there; eval.calibrate_on=%s reads it", shards,
                s->eval.calibrate_on);
        return NULL;
    }
    if (!sha256_remembered(&weights, weight_source_file(path, subject(e)->path),
                           hash_cache_path(cache, s), err) ||
        !sha256_file(&calibration, manifest, err))
        return NULL;
    return json_pack("{ss ss ss ss sI sI ss sI sI ss}", "what", what, "drafter", weights.hex,
                     "calibration", calibration.hex, "calibrate_on", s->eval.calibrate_on,
                     "sequences", (json_int_t)s->eval.calibrate_sequences, "k",
                     (json_int_t)draft_length(e), "dtype", s->runtime.dtype, "pos_offset",
                     (json_int_t)s->model.pos_offset, "window_extra",
                     (json_int_t)s->model.window_extra, "importance", importance);
}

// Whether a file is already what the identity says. Another identity is no error: it is made again.
static bool is_done(const char *stage, const json_t *identity, bool overwrite) {
    Err other = {0};
    const StageState state = stage_state(stage, identity, overwrite, &other);
    if (other.code != ERR_NONE) log_info("eval: measuring again: %s", other.text);
    return state == STAGE_DONE;
}

static json_t *calibration_json(const Eval *e) {
    const Calibration *c = &e->calibration;
    return json_pack("{ss ss sI sI si ss}", "split", e->s->eval.calibrate_on, "manifest_sha256",
                     c->manifest, "sequences", (json_int_t)c->n, "tokens", (json_int_t)c->tokens,
                     "categories", c->categories, "text", shards_meta(c->shards)->sampler);
}

static json_t *drafter_json(const Eval *e, const json_t *identity) {
    return json_pack("{ss ss ss}", "name", subject(e)->name, "path", subject(e)->path, "sha256",
                     json_string_value(json_object_get(identity, "drafter")));
}

// --- imatrix

static bool collect(Eval *e, Imatrix *m, Err *err) {
    double reach[DRAFT_MAX];
    char dataset[128];
    const TargetConfig *tc = target_config(e->open.target);
    const SensitivityOptions o = options(e, MIX_GGUF, NULL);
    const Assistant *a = subject(e)->assistant;
    snprintf(dataset, sizeof dataset, "captured %s text, %lld sequences", e->s->eval.calibrate_on,
             (long long)e->calibration.n);
    const ImatrixOptions im = {
        .K = o.k, .reach = reach, .max_anchors = o.max_anchors, .dataset = dataset};
    return measure_reach(reach, a, tc, &e->calibration.source, &o, err) &&
           imatrix_collect(m, a, tc, &e->calibration.source, &im, err);
}

static bool write_imatrix(Eval *e, const json_t *identity, const char *stage, Err *err) {
    char path[PATH_ROOM];
    Imatrix m;
    json_t *outputs = json_object(), *result;
    if (!stage_clear(stage, err) || !eval_open(e, err) || !collect(e, &m, err)) {
        json_decref(outputs);
        return false;
    }
    result = json_pack("{so so si sI}", "drafter", drafter_json(e, identity), "calibration",
                       calibration_json(e), "entries", m.n, "chunks", (json_int_t)m.chunks);
    const bool ok = imatrix_write_dat(in_eval(path, e, "imatrix.dat"), &m, err) &&
                    stage_note_output(outputs, stage, "imatrix.dat", err) &&
                    imatrix_write_gguf(in_eval(path, e, "imatrix.gguf"), &m, err) &&
                    stage_note_output(outputs, stage, "imatrix.gguf", err) &&
                    stage_publish_outputs(stage, identity, result, outputs, err);
    if (ok)
        log_info("eval: %s, %d matrices, %lld chunks of 512 rows", path, m.n, (long long)m.chunks);
    imatrix_free(&m);
    json_decref(outputs);
    json_decref(result);
    return ok;
}

static bool make_imatrix(Eval *e, bool overwrite, Err *err) {
    char stage[PATH_ROOM];
    json_t *identity = identity_of(e, "imatrix", "", err);
    in_eval(stage, e, "imatrix.json");
    const bool ok = identity != NULL &&
                    (is_done(stage, identity, overwrite) || write_imatrix(e, identity, stage, err));
    json_decref(identity);
    return ok;
}

// --- sensitivity and mixture

static json_t *measured_target(Eval *e, Err *err) {
    const double start = now_s();
    int n;
    if (!eval_open(e, err)) return NULL;
    const TargetSensitivityOptions o = target_options(e); // knows the rows of a call by now
    TargetModuleSensitivity *m =
        target_sensitivity(e->open.target, &e->calibration.source, &o, &n, err);
    if (m == NULL) return NULL;
    log_info("eval: %d modules of the target, %.1f s", n, now_s() - start);
    json_t *report = target_sensitivity_json(e->open.target, m, n);
    json_object_set_new(report, "target", json_string(e->open.fingerprint.hex));
    json_object_set_new(report, "calibration", calibration_json(e));
    free(m);
    return report;
}

static json_t *measured_drafter(Eval *e, MixFormat format, const json_t *identity, Err *err) {
    char path[PATH_ROOM];
    Imatrix importance = {0};
    const bool weigh = format == MIX_GGUF && e->s->eval.imatrix;
    if (!eval_open(e, err) ||
        (weigh && !imatrix_read(&importance, in_eval(path, e, "imatrix.dat"), err)))
        return NULL;
    const SensitivityOptions o = options(e, format, weigh ? &importance : NULL);
    const double start = now_s();
    Sensitivity *s = sensitivity_measure(subject(e)->assistant, target_config(e->open.target),
                                         &e->calibration.source, &o, err);
    imatrix_free(&importance);
    if (s == NULL) return NULL;
    log_info("eval: %d modules in %s types, tau(%d) %.3f, %.1f s", s->n, mix_format_name(format),
             s->k, s->tau, now_s() - start);
    json_t *report = sensitivity_json(s);
    free(s);
    json_object_set_new(report, "drafter", drafter_json(e, identity));
    json_object_set_new(report, "calibration", calibration_json(e));
    json_object_set_new(report, "imatrix", json_boolean(weigh));
    return report;
}

static json_t *measured(Eval *e, const char *what, const json_t *identity, Err *err) {
    if (strcmp(what, "target") == 0) return measured_target(e, err);
    return measured_drafter(e, strcmp(what, "gguf") == 0 ? MIX_GGUF : MIX_MLX, identity, err);
}

// The report of "mlx", "gguf" or "target": read where it is there for this identity, else measured
// and written.
static json_t *sensitivity_report(Eval *e, const char *what, bool overwrite, Err *err) {
    char stage[PATH_ROOM], path[PATH_ROOM], name[64], importance[65] = "";
    Sha256 hash;
    json_t *report = NULL, *identity, *outputs = json_object();
    snprintf(name, sizeof name, "sensitivity-%s.json", what);
    in_eval(path, e, name);
    if (strcmp(what, "gguf") == 0 && e->s->eval.imatrix) {
        if (!sha256_file(&hash, in_eval(stage, e, "imatrix.dat"), err)) goto end;
        memcpy(importance, hash.hex, sizeof importance);
    }
    snprintf(stage, sizeof stage, "%s/eval/sensitivity-%s.stage.json", e->s->output_dir, what);
    if ((identity = identity_of(e, name, importance, err)) == NULL) goto end;
    if (is_done(stage, identity, overwrite)) {
        report = json_read_file(path, REPORT_LIMIT, err);
    } else if (stage_clear(stage, err) && (report = measured(e, what, identity, err)) != NULL) {
        if (!json_write_file(path, report, err) || !stage_note_output(outputs, stage, name, err) ||
            !stage_publish_outputs(stage, identity, NULL, outputs, err)) {
            json_decref(report);
            report = NULL;
        }
    }
    json_decref(identity);
end:
    json_decref(outputs);
    return report;
}

static bool make_mix(Eval *e, const char *what, bool overwrite, Err *err) {
    char path[PATH_ROOM], name[64];
    const bool target = strcmp(what, "target") == 0; // KL is all that there is of one
    const MixWish wish = {.method = target ? "optiq" : e->s->eval.mix_method,
                          .bpw = e->s->eval.mix_bpw};
    json_t *report = sensitivity_report(e, what, overwrite, err);
    Mix *m = report != NULL ? mix_of_sensitivity(report, &wish, err) : NULL;
    const json_t *subject_sha = target
                                    ? json_object_get(report, "target")
                                    : json_object_get(json_object_get(report, "drafter"), "sha256");
    const char *sha = json_string_value(subject_sha);
    snprintf(name, sizeof name, "mix-%s.json", what);
    if (m != NULL && sha != NULL) snprintf(m->weights, sizeof m->weights, "%.64s", sha);
    const bool ok = m != NULL && mix_write(in_eval(path, e, name), m, err);
    if (ok)
        log_info("eval: %s, %d modules, %.3f bits per weight with scales (%s)", path, m->n,
                 m->bits_per_weight, m->method);
    mix_free(m);
    json_decref(report);
    return ok;
}

bool eval_quant(Eval *e, bool overwrite, Err *err) {
    if (e->s->eval.imatrix && !make_imatrix(e, overwrite, err)) return false;
    static const char *const what[] = {"mlx", "gguf", "target"};
    for (int i = 0; i < 3; i++)
        if (wants(e->s, what[i]) && !make_mix(e, what[i], overwrite, err)) return false;
    return true;
}
