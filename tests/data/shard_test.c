// tests/data/shard_test.c - shards: round trip, resume, refusals, damage, full disk, two writers.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/shard_file.h"
#include "infer/base/rng.h"
#include "infer/text/chat.h"
#include "tests/testing.h"

// HDF5 itself does not free everything when it meets a damaged file.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libhdf5";
}

static const ShardMeta meta = {.target = "aaaa",
                               .tokenizer = "bbbb",
                               .chat_template = "cccc",
                               .config = "dddd",
                               .hidden = 48,
                               .kv_width = {16, 24},
                               .window = 8,
                               .vocab = 1000,
                               .dtype = "BF16",
                               .sampler = "greedy"};

static uint64_t draw(int seq, int what, int64_t i) {
    return rng_u64(5, RNG_TEST, (uint64_t)seq << 8 | (uint64_t)what, (uint64_t)i);
}

static void *rows(int seq, int what, int64_t n, int64_t width) {
    uint16_t *p = malloc((size_t)(n * width) * 2);
    for (int64_t i = 0; i < n * width; i++)
        p[i] = bf16_from_f32((float)(draw(seq, what, i) % 2001) - 1000).bits;
    return p;
}

// Sequence number `seq` of the test: a pure function of it. Some are longer than one chunk of 1
// MiB.
static CapturedSeq make(int seq) {
    CapturedSeq c = {0};
    Sample *s = &c.sample;
    s->n = seq % 7 == 6 ? 15000 : 1 + (int64_t)(draw(seq, 0, 0) % 300);
    s->prompt = s->n / 2;
    s->sample = seq % 3;
    s->stopped = seq % 2;
    s->min_margin = seq / 8.0;
    snprintf(s->id, sizeof s->id, "prompt-ä-%d", seq);
    snprintf(s->category, sizeof s->category, "cat%d", seq % 4);
    snprintf(s->source, sizeof s->source, "file.jsonl");
    snprintf(s->sampler, sizeof s->sampler, "greedy");
    s->ids = malloc((size_t)s->n * 4);
    s->kind = malloc((size_t)s->n);
    for (int64_t i = 0; i < s->n; i++) {
        s->ids[i] = (int32_t)(draw(seq, 1, i) % 1000);
        s->kind[i] = i < s->prompt ? TOKEN_CONTEXT : (uint8_t)(1 + i % 3);
    }
    c.bare = sample_bare(s) / (1 + seq % 2); // at most what may be missing
    c.hidden = rows(seq, 2, s->n - c.bare, meta.hidden);
    for (int k = 0; k < 2; k++) {
        c.k[k] = rows(seq, 3 + k, s->n, meta.kv_width[k]);
        c.v[k] = rows(seq, 5 + k, s->n, meta.kv_width[k]);
    }
    return c;
}

static bool same(const CapturedSeq *a, const CapturedSeq *b) {
    const Sample *x = &a->sample, *y = &b->sample;
    const size_t n = (size_t)x->n;
    bool ok = x->n == y->n && x->prompt == y->prompt && x->sample == y->sample &&
              x->stopped == y->stopped && x->min_margin == y->min_margin && !strcmp(x->id, y->id) &&
              !strcmp(x->category, y->category) && !strcmp(x->source, y->source) &&
              !strcmp(x->sampler, y->sampler) && !memcmp(x->ids, y->ids, n * 4) &&
              !memcmp(x->kind, y->kind, n) && a->bare == b->bare &&
              !memcmp(a->hidden, b->hidden, (n - (size_t)a->bare) * (size_t)meta.hidden * 2);
    for (int k = 0; k < 2; k++)
        ok = ok && !memcmp(a->k[k], b->k[k], n * (size_t)meta.kv_width[k] * 2) &&
             !memcmp(a->v[k], b->v[k], n * (size_t)meta.kv_width[k] * 2);
    return ok;
}

static bool write_one(ShardWriter *w, int first, int n, Err *err) {
    CapturedSeq c[16];
    const CapturedSeq *list[16] = {0};
    for (int i = 0; i < n; i++) list[i] = (c[i] = make(first + i), &c[i]);
    const bool ok = shard_write(w, list, n, err);
    for (int i = 0; i < n; i++) captured_free(&c[i]);
    return ok;
}

static const int shard_sizes[] = {5, 1, 9};
enum { SHARDS = 3, SEQUENCES = 15 };

