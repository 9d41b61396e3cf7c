// tests/infer/decode/draft_picks_e2e_test.c - samples with drafts are distributed as samples
// without, on a model: two-sample chi-square over the tokens of the first rounds.
#include <math.h>
#include <stdio.h>

#include "infer/decode/generate.h"
#include "tests/infer/decode/mini_pair.h"

enum { NEW = 3, PICKS = 8000 };

static MiniPair pair;

static int open_pair(void **state) {
    (void)state;
    pair = mini_pair_open();
    return 0;
}
static int close_pair(void **state) {
    (void)state;
    mini_pair_close(&pair);
    return 0;
}

typedef struct {
    int32_t answer[NEW];
    int64_t len;
} Item;

// Counts of two tokens behind one prompt, by sample set. Which pairs share a cell is settled
// beforehand: cells that one of the sets had chosen would differ by that choice.
enum { CELLS = 61 };
typedef struct {
    double count[CELLS][2];
} Table;

static void tally(Table *t, const Item *item, int set) {
    for (int i = 0; i < PICKS; i++) {
        const int64_t second = item[i].answer[1],
                      third = item[i].len > 2 ? item[i].answer[2] : 1 << 20;
        t->count[(second * 2654435761 + third * 40503 + 7) % CELLS][set]++;
    }
}

enum { PROMPT = 19 }; // behind it both are undecided, and often agree
typedef struct {
    int32_t prompt[PROMPT];
    Item *item;
    int next;
    Acceptance count;
} Picks;

static bool next_pick(void *ctx, GenerateJob *job) {
    Picks *p = ctx;
    if (p->next == PICKS) return false;
    *job = (GenerateJob){
        .user = &p->item[p->next], .prompt = p->prompt, .n = PROMPT, .stream = (uint64_t)p->next};
    p->next++;
    return true;
}

static bool pick_done(void *ctx, const GenerateDone *d, Err *err) {
    (void)err;
    Picks *p = ctx;
    Item *it = d->user;
    memcpy(it->answer, d->ids, (size_t)d->n * sizeof *d->ids);
    it->len = d->n;
    rounds_count(&p->count, d->round, d->rounds, PROMPT + d->n);
    return true;
}

static Item *draw_picks(GenerateOptions *opt, uint64_t seed, Acceptance *count) {
    Err err = {0};
    Picks p = {.item = calloc(PICKS, sizeof *p.item)};
    mini_fitted(p.prompt, PROMPT);
    opt->sampler.seed = seed;
    assert_ok(generate_run(pair.target, opt, next_pick, pick_done, &p, &err), err);
    *count = p.count;
    return p.item;
}

// Two-sample chi-square over cells with 20 or more, the others together; as z.
static double two_sample_z(const Table *t) {
    double chi2 = 0.0, rest[2] = {0};
    int cells = 0;
    for (int i = 0; i <= CELLS; i++) {
        const double *n = i < CELLS ? t->count[i] : rest;
        if (i < CELLS && n[0] + n[1] < 20) {
            rest[0] += n[0], rest[1] += n[1];
            continue;
        }
        if (n[0] + n[1] <= 0) continue;
        chi2 += (n[0] - n[1]) * (n[0] - n[1]) / (n[0] + n[1]);
        cells++;
    }
    assert_true(cells > 10);
    return (chi2 - (cells - 1)) / sqrt(2.0 * (cells - 1));
}

// One answer of three tokens: with two drafts the first round gives its second and third. The first
// is the prefill's.
static double compare_distributions(DraftRule rule, double p_min, bool planted) {
    GenerateOptions opt = {.slots = 16,
                           .max_new_tokens = NEW,
                           .max_length = PROMPT + NEW,
                           .prefill_rows = MINI_ROWS,
                           .sampler = {.temperature = 1.0, .top_k = 6, .top_p = 0.95},
                           .kv_dtype = DT_F32,
                           .keep_rounds = true,
                           .draft = {.k = 2, .head = HEAD_DENSE, .feature_dtype = DT_F32}};
    Acceptance count;
    Table t = {0};
    static Item *plain; // drawn once
    if (plain == NULL) plain = draw_picks(&opt, 1, &count);
    opt.draft.assistant = pair.assistant;
    opt.draft.rule = rule;
    opt.draft.p_min = p_min;
    if (planted) opt.sampler.temperature = 0.8; // the drafts' temperature for the target as well
    Item *fast = draw_picks(&opt, 2, &count);
    tally(&t, plain, 0);
    tally(&t, fast, 1);
    assert_true(count.accepted > PICKS / 5 && count.accepted < count.drafted);
    free(fast);
    return two_sample_z(&t);
}

static void sampled_drafts_leave_the_distribution(void **state) {
    (void)state;
    const double z[] = {compare_distributions(DRAFT_REJECTION, 0, false),
                        compare_distributions(DRAFT_REJECTION, 0.8, false),
                        compare_distributions(DRAFT_STRICT, 0, false)};
    print_message("z of chi-square: %.2f %.2f %.2f\n", z[0], z[1], z[2]);
    for (int i = 0; i < 3; i++) assert_true(z[i] < 4.0);
    assert_true(compare_distributions(DRAFT_REJECTION, 0, true) > 6.0); // it can fail
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sampled_drafts_leave_the_distribution)};
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
