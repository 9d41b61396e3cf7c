// tests/data/capture_test.c - capture of the demo target on $DEVICE: groups, long sequences, what
// runs ahead, stream, bad numbers.
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "data/capture.h"
#include "data/workspace.h"
#include "infer/base/cli.h"
#include "infer/base/log.h"
#include "infer/base/rng.h"
#include "infer/base/watchdog.h"
#include "infer/format/safetensors.h"
#include "infer/text/chat.h"
#include "tests/testing.h"

#define TARGET "configs/demo/base-target"
enum { COUNT = 12, CHUNK = 96, EVERY = 2 };

static OpenTarget open_dir(const char *dir, int64_t rows) {
    char path[PATH_ROOM], dtype[] = "runtime.dtype=f32", device[64],
                          adapter[] = "model.adapter_path=", threads[] = "runtime.threads=1";
    const char *on = getenv("DEVICE");
    Err err = {0};
    Settings s;
    OpenTarget m;
    snprintf(path, sizeof path, "model.target_path=%s", dir);
    snprintf(device, sizeof device, "runtime.device=%s", on && *on ? on : "cpu");
    char *const list[] = {path, dtype, adapter, threads, device};
    assert_ok(settings_load(&s, NULL, list, 5, &err), err);
    assert_ok(open_target(&m, &s, rows, &err), err);
    settings_free(&s);
    return m;
}

// Random ids; number 4 is longer than a chunk, number 7 has no anchor, number EVERY has an earlier
// answer, at tokens 2 and 3.
static Sample *make_samples(void) {
    Sample *s = calloc(COUNT, sizeof *s);
    for (int i = 0; i < COUNT; i++) {
        s[i].n = i == 4 ? 3 * CHUNK + 17 : 8 + (int64_t)rng_below(1, RNG_TEST, (uint64_t)i, 0, 50);
        s[i].prompt = i == 7 ? s[i].n - 1 : s[i].n / 2;
        snprintf(s[i].id, sizeof s[i].id, "s%d", i);
        strcpy(s[i].sampler, "greedy");
        s[i].ids = malloc((size_t)s[i].n * 4);
        s[i].kind = calloc((size_t)s[i].n, 1);
        for (int64_t t = 0; t < s[i].n; t++)
            s[i].ids[t] =
                t == 0 ? 2 : 300 + (int32_t)rng_below(2, RNG_TEST, (uint64_t)i, (uint64_t)t, 7000);
        memset(s[i].kind + s[i].prompt, TOKEN_MODEL, (size_t)(s[i].n - s[i].prompt));
        if (i == EVERY) memset(s[i].kind + 2, TOKEN_MODEL, 2);
    }
    return s;
}

// Widths of the demo target; about 150 tokens a shard.
static bool plan(CapturePlan *p, const Sample *s, Err *err) {
    const ShardMeta meta = {.hidden = 256, .kv_width = {128, 256}};
    return capture_plan(p, s, COUNT, CHUNK, &meta, 150 * shard_bytes_per_token(&meta), err);
}

static void a_plan_keeps_the_order_and_its_limits(void **state) {
    (void)state;
    Err err = {0};
    Sample *s = make_samples();
    CapturePlan p;
    assert_ok(plan(&p, s, &err), err);
    assert_int_equal(p.n, COUNT - 1);
    assert_int_equal(p.left_out, 1);
    assert_int_equal(p.longest, s[4].n);
    int64_t tokens = 0, states = 0;
    for (int64_t i = 0; i < p.n; i++) {
        assert_ptr_equal(p.seq[i], &s[i + (i >= 7)]);
        tokens += p.seq[i]->n;
        states += p.seq[i]->n - (i == EVERY ? 1 : p.seq[i]->prompt - 1);
    }
    assert_int_equal(p.tokens, tokens);
    assert_int_equal(p.states, states);
    assert_int_equal(p.group[p.groups], p.n);
    assert_int_equal(p.shard[p.shards], p.groups);
    for (int64_t g = 0; g < p.groups; g++) {
        int64_t rows = 0;
        for (int64_t i = p.group[g]; i < p.group[g + 1]; i++) rows += p.seq[i]->n;
        assert_true(p.group[g] < p.group[g + 1]);
        assert_true(rows <= CHUNK || p.group[g + 1] - p.group[g] == 1);
    }
    for (int k = 0; k < p.shards; k++) assert_true(p.shard[k] < p.shard[k + 1]);
    capture_plan_free(&p);
    samples_free(s, COUNT);
}