// Writes what is still missing, at most `stop` shards in all.
static void write_set(const char *dir, int stop) {
    Err err = {0};
    ShardWriter *w = shard_writer_open(dir, &meta, &err);
    assert_ok(w, err);
    int first = 0;
    for (int i = 0; i < SHARDS; i++) {
        if (i >= shard_writer_next(w) && i < stop)
            assert_ok(write_one(w, first, shard_sizes[i], &err), err);
        first += shard_sizes[i];
    }
    if (stop >= SHARDS) assert_ok(shard_writer_finish(w, SHARDS, &err), err);
    shard_writer_close(w);
}

static char *folder(const char *name) {
    static char path[4][PATH_ROOM];
    static int turn;
    return path_join(path[turn++ % 4], test_dir(), name);
}

static void check_set(const char *dir) {
    Err err = {0};
    ShardSet *s = shards_open(dir, &meta, &err);
    assert_ok(s, err);
    assert_int_equal(shards_count(s), SEQUENCES);
    for (int turn = 0; turn < 2 * SEQUENCES; turn++) { // forwards, then jumping
        const int i = turn < SEQUENCES ? turn : turn * 7 % SEQUENCES;
        CapturedSeq got, want = make(i);
        assert_ok(shards_read(s, i, &got, &err), err);
        assert_int_equal(shards_length(s, i), want.sample.n);
        assert_int_equal(shards_anchors(s, i, &err), sample_anchors(&want.sample));
        assert_true(same(&got, &want));
        captured_free(&got);
        captured_free(&want);
    }
    shards_close(s);
}

static void what_was_written_is_read_back(void **state) {
    (void)state;
    const char *dir = folder("round");
    write_set(dir, SHARDS);
    assert_true(shards_complete(dir));
    check_set(dir);
}

static void an_interrupted_set_continues_and_ends_in_the_same_bytes(void **state) {
    (void)state;
    Err err = {0};
    const char *a = folder("whole"), *b = folder("parts");
    write_set(a, SHARDS);
    write_set(b, 1);
    assert_false(shards_complete(b));
    assert_null(shards_open(b, &meta, &err));
    assert_non_null(strstr(err.text, "not finished"));
    err = (Err){0};
    char path[PATH_ROOM], other[PATH_ROOM];
    assert_ok(file_write(path_join(path, b, "shard-00001.h5.tmp"), "torn", 4, &err), err);
    write_set(b, 2);
    assert_int_equal(unlink(path_join(path, b, "shard-00001.h5")), 0); // named but gone: made again
    write_set(b, SHARDS);
    const char *names[] = {"manifest.json", "shard-00000.h5", "shard-00001.h5", "shard-00002.h5"};
    for (int i = 0; i < 4; i++) {
        Sha256 x, y;
        assert_ok(sha256_file(&x, path_join(path, a, names[i]), &err), err);
        assert_ok(sha256_file(&y, path_join(other, b, names[i]), &err), err);
        assert_string_equal(x.hex, y.hex);
    }
    int n;
    char **left = dir_list(b, &n, &err);
    assert_int_equal(n, 4);
    dir_list_free(left, n);
}

static void shards_of_another_target_are_refused_with_both_fingerprints(void **state) {
    (void)state;
    const char *dir = folder("meta");
    write_set(dir, SHARDS);
    Err err = {0};
    ShardMeta want = {.target = "eeee"};
    assert_null(shards_open(dir, &want, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "target aaaa, expected eeee"));
    err = (Err){0};
    want = (ShardMeta){.hidden = 64};
    assert_null(shards_open(dir, &want, &err));
    assert_non_null(strstr(err.text, "hidden width 48, expected 64"));
    err = (Err){0};
    want = meta;
    strcpy(want.tokenizer, "ffff");
    assert_null(shard_writer_open(dir, &want, &err));
    assert_non_null(strstr(err.text, "tokenizer bbbb, expected ffff"));
    want = (ShardMeta){0};
    ShardSet *s = shards_open(dir, &want, &err);
    assert_non_null(s);
    assert_string_equal(shards_meta(s)->target, "aaaa");
    shards_close(s);
}

