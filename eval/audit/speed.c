// eval/audit/speed.c - captured sequences go from the target to the measurer group by group; live
// decoding is timed text by text, with a sweep after each: where a machine slows down and recovers,
// both meet it.
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

// The texts as eval measures them. They are a source that captures a group when its first sequence
// is asked for; sequences are asked for in order.
typedef struct {
    CapturePlan plan;
    Capturer *capturer;
    int64_t group; // next one
    CapturedSeq ready[PACK_SEQS_MAX];
    Measurer *measurer;
    Measured *counts; // (texts)
} Sweeper;

static int64_t length(void *ctx, int64_t i) {
    return ((Sweeper *)ctx)->plan.seq[i]->n;
}

static bool read_next(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    Sweeper *s = ctx;
    if (i == 0) s->group = 0;
    if (i == s->plan.group[s->group]) {
        const int64_t g = s->group++, next = s->group < s->plan.groups ? s->group : -1;
        if (!capturer_run(s->capturer, g, next, s->ready, err)) return false;
    }
    CapturedSeq *c = &s->ready[i - s->plan.group[s->group - 1]];
    *out = *c;
    *c = (CapturedSeq){0};
    return true;
}

static void sweeper_close(Sweeper *s) {
    for (int i = 0; i < PACK_SEQS_MAX; i++) captured_free(&s->ready[i]);
    measurer_close(s->measurer);
    capturer_close(s->capturer);
    capture_plan_free(&s->plan);
    free(s->counts);
}

static bool sweeper_open(Sweeper *s, AuditPair *p, const Sample *text, int64_t n,
                         const Sampler *sampler, Err *err) {
    MeasureOptions opt = {.K = p->K,
                          .max_anchors = ANCHORS,
                          .pack_tokens = TOKENS,
                          .sampler = *sampler,
                          .target = sampler->temperature > 0 ? p->open.target : NULL,
                          .reached = true};
    opt.head[p->head] = true;
    s->counts = calloc((size_t)n + 1, sizeof *s->counts);
    CHECK_MEMORY(s->counts);
    if (!capture_plan(&s->plan, text, n, p->rows, NULL, 0, err) ||
        !(s->capturer = capturer_open(p->open.target, &s->plan, p->rows, p->open.dtype, err)))
        return false;
    const SeqSource src = {.ctx = s, .count = s->plan.n, .length = length, .read = read_next};
    s->measurer = measurer_open(p->drafter, target_config(p->open.target), &src, &opt, err);
    return s->measurer != NULL;
}

static bool sweep(Sweeper *s, const AuditPair *p, double *seconds, Err *err) {
    const double start = now_s();
    if (!measurer_run(s->measurer, p->drafter, s->counts, NULL, err)) return false;
    *seconds = now_s() - start;
    return true;
}

static int ascending(const void *pa, const void *pb) {
    const double a = *(const double *)pa, b = *(const double *)pb;
    return (a > b) - (a < b);
}

// How live decoding obeys a rule that a sweep counts.
static DraftRule live_rule(AcceptRule rule) {
    return rule == RULE_REJECTION ? DRAFT_REJECTION
           : rule == RULE_STRICT  ? DRAFT_STRICT
                                  : DRAFT_BEST;
}

// One answer to the prompt of a text; most tokens: as many as may be.
static bool decode(AuditPair *p, const Sample *text, const Sampler *sampler, DraftRule rule, int k,
                   SpeculateResult *out, Err *err) {
    const int64_t room = p->s->data.max_length - text->prompt,
                  most = p->s->regenerate.max_new_tokens;
    const SpeculateOptions opt = {.k = k,
                                  .head = p->head,
                                  .max_new_tokens = room < most ? room : most,
                                  .rule = rule,
                                  .sampler = *sampler};
    return speculate(p->spec, &opt, text->ids, text->prompt, out, err) ||
           err_wrap(err, "%s k=%d", text->id, k);
}

static bool draw_texts(AuditPair *p, const Sample *text, int64_t n, const Sampler *sampler,
                       Sample *drawn, Err *err) {
    for (int64_t i = 0; i < n; i++) {
        SpeculateResult r;
        if (!decode(p, &text[i], sampler, DRAFT_BEST, 0, &r, err)) return false;
        const bool ok = speed_text(&drawn[i], text[i].id, &r, err);
        speculate_result_free(&r);
        if (!ok || stop_requested()) return ok && err_set(err, ERR_STOPPED, "stopped");
    }
    return true;
}

// Once per rule and draft length.
static bool live(Speed *out, AuditPair *p, const Sample *text, const Sampler *sampler, Err *err) {
    AcceptRule rule[RULE_COUNT];
    out->rules = measure_rules(sampler, rule);
    for (int i = 0; i < out->rules; i++)
        for (int k = 1; k <= p->K; k++) {
            SpeculateResult r;
            const double start = now_s();
            if (!decode(p, text, sampler, live_rule(rule[i]), k, &r, err)) return false;
            out->live[i].name = rule_name(rule[i]);
            out->live[i].live_s += now_s() - start;
            out->live[i].tokens += r.n - r.first;
            speculate_result_free(&r);
            if (stop_requested()) return err_set(err, ERR_STOPPED, "stopped");
        }
    return true;
}

