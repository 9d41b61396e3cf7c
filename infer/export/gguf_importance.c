// infer/export/gguf_importance.c - finds a tensor's entry under the names of either dialect.
#include "infer/export/gguf_importance.h"

#include <stdio.h>
#include <string.h>

// The two dialects name two tensors differently; what was measured is the same.
static const char *other_name(const char *name) {
    static const char *const PAIRS[][2] = {
        {"nextn.pre_projection.weight", "mtp_pre_proj.weight"},
        {"nextn.post_projection.weight", "mtp_post_proj.weight"},
    };
    for (size_t i = 0; i < sizeof PAIRS / sizeof *PAIRS; i++)
        for (int k = 0; k < 2; k++)
            if (strcmp(name, PAIRS[i][k]) == 0) return PAIRS[i][1 - k];
    return name;
}

static const ImatrixEntry *entry_of(const Imatrix *m, const char *name) {
    const ImatrixEntry *e = imatrix_find(m, name);
    return e != NULL ? e : imatrix_find(m, other_name(name));
}

static const float *find(void *ctx, const GgufEntry *e) {
    const ImatrixEntry *found = entry_of(ctx, e->name);
    return found != NULL ? found->iw : NULL;
}

static bool check(const GgufImatrix *m, GgufDialect d, const AssistantConfig *c, const char *path,
                  Err *err) {
    GgufEntry e[GGUF_ENTRIES_MAX];
    const int n = gguf_assistant_tensors(d, c, e);
    int used = 0;
    for (int i = 0; i < n; i++) {
        const ImatrixEntry *found = entry_of(&m->file, e[i].name);
        if (found == NULL) continue;
        if (found->n != e[i].dim[0])
            return err_set(err, ERR_INPUT, "%s: %s has %lld columns, the drafter's tensor %lld",
                           path, found->name, (long long)found->n, (long long)e[i].dim[0]);
        used++;
    }
    return used > 0 ||
           err_set(err, ERR_INPUT, "%s: none of its %d entries names a tensor of the drafter", path,
                   m->file.n);
}

bool gguf_imatrix_open(GgufImatrix *m, const char *path, GgufDialect d, const AssistantConfig *c,
                       Err *err) {
    *m = (GgufImatrix){0};
    if (!imatrix_read(&m->file, path, err) || !check(m, d, c, path, err)) return false;
    snprintf(m->name, sizeof m->name, "%.255s", path_base(path));
    m->importance = (GgufImportance){.file = m->name,
                                     .dataset = m->file.dataset,
                                     .entries = m->file.n,
                                     .chunks = m->file.chunks,
                                     .ctx = &m->file,
                                     .find = find};
    return true;
}

void gguf_imatrix_close(GgufImatrix *m) {
    imatrix_free(&m->file);
}
