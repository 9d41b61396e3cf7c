// tests/data/batch_test.c - batches: a pure function of seed and step, every sequence once an
// epoch.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/batch.h"
#include "infer/text/chat.h"
#include "tests/testing.h"

enum { COUNT = 23, K = 5 };

static int reads;

static int64_t length(void *ctx, int64_t i) {
    (void)ctx;
    return 6 + i * 3 % 17;
}

static bool context(int64_t t) {
    return t < 2 || (t > 8 && t < 11);
}

static int64_t anchors(void *ctx, int64_t i, Err *err) {
    (void)err;
    int64_t n = 0;
    for (int64_t t = 1; t + 1 < length(ctx, i); t++) n += !context(t) && !context(t + 1);
    return n;
}

// Tokens 100 i + t. Two model turns with a user turn between them; the last id closes the turn.
static bool read_seq(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    (void)ctx;
    (void)err;
    reads++;
    *out = (CapturedSeq){0};
    Sample *s = &out->sample;
    s->n = length(NULL, i);
    s->ids = malloc((size_t)s->n * 4);
    s->kind = malloc((size_t)s->n);
    for (int64_t t = 0; t < s->n; t++) {
        s->ids[t] = (int32_t)(100 * i + t);
        s->kind[t] = context(t) ? TOKEN_CONTEXT : TOKEN_MODEL;
    }
    return true;
}

static const SeqSource source = {
    .count = COUNT, .bytes_per_token = 100, .length = length, .anchors = anchors, .read = read_seq};

static Batches *open_batches(int64_t sequences, int64_t anchors, uint64_t seed, int64_t bytes) {
    Err err = {0};
    SeqSource src = source;
    src.bytes_per_token = bytes;
    const BatchOptions opt = {.sequences = sequences, .anchors = anchors, .K = K, .seed = seed};
    Batches *b = batches_open(&src, &opt, &err);
    assert_ok(b, err);
    return b;
}

static void every_sequence_comes_once_an_epoch_in_another_order(void **state) {
    (void)state;
    Err err = {0};
    Batches *b = open_batches(4, 0, 1, 100);
    assert_int_equal(batches_per_epoch(b), 6);
    int64_t order[2][COUNT];
    for (int e = 0; e < 2; e++) {
        int seen[COUNT] = {0}, n = 0;
        for (int64_t step = 0; step < 6; step++) {
            Batch x;
            assert_ok(batches_get(b, e * 6 + step, &x, &err), err);
            assert_int_equal(x.nseq, step < 5 ? 4 : 3);
            for (int s = 0; s < x.nseq; s++) {
                seen[x.seq_index[s]]++;
                order[e][n++] = x.seq_index[s];
                assert_int_equal(x.seq[s].sample.ids[0], 100 * x.seq_index[s]);
            }
        }
        for (int i = 0; i < COUNT; i++) assert_int_equal(seen[i], 1);
    }
    assert_memory_not_equal(order[0], order[1], sizeof order[0]);
    batches_close(b);
}

static void all_anchors_are_the_supervised_pairs(void **state) {
    (void)state;
    Err err = {0};
    Batches *b = open_batches(3, 0, 2, 100);
    for (int64_t step = 0; step < batches_per_epoch(b); step++) {
        Batch x;
        assert_ok(batches_get(b, step, &x, &err), err);
        int64_t r = 0, sum = 0;
        for (int s = 0; s < x.nseq; s++) {
            const Sample *m = &x.seq[s].sample;
            sum += m->n;
            for (int32_t t = 0; t + 1 < m->n; t++) {
                if (m->kind[t] == TOKEN_CONTEXT || m->kind[t + 1] == TOKEN_CONTEXT) continue;
                assert_int_equal(x.T[r], t);
                assert_int_equal(x.seq_of[r], s);
                for (int j = 0, open = 1; j < K; j++) {
                    const int64_t at = j * x.rows + r;
                    assert_int_equal(x.token[at], t + j < m->n ? m->ids[t + j] : -1);
                    assert_int_equal(x.label[at], t + j + 1 < m->n ? m->ids[t + j + 1] : -1);
                    open = open && t + j + 1 < m->n && m->kind[t + j + 1] != TOKEN_CONTEXT;
                    assert_int_equal(x.valid[at], open);
                }
                assert_true(x.valid[r]); // step 0 of an anchor always has its label
                r++;
            }
        }
        assert_int_equal(x.rows, r);
        assert_int_equal(x.tokens, sum);
    }
    batches_close(b);
}

static void totals_are_those_of_the_steps(void **state) {
    (void)state;
    const int64_t sequences[] = {1, 4, COUNT}, wanted[] = {0, 3}, steps[] = {0, 1, 5, 6, 7, 29};
    for (int a = 0; a < 6; a++)
        for (int k = 0; k < 6; k++) {
            Err err = {0};
            Batches *b = open_batches(sequences[a / 2], wanted[a % 2], 5, 100);
            BatchTotals got, want = {0};
            assert_ok(batches_totals(b, steps[k], &got, &err), err);
            for (int64_t s = 0; s < steps[k]; s++) {
                Batch x;
                assert_ok(batches_get(b, s, &x, &err), err);
                want.all_rows += x.rows;
                want.all_tokens += x.tokens;
                if (x.rows > want.max_rows) want.max_rows = x.rows;
                if (x.tokens > want.max_tokens) want.max_tokens = x.tokens;
            }
            assert_memory_equal(&got, &want, sizeof got);
            batches_close(b);
        }
}

