// infer/model/target_merged.c - sorts the source's tensors, hands out their rows.
#include "infer/model/target_merged.h"

#include <stdlib.h>
#include <string.h>

#include "infer/model/target_parts.h"

struct TargetMerged {
    TargetConfig cfg;
    TargetSource source;
    MergedTensor *tensor;
    int n;
    void *held; // the merged matrix asked for last
    int held_tensor;
    int64_t held_expert;
};

static bool is_unused(const TargetConfig *c, const char *name) {
    static const char *const ENDS[] = {"self_attn.k_proj.weight", "self_attn.v_proj.weight",
                                       "self_attn.k_norm.weight"};
    static const char *const INSIDE[] = {"rotary_emb", "input_max", "input_min", "output_max",
                                         "output_min"};
    int layer, at = 0;
    if (strcmp(name, "lm_head.weight") == 0) return true;
    for (size_t i = 0; i < sizeof INSIDE / sizeof *INSIDE; i++)
        if (strstr(name, INSIDE[i]) != NULL) return true;
    if (sscanf(name, "layers.%d.%n", &layer, &at) != 1 || at == 0 || layer < 0 ||
        layer >= c->text.layers || layer_owns_kv(&c->text, layer))
        return false;
    for (size_t i = 0; i < sizeof ENDS / sizeof *ENDS; i++)
        if (strcmp(name + at, ENDS[i]) == 0) return true;
    return false;
}

static bool sort_tensor(const TargetConfig *c, const StTensor *t, MergedTensor *out, Err *err) {
    *out = (MergedTensor){.tensor = t, .kind = MERGED_TOWER};
    if (weight_tower(t->name) != NULL) {
        snprintf(out->name, sizeof out->name, "%s", t->name);
        return true;
    }
    if (!weight_canonical(t->name, out->name))
        return err_set(err, ERR_INPUT, "tensor %s is no part of a Gemma 4 model", t->name);
    out->kind = is_unused(c, out->name) ? MERGED_UNUSED : MERGED_TEXT;
    return true;
}

static bool sort_all(TargetMerged *m, Err *err) {
    WeightPart part;
    const StFile *f = m->source.file;
    m->tensor = calloc((size_t)st_count(f) + 1, sizeof *m->tensor);
    CHECK_MEMORY(m->tensor);
    for (; m->n < st_count(f); m->n++) {
        const StTensor *t = st_at(f, m->n);
        if (!sort_tensor(&m->cfg, t, &m->tensor[m->n], err)) return err_wrap(err, "%s", st_path(f));
        target_merged_part(&m->source, t, &part); // marks the adapter's module
    }
    target_pass_over_shared_kv(&m->cfg.text, &m->source);
    return target_check_head(&m->cfg.text, &m->source, err) &&
           adapter_all_used(m->source.adapter, err);
}

TargetMerged *target_merged_open(const char *dir, const char *adapter, Err *err) {
    TargetMerged *m = calloc(1, sizeof *m);
    CHECK_MEMORY(m);
    m->held_tensor = -1;
    if (target_config_load(&m->cfg, dir, err) &&
        target_source_open(&m->source, dir, adapter, err) && sort_all(m, err))
        return m;
    target_merged_close(m);
    return NULL;
}

void target_merged_close(TargetMerged *m) {
    if (m == NULL) return;
    target_source_close(&m->source);
    free(m->tensor);
    free(m->held);
    free(m);
}

const TargetConfig *target_merged_config(const TargetMerged *m) {
    return &m->cfg;
}
int target_merged_count(const TargetMerged *m) {
    return m->n;
}
const MergedTensor *target_merged_at(const TargetMerged *m, int i) {
    CHECK(i >= 0 && i < m->n);
    return &m->tensor[i];
}

// The merged matrix `one` (of tensor i, or of one of its experts) in its dtype, in m->held.
static bool hold(TargetMerged *m, int i, const StTensor *one, const WeightPart *part, Err *err) {
    if (m->held_tensor == i && m->held_expert == part->expert) return true;
    m->held_tensor = -1;
    free(m->held);
    float *w = malloc((size_t)one->count * sizeof *w + 1);
    m->held = w;
    if (w == NULL) return err_set(err, ERR_FAILED, "out of memory for %s", one->name);
    if (!merged_matrix(m->source.file, one, m->source.adapter, part, w, err)) return false;
    if (strcmp(one->dtype, "BF16") == 0) // narrowed in place: the values are bf16 already
        for (int64_t k = 0; k < one->count; k++) {
            const bf16 h = bf16_from_f32(w[k]);
            memcpy((char *)w + 2 * k, &h, sizeof h);
        }
    m->held_tensor = i;
    m->held_expert = part->expert;
    return true;
}

bool target_merged_rows(TargetMerged *m, int i, int64_t first, int64_t n, void *out, Err *err) {
    WeightPart part;
    const StTensor *t = target_merged_at(m, i)->tensor;
    const int64_t cols = t->rank > 0 ? t->dim[t->rank - 1] : 1,
                  row = t->count > 0 ? t->bytes / t->count * cols : 0;
    CHECK(first >= 0 && n >= 0 && (first + n) * cols <= t->count);
    if (!target_merged_part(&m->source, t, &part))
        return st_read_part(m->source.file, t, first * row, n * row, out, err);
    const int64_t rows = t->dim[t->rank - 2]; // of one matrix
    for (int64_t at = first, end; at < first + n; at = end) {
        const StTensor one = part.experts > 0 ? expert_slice(t, at / rows) : *t;
        part.expert = part.experts > 0 ? at / rows : 0;
        end = (at / rows + 1) * rows;
        if (end > first + n) end = first + n;
        if (!hold(m, i, &one, &part, err)) return false;
        memcpy((char *)out + (at - first) * row, (char *)m->held + at % rows * row,
               (size_t)((end - at) * row));
    }
    return true;
}
