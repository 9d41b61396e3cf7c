// infer/export/mtplx.h - a target and its drafter as an MTPLX pair bundle (spec export-formats D).
#ifndef EXPORT_MTPLX_H
#define EXPORT_MTPLX_H

#include "infer/export/export_job.h"

// target/, assistant/, benchmarks/ with what was measured, mtplx_pair.json, README.md. The bundle
// is checked (mtplx_check.h) before it is put in place.
MUST_CHECK bool mtplx_write(const ExportJob *j, const char *option, const char *dir, Err *err);
MUST_CHECK bool mtplx_plan(const ExportJob *j, const char *option, ExportPlan *p, Err *err);
MUST_CHECK bool mtplx_check_option(const ExportJob *j, const char *option, Err *err);
MUST_CHECK bool mtplx_identity(const ExportJob *j, const char *option, json_t *identity, Err *err);

#endif
