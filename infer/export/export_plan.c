// infer/export/export_plan.c - collects files and their sizes.
#include "infer/export/export_plan.h"

#include <stdio.h>
#include <stdlib.h>

#include "infer/export/hf.h"
#include "infer/export/mlx.h"

void export_plan_add(ExportPlan *p, const char *folder, const char *name, int64_t bytes) {
    p->file = realloc(p->file, ((size_t)p->n + 1) * sizeof *p->file);
    CHECK_MEMORY(p->file);
    snprintf(p->file[p->n].name, sizeof p->file->name, "%s%s%s", folder,
             folder[0] != '\0' ? "/" : "", name);
    p->file[p->n++].bytes = bytes;
}

void export_plan_free(ExportPlan *p) {
    free(p->file);
    *p = (ExportPlan){0};
}

int64_t export_plan_bytes(const ExportPlan *p) {
    int64_t total = 0;
    for (int i = 0; i < p->n; i++) total += p->file[i].bytes;
    return total;
}

bool export_plan_mirror(ExportPlan *p, const char *dir, Err *err) {
    char path[PATH_ROOM];
    int n = 0;
    char **files = hf_weight_files(dir, &n, err);
    bool ok = files != NULL;
    for (int i = 0; ok && i < n; i++) {
        int64_t bytes;
        ok = file_size(path_join(path, dir, files[i]), &bytes, err);
        if (ok) export_plan_add(p, "", files[i], bytes);
    }
    dir_list_free(files, n);
    return ok;
}

bool export_plan_mlx(ExportPlan *p, const char *folder, const MlxPlan *m, Err *err) {
    bool ok = true;
    for (int i = 0; ok && i < m->shards; i++) {
        char name[64];
        int64_t bytes;
        ok = mlx_shard_bytes(m, i, &bytes, err);
        if (ok) export_plan_add(p, folder, mlx_shard_name(m, i, name), bytes);
    }
    return ok;
}
