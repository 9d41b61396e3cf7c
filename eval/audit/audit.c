// eval/audit/audit.c - comparison of rounds and texts, and the gate over it.
#include "eval/audit/audit.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

static int64_t min_i64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// f32: sums in another order move a logit by 1e-5 or so; features that round to the next bf16 value
// move it by less than 1e-3. bf16: a rounded activation may step by 2^-9 of itself.
double audit_near_tie(DType dtype) {
    return dtype == DT_F32 ? 1e-3 : 3e-2;
}

void audit_start(Audit *a, int K, double near_tie) {
    *a = (Audit){.K = K, .near_tie = near_tie};
    for (int k = 0; k <= K; k++) a->row[k].k = k;
}

PRINTF_LIKE(2, 3) static void mismatch(Audit *a, const char *fmt, ...) {
    va_list ap;
    if (a->first_mismatch[0] != '\0') return;
    va_start(ap, fmt);
    vsnprintf(a->first_mismatch, sizeof a->first_mismatch, fmt, ap);
    va_end(ap);
}

// Gap of the target's two best logits where it chose token p of the live text.
static double text_gap(const SpeculateResult *live, int64_t p) {
    if (p == live->first) return live->first_margin;
    for (int64_t i = 0; i < live->rounds; i++) {
        const DraftRound *r = &live->round[i];
        if (p > r->T && p <= r->T + r->accepted + 1) return r->verify_margin[p - r->T - 1];
    }
    return INFINITY;
}

static void compare_text(Audit *a, AuditRow *row, const AuditText *text,
                         const SpeculateResult *live, int64_t common) {
    row->texts++;
    if (common == text->n && common == live->n) {
        row->texts_equal++;
        return;
    }
    const double gap = common < live->n ? text_gap(live, common) : INFINITY;
    if (gap < a->near_tie) {
        row->texts_near++;
        return;
    }
    row->texts_differ++;
    mismatch(a,
             "%s k=%d: the live text differs from token %lld on, where the target's best logits "
             "are %.3g apart",
             text->id, row->k, (long long)common, gap);
}

static void compare_round(Audit *a, AuditRow *row, const AuditText *text, const DraftRound *r) {
    const int64_t anchor = r->T - text->first, left = text->n - 1 - r->T;
    const int live = (int)min_i64(r->accepted, left), sim = (int)min_i64(text->L[anchor], row->k);
    const int at = live < sim ? live : sim; // the first draft on which they can disagree
    double gap = speculate_gap(r);
    for (int j = 0; j <= sim && j < row->k && j < left; j++)
        gap = fmin(gap, text->margin[anchor * text->K + j]);
    row->rounds++;
    row->near_rounds += gap < a->near_tie;
    if (live == sim) {
        row->equal++;
        return;
    }
    const double decided =
        fmin(fmin(r->margin[at], text->margin[anchor * text->K + at]), r->verify_margin[at]);
    if (decided < a->near_tie) {
        row->near++;
        return;
    }
    row->mismatches++;
    mismatch(a,
             "%s k=%d T=%lld: live %d drafts accepted, simulated %d, gap of the best logits %.3g",
             text->id, row->k, (long long)r->T, live, sim, decided);
}

void audit_compare(Audit *a, const AuditText *text, const SpeculateResult *live, int k) {
    CHECK(k >= 0 && k <= a->K && k <= text->K && live->first == text->first);
    AuditRow *row = &a->row[k];
    int64_t common = text->first;
    while (common < text->n && common < live->n && live->ids[common] == text->ids[common]) common++;
    compare_text(a, row, text, live, common);
    for (int64_t i = 0; k > 0 && i < live->rounds; i++) {
        const DraftRound *r = &live->round[i];
        const bool inside =
            r->T + r->accepted + 1 < common || (common == text->n && r->T + 1 < common);
        if (inside) compare_round(a, row, text, r);
    }
}

