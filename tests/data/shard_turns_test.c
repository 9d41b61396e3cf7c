// tests/data/shard_turns_test.c - a turn in two halves: the file is made beside the caller, named
// at the end, and in the same bytes.
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "data/shard.h"
#include "infer/base/file.h"
#include "infer/base/log.h"
#include "infer/text/chat.h"
#include "tests/testing.h"

enum { SHARDS = 3, EACH = 2 };
static const double PATIENCE_S = 20;

static const ShardMeta meta = {.target = "aaaa",
                               .tokenizer = "bbbb",
                               .chat_template = "cccc",
                               .config = "dddd",
                               .hidden = 8,
                               .kv_width = {4, 6},
                               .window = 8,
                               .vocab = 1000,
                               .dtype = "BF16",
                               .sampler = "greedy"};

// libc's in front of which this one stands: of other threads a call waits until the caller has gone
// on, or fails.
static pthread_t caller;
static atomic_bool went_on, hold, fails;
static atomic_int elsewhere, met;

int fsync(int fd) {
    if (!pthread_equal(pthread_self(), caller)) {
        atomic_fetch_add(&elsewhere, 1);
        if (atomic_load(&fails)) {
            errno = EIO;
            return -1;
        }
        const double from = now_s();
        while (atomic_load(&hold) && !atomic_load(&went_on) && now_s() - from < PATIENCE_S)
            usleep(1000);
        if (atomic_load(&went_on)) atomic_fetch_add(&met, 1);
    }
    return (int)syscall(SYS_fsync, fd);
}

static int prepare(void **state) {
    (void)state;
    caller = pthread_self();
    went_on = hold = fails = false;
    elsewhere = met = 0;
    return 0;
}

static void *rows(int seed, int64_t n) {
    uint16_t *p = malloc((size_t)n * 2);
    for (int64_t i = 0; i < n; i++) p[i] = (uint16_t)(seed * 131 + i * 7 % 999);
    return p;
}

static CapturedSeq make(int number) {
    CapturedSeq c = {0};
    Sample *s = &c.sample;
    s->n = 30 + 9 * number;
    s->prompt = 7;
    snprintf(s->id, sizeof s->id, "s%d", number);
    strcpy(s->sampler, "greedy");
    s->ids = calloc((size_t)s->n, 4);
    s->kind = calloc((size_t)s->n, 1);
    memset(s->kind + s->prompt, TOKEN_MODEL, (size_t)(s->n - s->prompt));
    c.bare = sample_bare(s);
    c.hidden = rows(number, (s->n - c.bare) * meta.hidden);
    for (int k = 0; k < 2; k++) {
        c.k[k] = rows(number + 100 * k, s->n * meta.kv_width[k]);
        c.v[k] = rows(number + 300 * k, s->n * meta.kv_width[k]);
    }
    return c;
}

typedef struct {
    CapturedSeq seq[EACH];
    const CapturedSeq *list[EACH];
} Shard;

static void fill(Shard *s, int number) {
    for (int i = 0; i < EACH; i++) {
        s->seq[i] = make(EACH * number + i);
        s->list[i] = &s->seq[i];
    }
}

static void empty(Shard *s) {
    for (int i = 0; i < EACH; i++) captured_free(&s->seq[i]);
}

static ShardWriter *open_writer(const char *dir) {
    Err err = {0};
    ShardWriter *w = shard_writer_open(dir, &meta, &err);
    assert_ok(w, err);
    return w;
}

// What is missing, one shard after the other.
static void write_rest(const char *dir) {
    Err err = {0};
    ShardWriter *w = open_writer(dir);
    while (shard_writer_next(w) < SHARDS) {
        Shard s;
        fill(&s, shard_writer_next(w));
        assert_ok(shard_write(w, s.list, EACH, &err), err);
        empty(&s);
    }
    assert_ok(shard_writer_finish(w, SHARDS, &err), err);
    shard_writer_close(w);
}

static char *folder(char out[PATH_ROOM], const char *name) {
    return path_join(out, test_dir(), name);
}

