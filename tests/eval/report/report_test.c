// tests/eval/report/report_test.c - figures of the page are those of the object, wherever they
// stand; text from data stays text; the files of other tools add up.
#include "eval/report/report.h"

#include <math.h>
#include <stdlib.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "tests/eval/report/report_made.h"

static const MadeDrafter many[] = {{"stock", "aa", 2},
                                   {"trained", "bb", 4},
                                   {MADE_EVIL, "cc", 3},
                                   {"fourth", "dd", 3},
                                   {"fifth", "ee", 5}};

static char *text_of(const char *dir, const char *name) { // caller frees
    char path[PATH_ROOM];
    size_t size;
    Err err = {0};
    char *text = file_read(path_join(path, dir, name), 1 << 26, &size, &err);
    assert_ok(text != NULL, err);
    return text;
}

static const char *made_dir(const json_t *o, const char *name) {
    static char dir[PATH_ROOM];
    Err err = {0};
    path_join(dir, test_dir(), name);
    assert_ok(report_write(o, NULL, dir, &err), err);
    return dir;
}

// The value at a JSON pointer as it stands in an attribute.
static const json_t *at_pointer(const json_t *o, const char *p, size_t n) {
    char key[512];
    static const char *const escapes[][2] = {{"&lt;", "<"},    {"&gt;", ">"},  {"&amp;", "&"},
                                             {"&quot;", "\""}, {"&#39;", "'"}, {"~1", "/"},
                                             {"~0", "~"}};
    const char *end = p + n;
    while (p < end && o != NULL) {
        size_t used = 0;
        assert_true(*p++ == '/');
        while (p < end && *p != '/') {
            size_t e = 0;
            while (e < 7 && strncmp(p, escapes[e][0], strlen(escapes[e][0])) != 0) e++;
            key[used++] = e < 7 ? escapes[e][1][0] : *p;
            p += e < 7 ? strlen(escapes[e][0]) : 1;
        }
        key[used] = '\0';
        o = json_is_array(o) ? json_array_get(o, (size_t)atoi(key)) : json_object_get(o, key);
    }
    return o;
}

// The number printed, without commas, and how many digits stand behind the point.
static double printed(const char *text, int *digits) {
    char plain[64];
    size_t used = 0;
    for (; *text != '<' && used < sizeof plain - 1; text++)
        if (*text != ',') plain[used++] = *text;
    plain[used] = '\0';
    const char *point = strchr(plain, '.');
    *digits = point != NULL ? (int)strlen(point + 1) : 0;
    char *end;
    const double x = strtod(plain, &end);
    if (*end != '\0' || used == 0) fail_msg("\"%s\" is no figure", plain);
    return x;
}

// Every figure of the page beside the object; returns how many there are.
static int check_figures(const char *html, const json_t *o) {
    int n = 0;
    for (const char *p = html; (p = strstr(p, "<span data-p=\"")) != NULL;) {
        const char *path = p + 14, *stop = strchr(path, '"'), *text = strchr(stop, '>') + 1;
        int digits;
        const json_t *v = at_pointer(o, path, (size_t)(stop - path));
        if (!json_is_number(v)) fail_msg("no number at %.*s", (int)(stop - path), path);
        const double scale = strncmp(stop, "\" data-x=\"100\"", 14) == 0 ? 100 : 1,
                     x = scale * json_number_value(v), shown = printed(text, &digits);
        if (fabs(shown - x) > 0.5000001 * pow(10, -digits))
            fail_msg("%.*s is %g, the page shows %g", (int)(stop - path), path, x, shown);
        p = text;
        n++;
    }
    return n;
}

static double attribute(const char *tag, const char *name) {
    const char *p = strstr(tag, name);
    return p != NULL && p < strchr(tag, '>') ? strtod(p + strlen(name), NULL) : NAN;
}

