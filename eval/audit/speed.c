// eval/audit/speed.c - captured sequences go from the target to the measurer group by group; live
// decoding is timed text by text.
#include "eval/audit/speed.h"

#include <stdlib.h>
#include <string.h>

#include "data/capture.h"
#include "data/measure.h"
#include "data/regenerate.h"
#include "infer/base/cli.h"
#include "infer/base/log.h"
#include "infer/text/chat.h"

enum { ANCHORS = 2048, TOKENS = 16384 }; // of a call, and packed at once: as eval takes them
enum { SWEEPS = 3 };                     // the median counts

bool speed_text(Sample *out, const char *id, const SpeculateResult *r, Err *err) {
    *out = (Sample){.prompt = r->first, .n = r->n, .stopped = r->stopped, .min_margin = -1};
    snprintf(out->id, sizeof out->id, "%s", id);
    out->ids = malloc((size_t)r->n * sizeof *out->ids);
    out->kind = malloc((size_t)r->n);
    if (out->ids == NULL || out->kind == NULL)
        return err_set(err, ERR_FAILED, "no memory for %lld tokens", (long long)r->n);
    memcpy(out->ids, r->ids, (size_t)r->n * sizeof *out->ids);
    memset(out->kind, TOKEN_CONTEXT, (size_t)r->first);
    memset(out->kind + r->first, TOKEN_MODEL, (size_t)(r->n - r->first));
    return true;
}

// Captures a group when its first sequence is asked for; sequences are asked for in order.
typedef struct {
    CapturePlan plan;
    Capturer *capturer;
    int64_t group; // next one
    CapturedSeq ready[PACK_SEQS_MAX];
} Texts;

static int64_t length(void *ctx, int64_t i) {
    return ((Texts *)ctx)->plan.seq[i]->n;
}

static bool read_next(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    Texts *s = ctx;
    if (i == s->plan.group[s->group]) {
        const int64_t g = s->group++, next = s->group < s->plan.groups ? s->group : -1;
        if (!capturer_run(s->capturer, g, next, s->ready, err)) return false;
    }
    CapturedSeq *c = &s->ready[i - s->plan.group[s->group - 1]];
    *out = *c;
    *c = (CapturedSeq){0};
    return true;
}

static void source_close(Texts *s) {
    for (int i = 0; i < PACK_SEQS_MAX; i++) captured_free(&s->ready[i]);
    capturer_close(s->capturer);
    capture_plan_free(&s->plan);
    free(s);
}

static bool sweep(double *seconds, AuditPair *p, const Sample *text, int64_t n,
                  const Sampler *sampler, Err *err) {
    const TargetConfig *tc = target_config(p->open.target);
    Texts *s = calloc(1, sizeof *s);
    CHECK_MEMORY(s);
    Measurer *m = NULL;
    Measured *counts = calloc((size_t)n + 1, sizeof *counts);
    CHECK_MEMORY(counts);
    MeasureOptions opt = {.K = p->K,
                          .max_anchors = ANCHORS,
                          .pack_tokens = TOKENS,
                          .sampler = *sampler,
                          .target = sampler->temperature > 0 ? p->open.target : NULL,
                          .reached = true};
    opt.head[p->head] = true;
    bool ok = capture_plan(&s->plan, text, n, p->rows, NULL, 0, err) &&
              (s->capturer = capturer_open(p->open.target, &s->plan, p->rows, p->open.dtype, err));
    const SeqSource src = {.ctx = s, .count = s->plan.n, .length = length, .read = read_next};
    ok = ok && (m = measurer_open(p->drafter, tc, &src, &opt, err)) != NULL;
    const double start = now_s();
    ok = ok && measurer_run(m, p->drafter, counts, NULL, err);
    *seconds = now_s() - start;
    measurer_close(m);
    source_close(s);
    free(counts);
    return ok;
}

static int ascending(const void *pa, const void *pb) {
    const double a = *(const double *)pa, b = *(const double *)pb;
    return (a > b) - (a < b);
}

bool speed_sweep(Speed *out, AuditPair *p, const Sample *text, int64_t n, const Sampler *sampler,
                 Err *err) {
    double seconds[SWEEPS];
    *out = (Speed){.K = p->K, .prompts = n, .sweeps = SWEEPS};
    sampler_name(out->sampler, sampler);
    for (int64_t i = 0; i < n; i++) out->tokens += text[i].n - text[i].prompt;
    for (int i = 0; i < SWEEPS; i++)
        if (!sweep(&seconds[i], p, text, n, sampler, err)) return false;
    qsort(seconds, SWEEPS, sizeof *seconds, ascending);
    out->sweep_s = seconds[SWEEPS / 2];
    return true;
}

