// tests/data/read_ahead_test.c - batches whose sequences were read ahead: the same ones, the same
// errors, and never from a source that does not allow it.
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/batch.h"
#include "infer/base/file.h"
#include "infer/base/log.h"
#include "infer/text/chat.h"
#include "tests/testing.h"

enum { COUNT = 23, K = 5, STEPS = 40 };
static const double PATIENCE_S = 20;
static const int64_t NEVER_KEPT = (int64_t)1 << 40;

static pthread_t caller;
static atomic_bool hold, went_on;
static atomic_int reads, elsewhere, met;
static int64_t damaged; // sequence, -1: none

static int prepare(void **state) {
    (void)state;
    caller = pthread_self();
    hold = went_on = false;
    reads = elsewhere = met = 0;
    damaged = -1;
    return 0;
}

static int64_t length(void *ctx, int64_t i) {
    (void)ctx;
    return 6 + i * 3 % 17;
}

static bool read_seq(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    (void)ctx;
    atomic_fetch_add(&reads, 1);
    if (!pthread_equal(pthread_self(), caller)) {
        atomic_fetch_add(&elsewhere, 1);
        const double from = now_s();
        while (atomic_load(&hold) && !atomic_load(&went_on) && now_s() - from < PATIENCE_S)
            usleep(1000);
        if (atomic_load(&went_on)) atomic_fetch_add(&met, 1);
    }
    *out = (CapturedSeq){0};
    if (i == damaged) return err_set(err, ERR_INPUT, "sequence %lld is damaged", (long long)i);
    Sample *s = &out->sample;
    s->n = length(NULL, i);
    s->ids = malloc((size_t)s->n * 4);
    s->kind = malloc((size_t)s->n);
    for (int64_t t = 0; t < s->n; t++) {
        s->ids[t] = (int32_t)(100 * i + t);
        s->kind[t] = t < 2 ? TOKEN_CONTEXT : TOKEN_MODEL;
    }
    return true;
}

static int64_t anchors(void *ctx, int64_t i, Err *err) {
    (void)err;
    return length(ctx, i) - 3;
}

static Batches *open_batches(bool ahead, int64_t bytes, int rank, int ranks) {
    Err err = {0};
    const SeqSource src = {.count = COUNT,
                           .bytes_per_token = bytes,
                           .length = length,
                           .anchors = anchors,
                           .read = read_seq,
                           .ahead = ahead};
    const BatchOptions opt = {
        .sequences = 3, .anchors = 4, .K = K, .seed = 9, .rank = rank, .ranks = ranks};
    Batches *b = batches_open(&src, &opt, &err);
    assert_ok(b, err);
    return b;
}

static void assert_same_step(Batches *a, Batches *b, int64_t step) {
    Err err = {0};
    static Batch x, y;
    assert_ok(batches_get(a, step, &x, &err), err);
    assert_ok(batches_get(b, step, &y, &err), err);
    assert_int_equal(x.nseq, y.nseq);
    assert_int_equal(x.rows, y.rows);
    assert_int_equal(x.tokens, y.tokens);
    for (int s = 0; s < x.nseq; s++) {
        const Sample *m = &x.seq[s].sample;
        assert_int_equal(x.seq_index[s], y.seq_index[s]);
        assert_int_equal(m->n, length(NULL, x.seq_index[s]));
        assert_int_equal(m->ids[0], 100 * x.seq_index[s]);
        assert_memory_equal(m->ids, y.seq[s].sample.ids, (size_t)m->n * 4);
    }
    assert_memory_equal(x.T, y.T, (size_t)x.rows * 4);
    assert_memory_equal(x.seq_of, y.seq_of, (size_t)x.rows * 4);
    assert_memory_equal(x.token, y.token, (size_t)(x.rows * K) * 4);
    assert_memory_equal(x.label, y.label, (size_t)(x.rows * K) * 4);
    assert_memory_equal(x.valid, y.valid, (size_t)(x.rows * K));
    assert_memory_equal(x.share, y.share, (size_t)x.rows * 4);
}

static void steps_read_ahead_are_those_read_when_asked(void **state) {
    (void)state;
    const int64_t bytes[] = {100, 0, NEVER_KEPT};
    for (int k = 0; k < 3; k++)
        for (int rank = 0; rank < 2; rank++) {
            Batches *a = open_batches(true, bytes[k], rank, 2),
                    *b = open_batches(false, bytes[k], rank, 2);
            elsewhere = 0;
            for (int64_t step = 0; step < STEPS; step++) {
                assert_same_step(a, b, step);
                batches_ahead(a, step + 1);
            }
            assert_in_range(elsewhere, 8, bytes[k] == 100 ? COUNT : 3 * STEPS); // kept: once each
            batches_close(a);
            batches_close(b);
        }
}

