// eval/report_cmd.c - acceptance.json of one run, or of several on the same prompts, for people.
#include "eval/report_cmd.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/cost/recommend.h"
#include "eval/count/acceptance_json.h"
#include "eval/report/report.h"
#include "eval/report/report_merge.h"
#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/base/utf8.h"

enum { JSON_LIMIT = 1 << 30, RUNS_MAX = 32 };

typedef struct {
    char file[PATH_ROOM];    // acceptance.json, as named
    char metrics[PATH_ROOM]; // of its run
    char run[128];           // name of the run's folder, told apart from the others
    json_t *acceptance;
} Input;

typedef struct {
    const Cli *cli;
    Input *in;
    int n;
    char out[PATH_ROOM];
    json_t *merged; // of several
} Report;

// A run's folder, its eval folder, or the file itself.
static bool find_file(Input *in, const char *argument, Err *err) {
    static const char *const below[] = {"eval/acceptance.json", "acceptance.json"};
    if (strlen(argument) > PATH_ROOM - 64)
        return err_set(err, ERR_USAGE, "the name %.60s... is too long", argument);
    if (!dir_exists(argument)) {
        path_join(in->file, "", argument);
        return file_exists(in->file) || err_set(err, ERR_INPUT, "%s: not there", argument);
    }
    for (int i = 0; i < 2; i++)
        if (file_exists(path_join(in->file, argument, below[i]))) return true;
    return err_set(err, ERR_INPUT,
                   "%s: no eval/acceptance.json and no acceptance.json in it; `eval` makes one",
                   argument);
}

// The folder of the run: the parent of eval/, else the file's own. Resolved, so that "." has a
// name.
static bool run_folder(char out[PATH_ROOM], const Input *in, Err *err) {
    char *full = realpath(in->file, NULL), folder[PATH_ROOM];
    if (full == NULL) return err_errno(err, "%s", in->file);
    const bool fits = strlen(full) < PATH_ROOM;
    if (fits) {
        path_folder(folder, full);
        if (!strcmp(path_base(folder), "eval"))
            path_folder(out, folder);
        else
            path_join(out, "", folder);
    }
    free(full);
    return fits || err_set(err, ERR_USAGE, "the full name of %.60s... is too long", in->file);
}

// "b", or "a/b" where deep.
static void run_name(char out[128], const char *folder, bool deep) {
    const char *base = path_base(folder);
    while (deep && base > folder + 1) {
        base--; // onto the '/'
        while (base > folder && base[-1] != '/') base--;
        deep = false;
    }
    utf8_fit(out, 128, base[0] ? base : "run");
}

static bool read_inputs(Report *r, Err *err) {
    char(*folder)[PATH_ROOM] = calloc((size_t)r->n, sizeof *folder);
    bool ok = true, twice = false;
    CHECK_MEMORY(folder);
    for (int i = 0; i < r->n && ok; i++) {
        Input *in = &r->in[i];
        ok = find_file(in, r->cli->args[i], err) && run_folder(folder[i], in, err) &&
             (in->acceptance = json_read_file(in->file, JSON_LIMIT, err)) != NULL;
        if (!ok) break;
        path_join(in->metrics, folder[i], "metrics.jsonl");
        run_name(in->run, folder[i], false);
        for (int j = 0; j < i; j++) {
            twice |= !strcmp(in->run, r->in[j].run);
            if (!strcmp(in->metrics, r->in[j].metrics) && !strcmp(in->file, r->in[j].file))
                ok = err_set(err, ERR_USAGE, "%s is named twice", in->file);
        }
    }
    for (int i = 0; i < r->n && ok && twice; i++) run_name(r->in[i].run, folder[i], true);
    free(folder);
    return ok;
}

static bool same_file(const char *a, const char *b) {
    char *x = realpath(a, NULL), *y = realpath(b, NULL);
    const bool same = x != NULL && y != NULL && !strcmp(x, y);
    free(x);
    free(y);
    return same;
}

// *copy: where the object goes, "" = it lies there already. A merged one never replaces a source.
static bool choose_out(Report *r, char copy[PATH_ROOM], Err *err) {
    const char *given = r->cli->s.report.out;
    if (given[0])
        path_join(r->out, "", given);
    else if (r->n > 1)
        path_join(r->out, "", "report");
    else
        path_folder(r->out, r->in[0].file);
    path_join(copy, r->out, "acceptance.json");
    for (int i = 0; i < r->n; i++) {
        if (!same_file(copy, r->in[i].file)) continue;
        if (r->n > 1)
            return err_set(err, ERR_USAGE, "report.out=%s would replace %s, which is compared",
                           r->out, r->in[i].file);
        copy[0] = '\0';
    }
    return true;
}

static bool merge(Report *r, Err *err) {
    MergeInput in[RUNS_MAX];
    const Settings *s = &r->cli->s;
    const MergeSampling how = {.resamples = s->eval.bootstrap,
                               .confidence = s->eval.confidence,
                               .seed = (uint64_t)s->eval.seed};
    for (int i = 0; i < r->n; i++)
        in[i] = (MergeInput){r->in[i].file, r->in[i].run, r->in[i].acceptance};
    return (r->merged = report_merge(in, r->n, &how, err)) != NULL;
}

static bool write_all(const Report *r, const json_t *acceptance, const char *copy, Err *err) {
    ReportRun run[RUNS_MAX];
    for (int i = 0; i < r->n; i++) run[i] = (ReportRun){r->in[i].run, r->in[i].metrics};
    if (!report_write_runs(acceptance, run, r->n, r->out, err)) return false;
    if (copy[0] && !json_write_file(copy, acceptance, err)) return false;
    log_info("report: %s/report.html, report.md, acceptance.csv, mtplx.json%s", r->out,
             copy[0] ? ", acceptance.json" : "");
    return true;
}

static bool make(Report *r, Err *err) {
    char copy[PATH_ROOM];
    if (!read_inputs(r, err) || !choose_out(r, copy, err)) return false;
    if (r->n > 1 && !merge(r, err)) return false;
    const json_t *acceptance = r->n > 1 ? r->merged : r->in[0].acceptance;
    if (r->cli->dry_run) {
        printf("report: %d file%s into %s\n", r->n, r->n > 1 ? "s" : "", r->out);
        return true;
    }
    if (!write_all(r, acceptance, copy, err))
        return r->n > 1 ? false : err_wrap(err, "%s", r->in[0].file);
    if (r->cli->json) return json_print(acceptance, err);
    acceptance_markdown(stdout, acceptance, true);
    return recommendations_markdown(stdout, acceptance, true, err);
}

static bool report_run(const Cli *cli, Err *err) {
    if (cli->nargs == 0)
        return err_set(err, ERR_USAGE,
                       "report takes the folders of one or more runs, or their acceptance.json");
    Report r = {.cli = cli, .n = cli->nargs, .in = calloc((size_t)cli->nargs, sizeof(Input))};
    CHECK_MEMORY(r.in);
    const bool ok = make(&r, err);
    for (int i = 0; i < r.n; i++) json_decref(r.in[i].acceptance);
    json_decref(r.merged);
    free(r.in);
    return ok;
}

const Verb report_verb = {
    .name = "report",
    .summary = "measured drafters side by side: HTML, Markdown, CSV, JSON",
    .usage = "  draftsmith report runs/demo                           into runs/demo/eval\n"
             "  draftsmith report runs/a runs/b report.out=compare    drafters measured on the "
             "same prompts",
    .max_args = RUNS_MAX,
    .run = report_run,
};