// The sequence alone, in one call, f32 throughout.
static float *hidden_alone(const OpenTarget *m, const Sample *s) {
    Err err = {0};
    const TextConfig *c = &target_config(m->target)->text;
    KvCache *kv = kv_open(m->dev, c, 1, s->n, s->n, true, DT_F32, &err);
    assert_ok(kv, err);
    const size_t bytes = (size_t)(s->n * c->hidden) * 4;
    float *h = malloc(bytes);
    const Tensor hidden = tensor_of(dev_alloc(m->dev, bytes, &err), DT_F32, s->n, c->hidden);
    assert_ok(h && hidden.data, err);
    const TargetPiece piece = {.slot = 0, .count = s->n};
    target_forward(m->target, kv, &piece, 1, s->ids, hidden, NULL);
    dev_download(m->dev, h, hidden);
    dev_free(m->dev, hidden.data);
    kv_close(kv);
    return h;
}

static void captured_rows_are_those_of_the_sequence_alone(void **state) {
    (void)state;
    Err err = {0};
    OpenTarget m = open_dir(TARGET, 4 * CHUNK);
    Sample *s = make_samples();
    CapturePlan p;
    assert_ok(plan(&p, s, &err), err);
    Capturer *c = capturer_open(m.target, &p, CHUNK, DT_F32, &err);
    assert_ok(c, err);
    const int64_t B = target_config(m.target)->text.hidden;
    double worst = 0;
    for (int64_t g = 0; g < p.groups; g++) {
        CapturedSeq out[16];
        assert_ok(capturer_run(c, g, -1, out, &err), err);
        for (int64_t i = p.group[g]; i < p.group[g + 1]; i++) {
            CapturedSeq *got = &out[i - p.group[g]];
            float *want = hidden_alone(&m, p.seq[i]);
            assert_string_equal(got->sample.id, p.seq[i]->id);
            assert_int_equal(got->bare, i == EVERY ? 1 : p.seq[i]->prompt - 1);
            for (int64_t k = got->bare * B; k < p.seq[i]->n * B; k++) {
                const double x = bf16_to_f32(((bf16 *)got->hidden)[k - got->bare * B]);
                const double d = fabs(x - want[k]), scale = fabs((double)want[k]) + 0.05;
                if (d / scale > worst) worst = d / scale;
            }
            free(want);
            captured_free(got);
        }
    }
    print_message("largest difference to f32 alone: %.2g of the value\n", worst);
    assert_true(worst < 5e-3); // half a bf16 step is at most 3.9e-3 of the value
    capturer_close(c);
    capture_plan_free(&p);
    samples_free(s, COUNT);
    close_target(&m);
}

static bool same(const CapturedSeq *a, const CapturedSeq *b, const ShardMeta *m) {
    const size_t n = (size_t)a->sample.n;
    bool ok = n == (size_t)b->sample.n && !strcmp(a->sample.id, b->sample.id) &&
              !memcmp(a->sample.ids, b->sample.ids, 4 * n) &&
              !memcmp(a->sample.kind, b->sample.kind, n) && a->bare == b->bare &&
              !memcmp(a->hidden, b->hidden, 2 * (n - (size_t)a->bare) * (size_t)m->hidden);
    for (int k = 0; k < 2; k++)
        ok = ok && !memcmp(a->k[k], b->k[k], 2 * n * (size_t)m->kv_width[k]) &&
             !memcmp(a->v[k], b->v[k], 2 * n * (size_t)m->kv_width[k]);
    return ok;
}

// Groups by ones that were begun while the rows of the one before came down, and by ones that were
// begun in vain; the long sequence is among them.
static void a_group_that_was_begun_ahead_has_the_same_bits(void **state) {
    (void)state;
    Err err = {0};
    OpenTarget m = open_dir(TARGET, CHUNK);
    const ShardMeta meta = capture_meta(&m.config, NULL);
    Sample *s = make_samples();
    CapturePlan p;
    assert_ok(plan(&p, s, &err), err);
    Capturer *c = capturer_open(m.target, &p, CHUNK, DT_F32, &err);
    assert_ok(c, err);
    CapturedSeq *alone = calloc((size_t)p.n, sizeof *alone);
    assert_non_null(alone);
    for (int64_t g = 0; g < p.groups; g++)
        assert_ok(capturer_run(c, g, -1, alone + p.group[g], &err), err);
    for (int64_t step = 1; step < 3; step++)
        for (int64_t g = 0; g < p.groups; g++) {
            CapturedSeq out[16];
            const int64_t next = g + step < p.groups ? g + step : -1;
            assert_ok(capturer_run(c, g, next, out, &err), err);
            for (int64_t i = p.group[g]; i < p.group[g + 1]; i++) {
                assert_true(same(&out[i - p.group[g]], &alone[i], &meta));
                captured_free(&out[i - p.group[g]]);
            }
        }
    assert_int_equal(capturer_host_bytes(m.target, CHUNK) > 0, dev_own_memory(m.dev) > 0);
    for (int64_t i = 0; i < p.n; i++) captured_free(&alone[i]);
    free(alone);
    capturer_close(c);
    capture_plan_free(&p);
    samples_free(s, COUNT);
    close_target(&m);
}

