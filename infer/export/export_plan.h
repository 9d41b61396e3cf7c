// infer/export/export_plan.h - what an export would write, found from headers and configurations:
// no weight is read, nothing is written.
#ifndef EXPORT_EXPORT_PLAN_H
#define EXPORT_EXPORT_PLAN_H

#include "infer/export/mlx_plan.h"

// Weight files with their bytes; configuration, tokenizer and card lie beside them.
typedef struct {
    struct {
        char name[320]; // below the artifact's folder
        int64_t bytes;
    } * file;
    int n;
} ExportPlan;

// folder: of the artifact, "" or "target".
void export_plan_add(ExportPlan *p, const char *folder, const char *name, int64_t bytes);
void export_plan_free(ExportPlan *p);
int64_t export_plan_bytes(const ExportPlan *p);
// The weight files of a model folder, which come out as large as they are.
MUST_CHECK bool export_plan_mirror(ExportPlan *p, const char *dir, Err *err);
MUST_CHECK bool export_plan_mlx(ExportPlan *p, const char *folder, const MlxPlan *m, Err *err);

#endif