// One answer to the prompt of a text; most tokens: as many as may be.
static bool decode(AuditPair *p, const Sample *text, const Sampler *sampler, int k,
                   SpeculateResult *out, Err *err) {
    const int64_t room = p->s->data.max_length - text->prompt,
                  most = p->s->regenerate.max_new_tokens;
    const SpeculateOptions opt = {.k = k,
                                  .head = p->head,
                                  .max_new_tokens = room < most ? room : most,
                                  .rule = DRAFT_REJECTION,
                                  .sampler = *sampler};
    return speculate(p->spec, &opt, text->ids, text->prompt, out, err) ||
           err_wrap(err, "%s k=%d, sampled", text->id, k);
}

static bool draw_texts(AuditPair *p, const Sample *text, int64_t n, const Sampler *sampler,
                       Sample *drawn, Err *err) {
    for (int64_t i = 0; i < n; i++) {
        SpeculateResult r;
        if (!decode(p, &text[i], sampler, 0, &r, err)) return false;
        const bool ok = speed_text(&drawn[i], text[i].id, &r, err);
        speculate_result_free(&r);
        if (!ok || stop_requested()) return ok && err_set(err, ERR_STOPPED, "stopped");
    }
    return true;
}

static bool live(Speed *out, AuditPair *p, const Sample *text, int64_t n, const Sampler *sampler,
                 Err *err) {
    for (int64_t i = 0; i < n; i++)
        for (int k = 1; k <= p->K; k++) {
            SpeculateResult r;
            const double start = now_s();
            if (!decode(p, &text[i], sampler, k, &r, err)) return false;
            out->live_s += now_s() - start;
            out->live_tokens += r.n - r.first;
            speculate_result_free(&r);
            if (stop_requested()) return err_set(err, ERR_STOPPED, "stopped");
        }
    return true;
}

bool speed_sampled(Speed *out, AuditPair *p, const Sample *text, int64_t n, const Sampler *sampler,
                   Err *err) {
    Sample *drawn = calloc((size_t)n + 1, sizeof *drawn);
    CHECK_MEMORY(drawn);
    const bool ok = draw_texts(p, text, n, sampler, drawn, err) &&
                    speed_sweep(out, p, drawn, n, sampler, err) &&
                    live(out, p, text, n, sampler, err);
    samples_free(drawn, n);
    return ok;
}

json_t *speed_json(const Speed *s) {
    return json_pack("{ss si sI sI sI si sf sf sf}", "sampler", s->sampler, "draft_tokens", s->K,
                     "prompts", (json_int_t)s->prompts, "tokens", (json_int_t)s->tokens,
                     "live_tokens", (json_int_t)s->live_tokens, "sweeps", s->sweeps, "sweep_s",
                     s->sweep_s, "live_s", s->live_s, "ratio",
                     s->sweep_s > 0 ? s->live_s / s->sweep_s : 0.0);
}

static double real(const json_t *o, const char *key) {
    return json_number_value(json_object_get(o, key));
}

static void row(FILE *out, const json_t *speed) {
    fprintf(out, "| %s | %.0f | 1..%.0f | %.2f | %.2f | %.1f |\n",
            json_string_value(json_object_get(speed, "sampler")), real(speed, "prompts"),
            real(speed, "draft_tokens"), real(speed, "sweep_s"), real(speed, "live_s"),
            real(speed, "ratio"));
}

void speed_markdown(FILE *out, const json_t *speed) {
    const json_t *sampled = json_object_get(speed, "sampled");
    const int sweeps = (int)real(speed, "sweeps");
    char median[32] = "";
    if (sweeps > 0) snprintf(median, sizeof median, "; median of %d", sweeps);
    fprintf(out,
            "\nSpeed: the tokens per step of all k by sweep (capture and drafter pass%s) and by "
            "live decoding once per k at batch 1\n\n"
            "| text | prompts | k | sweep s | live s | times faster |\n"
            "|---|---|---|---|---|---|\n",
            median);
    row(out, speed);
    if (sampled != NULL) row(out, sampled);
}