// The parts of a step that ranks get are what one rank gets that takes as much.
static void ranks_share_the_step_of_one(void **state) {
    (void)state;
    enum {
        EACH = 2,
        RANKS = 3,
        WANT = 4,
        STEPS = 9
    }; // the last step of an epoch has one rank less
    Err err = {0};
    Batches *one = open_batches(EACH * RANKS, WANT, 5, 100), *part[RANKS];
    BatchTotals all, largest = {0}, got;
    for (int r = 0; r < RANKS; r++) {
        const BatchOptions opt = {
            .sequences = EACH, .rank = r, .ranks = RANKS, .anchors = WANT, .K = K, .seed = 5};
        assert_ok((part[r] = batches_open(&source, &opt, &err)), err);
        assert_int_equal(batches_per_epoch(part[r]), batches_per_epoch(one));
    }
    for (int64_t step = 0; step < STEPS; step++) {
        Batch whole, x;
        int64_t rows = 0;
        int seqs = 0;
        assert_ok(batches_get(one, step, &whole, &err), err);
        for (int r = 0; r < RANKS; r++) {
            assert_ok(batches_get(part[r], step, &x, &err), err);
            for (int s = 0; s < x.nseq; s++)
                assert_int_equal(x.seq_index[s], whole.seq_index[s * RANKS + r]);
            for (int64_t i = 0, at = 0; i < x.rows; i++) { // its anchors, in its sequences' order
                while (whole.seq_of[at] != x.seq_of[i] * RANKS + r || whole.T[at] != x.T[i]) at++;
                assert_true(at < whole.rows);
                for (int j = 0; j < K; j++)
                    assert_int_equal(x.label[j * x.rows + i], whole.label[j * whole.rows + at]);
            }
            seqs += x.nseq;
            rows += x.rows;
            if (x.rows > largest.max_rows) largest.max_rows = x.rows;
            if (x.tokens > largest.max_tokens) largest.max_tokens = x.tokens;
        }
        assert_int_equal(seqs, whole.nseq);
        assert_int_equal(rows, whole.rows);
    }
    assert_ok(batches_totals(one, STEPS, &all, &err), err);
    for (int r = 0; r < RANKS; r++) {
        assert_ok(batches_totals(part[r], STEPS, &got, &err), err);
        assert_true(got.all_rows == all.all_rows && got.all_tokens == all.all_tokens);
        assert_true(got.max_rows == largest.max_rows && got.max_tokens == largest.max_tokens);
        batches_close(part[r]);
    }
    batches_close(one);
}

static int64_t no_anchors(void *ctx, int64_t i, Err *err) {
    (void)ctx;
    err_set(err, ERR_INPUT, "sequence %lld is damaged", (long long)i);
    return -1;
}

static void a_source_that_cannot_be_counted_is_an_error(void **state) {
    (void)state;
    Err err = {0};
    SeqSource src = source;
    BatchTotals totals;
    src.anchors = no_anchors;
    const BatchOptions opt = {.sequences = 4, .K = K};
    Batches *b = batches_open(&src, &opt, &err);
    assert_false(batches_totals(b, 3, &totals, &err));
    assert_string_equal(err.text, "sequence 0 is damaged");
    batches_close(b);
}

// What a step holds, as one number.
static uint64_t digest(Batches *b, int64_t step) {
    Err err = {0};
    Batch x;
    assert_ok(batches_get(b, step, &x, &err), err);
    uint64_t h = xxh3_64(x.seq_index, sizeof x.seq_index[0] * (size_t)x.nseq);
    h ^= 3 * xxh3_64(x.T, 4 * (size_t)x.rows) + 5 * xxh3_64(x.seq_of, 4 * (size_t)x.rows);
    return h + 7 * xxh3_64(x.token, 4 * (size_t)(x.rows * K)) +
           9 * xxh3_64(x.valid, (size_t)(x.rows * K));
}

static void a_step_is_a_function_of_seed_and_number_alone(void **state) {
    (void)state;
    Batches *a = open_batches(4, 3, 7, 100), *b = open_batches(4, 3, 7, 0),
            *c = open_batches(4, 3, 8, 100);
    uint64_t forward[20];
    int differ = 0;
    for (int s = 0; s < 20; s++) forward[s] = digest(a, s);
    for (int s = 19; s >= 0; s--) assert_int_equal(digest(b, s), forward[s]);
    for (int s = 0; s < 20; s++) differ += digest(c, s) != forward[s];
    assert_true(differ >= 19);
    batches_close(a);
    batches_close(b);
    batches_close(c);
}

