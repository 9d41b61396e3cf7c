// eval/report/report_verdict.c - what was found, in sentences, for the page and for Markdown.
#include <math.h>
#include <string.h>

#include "eval/report/report_parts.h"

static Ref tau_at(const ReportView *v, int d, int k) {
    return ref_at(ref_key(view_head(v, d, v->key[0]), "tau"), (size_t)k - 1);
}

static void strong(Page *p, Ref r, Figure kind) {
    page_markup(p, p->kind == PAGE_HTML ? "<b>" : "**");
    page_figure(p, r, kind);
    page_markup(p, p->kind == PAGE_HTML ? "</b>" : "**");
}

// "+12.3 % (95 % interval +10.1 to +14.2 %)", and what an interval around zero means.
static void gain(Page *p, const ReportView *v, int k) {
    const Ref pair = view_pair(v, NULL, v->leader, v->key[0]),
              ci = ref_at(ref_key(pair, "ci"), (size_t)k - 1);
    const double lo = ref_number(ref_at(ci, 0)), hi = ref_number(ref_at(ci, 1));
    strong(p, ref_at(ref_key(pair, "gain"), (size_t)k - 1), FIG_GAIN);
    if (isnan(lo) || isnan(hi)) return;
    page_markup(p, " (%g\u00a0%% interval ", 100 * view_confidence(v));
    page_interval(p, ci, FIG_GAIN);
    page_markup(p, ")");
    if (hi < 0)
        page_markup(p, ", a loss");
    else if (lo <= 0)
        page_markup(p, ", which shows no difference: the interval holds zero");
}

static void tokens(Page *p, const ReportView *v) {
    const int d = v->leader, k = v->select_k;
    if (v->drafters > 2) {
        page_markup(p, "Of %d drafters ", v->drafters);
        page_text(p, v->name[d]);
        page_markup(p, " is ahead: at k\u00a0=\u00a0%d it makes ", k);
    } else {
        page_markup(p, "At k\u00a0=\u00a0%d ", k);
        page_text(p, v->name[d]);
        page_markup(p, " makes ");
    }
    strong(p, tau_at(v, d, k), FIG_TAU);
    page_markup(p, " tokens per target step");
    if (d == 0) {
        if (k != 3 && v->K >= 3) {
            page_markup(p, ", at k\u00a0=\u00a03 ");
            strong(p, tau_at(v, 0, 3), FIG_TAU);
        }
        page_markup(p, ".");
        return;
    }
    page_markup(p, " where ");
    page_text(p, v->name[0]);
    page_markup(p, " makes ");
    page_figure(p, tau_at(v, 0, k), FIG_TAU);
    page_markup(p, ": ");
    gain(p, v, k);
    if (k != 3 && v->K >= 3) {
        page_markup(p, "; at k\u00a0=\u00a03 ");
        gain(p, v, 3);
    }
    page_markup(p, ".");
}

static void speed(Page *p, const ReportView *v) {
    const Ref r = view_recommendation(v, v->leader, v->key[0]), best = ref_key(r, "best_k");
    const char *device = json_string_value(ref_key(view_ref(v, "cost"), "device").v);
    if (!json_is_number(best.v)) return;
    page_markup(p, " On ");
    page_text(p, device != NULL ? device : "the device of the cost table");
    if (ref_number(best) <= 0) {
        page_markup(p, " no draft length pays: plain decoding is fastest (k\u00a0=\u00a0");
        page_figure(p, best, FIG_COUNT);
        page_markup(p, ").");
        return;
    }
    page_markup(p, " the fastest is k\u00a0=\u00a0");
    strong(p, best, FIG_COUNT);
    page_markup(p, " with ");
    strong(p, ref_key(r, "best_speedup"), FIG_SPEED);
    page_markup(p, " the speed of plain decoding");
    const Ref base = view_recommendation(v, 0, v->key[0]), base_k = ref_key(base, "best_k");
    if (v->leader > 0 && ref_number(base_k) > 0) {
        page_markup(p, " (");
        page_text(p, v->name[0]);
        page_markup(p, ": k\u00a0=\u00a0");
        page_figure(p, base_k, FIG_COUNT);
        page_markup(p, ", ");
        page_figure(p, ref_key(base, "best_speedup"), FIG_SPEED);
        page_markup(p, ")");
    }
    page_markup(p, ".");
}

void report_verdict(Page *p, const ReportView *v) {
    tokens(p, v);
    speed(p, v);
}
