// infer/decode/draws.c - answers through the generator, outcomes sorted into cells, chi-square.
#include "infer/decode/draws.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/cli.h"
#include "infer/base/tails.h"

enum { CELL_LEAST = 20, REST = 8 };

typedef struct {
    const int32_t *prompt;
    int64_t n, next;
    Draws *out;
} Job;

static bool give(void *ctx, GenerateJob *job) {
    Job *j = ctx;
    if (j->next == j->out->n) return false;
    *job = (GenerateJob){.user = &j->out->token[j->next],
                         .prompt = j->prompt,
                         .n = j->n,
                         .stream = (uint64_t)j->next};
    j->next++;
    return true;
}

static bool take(void *ctx, const GenerateDone *d, Err *err) {
    if (stop_requested()) return err_set(err, ERR_STOPPED, "stopped");
    Draws *out = ((Job *)ctx)->out;
    CHECK(d->n <= DRAWS_TOKENS);
    memcpy(d->user, d->ids, (size_t)d->n * sizeof *d->ids);
    for (int64_t i = 0; i < d->rounds; i++) {
        out->drafted += d->round[i].drafted;
        out->accepted += d->round[i].accepted;
    }
    return true;
}

bool draws_make(Target *t, const GenerateOptions *opt, const int32_t *prompt, int64_t n,
                int64_t draws, Draws *out, Err *err) {
    CHECK(opt->max_new_tokens == DRAWS_TOKENS && opt->keep_rounds && draws >= 1);
    *out = (Draws){.n = draws, .token = malloc((size_t)draws * sizeof *out->token)};
    if (out->token == NULL)
        return err_set(err, ERR_FAILED, "no memory for %lld answers", (long long)draws);
    memset(out->token, 0xff, (size_t)draws * sizeof *out->token);
    Job job = {.prompt = prompt, .n = n, .out = out};
    if (generate_run(t, opt, give, take, &job, err)) return true;
    draws_free(out);
    return false;
}

void draws_free(Draws *d) {
    free(d->token);
    *d = (Draws){0};
}

typedef struct {
    int64_t outcome;
    int set;
} Outcome;

static int by_outcome(const void *x, const void *y) {
    const Outcome *a = x, *b = y;
    return a->outcome != b->outcome ? (a->outcome < b->outcome ? -1 : 1) : a->set - b->set;
}

static int64_t outcome_of(const int32_t token[DRAWS_TOKENS], int table) {
    if (table < 2) return token[1 + table];
    return (int64_t)token[1] << 32 | (uint32_t)token[2];
}

typedef struct {
    double chi2;
    int cells;
} Sum;

static bool add_cell(Sum *s, const double n[2]) {
    if (n[0] + n[1] < CELL_LEAST) return false;
    s->chi2 += (n[0] - n[1]) * (n[0] - n[1]) / (n[0] + n[1]);
    s->cells++;
    return true;
}

// Which outcomes share a cell depends on both samples alike, so that the choice favours none. Rare
// ones go by their number into a few cells, what is still rare there into one.
static Sum cells_of(const Outcome *o, int64_t n) {
    Sum s = {0};
    double rest[REST][2] = {{0}}, last[2] = {0};
    for (int64_t i = 0, end; i < n; i = end) {
        double count[2] = {0};
        for (end = i; end < n && o[end].outcome == o[i].outcome; end++) count[o[end].set]++;
        if (add_cell(&s, count)) continue;
        const uint64_t mixed = (uint64_t)o[i].outcome * 0x9e3779b97f4a7c15u;
        double *r = rest[mixed >> 61];
        r[0] += count[0];
        r[1] += count[1];
    }
    for (int i = 0; i < REST; i++) {
        if (add_cell(&s, rest[i])) continue;
        last[0] += rest[i][0];
        last[1] += rest[i][1];
    }
    add_cell(&s, last);
    return s;
}

DrawsTest draws_compare(const Draws *a, const Draws *b) {
    DrawsTest t = {.least = 1.0};
    CHECK(a->n == b->n);
    Outcome *o = malloc(2 * (size_t)a->n * sizeof *o);
    CHECK_MEMORY(o);
    for (int table = 0; table < DRAWS_TABLES; table++) {
        for (int64_t i = 0; i < a->n; i++) {
            o[2 * i] = (Outcome){outcome_of(a->token[i], table), 0};
            o[2 * i + 1] = (Outcome){outcome_of(b->token[i], table), 1};
        }
        qsort(o, 2 * (size_t)a->n, sizeof *o, by_outcome);
        const Sum s = cells_of(o, 2 * a->n);
        t.chi2[table] = s.chi2;
        t.cells[table] = s.cells;
        t.p[table] = s.cells > 1 ? chi_square_upper(s.chi2, s.cells - 1) : 1.0;
        t.least = fmin(t.least, DRAWS_TABLES * t.p[table]);
    }
    free(o);
    return t;
}

// Non-centrality of two samples of n is at least 2 n TV^2; one of 100 is found with power 99.7 % in
// up to 16 cells (the same bound as for one sample of 25 / TV^2).
double draws_finds(int64_t draws) {
    return sqrt(50.0 / (double)draws);
}
