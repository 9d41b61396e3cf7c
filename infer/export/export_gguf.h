// infer/export/export_gguf.h - the formats gguf and gguf-ik of export.to. Option: "all", a type of
// gguf_mix_named, or "mixed" by export.gguf_mix.
#ifndef EXPORT_EXPORT_GGUF_H
#define EXPORT_EXPORT_GGUF_H

#include "infer/export/export_job.h"

#define GGUF_OPTIONS "all|BF16|F16|Q8_0|Q6_K|Q5_K_M|...|mixed"
MUST_CHECK bool export_gguf_check(const ExportJob *j, const char *option, Err *err);
MUST_CHECK bool export_gguf_write(const ExportJob *j, const char *option, const char *dir,
                                  Err *err);
MUST_CHECK bool export_gguf_ik_write(const ExportJob *j, const char *option, const char *dir,
                                     Err *err);
MUST_CHECK bool export_gguf_plan(const ExportJob *j, const char *option, ExportPlan *p, Err *err);
MUST_CHECK bool export_gguf_ik_plan(const ExportJob *j, const char *option, ExportPlan *p,
                                    Err *err);
MUST_CHECK bool export_gguf_identity(const ExportJob *j, const char *option, json_t *identity,
                                     Err *err);

#endif