static void assert_same_set(const char *a, const char *b) {
    Err err = {0};
    int n, m;
    char **names = dir_list(a, &n, &err), **others = dir_list(b, &m, &err);
    assert_int_equal(n, SHARDS + 1); // and the manifest
    assert_int_equal(m, n);
    for (int i = 0; i < n; i++) {
        char path[PATH_ROOM];
        Sha256 x, y;
        assert_string_equal(names[i], others[i]);
        assert_ok(sha256_file(&x, path_join(path, a, names[i]), &err), err);
        assert_ok(sha256_file(&y, path_join(path, b, names[i]), &err), err);
        assert_string_equal(x.hex, y.hex);
    }
    dir_list_free(names, n);
    dir_list_free(others, m);
}

static void a_shard_is_made_while_the_caller_goes_on(void **state) {
    (void)state;
    Err err = {0};
    char dir[PATH_ROOM];
    ShardWriter *w = open_writer(folder(dir, "beside"));
    Shard s;
    fill(&s, 0);
    hold = true;
    shard_write_begin(w, s.list, EACH); // would not return if it made the shard
    assert_int_equal(shard_writer_next(w), 0);
    assert_false(shard_write_failing(w));
    went_on = true;
    assert_ok(shard_write_end(w, &err), err);
    assert_int_equal(shard_writer_next(w), 1);
    assert_true(elsewhere > 0);
    assert_int_equal(met, elsewhere);
    assert_ok(shard_write_end(w, &err), err); // nothing was begun
    empty(&s);
    shard_writer_close(w);
}

static void two_halves_end_in_the_bytes_of_one(void **state) {
    (void)state;
    Err err = {0};
    char a[PATH_ROOM], b[PATH_ROOM];
    write_rest(folder(a, "one"));
    ShardWriter *w = open_writer(folder(b, "halves"));
    Shard s[2];
    for (int i = 0; i < SHARDS; i++) {
        fill(&s[i % 2], i); // while the one before is written
        assert_ok(shard_write_end(w, &err), err);
        if (i > 0) empty(&s[(i + 1) % 2]);
        shard_write_begin(w, s[i % 2].list, EACH);
    }
    assert_ok(shard_write_end(w, &err), err);
    empty(&s[(SHARDS + 1) % 2]);
    assert_ok(shard_writer_finish(w, SHARDS, &err), err);
    shard_writer_close(w);
    assert_same_set(a, b);
}

static void a_disk_that_fails_is_reported_at_the_end(void **state) {
    (void)state;
    Err err = {0};
    char a[PATH_ROOM], b[PATH_ROOM];
    write_rest(folder(a, "sound"));
    ShardWriter *w = open_writer(folder(b, "failing"));
    Shard s;
    fill(&s, 0);
    fails = true;
    shard_write_begin(w, s.list, EACH);
    for (const double from = now_s(); !shard_write_failing(w) && now_s() - from < PATIENCE_S;)
        usleep(1000);
    assert_true(shard_write_failing(w)); // known before the end
    assert_false(shard_write_end(w, &err));
    assert_int_equal(err.code, ERR_FAILED);
    assert_non_null(strstr(err.text, "failing/shard-00000.h5"));
    assert_non_null(strstr(err.text, strerror(EIO)));
    assert_false(shard_write_failing(w));
    assert_int_equal(shard_writer_next(w), 0);
    fails = false;
    empty(&s);
    shard_writer_close(w);
    int n;
    char **left = dir_list(b, &n, &err);
    assert_int_equal(n, 0);
    dir_list_free(left, n);
    write_rest(b);
    assert_same_set(a, b);
}

static void a_turn_that_is_not_ended_names_nothing(void **state) {
    (void)state;
    char a[PATH_ROOM], b[PATH_ROOM], path[PATH_ROOM];
    write_rest(folder(a, "ended"));
    ShardWriter *w = open_writer(folder(b, "dropped"));
    Shard s;
    fill(&s, 0);
    hold = true;
    shard_write_begin(w, s.list, EACH);
    hold = false;
    shard_writer_close(w); // waits: the sequences are ours again
    empty(&s);
    assert_false(file_exists(path_join(path, b, "manifest.json")));
    w = open_writer(b);
    assert_int_equal(shard_writer_next(w), 0);
    shard_writer_close(w);
    write_rest(b);
    assert_same_set(a, b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_shard_is_made_while_the_caller_goes_on, prepare),
        cmocka_unit_test_setup(two_halves_end_in_the_bytes_of_one, prepare),
        cmocka_unit_test_setup(a_disk_that_fails_is_reported_at_the_end, prepare),
        cmocka_unit_test_setup(a_turn_that_is_not_ended_names_nothing, prepare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