// A first sweep does not count: live decoding does not begin with fresh memory either.
static bool take_turns(Speed *out, double *seconds, Sweeper *s, AuditPair *p, const Sample *text,
                       const Sampler *sampler, Err *err) {
    if (!sweeper_open(s, p, text, out->prompts, sampler, err) || !sweep(s, p, seconds, err))
        return false;
    for (int64_t i = 0; i < out->prompts; i++)
        if (!live(out, p, &text[i], sampler, err) || !sweep(s, p, &seconds[i], err)) return false;
    return true;
}

bool speed_measure(Speed *out, AuditPair *p, const Sample *text, int64_t n, const Sampler *sampler,
                   Err *err) {
    double *seconds = calloc((size_t)n + 1, sizeof *seconds);
    CHECK_MEMORY(seconds);
    *out = (Speed){.K = p->K, .prompts = n};
    sampler_name(out->sampler, sampler);
    for (int64_t i = 0; i < n; i++) out->tokens += text[i].n - text[i].prompt;
    Sweeper s = {0};
    const bool ok = take_turns(out, seconds, &s, p, text, sampler, err);
    sweeper_close(&s);
    qsort(seconds, (size_t)n, sizeof *seconds, ascending);
    out->sweep_s = seconds[n / 2];
    free(seconds);
    return ok;
}

bool speed_sampled(Speed *out, AuditPair *p, const Sample *text, int64_t n, const Sampler *sampler,
                   Err *err) {
    Sample *drawn = calloc((size_t)n + 1, sizeof *drawn);
    CHECK_MEMORY(drawn);
    const bool ok = draw_texts(p, text, n, sampler, drawn, err) &&
                    speed_measure(out, p, drawn, n, sampler, err);
    samples_free(drawn, n);
    return ok;
}

static double ratio(double live_s, double sweep_s) {
    return sweep_s > 0 ? live_s / sweep_s : 0.0;
}

// What live decoding would have taken for as many tokens as the texts have: texts drawn by another
// rule end elsewhere.
static double live_seconds(const Speed *s, int rule) {
    const double tokens = (double)s->live[rule].tokens;
    return tokens > 0 ? s->live[rule].live_s * (double)(s->tokens * s->K) / tokens : 0.0;
}

static json_t *text_json(const Speed *s) {
    json_t *live = json_array();
    for (int i = 0; i < s->rules; i++)
        json_array_append_new(live, json_pack("{ss sf sf sI sf}", "rule", s->live[i].name, "live_s",
                                              live_seconds(s, i), "measured_s", s->live[i].live_s,
                                              "measured_tokens", (json_int_t)s->live[i].tokens,
                                              "ratio", ratio(live_seconds(s, i), s->sweep_s)));
    return json_pack("{ss si sI sI sf so}", "sampler", s->sampler, "draft_tokens", s->K, "prompts",
                     (json_int_t)s->prompts, "tokens", (json_int_t)s->tokens, "sweep_s", s->sweep_s,
                     "live", live);
}

json_t *speed_json(const Speed *s, int n) {
    json_t *texts = json_array();
    double sweep_s = 0, live_s = 0;
    for (int i = 0; i < n; i++) {
        json_array_append_new(texts, text_json(&s[i]));
        sweep_s += s[i].sweep_s;
        for (int r = 0; r < s[i].rules; r++) live_s += live_seconds(&s[i], r);
    }
    return json_pack("{so sf sf sf}", "texts", texts, "sweep_s", sweep_s, "live_s", live_s, "ratio",
                     ratio(live_s, sweep_s));
}

static double real(const json_t *o, const char *key) {
    return json_number_value(json_object_get(o, key));
}

static void rows(FILE *out, const json_t *text) {
    size_t i;
    json_t *live;
    json_array_foreach(json_object_get(text, "live"), i, live)
        fprintf(out, "| %s | %s | %.0f | 1..%.0f | %.2f%s | %.2f | %.1f |\n",
                json_string_value(json_object_get(text, "sampler")),
                json_string_value(json_object_get(live, "rule")), real(text, "prompts"),
                real(text, "draft_tokens"), real(text, "sweep_s"), i > 0 ? ", the same" : "",
                real(live, "live_s"), real(live, "ratio"));
}

void speed_markdown(FILE *out, const json_t *speed) {
    size_t i;
    json_t *text;
    fputs("\nSpeed: the tokens per step of all k by sweep (capture and drafter pass, every rule at "
          "once; median of one after each prompt) and by live decoding at batch 1, once per k and "
          "rule, for as many tokens\n\n"
          "| text | rule | prompts | k | sweep s | live s | times faster |\n"
          "|---|---|---|---|---|---|---|\n",
          out);
    json_array_foreach(json_object_get(speed, "texts"), i, text) rows(out, text);
    fprintf(out, "| all | all | | | %.2f | %.2f | %.1f |\n", real(speed, "sweep_s"),
            real(speed, "live_s"), real(speed, "ratio"));
}