// libc's in front of which this one stands. Of a shard that another follows, the call waits until
// the capture has gone on into that one, or asks it to stop.
static pthread_t caller;
static bool watching, stops;
static int shards;
static int64_t tokens_until[COUNT]; // the end of each shard
static atomic_int overlapped;

static bool gone_on(int shard) {
    char where[160];
    long long tokens = 0;
    watchdog_where(where);
    return sscanf(where, "tok %lld of capture", &tokens) == 1 && tokens > tokens_until[shard];
}

int fsync(int fd) {
    char link[64], path[PATH_ROOM] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const char *name = readlink(link, path, sizeof path - 1) > 0 ? strstr(path, "/shard-") : NULL;
    if (watching && name && !pthread_equal(pthread_self(), caller)) {
        const int shard = atoi(name + 7);
        if (stops) kill(getpid(), SIGUSR1);
        const double from = now_s(), patience_s = 20;
        while (!stops && shard < shards - 1 && !gone_on(shard) && now_s() - from < patience_s)
            usleep(1000);
        atomic_fetch_add(&overlapped, gone_on(shard));
    }
    return (int)syscall(SYS_fsync, fd);
}

static void watch(const CapturePlan *p) {
    caller = pthread_self();
    shards = p->shards;
    for (int k = 0; k < p->shards; k++) {
        tokens_until[k] = k ? tokens_until[k - 1] : 0;
        for (int64_t i = p->group[p->shard[k]]; i < p->group[p->shard[k + 1]]; i++)
            tokens_until[k] += p->seq[i]->n;
    }
    watching = true;
}

static ShardMeta meta_of(const OpenTarget *m) {
    const Sha256 fingerprint = {"f"};
    ShardMeta meta = capture_meta(&m->config, &fingerprint);
    strcpy(meta.tokenizer, "t");
    strcpy(meta.chat_template, "c");
    strcpy(meta.config, "x");
    strcpy(meta.sampler, "greedy");
    return meta;
}

static void the_stream_and_the_shards_hold_the_same_bits(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM], dir[PATH_ROOM];
    OpenTarget m = open_dir(TARGET, CHUNK);
    Sample *s = make_samples();
    CapturePlan p;
    assert_ok(samples_save(path_join(path, test_dir(), "s.jsonl"), s, COUNT, &err), err);
    assert_ok(plan(&p, s, &err), err);
    assert_true(p.shards > 2);
    Capturer *c = capturer_open(m.target, &p, CHUNK, DT_F32, &err);
    const ShardMeta meta = meta_of(&m);
    ShardWriter *w = shard_writer_open(path_join(dir, test_dir(), "shards"), &meta, &err);
    assert_ok(w, err);
    watch(&p);
    assert_ok(capture_shards(&p, c, w, "capture", &err), err);
    watching = false;
    assert_int_equal(overlapped, p.shards - 1);
    assert_ok(shard_writer_finish(w, p.shards, &err), err);
    shard_writer_close(w);
    ShardSet *set = shards_open(dir, &meta, &err);
    assert_ok(set, err);
    Stream *stream = stream_open(m.target, path, CHUNK, DT_F32, &err);
    assert_ok(stream, err);
    const SeqSource disk = shards_source(set), live = stream_source(stream);
    assert_int_equal(disk.count, live.count);
    assert_int_equal(disk.bytes_per_token, live.bytes_per_token);
    for (int64_t turn = 0; turn < 3 * disk.count; turn++) {
        const int64_t i = turn * 5 % disk.count;
        CapturedSeq a, b;
        assert_int_equal(disk.length(disk.ctx, i), live.length(live.ctx, i));
        assert_int_equal(disk.anchors(disk.ctx, i, &err), live.anchors(live.ctx, i, &err));
        assert_ok(disk.read(disk.ctx, i, &a, &err), err);
        assert_ok(live.read(live.ctx, i, &b, &err), err);
        assert_true(same(&a, &b, &meta));
        captured_free(&a);
        captured_free(&b);
    }
    stream_close(stream);
    shards_close(set);
    capturer_close(c);
    capture_plan_free(&p);
    samples_free(s, COUNT);
    close_target(&m);
}