// The next mark of a chart that stands for a value: its pointer's value, and where it is drawn (y
// of line charts, x of dot plots). Returns where to look on; NULL: no more.
static const char *next_mark(const char *p, const char *end, const json_t *o, bool dots, double *v,
                             double *drawn) {
    for (; (p = strstr(p, "class=\"mk\"")) != NULL && p < end; p++) {
        const char *path = strstr(p, "data-p=\""), *move = strstr(p, "translate(");
        if (path == NULL || path > strchr(p, '>')) continue;
        *drawn = attribute(p, dots ? " cx=\"" : " cy=\"");
        if (isnan(*drawn)) {
            move += strlen("translate(");
            *drawn = strtod(dots ? move : strchr(move, ',') + 1, NULL);
        }
        path += strlen("data-p=\"");
        const json_t *value = at_pointer(o, path, strcspn(path, "\""));
        assert_true(json_is_number(value));
        *v = json_number_value(value);
        return p + 1;
    }
    return NULL;
}

// Where the marks of one chart stand is one straight function of their values.
static int check_chart(const char *svg, const char *end, const json_t *o, bool dots) {
    double v0 = 0, y0 = 0, v1 = 0, y1 = 0, v, y;
    int n = 0;
    for (const char *p = svg; (p = next_mark(p, end, o, dots, &v, &y)) != NULL; n++) {
        if (n == 0 || v < v0) v0 = v, y0 = y;
        if (n == 0 || v > v1) v1 = v, y1 = y;
    }
    if (n == 0 || v1 - v0 < 0.01) return n;
    const double slope = (y1 - y0) / (v1 - v0);
    assert_true(dots ? slope > 0 : slope < 0);
    for (const char *p = svg; (p = next_mark(p, end, o, dots, &v, &y)) != NULL;)
        if (fabs(y0 + slope * (v - v0) - y) > 0.03) // marks have two decimals
            fail_msg("%.40s: %g is drawn at %g, expected %g", svg, v, y, y0 + slope * (v - v0));
    return n;
}

static int check_charts(const char *html, const json_t *o) {
    int n = 0;
    for (const char *p = html; (p = strstr(p, "<svg viewBox")) != NULL; p++) {
        const char *end = strstr(p, "</svg>");
        const char *row = strstr(p, "class=\"rw\"");
        n += check_chart(p, end, o, row != NULL && row < end);
    }
    return n;
}

static void count(const char *html, const char *what, int expected) {
    int n = 0;
    for (const char *p = html; (p = strstr(p, what)) != NULL; p++) n++;
    if (n != expected) fail_msg("%d times \"%s\", expected %d", n, what, expected);
}

// Nothing is fetched, no text of the data becomes an element, every element is closed.
static void check_page(const char *html) {
    static const char *const never[] = {"http:",   "https:",  "src=", "href=", "url(",
                                        "@import", "<script", "<i>",  "<link", "nan"};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++) count(html, never[i], 0);
    static const char *const pairs[] = {"table", "tr", "td", "figure",  "section", "g",   "div",
                                        "p",     "ul", "li", "details", "span",    "svg", "small"};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char open[16], with[16], close[16];
        int opened = 0, closed = 0;
        snprintf(open, sizeof open, "<%s>", pairs[i]);
        snprintf(with, sizeof with, "<%s ", pairs[i]);
        snprintf(close, sizeof close, "</%s>", pairs[i]);
        for (const char *p = html; (p = strchr(p, '<')) != NULL; p++) {
            opened += !strncmp(p, open, strlen(open)) || !strncmp(p, with, strlen(with));
            closed += !strncmp(p, close, strlen(close));
        }
        if (opened != closed) fail_msg("%d of %s, %d of %s", opened, open, closed, close);
    }
}