static void another_step_than_the_one_read_ahead_is_right_too(void **state) {
    (void)state;
    const int64_t bytes[] = {100, NEVER_KEPT};
    for (int k = 0; k < 2; k++) {
        Batches *a = open_batches(true, bytes[k], 0, 1), *b = open_batches(false, bytes[k], 0, 1);
        for (int64_t turn = 0; turn < STEPS; turn++) {
            const int64_t step = turn * 7 % 19; // forwards and back, over epochs
            assert_same_step(a, b, step);
            batches_ahead(a, turn % 3 ? step + 1 : step);
            if (turn % 4 == 0) batches_ahead(a, step + 2);
        }
        batches_close(a);
        batches_close(b);
    }
}

static void every_sequence_is_read_as_often_as_when_asked(void **state) {
    (void)state;
    Err err = {0};
    static Batch x;
    Batches *b = open_batches(true, NEVER_KEPT, 0, 1);
    const int64_t steps = 2 * batches_per_epoch(b);
    for (int64_t step = 0; step < steps; step++) {
        assert_ok(batches_get(b, step, &x, &err), err);
        if (step + 1 < steps) batches_ahead(b, step + 1);
    }
    assert_int_equal(reads, 2 * COUNT);
    assert_int_equal(elsewhere, 2 * COUNT - 3); // all but those of the first step
    batches_close(b);
}

static void the_step_goes_on_while_the_next_is_read(void **state) {
    (void)state;
    Err err = {0};
    static Batch x;
    Batches *b = open_batches(true, 100, 0, 1);
    assert_ok(batches_get(b, 0, &x, &err), err);
    hold = true;
    batches_ahead(b, 1); // would not return if it read them
    assert_int_equal(x.seq[2].sample.ids[0], 100 * x.seq_index[2]);
    went_on = true;
    assert_ok(batches_get(b, 1, &x, &err), err);
    assert_int_equal(met, 3);
    assert_int_equal(reads, 6);
    batches_close(b);
}

static void an_error_comes_with_the_step_that_needs_the_sequence(void **state) {
    (void)state;
    Err err = {0}, want = {0};
    static Batch x;
    Batches *b = open_batches(true, NEVER_KEPT, 0, 1);
    assert_ok(batches_get(b, 2, &x, &err), err);
    damaged = x.seq_index[1];
    Batches *when_asked = open_batches(false, NEVER_KEPT, 0, 1);
    assert_false(batches_get(when_asked, 2, &x, &want));
    batches_close(when_asked);
    for (int64_t step = 0; step < 2; step++) {
        assert_ok(batches_get(b, step, &x, &err), err);
        batches_ahead(b, step + 1);
    }
    reads = 0;
    assert_false(batches_get(b, 2, &x, &err));
    assert_string_equal(err.text, want.text);
    assert_int_equal(err.code, want.code);
    assert_in_range(reads, 0, 2); // what has failed is not tried again
    err = (Err){0};
    batches_ahead(b, 2); // fails, but is not asked for
    assert_ok(batches_get(b, 3, &x, &err), err);
    batches_ahead(b, 2);
    batches_close(b);
}

static void a_source_that_forbids_it_is_not_read_ahead(void **state) {
    (void)state;
    Err err = {0};
    static Batch x;
    Batches *b = open_batches(false, NEVER_KEPT, 0, 1);
    for (int64_t step = 0; step < STEPS; step++) {
        assert_ok(batches_get(b, step, &x, &err), err);
        const int before = reads;
        batches_ahead(b, step + 1);
        usleep(500);
        assert_int_equal(reads, before);
    }
    assert_int_equal(elsewhere, 0);
    batches_close(b);
}

static void what_is_held_is_what_was_announced(void **state) {
    (void)state;
    const int64_t MiB = 1 << 20, cache = 2048 * MiB;
    Batches *a = open_batches(true, MiB, 0, 1), *b = open_batches(false, MiB, 0, 1);
    assert_int_equal(batches_kept_bytes(a, 2048, 100), cache); // all of it, each once
    assert_int_equal(batches_kept_bytes(a, 5000, 100), cache + 200 * MiB);
    assert_int_equal(batches_kept_bytes(b, 5000, 100), cache + 100 * MiB);
    batches_close(a);
    batches_close(b);
}

