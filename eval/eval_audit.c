// eval/eval_audit.c - captured prompts decoded live, beside what the simulator says of them.
#include <stdlib.h>
#include <string.h>

#include "eval/eval_parts.h"
#include "infer/base/cli.h"
#include "infer/base/log.h"

// One captured sequence: the simulator's lengths, then live decoding of its prompt.
static bool audit_sequence(Eval *e, Audit *audit, Measurer *m, Speculator *s, const Assistant *a,
                           const CapturedSeq *c, Err *err) {
    const Sample *x = &c->sample;
    const Head head = assistant_deployed_head(&a->cfg);
    const int64_t anchors = x->n - x->prompt - 1;
    if (anchors < 1) return true;
    int32_t *L = malloc((size_t)anchors * sizeof *L),
            *drafts = malloc((size_t)(anchors * e->K) * sizeof *drafts);
    float *margin = malloc((size_t)(anchors * e->K) * sizeof *margin);
    bool ok = L && drafts && margin;
    if (!ok) err_set(err, ERR_FAILED, "no memory for %lld anchors", (long long)anchors);
    ok = ok && measurer_lengths(m, a, c, head, L, drafts, margin, err);
    const AuditText text = {.id = x->id,
                            .ids = x->ids,
                            .n = x->n,
                            .first = x->prompt,
                            .stopped = x->stopped,
                            .K = e->K,
                            .L = L,
                            .margin = margin};
    ok = ok && audit_decode(audit, s, &text, head, err);
    free(L);
    free(drafts);
    free(margin);
    return ok;
}

static int64_t audit_count(const Eval *e) {
    return e->s->eval.audit_prompts < e->source.count ? e->s->eval.audit_prompts : e->source.count;
}

static void audit_options(const Eval *e, const Assistant *a, SpeculatorOptions *so,
                          MeasureOptions *mo) {
    int64_t capacity = 0;
    for (int64_t i = 0; i < audit_count(e); i++) {
        const int64_t n = shards_length(e->shards, i);
        if (n > capacity) capacity = n;
    }
    *so = (SpeculatorOptions){.k_max = e->K,
                              .capacity = capacity + e->K,
                              .chunk = e->rows,
                              .feature_dtype = DT_BF16,
                              .kv_dtype = e->open.dtype};
    *mo = (MeasureOptions){.K = e->K, .head = {true, a->cfg.ordered}, .max_anchors = 1024};
}

// The trained drafter, or the stock one when there is no other.
static const Assistant *audited(const Eval *e) {
    return e->drafter[e->n > 1].assistant;
}

bool eval_can_audit(const Eval *e) {
    return audit_count(e) > 0 && strcmp(shards_meta(e->shards)->sampler, "greedy") == 0;
}

static bool audit_all(Eval *e, Audit *audit, const Assistant *a, Err *err) {
    const int64_t count = audit_count(e);
    SpeculatorOptions so;
    MeasureOptions mo;
    audit_options(e, a, &so, &mo);
    Measurer *m = measurer_open(a, target_config(e->open.target), &e->source, &mo, err);
    Speculator *s = m != NULL ? speculator_open(e->open.target, a, &so, err) : NULL;
    bool ok = s != NULL;
    Progress p;
    if (ok) progress_start(&p, "audit", "prompts", count);
    for (int64_t i = 0; ok && i < count; i++) {
        CapturedSeq c = {0};
        ok = shards_read(e->shards, i, &c, err) && audit_sequence(e, audit, m, s, a, &c, err);
        captured_free(&c);
        if (ok) progress_at(&p, i + 1, "");
        if (ok && stop_requested())
            ok = err_set(err, ERR_STOPPED, "eval: stopped in the live audit");
    }
    if (ok) progress_end(&p, count, "");
    speculator_close(s);
    measurer_close(m);
    return ok;
}

size_t eval_audit_bytes(const Eval *e) {
    SpeculatorOptions so;
    MeasureOptions mo;
    if (!eval_can_audit(e)) return 0;
    audit_options(e, audited(e), &so, &mo);
    return measurer_bytes(audited(e), target_config(e->open.target), &e->source, &mo) +
           speculator_bytes(e->open.target, audited(e), &so);
}

bool eval_audit(Eval *e, Audit *audit, json_t *report, Err *err) {
    const Assistant *a = audited(e);
    if (audit_count(e) == 0) return true;
    if (!eval_can_audit(e)) {
        log_warn("eval: the text in %s is \"%s\", not the target's greedy text: no live audit "
                 "token by token is possible",
                 e->shards_dir, e->sampler);
        return true;
    }
    if (!audit_all(e, audit, a, err)) return err_wrap(err, "live audit");
    json_object_set_new(report, "audit",
                        audit_json(audit, assistant_deployed_head(&a->cfg) == HEAD_CENTROID
                                              ? "centroid"
                                              : "dense"));
    return true;
}