static void figures_are_those_of_the_object(void **state) {
    (void)state;
    const struct {
        int n;
        bool sampled, centroid;
        int figures, marks; // at least
    } cases[] = {{5, true, true, 2500, 200}, {2, false, true, 500, 50}, {1, false, false, 150, 15}};
    for (int i = 0; i < 3; i++) {
        char name[32];
        json_t *o = made_report(many, cases[i].n, cases[i].sampled, cases[i].centroid);
        snprintf(name, sizeof name, "page-%d", i);
        char *html = text_of(made_dir(o, name), "report.html");
        check_page(html);
        assert_true(check_figures(html, o) > cases[i].figures);
        assert_true(check_charts(html, o) > cases[i].marks);
        free(html);
        json_decref(o);
    }
}

static void every_array_of_the_object_is_on_the_page(void **state) {
    (void)state;
    static const char *const places[] = {"/drafters/fifth/strict_dense/tau_ci/3/1",
                                         "/drafters/stock/rejection/u/3/2",
                                         "/drafters/stock/rejection/c/3/3",
                                         "/drafters/fourth/recall/tau_ceiling/2",
                                         "/drafters/fourth/p_min/strict/tau/1/3",
                                         "/drafters/stock/diagnostics/rejection/uniform_alpha/2",
                                         "/pairs/fifth/strict_dense/ci/3/0",
                                         "/recommendation/fifth/rejection/best_speedup",
                                         "/recommendation/stock/strict/p_min/speedup/1/3",
                                         "/cost/target_ms/4",
                                         "/cost/drafter_ms/centroid",
                                         "/statistics/power/strict/prompts_for_1_percent/3",
                                         "/categories/a~1b~0c/tokens",
                                         "/contexts/plain/pairs/fifth/rejection/gain/2",
                                         "/drafters/fifth/strict/num_draft_tokens/1",
                                         "/bootstrap/resamples"};
    json_t *o = made_report(many, 5, true, true);
    char *html = text_of(made_dir(o, "all"), "report.html");
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char want[128];
        snprintf(want, sizeof want, "data-p=\"%s\"", places[i]);
        if (strstr(html, want) == NULL) fail_msg("%s is not on the page", places[i]);
    }
    assert_non_null(strstr(html, "&lt;script&gt;evil=&#39;x&#39;&lt;/script&gt;&amp;&quot;q"));
    assert_non_null(strstr(html, "tokens &lt;per&gt; step"));
    assert_non_null(strstr(html, "Of 5 drafters fifth is ahead: at k\u00a0=\u00a03"));
    assert_non_null(strstr(html, "Only 6 prompts: below 30"));
    free(html);
    json_decref(o);
}

static void a_bare_object_is_enough(void **state) {
    (void)state;
    json_t *o = json_pack("{s[i] s{s{s{s[f]}}}}", "draft_tokens", 1, "drafters", "stock", "greedy",
                          "tau", 1.5);
    const char *dir = made_dir(o, "bare");
    char *html = text_of(dir, "report.html");
    check_page(html);
    assert_non_null(strstr(html, "1.50"));
    free(html);
    json_decref(o);
}

static void refused(const char *json, const char *why) {
    Err err = {0};
    json_t *o = json_loads(json, 0, NULL);
    assert_non_null(o);
    assert_false(report_write(o, NULL, test_dir(), &err));
    assert_int_equal(err.code, ERR_INPUT);
    if (strstr(err.text, why) == NULL) fail_msg("\"%s\" does not say \"%s\"", err.text, why);
    json_decref(o);
}

static void what_is_no_acceptance_json_is_refused(void **state) {
    (void)state;
    refused("{}", "\"draft_tokens\" has 0 entries");
    refused("[1]", "\"draft_tokens\" has 0 entries");
    refused("{\"draft_tokens\":[1,3]}", "entry 1 is 3, expected 2");
    refused("{\"draft_tokens\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", "17 entries");
    refused("{\"draft_tokens\":[1]}", "no \"drafters\"");
    refused("{\"draft_tokens\":[1],\"drafters\":{\"a\":{}}}", "no drafter holds");
    refused("{\"draft_tokens\":[1],\"rules\":[7],\"drafters\":{\"a\":{}}}", "entry 0");
}

