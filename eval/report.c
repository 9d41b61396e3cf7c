// eval/report.c - one folder of files from one object.
#include "eval/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/acceptance_json.h"
#include "eval/report_export.h"
#include "eval/report_html.h"
#include "infer/base/file.h"
#include "infer/base/json.h"

static bool write_html(const ReportView *v, const ReportRun *run, int runs, const char *dir,
                       Err *err) {
    char path[PATH_ROOM];
    OutFile f;
    if (!out_open(&f, path_join(path, dir, "report.html"), err)) return false;
    if (report_html(&f, v, run, runs, err)) return out_commit(&f, err);
    out_drop(&f);
    return false;
}

static void speed_table(Page *p, const ReportView *v) {
    if (!json_is_object(view_ref(v, "recommendation").v)) return;
    page_markup(p, "\n| drafter | rule | fastest k | speed-up |\n|---|---|---|---|\n");
    for (int d = 0; d < v->drafters; d++)
        for (int n = 0; n < v->keys; n++) {
            const Ref r = view_recommendation(v, d, v->key[n]);
            if (r.v == NULL) continue;
            page_markup(p, "| ");
            page_text(p, v->name[d]);
            page_markup(p, " | %s | ", v->key[n]);
            page_figure(p, ref_key(r, "best_k"), FIG_COUNT);
            page_markup(p, " | ");
            page_figure(p, ref_key(r, "best_speedup"), FIG_SPEED);
            page_markup(p, " |\n");
        }
    page_markup(p, "\nk = 0: plain decoding is fastest.\n");
}

static bool write_markdown(const ReportView *v, const char *dir, Err *err) {
    char path[PATH_ROOM], *tables = NULL;
    size_t size = 0;
    OutFile f;
    FILE *memory = open_memstream(&tables, &size);
    if (memory == NULL) return err_errno(err, "%s/report.md", dir);
    acceptance_markdown(memory, v->root);
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
    speed_table(&p, v);
    free(tables);
    return out_commit(&f, err);
}

bool report_write_runs(const json_t *acceptance, const ReportRun *run, int runs, const char *dir,
                       Err *err) {
    ReportView *v = calloc(1, sizeof *v);
    CHECK_MEMORY(v);
    const bool ok = report_view(v, acceptance, err) && dir_make(dir, err) &&
                    write_html(v, run, runs, dir, err) && write_markdown(v, dir, err) &&
                    report_csv(v, dir, err) && report_mtplx(v, dir, err);
    free(v);
    return ok;
}

bool report_write(const json_t *acceptance, const char *metrics_path, const char *dir, Err *err) {
    const ReportRun run = {.name = "this run", .metrics_path = metrics_path};
    return report_write_runs(acceptance, &run, 1, dir, err);
}