static void a_shard_moved_in_from_another_capture_is_refused(void **state) {
    (void)state;
    const char *dir = folder("mine"), *foreign = folder("foreign");
    write_set(dir, SHARDS);
    Err err = {0};
    ShardMeta other = meta;
    strcpy(other.target, "eeee");
    ShardWriter *w = shard_writer_open(foreign, &other, &err);
    assert_ok(write_one(w, 0, shard_sizes[0], &err), err);
    shard_writer_close(w);
    char from[PATH_ROOM], to[PATH_ROOM];
    assert_ok(file_copy(path_join(from, foreign, "shard-00000.h5"),
                        path_join(to, dir, "shard-00000.h5"), &err),
              err);
    assert_null(shards_open(dir, &meta, &err));
    assert_non_null(strstr(err.text, "target eeee, expected aaaa"));
}

static void a_second_writer_is_refused(void **state) {
    (void)state;
    Err err = {0};
    const char *dir = folder("two");
    ShardWriter *w = shard_writer_open(dir, &meta, &err);
    assert_ok(w, err);
    if (fork() == 0) {
        ShardWriter *second = shard_writer_open(dir, &meta, &err);
        _exit(second == NULL && strstr(err.text, "lock") ? 0 : 1);
    }
    int status;
    wait(&status);
    assert_int_equal(status, 0);
    shard_writer_close(w);
    w = shard_writer_open(dir, &meta, &err);
    assert_ok(w, err);
    shard_writer_close(w);
}

// A file that may not grow stands for a full disk: the error names it, nothing half-written stays.
static void a_full_disk_is_reported_and_leaves_nothing(void **state) {
    (void)state;
    const char *dir = folder("full");
    for (int kib = 0; kib < 3000; kib = kib * 3 + 20) {
        fflush(NULL);
        if (fork() == 0) {
            Err err = {0};
            signal(SIGXFSZ, SIG_IGN);
            ShardWriter *w = shard_writer_open(dir, &meta, &err);
            const struct rlimit limit = {(rlim_t)kib << 10, (rlim_t)kib << 10};
            setrlimit(RLIMIT_FSIZE, &limit);
            if (!w || write_one(w, 6, 1, &err)) _exit(1);
            shard_writer_close(w);
            if (!strstr(err.text, strerror(EFBIG))) fprintf(stderr, "%d KiB: %s\n", kib, err.text);
            _exit(err.code == ERR_FAILED && strstr(err.text, "shard-00000.h5") &&
                          strstr(err.text, strerror(EFBIG))
                      ? 0
                      : 2);
        }
        int status, n;
        wait(&status);
        assert_int_equal(status, 0);
        Err err = {0};
        char **left = dir_list(dir, &n, &err);
        assert_ok(left, err);
        assert_int_equal(n, 0);
        dir_list_free(left, n);
    }
}

// 0 = an error was reported, 1 = everything intact, 2 = wrong data.
static int examine(const char *dir) {
    Err err = {0};
    ShardSet *s = shards_open(dir, &meta, &err);
    if (!s) return 0;
    int verdict = 1;
    for (int64_t i = 0; i < shards_count(s) && verdict == 1; i++) {
        CapturedSeq got, want = make((int)i);
        if (!shards_read(s, i, &got, &err))
            verdict = strstr(err.text, "shard-") ? 0 : 2;
        else {
            if (!same(&got, &want)) verdict = 2;
            captured_free(&got);
        }
        captured_free(&want);
    }
    shards_close(s);
    return verdict;
}

// Half of the flips fall into the structures before the first big chunk, where they are rarer.
static void damage_is_an_error_or_harmless_and_never_wrong_data(void **state) {
    (void)state;
    Err err = {0};
    const char *dir = folder("damage");
    ShardWriter *w = shard_writer_open(dir, &meta, &err);
    assert_ok(write_one(w, 0, 2, &err), err);
    assert_ok(shard_writer_finish(w, 1, &err), err);
    shard_writer_close(w);
    char path[PATH_ROOM];
    path_join(path, dir, "shard-00000.h5");
    size_t size;
    char *good = file_read(path, 1 << 30, &size, &err), *bad = malloc(size);
    assert_int_equal(examine(dir), 1);
    int seen[3] = {0};
    for (int turn = 0; turn < 600; turn++) {
        memcpy(bad, good, size);
        const size_t range = turn % 2 ? size : size < 16384 ? size : 16384;
        size_t keep = size;
        for (uint64_t i = 0; i <= draw(turn, 0, 0) % 3; i++)
            bad[draw(turn, 1, (int64_t)i) % range] ^= (char)(1 + draw(turn, 2, (int64_t)i) % 255);
        if (turn % 10 == 9) keep = (size_t)(draw(turn, 3, 0) % size);
        FILE *f = fopen(path, "wb");
        assert_int_equal(fwrite(bad, 1, keep, f), keep);
        fclose(f);
        alarm(20);
        seen[examine(dir)]++;
        alarm(0);
    }
    print_message("600 damaged shards: %d reported, %d harmless, %d wrong\n", seen[0], seen[1],
                  seen[2]);
    assert_int_equal(seen[2], 0);
    assert_true(seen[0] > 200);
    free(good);
    free(bad);
}