static void training_is_drawn_from_the_metrics(void **state) {
    (void)state;
    char path[PATH_ROOM], dir[PATH_ROOM];
    Err err = {0};
    json_t *o = made_report(many, 2, false, true);
    FILE *f = fopen(path_join(path, test_dir(), "metrics.jsonl"), "w");
    fputs("{\"step\":0,\"dev/tau\":2.5}\nnot json\n{\"step\":\"x\"}\n", f);
    for (int s = 1; s <= 1000; s++)
        fprintf(f, "{\"step\":%d,\"train/loss\":%g,\"train/match_1\":0.5,\"train/match_2\":null}\n",
                s, 1.0 / s);
    fputs("{\"step\":1000,\"dev/tau\":4.25}\n{\"step\":1001,\"tra", f);
    fclose(f);
    assert_ok(report_write(o, path, path_join(dir, test_dir(), "trained"), &err), err);
    char *html = text_of(dir, "report.html");
    check_page(html);
    assert_non_null(strstr(html, "Loss by step"));
    assert_non_null(strstr(html, "means over 5 optimiser steps"));
    assert_non_null(strstr(html, "this run, step 0: 2.50"));
    assert_non_null(strstr(html, "this run, step 1000: 4.25"));
    assert_non_null(strstr(html, "Match rate by optimiser step"));
    free(html);
    json_decref(o);
}

// The fields of a CSV line, unquoted in place.
static int fields(char *line, char *field[64]) {
    int n = 0;
    for (char *p = line; n < 64; p++) {
        char *to = p;
        const bool quoted = *p == '"';
        field[n++] = to;
        if (quoted) p++;
        for (; quoted ? *p != '"' || p[1] == '"' : *p != ',' && *p != '\0'; *to++ = *p++)
            if (quoted && *p == '"') p++;
        if (quoted) p++;
        const bool last = *p == '\0';
        *to = '\0';
        if (last) return n;
    }
    return n;
}

static void the_csv_adds_up(void **state) {
    (void)state;
    enum { K = MADE_K, OURS = 5 + K };
    json_t *o = made_report(many, 3, false, true);
    char *csv = text_of(made_dir(o, "csv"), "acceptance.csv"), *save = NULL, *field[64];
    int rows = 0, slices = 0;
    char *line = strtok_r(csv, "\n", &save);
    assert_string_equal(
        line, "subset,num_drafts,num_draft_tokens,num_accepted_tokens,acceptance_length,"
              "acceptance_at_pos_0,acceptance_at_pos_1,acceptance_at_pos_2,acceptance_at_pos_3,"
              "drafter,rule,head,k,tau,tau_lo,tau_hi,gain,gain_lo,gain_hi");
    while ((line = strtok_r(NULL, "\n", &save)) != NULL) {
        assert_int_equal(fields(line, field), OURS + 10);
        if (strcmp(field[0], "all") != 0) {
            slices++;
            assert_string_equal(field[OURS + 3], "3");
            continue;
        }
        double at = 0, drafts = atof(field[1]);
        const int k = atoi(field[OURS + 3]);
        for (int i = 0; i < K; i++) {
            at += atof(field[5 + i]);
            assert_true((i < k) == (field[5 + i][0] != '\0'));
            if (i > 0 && i < k) assert_true(atof(field[5 + i]) <= atof(field[4 + i]));
        }
        assert_true(fabs(at * drafts - atof(field[3])) < 1e-9 * drafts);
        assert_true(atof(field[2]) == k * drafts);
        assert_true(fabs(atof(field[4]) - (1 + atof(field[3]) / drafts)) < 1e-12);
        rows++;
    }
    assert_int_equal(rows, 3 * 2 * K);
    assert_int_equal(slices, 3 * 4);
    free(csv);
    json_decref(o);
}

