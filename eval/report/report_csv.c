// eval/report/report_csv.c - acceptance.csv.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "eval/report/report_export.h"
#include "infer/base/json.h"

static void header(OutFile *f, int K) {
    out_printf(f, "subset,num_drafts,num_draft_tokens,num_accepted_tokens,acceptance_length");
    for (int i = 0; i < K; i++) out_printf(f, ",acceptance_at_pos_%d", i);
    out_printf(f, ",drafter,rule,head,k,tau,tau_lo,tau_hi,gain,gain_lo,gain_hi\n");
}

// RFC 4180. A text that a spreadsheet would take for a formula is quoted behind an apostrophe.
static void text(OutFile *f, const char *s) {
    const bool formula = s[0] != '\0' && strchr("=+-@", s[0]) != NULL;
    out_printf(f, "\"%s", formula ? "'" : "");
    for (; *s != '\0'; s++) {
        if (*s == '"') out_write(f, "\"", 1);
        out_write(f, (unsigned char)*s < 0x20 ? " " : s, 1);
    }
    out_printf(f, "\"");
}

// Digits that read back as the same double; empty for what is not known.
static void value(OutFile *f, double x) {
    char out[40];
    out_printf(f, ",");
    if (isnan(x)) return;
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, sizeof out, "%.*g", digits, x);
        if (strtod(out, NULL) == x) break;
    }
    out_printf(f, "%s", out);
}

static double at(Ref o, const char *member, size_t i) {
    return ref_number(ref_at(ref_key(o, member), i));
}

static void ours(OutFile *f, const ReportView *v, int d, const char *key, Ref head, Ref pair,
                 size_t i) {
    const char *name = json_string_value(ref_key(view_head(v, d, key), "head").v);
    out_printf(f, ",");
    text(f, v->name[d]);
    out_printf(f, ",%s,", key);
    text(f, name != NULL ? name : "");
    value(f, (double)i + 1);
    value(f, at(head, "tau", i));
    const Ref ci = ref_at(ref_key(head, "tau_ci"), i), gain_ci = ref_at(ref_key(pair, "ci"), i);
    value(f, ref_number(ref_at(ci, 0)));
    value(f, ref_number(ref_at(ci, 1)));
    value(f, at(pair, "gain", i));
    value(f, ref_number(ref_at(gain_ci, 0)));
    value(f, ref_number(ref_at(gain_ci, 1)));
    out_printf(f, "\n");
}

static void row(OutFile *f, const ReportView *v, int d, const char *key, size_t i) {
    const Ref head = view_head(v, d, key),
              accepted = ref_at(ref_key(head, "accepted_by_position"), i);
    const double drafts = at(head, "num_drafts", i);
    if (!json_is_number(ref_at(ref_key(head, "tau"), i).v)) return;
    text(f, "all");
    value(f, drafts);
    value(f, at(head, "num_draft_tokens", i));
    value(f, at(head, "num_accepted_tokens", i));
    value(f, at(head, "acceptance_length", i));
    for (int pos = 0; pos < v->K; pos++)
        value(f, drafts > 0 ? ref_number(ref_at(accepted, (size_t)pos)) / drafts : NAN);
    ours(f, v, d, key, head, view_pair(v, NULL, d, key), i);
}

// Of a category only rounds and tokens are kept.
static void category_row(OutFile *f, const ReportView *v, int d, const char *name, Ref slice) {
    const char *key = v->key[0];
    const size_t i = (size_t)v->select_k - 1;
    const Ref head = ref_key(ref_key(slice, v->name[d]), key);
    if (!json_is_number(ref_at(ref_key(head, "tau"), i).v)) return;
    text(f, name);
    value(f, at(head, "num_drafts", i));
    for (int empty = 0; empty < 3 + v->K; empty++) value(f, NAN);
    ours(f, v, d, key, head, view_pair(v, &slice, d, key), i);
}

bool report_csv(const ReportView *v, const char *dir, Err *err) {
    char path[PATH_ROOM];
    const char *name;
    json_t *slice;
    OutFile f;
    if (!out_open(&f, path_join(path, dir, "acceptance.csv"), err)) return false;
    header(&f, v->K);
    for (int d = 0; d < v->drafters; d++)
        for (int n = 0; n < v->keys; n++)
            for (int k = 0; k < v->K; k++) row(&f, v, d, v->key[n], (size_t)k);
    const Ref all = view_ref(v, "categories");
    for (int d = 0; d < v->drafters; d++)
        json_object_foreach((json_t *)all.v, name, slice)
            category_row(&f, v, d, name, ref_key(all, name));
    return out_commit(&f, err);
}