// A captured sequence whose hidden states begin behind what its first anchor needs.
static void states_that_anchors_need_are_missed(void **state) {
    (void)state;
    Err err = {0};
    const char *dir = folder("missed");
    ShardWriter *w = shard_writer_open(dir, &meta, &err);
    assert_ok(w, err);
    CapturedSeq c = make(1), got;
    const CapturedSeq *one = &c;
    const int64_t need = sample_bare(&c.sample);
    c.bare = need + 1;
    assert_true(c.bare < c.sample.n);
    assert_ok(shard_write(w, &one, 1, &err), err);
    assert_ok(shard_writer_finish(w, 1, &err), err);
    shard_writer_close(w);
    ShardSet *s = shards_open(dir, &meta, &err);
    assert_ok(s, err);
    assert_false(shards_read(s, 0, &got, &err));
    assert_int_equal(err.code, ERR_INPUT);
    char want[120];
    snprintf(want, sizeof want, "hidden states begin at row %lld, the first anchor needs row %lld",
             (long long)need + 1, (long long)need);
    assert_non_null(strstr(err.text, want));
    shards_close(s);
    captured_free(&c);
}

static void set_version(const char *path, int64_t version) {
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t a = H5Aopen(file, "version", H5P_DEFAULT);
    assert_true(H5Awrite(a, H5T_NATIVE_INT64, &version) >= 0);
    H5Aclose(a);
    if (version == 1) {
        assert_true(H5Ldelete(file, "bare", H5P_DEFAULT) >= 0);
        assert_true(H5Ldelete(file, "xxh3/bare", H5P_DEFAULT) >= 0);
    }
    assert_true(H5Fclose(file) >= 0);
}

// Sequence 0 with all its hidden states, as version 1 wrote it.
static void write_version_1(const char *dir, bool complete) {
    Err err = {0};
    char path[PATH_ROOM], text[4096];
    CapturedSeq c = make(0);
    const CapturedSeq *one = &c;
    ShardEntry e = {.file = "shard-00000.h5", .sequences = 1, .tokens = c.sample.n};
    ShardWriter *w = shard_writer_open(dir, &meta, &err);
    assert_ok(w, err);
    c.bare = 0;
    free(c.hidden);
    c.hidden = rows(0, 2, c.sample.n, meta.hidden);
    assert_ok(shard_write(w, &one, 1, &err), err);
    shard_writer_close(w);
    set_version(path_join(path, dir, e.file), 1);
    assert_ok(file_size(path, &e.bytes, &err), err);
    snprintf(
        text, sizeof text,
        "{\"version\":1,\"complete\":%s,\"meta\":{\"target\":\"aaaa\",\"tokenizer\":\"bbbb\","
        "\"chat_template\":\"cccc\",\"config\":\"dddd\",\"dtype\":\"BF16\",\"sampler\":\"greedy\","
        "\"hidden\":48,\"kv_width_sliding\":16,\"kv_width_full\":24,\"window\":8,\"vocab\":1000},"
        "\"shards\":[{\"file\":\"shard-00000.h5\",\"sequences\":1,\"tokens\":%lld,"
        "\"bytes\":%lld,\"sha256\":\"%064d\"}]}",
        complete ? "true" : "false", (long long)e.tokens, (long long)e.bytes, 0);
    assert_ok(file_write(path_join(path, dir, "manifest.json"), text, strlen(text), &err), err);
    captured_free(&c);
}