static double sum(const json_t *list) {
    double s = 0;
    for (size_t i = 0; i < json_array_size(list); i++)
        s += json_number_value(json_array_get(list, i));
    return s;
}

static double value(const json_t *o, const char *key) {
    if (!json_is_number(json_object_get(o, key))) fail_msg("no %s", key);
    return json_number_value(json_object_get(o, key));
}

static void check_depths(const json_t *depths) {
    assert_int_equal(json_array_size(depths), MADE_K);
    for (int k = 1; k <= MADE_K; k++) {
        const json_t *d = json_array_get(depths, (size_t)k - 1), *s = json_object_get(d, "summary");
        assert_int_equal(value(d, "depth"), k);
        assert_int_equal(value(d, "block_size"), k + 1);
        assert_true(value(s, "accepted_drafts") + value(s, "rejected_drafts") ==
                    value(s, "drafted_tokens"));
        assert_true(sum(json_object_get(s, "accepted_by_depth")) == value(s, "accepted_drafts"));
        assert_true(sum(json_object_get(s, "drafted_by_depth")) == value(s, "drafted_tokens"));
        assert_int_equal(json_array_size(json_object_get(s, "acceptance_by_depth")), k);
        assert_true(json_is_null(json_object_get(s, "mean_tok_s")));
        assert_true(value(s, "acceptance_rate") ==
                    value(s, "accepted_drafts") / value(s, "drafted_tokens"));
    }
}

static void mtplx_counts_add_up(void **state) {
    (void)state;
    char path[PATH_ROOM];
    Err err = {0};
    json_t *o = made_report(many, 3, true, true);
    json_t *m = json_read_file(path_join(path, made_dir(o, "mtplx"), "mtplx.json"), 1 << 24, &err);
    assert_ok(m != NULL, err);
    assert_string_equal(json_string_value(json_object_get(m, "drafter")), "trained");
    assert_string_equal(json_string_value(json_object_get(m, "acceptance_rule")), "strict");
    check_depths(json_object_get(m, "depths"));
    const json_t *series = json_object_get(m, "series"),
                 *rows = json_object_get(json_array_get(json_object_get(m, "depths"), 2), "rows");
    assert_int_equal(json_array_size(series), 3 * 4);
    for (size_t i = 0; i < json_array_size(series); i++)
        check_depths(json_object_get(json_array_get(series, i), "depths"));
    double rounds = 0;
    assert_int_equal(json_array_size(rows), MADE_PROMPTS);
    for (size_t i = 0; i < MADE_PROMPTS; i++)
        rounds += value(json_array_get(rows, i), "verify_calls");
    assert_true(rounds == made_sum(5, 3)); // strict of "trained": quality 4 + 1
    assert_true(json_array_size(json_object_get(m, "notes")) >= 2);
    json_decref(m);
    json_decref(o);
}

static void markdown_says_the_same(void **state) {
    (void)state;
    char want[160];
    json_t *o = made_report(many, 2, false, true);
    char *md = text_of(made_dir(o, "markdown"), "report.md");
    snprintf(want, sizeof want, "At k\u00a0=\u00a03 trained makes **%.2f** tokens per target step",
             (double)MADE_TOKENS / made_sum(4, 3));
    assert_non_null(strstr(md, want));
    assert_non_null(strstr(md, "On a machine \\<b\\> the fastest is k\u00a0=\u00a0**4**"));
    assert_non_null(strstr(md, "| k |"));
    assert_null(strstr(md, "data-p"));
    free(md);
    json_decref(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_are_those_of_the_object),
        cmocka_unit_test(every_array_of_the_object_is_on_the_page),
        cmocka_unit_test(a_bare_object_is_enough),
        cmocka_unit_test(what_is_no_acceptance_json_is_refused),
        cmocka_unit_test(training_is_drawn_from_the_metrics),
        cmocka_unit_test(the_csv_adds_up),
        cmocka_unit_test(mtplx_counts_add_up),
        cmocka_unit_test(markdown_says_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