static void drawn_anchors_are_distinct_ascending_and_change_between_visits(void **state) {
    (void)state;
    Err err = {0};
    Batches *b = open_batches(COUNT, 3, 3, 100);
    uint64_t visited[COUNT] = {0};
    for (int64_t step = 0; step < 30; step++) {
        Batch x;
        assert_ok(batches_get(b, step, &x, &err), err);
        for (int64_t r = 0; r < x.rows; r++) {
            if (r > 0 && x.seq_of[r] == x.seq_of[r - 1]) assert_true(x.T[r] > x.T[r - 1]);
            visited[x.seq_index[x.seq_of[r]]] |= 1ull << x.T[r];
        }
    }
    for (int i = 0; i < COUNT; i++) { // every eligible anchor was drawn sooner or later
        int eligible = 0;
        for (int64_t t = 2; t + 1 < length(NULL, i); t++) eligible += !(t >= 8 && t <= 10);
        assert_int_equal(__builtin_popcountll(visited[i]), eligible);
    }
    batches_close(b);
}

// Odds that rise with the position, and one anchor that is worth more than all others.
static bool rising(void *ctx, int slot, const CapturedSeq *c, double *odds, Err *err) {
    (void)slot;
    (void)err;
    ++*(int *)ctx;
    for (int64_t t = 0; t < c->sample.n; t++) odds[t] = t == 4 ? 1e6 : 1.0 + (double)t;
    return true;
}

static void anchors_drawn_by_odds_stand_for_all_of_them(void **state) {
    (void)state;
    enum { STEPS = 30000, WANT = 4 };
    Err err = {0};
    int asked = 0;
    const BatchOptions opt = {
        .sequences = COUNT, .anchors = WANT, .K = K, .seed = 11, .odds = {&asked, rising}};
    Batches *b = batches_open(&source, &opt, &err);
    assert_ok(b, err);
    static double share[COUNT][32], mean[COUNT];
    static int drawn[COUNT][32];
    for (int64_t step = 0; step < STEPS; step++) {
        Batch x;
        assert_ok(batches_get(b, step, &x, &err), err);
        for (int64_t r = 0; r < x.rows; r++) {
            const int64_t i = x.seq_index[x.seq_of[r]];
            if (r > 0 && x.seq_of[r] == x.seq_of[r - 1]) assert_true(x.T[r] > x.T[r - 1]);
            drawn[i][x.T[r]]++;
            share[i][x.T[r]] += x.share[r];
            mean[i] += x.share[r] / STEPS;
        }
    }
    int few = 0;
    for (int64_t i = 0; i < COUNT; i++) {
        const int64_t n = anchors(NULL, i, &err), m = n < WANT ? n : WANT;
        const double alike = (double)m / (double)n;
        few += n > WANT;
        for (int64_t t = 1; t + 1 < length(NULL, i); t++) {
            if (context(t) || context(t + 1)) continue;
            // in the mean every anchor counts as in a uniform draw, whatever its odds
            if (fabs(share[i][t] / STEPS - alike) > 0.03)
                fail_msg("anchor %d of %d: %g, not %g", (int)t, (int)i, share[i][t] / STEPS, alike);
            if (n > WANT && t == 4) assert_int_equal(drawn[i][t], STEPS);
        }
        assert_true(fabs(mean[i] - (double)m) < 0.05);
    }
    assert_int_equal(asked, few * STEPS); // not where all are taken
    assert_true(few > 5 && drawn[16][16] > drawn[16][12]);
    batches_close(b);
}

static void a_set_that_fits_is_read_once(void **state) {
    (void)state;
    Batches *b = open_batches(4, 0, 1, 100);
    reads = 0;
    for (int s = 0; s < 18; s++) digest(b, s);
    assert_int_equal(reads, COUNT);
    batches_close(b);
    b = open_batches(4, 0, 1, (int64_t)1 << 40); // no sequence fits
    reads = 0;
    for (int s = 0; s < 18; s++) digest(b, s);
    assert_int_equal(reads, 3 * COUNT);
    batches_close(b);
}

static void empty_sources_and_wrong_sizes_are_refused(void **state) {
    (void)state;
    Err err = {0};
    SeqSource none = source;
    none.count = 0;
    BatchOptions opt = {.sequences = 4, .K = K};
    assert_null(batches_open(&none, &opt, &err));
    assert_int_equal(err.code, ERR_INPUT);
    err = (Err){0};
    opt.sequences = PACK_SEQS_MAX + 1;
    assert_null(batches_open(&source, &opt, &err));
    assert_int_equal(err.code, ERR_USAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sequence_comes_once_an_epoch_in_another_order),
        cmocka_unit_test(all_anchors_are_the_supervised_pairs),
        cmocka_unit_test(totals_are_those_of_the_steps),
        cmocka_unit_test(ranks_share_the_step_of_one),
        cmocka_unit_test(a_source_that_cannot_be_counted_is_an_error),
        cmocka_unit_test(a_step_is_a_function_of_seed_and_number_alone),
        cmocka_unit_test(drawn_anchors_are_distinct_ascending_and_change_between_visits),
        cmocka_unit_test(anchors_drawn_by_odds_stand_for_all_of_them),
        cmocka_unit_test(a_set_that_fits_is_read_once),
        cmocka_unit_test(empty_sources_and_wrong_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
