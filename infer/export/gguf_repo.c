// infer/export/gguf_repo.c - which GGUF files a run asks for, and the pair they are made from.
#include "infer/export/gguf_repo.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"

bool gguf_option(const char *option, GgufMix mix[GGUF_MIXES_MAX], int *n, Err *err) {
    const char *const *all;
    *n = 0;
    if (strcmp(option, "all") != 0) return gguf_mix_named(&mix[(*n)++], option, err);
    const int count = gguf_mix_all(&all);
    while (*n < count && gguf_mix_named(&mix[*n], all[*n], err)) (*n)++;
    return *n == count;
}

static bool open_pair(const GgufRepoInputs *in, AssistantConfig *c, Err *err) {
    TargetConfig *target = malloc(sizeof *target); // large: every layer's kind
    CHECK_MEMORY(target);
    const bool ok = target_config_load(target, in->target_dir, err) &&
                    assistant_config_load(c, in->stock_dir, err) && pair_check(target, c, err);
    free(target);
    return ok;
}

static GgufJob job_of(const GgufRepoInputs *in, GgufDialect d, const AssistantConfig *c) {
    return (GgufJob){.dialect = d,
                     .config = c,
                     .stock_dir = in->stock_dir,
                     .tokenizer_dir = in->target_dir,
                     .name = in->name,
                     .base_model = in->base_model,
                     .importance = in->importance};
}

bool gguf_repo_files(const GgufRepoInputs *in, GgufDialect d, const GgufMix *mix, int n,
                     const char *dir, Err *err) {
    AssistantConfig c;
    if (!open_pair(in, &c, err)) return false;
    GgufSource *source = gguf_source_open(in->stock_dir, &in->weights, err);
    if (source == NULL) return false;
    GgufJob job = job_of(in, d, &c);
    job.weights = gguf_source_weights(source);
    const double started = now_s();
    const bool ok = gguf_export(&job, mix, n, dir, err);
    if (ok)
        log_info("%s: %d file%s in %.1f s", gguf_architecture(d), n, n == 1 ? "" : "s",
                 now_s() - started);
    gguf_source_close(source);
    return ok;
}

bool gguf_repo_bytes(const GgufRepoInputs *in, GgufDialect d, const GgufMix *mix, int n,
                     int64_t *bytes, Err *err) {
    AssistantConfig c;
    if (!open_pair(in, &c, err)) return false;
    const GgufJob job = job_of(in, d, &c);
    return gguf_export_bytes(&job, mix, n, bytes, err);
}