bool audit_decode(Audit *a, Speculator *s, const AuditText *text, Head head, Err *err) {
    if (text->n <= text->first) return true; // no answer to compare with
    for (int k = 0; k <= a->K; k++) {
        SpeculateResult live;
        const SpeculateOptions opt = {
            .k = k, .head = head, .max_new_tokens = text->n - text->first, .near_tie = a->near_tie};
        if (!speculate(s, &opt, text->ids, text->first, &live, err))
            return err_wrap(err, "%s k=%d", text->id, k);
        audit_compare(a, text, &live, k);
        speculate_result_free(&live);
    }
    return true;
}

static AuditRow total(const Audit *a) {
    AuditRow t = {0};
    for (int k = 0; k <= a->K; k++) {
        const AuditRow *r = &a->row[k];
        t.texts += r->texts;
        t.texts_near += r->texts_near;
        t.texts_differ += r->texts_differ;
        t.rounds += r->rounds;
        t.near += r->near;
        t.mismatches += r->mismatches;
    }
    return t;
}

bool audit_passed(const Audit *a) {
    const AuditRow t = total(a);
    return t.mismatches == 0 && t.texts_differ == 0 && t.near <= 1 + t.rounds / 200;
}

bool audit_gate(const Audit *a, Err *err) {
    const AuditRow t = total(a);
    if (audit_passed(a)) return true;
    if (t.mismatches + t.texts_differ > 0)
        return err_set(
            err, ERR_GATE,
            "live decoding and the simulator: %lld of %lld rounds and %lld of %lld texts "
            "differ; %s",
            (long long)t.mismatches, (long long)t.rounds, (long long)t.texts_differ,
            (long long)t.texts, a->first_mismatch);
    return err_set(err, ERR_GATE,
                   "live decoding and the simulator: %lld of %lld rounds differ by near ties, more "
                   "than 0.5 %%",
                   (long long)t.near, (long long)t.rounds);
}

json_t *audit_json(const Audit *a, const char *head) {
    json_t *rows = json_array();
    for (int k = 0; k <= a->K; k++) {
        const AuditRow *r = &a->row[k];
        json_array_append_new(
            rows,
            json_pack("{si sI sI sI sI sI sI sI sI sI}", "k", k, "texts", (json_int_t)r->texts,
                      "texts_equal", (json_int_t)r->texts_equal, "texts_near_tie",
                      (json_int_t)r->texts_near, "texts_differ", (json_int_t)r->texts_differ,
                      "rounds", (json_int_t)r->rounds, "equal", (json_int_t)r->equal, "near_ties",
                      (json_int_t)r->near, "mismatches", (json_int_t)r->mismatches,
                      "rounds_with_near_tie", (json_int_t)r->near_rounds));
    }
    return json_pack("{ss sI sf so sb ss}", "head", head, "prompts", (json_int_t)a->row[0].texts,
                     "near_tie", a->near_tie, "by_k", rows, "passed", audit_passed(a),
                     "first_mismatch", a->first_mismatch);
}

static long long number(const json_t *o, const char *key) {
    return json_integer_value(json_object_get(o, key));
}

void audit_markdown(FILE *out, const json_t *audit) {
    size_t i;
    json_t *r;
    fprintf(out,
            "\nLive decoding beside the simulator, %lld prompts, %s head; near ties: best logits "
            "within %g: %s\n\n"
            "| k | rounds | equal | near ties | mismatches | texts | equal | near ties | differ |\n"
            "|---|---|---|---|---|---|---|---|---|\n",
            number(audit, "prompts"), json_string_value(json_object_get(audit, "head")),
            json_number_value(json_object_get(audit, "near_tie")),
            json_is_true(json_object_get(audit, "passed")) ? "passed" : "FAILED");
    json_array_foreach(json_object_get(audit, "by_k"), i, r)
        fprintf(out, "| %lld | %lld | %lld | %lld | %lld | %lld | %lld | %lld | %lld |\n",
                number(r, "k"), number(r, "rounds"), number(r, "equal"), number(r, "near_ties"),
                number(r, "mismatches"), number(r, "texts"), number(r, "texts_equal"),
                number(r, "texts_near_tie"), number(r, "texts_differ"));
}
