// eval/report/report.c - one folder of files from one object.
#include "eval/report/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/audit/speed.h"
#include "eval/cost/recommend.h"
#include "eval/count/acceptance_json.h"
#include "eval/report/report_export.h"
#include "eval/report/report_html.h"
#include "infer/base/file.h"
#include "infer/base/json.h"

enum { AUDIT_LIMIT = 16 << 20 };

static bool write_html(const ReportView *v, const ReportRun *run, int runs, const char *dir,
                       Err *err) {
    char path[PATH_ROOM];
    OutFile f;
    if (!out_open(&f, path_join(path, dir, "report.html"), err)) return false;
    if (report_html(&f, v, run, runs, err)) return out_commit(&f, err);
    out_drop(&f);
    return false;
}

static bool write_markdown(const ReportView *v, const char *dir, Err *err) {
    char path[PATH_ROOM], *tables = NULL;
    size_t size = 0;
    OutFile f;
    FILE *memory = open_memstream(&tables, &size);
    if (memory == NULL) return err_errno(err, "%s/report.md", dir);
    acceptance_markdown(memory, v->root, true);
    bool ok = recommendations_markdown(memory, v->root, true, err);
    if (json_is_object(json_object_get(v->root, "speed")))
        speed_markdown(memory, json_object_get(v->root, "speed"));
    if (fclose(memory) != 0 || !out_open(&f, path_join(path, dir, "report.md"), err)) {
        err_set(err, ERR_FAILED, "%s/report.md: out of memory", dir);
        free(tables);
        return false;
    }
    Page p = {.f = &f, .kind = PAGE_MARKDOWN};
    page_markup(&p, "# Acceptance report\n\n");
    report_verdict(&p, v);
    page_markup(&p, "\n\n");
    out_write(&f, tables, size);
    free(tables);
    if (ok) return out_commit(&f, err);
    out_drop(&f);
    return false;
}

// What the verb `audit` left in the folder about the speed of a sweep, as "speed" beside the rest.
static json_t *with_audit(const json_t *acceptance, const char *dir) {
    char path[PATH_ROOM];
    Err ignored = {0};
    json_t *all = json_copy((json_t *)acceptance), *audit = NULL;
    if (file_exists(path_join(path, dir, "audit.json")))
        audit = json_read_file(path, AUDIT_LIMIT, &ignored);
    json_t *speed = json_object_get(audit, "speed");
    if (json_is_array(json_object_get(speed, "texts")) &&
        json_is_number(json_object_get(speed, "ratio")))
        json_object_set(all, "speed", speed);
    json_decref(audit);
    return all;
}

bool report_write_runs(const json_t *acceptance, const ReportRun *run, int runs, const char *dir,
                       Err *err) {
    ReportView *v = calloc(1, sizeof *v);
    json_t *all = with_audit(acceptance, dir);
    CHECK_MEMORY(v);
    const bool ok = report_view(v, all, err) && dir_make(dir, err) &&
                    write_html(v, run, runs, dir, err) && write_markdown(v, dir, err) &&
                    report_csv(v, dir, err) && report_mtplx(v, dir, err);
    json_decref(all);
    free(v);
    return ok;
}

bool report_write(const json_t *acceptance, const char *metrics_path, const char *dir, Err *err) {
    const ReportRun run = {.name = "this run", .metrics_path = metrics_path};
    return report_write_runs(acceptance, &run, 1, dir, err);
}