static void shards_of_version_1_are_read_and_not_continued(void **state) {
    (void)state;
    Err err = {0};
    const char *dir = folder("first"), *begun = folder("begun");
    write_version_1(dir, true);
    assert_true(shards_complete(dir));
    ShardSet *s = shards_open(dir, &meta, &err);
    assert_ok(s, err);
    CapturedSeq got, want = make(0);
    assert_ok(shards_read(s, 0, &got, &err), err);
    assert_int_equal(got.bare, 0);
    assert_memory_equal(got.sample.ids, want.sample.ids, (size_t)want.sample.n * 4);
    void *hidden = rows(0, 2, want.sample.n, meta.hidden);
    assert_memory_equal(got.hidden, hidden, (size_t)(want.sample.n * meta.hidden) * 2);
    free(hidden);
    captured_free(&got);
    captured_free(&want);
    shards_close(s);
    write_version_1(begun, false);
    assert_null(shard_writer_open(begun, &meta, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "version 1, this program writes 2"));
}

static void a_damaged_chunk_is_named(void **state) {
    (void)state;
    Err err = {0};
    const char *dir = folder("named");
    write_set(dir, SHARDS);
    char path[PATH_ROOM];
    CapturedSeq c = make(5); // alone in shard 1
    size_t size;
    char *data = file_read(path_join(path, dir, "shard-00001.h5"), 1 << 30, &size, &err);
    char *at = memmem(data, size, c.hidden, 96);
    assert_non_null(at);
    at[7] ^= 4;
    FILE *f = fopen(path, "wb");
    fwrite(data, 1, size, f);
    fclose(f);
    ShardSet *s = shards_open(dir, &meta, &err);
    assert_ok(s, err);
    CapturedSeq got;
    assert_true(shards_read(s, 4, &got, &err));
    captured_free(&got);
    assert_false(shards_read(s, 5, &got, &err));
    assert_non_null(strstr(err.text, "shard-00001.h5: dataset hidden: chunk 0 of 1 is damaged"));
    captured_free(&c);
    shards_close(s);
    free(data);
}

static void manifests_that_lie_are_refused(void **state) {
    (void)state;
    const char *dir = folder("lies");
    write_set(dir, SHARDS);
    Err err = {0};
    char path[PATH_ROOM];
    size_t size;
    char *good = file_read(path_join(path, dir, "manifest.json"), 1 << 20, &size, &err);
    const char *swap[][2] = {{"shard-00001.h5", "../ard-00001.h5"},
                             {"\"version\": 2", "\"version\": 3"},
                             {"\"version\": 2", "\"version\": 1"},
                             {"\"states\": ", "\"states\": 1"},
                             {"\"states\": ", "\"states\": -"},
                             {"\"states\": ", "\"others\": "},
                             {"\"sequences\": 5", "\"sequences\": 4"},
                             {"\"sequences\": 5", "\"sequences\": 0"},
                             {"\"hidden\": 48", "\"hidden\": 47"},
                             {"\"sequences\": 9", "\"sequences\": 900719925474099"},
                             {"\"shards\": [", "\"shards\": [1,"},
                             {"\"complete\": true", "\"complete\": 1"}};
    for (size_t i = 0; i < sizeof swap / sizeof *swap; i++) {
        const char *at = strstr(good, swap[i][0]);
        assert_non_null(at);
        char *bad = malloc(size + 64);
        const int n =
            sprintf(bad, "%.*s%s%s", (int)(at - good), good, swap[i][1], at + strlen(swap[i][0]));
        assert_ok(file_write(path, bad, (size_t)n, &err), err);
        assert_null(shards_open(dir, &meta, &err));
        assert_int_equal(err.code, ERR_INPUT);
        err = (Err){0};
        free(bad);
    }
    free(good);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read_back),
        cmocka_unit_test(an_interrupted_set_continues_and_ends_in_the_same_bytes),
        cmocka_unit_test(shards_of_another_target_are_refused_with_both_fingerprints),
        cmocka_unit_test(a_shard_moved_in_from_another_capture_is_refused),
        cmocka_unit_test(a_second_writer_is_refused),
        cmocka_unit_test(a_full_disk_is_reported_and_leaves_nothing),
        cmocka_unit_test(damage_is_an_error_or_harmless_and_never_wrong_data),
        cmocka_unit_test(states_that_anchors_need_are_missed),
        cmocka_unit_test(shards_of_version_1_are_read_and_not_continued),
        cmocka_unit_test(a_damaged_chunk_is_named),
        cmocka_unit_test(manifests_that_lie_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
