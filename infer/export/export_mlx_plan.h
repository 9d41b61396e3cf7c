// infer/export/export_mlx_plan.h - the weight files of a pair's halves in MLX, for an ExportPlan.
#ifndef EXPORT_EXPORT_MLX_PLAN_H
#define EXPORT_EXPORT_MLX_PLAN_H

#include "infer/export/export_job.h"

// option: q8, mixed, ..; "" is bf16. folder: as in export_plan_add.
MUST_CHECK bool export_plan_assistant(ExportPlan *p, const ExportJob *j, const char *option,
                                      const char *folder, Err *err);
MUST_CHECK bool export_plan_target(ExportPlan *p, const ExportJob *j, const char *option,
                                   const char *folder, Err *err);

#endif