// A copy of the demo target whose final norm holds a NaN.
static char *broken_target(void) {
    static char dir[PATH_ROOM];
    const char *names[] = {"config.json", "generation_config.json", "model.safetensors"};
    Err err = {0};
    path_join(dir, test_dir(), "broken");
    assert_ok(dir_make(dir, &err), err);
    char from[PATH_ROOM], to[PATH_ROOM];
    for (int i = 0; i < 3; i++)
        assert_ok(file_copy(path_join(from, TARGET, names[i]), path_join(to, dir, names[i]), &err),
                  err);
    StFile *f = st_open(to, &err);
    assert_ok(f, err);
    const StTensor *t = st_find(f, "model.language_model.norm.weight");
    assert_non_null(t);
    FILE *out = fopen(to, "r+b");
    assert_int_equal(fseek(out, (long)t->offset + 10, SEEK_SET), 0);
    assert_int_equal(fwrite("\xc0\x7f", 1, 2, out), 2);
    fclose(out);
    st_close(f);
    return dir;
}

static void numbers_that_are_not_finite_name_the_sample(void **state) {
    (void)state;
    Err err = {0};
    OpenTarget m = open_dir(broken_target(), CHUNK);
    Sample *s = make_samples();
    CapturePlan p;
    assert_ok(plan(&p, s, &err), err);
    Capturer *c = capturer_open(m.target, &p, CHUNK, DT_F32, &err);
    CapturedSeq out[16];
    assert_false(capturer_run(c, 0, 1, out, &err));
    assert_int_equal(err.code, ERR_FAILED);
    char where[64];
    snprintf(where, sizeof where, "sample s0 (answer 0): at token %lld of",
             (long long)s->prompt - 1);
    assert_non_null(strstr(err.text, where));
    capturer_close(c);
    capture_plan_free(&p);
    samples_free(s, COUNT);
    close_target(&m);
}

// The last test: the request to stop stays.
static void a_stop_leaves_the_shard_on_its_way_to_the_disk_whole(void **state) {
    (void)state;
    Err err = {0};
    char dir[PATH_ROOM], other[PATH_ROOM], path[PATH_ROOM], where[64];
    OpenTarget m = open_dir(TARGET, CHUNK);
    Sample *s = make_samples();
    CapturePlan p;
    assert_ok(plan(&p, s, &err), err);
    Capturer *c = capturer_open(m.target, &p, CHUNK, DT_F32, &err);
    const ShardMeta meta = meta_of(&m);
    path_join(other, test_dir(), "shards"); // an unbroken set of the same samples
    ShardWriter *w = shard_writer_open(path_join(dir, test_dir(), "stopped"), &meta, &err);
    assert_ok(w, err);
    signals_install();
    stops = true;
    watch(&p);
    assert_false(capture_shards(&p, c, w, "capture", &err));
    watching = stops = false;
    assert_int_equal(err.code, ERR_STOPPED);
    const int next = shard_writer_next(w);
    assert_in_range(next, 1, 2); // the signal may come when the second is captured
    assert_true(next < p.shards);
    snprintf(where, sizeof where, "stopped; the next run goes on at shard %d", next);
    assert_string_equal(err.text, where);
    for (int i = 0; i < next; i++) {
        char name[32];
        Sha256 a, b;
        err = (Err){0};
        snprintf(name, sizeof name, "shard-%05d.h5", i);
        assert_ok(sha256_file(&a, path_join(path, dir, name), &err), err);
        assert_ok(sha256_file(&b, path_join(path, other, name), &err), err);
        assert_string_equal(a.hex, b.hex);
    }
    shard_writer_close(w);
    capturer_close(c);
    capture_plan_free(&p);
    samples_free(s, COUNT);
    close_target(&m);
}

int main(void) {
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_keeps_the_order_and_its_limits),
        cmocka_unit_test(captured_rows_are_those_of_the_sequence_alone),
        cmocka_unit_test(a_group_that_was_begun_ahead_has_the_same_bits),
        cmocka_unit_test(the_stream_and_the_shards_hold_the_same_bits),
        cmocka_unit_test(numbers_that_are_not_finite_name_the_sample),
        cmocka_unit_test(a_stop_leaves_the_shard_on_its_way_to_the_disk_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