static CapturedSeq make(int number, const ShardMeta *meta) {
    Err err = {0};
    CapturedSeq c;
    assert_true(read_seq(NULL, number, &c, &err));
    c.sample.prompt = 2;
    snprintf(c.sample.id, sizeof c.sample.id, "s%d", number);
    c.bare = 1;
    c.hidden = calloc((size_t)((c.sample.n - 1) * meta->hidden), 2);
    for (int k = 0; k < 2; k++) {
        c.k[k] = calloc((size_t)(c.sample.n * meta->kv_width[k]), 2);
        c.v[k] = calloc((size_t)(c.sample.n * meta->kv_width[k]), 2);
    }
    return c;
}

// The first id of the last shard is changed.
static ShardSet *damaged_set(void) {
    enum { EACH = 6, SHARDS = 4 };
    const ShardMeta meta = {
        .target = "t", .hidden = 8, .kv_width = {4, 6}, .window = 8, .dtype = "BF16"};
    Err err = {0};
    char path[PATH_ROOM];
    ShardWriter *w = shard_writer_open(test_dir(), &meta, &err);
    assert_ok(w, err);
    for (int i = 0; i < SHARDS; i++) {
        CapturedSeq c[EACH];
        const CapturedSeq *list[EACH];
        for (int k = 0; k < EACH; k++) list[k] = (c[k] = make(i * EACH + k, &meta), &c[k]);
        assert_ok(shard_write(w, list, EACH, &err), err);
        for (int k = 0; k < EACH; k++) captured_free(&c[k]);
    }
    assert_ok(shard_writer_finish(w, SHARDS, &err), err);
    shard_writer_close(w);
    ShardSet *s = shards_open(test_dir(), &meta, &err);
    assert_ok(s, err);
    size_t size;
    char *all = file_read(path_join(path, test_dir(), "shard-00003.h5"), 1 << 26, &size, &err);
    assert_ok(all, err);
    const int32_t ids[2] = {100 * EACH * (SHARDS - 1), 100 * EACH * (SHARDS - 1) + 1};
    char *at = memmem(all, size, ids, sizeof ids);
    assert_non_null(at);
    FILE *f = fopen(path, "r+b");
    assert_int_equal(fseek(f, at - all, SEEK_SET), 0);
    fputc(*at ^ 1, f);
    fclose(f);
    free(all);
    return s;
}

static void a_damaged_shard_is_named_as_without_reading_ahead(void **state) {
    (void)state;
    ShardSet *s = damaged_set();
    SeqSource src = shards_source(s);
    assert_true(src.ahead);
    const BatchOptions opt = {.sequences = 2, .K = K, .seed = 3};
    char text[2][1024];
    int64_t failed_at[2];
    for (int ahead = 0; ahead < 2; ahead++) {
        Err err = {0};
        static Batch x;
        src.ahead = ahead;
        Batches *b = batches_open(&src, &opt, &err);
        assert_ok(b, err);
        for (failed_at[ahead] = 0; batches_get(b, failed_at[ahead], &x, &err); failed_at[ahead]++)
            batches_ahead(b, failed_at[ahead] + 1);
        assert_int_equal(err.code, ERR_INPUT);
        strcpy(text[ahead], err.text);
        batches_close(b);
    }
    assert_non_null(strstr(text[0], "shard-00003.h5: dataset ids: chunk 0 of 1 is damaged"));
    assert_string_equal(text[1], text[0]);
    assert_int_equal(failed_at[1], failed_at[0]);
    shards_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(steps_read_ahead_are_those_read_when_asked, prepare),
        cmocka_unit_test_setup(another_step_than_the_one_read_ahead_is_right_too, prepare),
        cmocka_unit_test_setup(every_sequence_is_read_as_often_as_when_asked, prepare),
        cmocka_unit_test_setup(the_step_goes_on_while_the_next_is_read, prepare),
        cmocka_unit_test_setup(an_error_comes_with_the_step_that_needs_the_sequence, prepare),
        cmocka_unit_test_setup(a_source_that_forbids_it_is_not_read_ahead, prepare),
        cmocka_unit_test_setup(what_is_held_is_what_was_announced, prepare),
        cmocka_unit_test_setup(a_damaged_shard_is_named_as_without_reading_ahead, prepare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
