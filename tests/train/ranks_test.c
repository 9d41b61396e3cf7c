// tests/train/ranks_test.c - two ranks that find each other by torchrun's variables: the loss curve
// of one with the batch doubled, bit for bit the same each time, a resume behind a killed rank, a
// failure that all hear of.
#include "tests/infer/base/world_ranks.h"
#include "tests/train/tiny_run.h"

#include "infer/base/json.h"
#include "infer/base/log.h"

enum { STEPS = 50 };
static const char *const ONE[] = {"train.steps=50",     "train.batch_sequences=4",
                                  "train.lr=0.0003",    "train.step_weights=reach",
                                  "train.ema=0.9",      "train.dtype=f32",
                                  "train.anchors=6",    "train.save_every=5",
                                  "train.dev_every=10", NULL};
static const char *const EACH[] = {"train.steps=50",     "train.batch_sequences=2",
                                   "train.lr=0.0003",    "train.step_weights=reach",
                                   "train.ema=0.9",      "train.dtype=f32",
                                   "train.anchors=6",    "train.save_every=5",
                                   "train.dev_every=10", NULL};

// What happens to rank 1, in reads of training sequences (5 in 3 steps); -1: nothing. By the
// environment: a rank is this program started anew, since OpenMP does not outlive a fork.
static int64_t number_of(const char *name) {
    const char *v = getenv(name);
    return v != NULL && world_rank() == 1 ? strtoll(v, NULL, 10) : -1;
}

static bool dying_read(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    Tiny *t = ctx;
    if (t->reads == number_of("TEST_DRIFT")) ((float *)t->pair.a->w.table.data)[7] *= 1.0001f;
    if (t->reads == number_of("TEST_DIES")) raise(SIGKILL);
    return tiny_read_train(ctx, i, out, err);
}

static int train_rank(const char *dir) {
    Tiny t;
    TrainResult r;
    WorldPlace place;
    Err err = {0};
    log_set_quiet(true);
    assert_ok(world_place(&place, &err) && world_open(&place, 30, &err), err);
    tiny_open(&t, dir, EACH);
    t.train.read = dying_read;
    t.fault.nan_at = number_of("TEST_NAN");
    Trainer *trainer = tiny_trainer(&t, &err);
    const bool ok = trainer != NULL && trainer_run(trainer, &r, &err);
    const int code = ok ? 0 : (int)err.code;
    if (!ok && err.text[0] != '\0') fprintf(stderr, "rank %d: %s\n", world_rank(), err.text);
    trainer_close(trainer);
    tiny_close(&t);
    world_leave(code);
    return code;
}

// fault: NULL, or of rank 1: its variable and value.
static void run_two(const char *dir, const char *fault, int at, int *status) {
    pid_t pid[2];
    const int port = free_port();
    for (int r = 0; r < 2; r++) {
        if ((pid[r] = fork()) != 0) continue;
        rank_variables(r, 2, port);
        if (fault != NULL) set_number(fault, at);
        if (freopen("/dev/null", "w", stdout) == NULL) _exit(126);
        execl("/proc/self/exe", "ranks_test", "rank", dir, (char *)NULL);
        _exit(127);
    }
    for (int r = 0; r < 2; r++) status[r] = end_of(pid[r]);
}

static double *losses(const char *dir) { // of steps 1 .. STEPS; caller frees
    char path[PATH_ROOM];
    Err err = {0};
    size_t size;
    double *loss = calloc(STEPS + 1, sizeof *loss);
    char *text = file_read(path_join(path, dir, "metrics.jsonl"), 1 << 24, &size, &err), *at = text;
    assert_non_null(text);
    for (char *line; (line = strsep(&at, "\n")) != NULL && *line;) {
        json_t *o = json_read_text(line, strlen(line), &err);
        const json_t *x = json_object_get(o, "train/loss");
        const int64_t step = json_integer_value(json_object_get(o, "step"));
        assert_true(step >= 0 && step <= STEPS);
        if (x != NULL) loss[step] = json_number_value(x);
        json_decref(o);
    }
    free(text);
    return loss;
}

static const char *unbroken(char hash[130]) {
    static const char *dir;
    int status[2];
    if (dir == NULL) {
        dir = tiny_dir("two");
        run_two(dir, NULL, 0, status);
        assert_int_equal(status[0], 0);
        assert_int_equal(status[1], 0);
    }
    tiny_hash(dir, STEPS, hash);
    return dir;
}

static void two_ranks_have_the_loss_curve_of_one(void **state) {
    (void)state;
    TrainResult r;
    Err err = {0};
    char hash[130];
    const char *one = tiny_dir("one"), *two = unbroken(hash);
    assert_ok(tiny_run(one, ONE, NO_FAULT, &r, &err), err);
    double *x = losses(one), *y = losses(two), worst = 0;
    for (int s = 1; s <= STEPS; s++) {
        assert_true(x[s] > 0 && y[s] > 0);
        worst = fmax(worst, fabs(x[s] / y[s] - 1));
    }
    print_message("largest difference of the loss: %.2g\n", worst);
    assert_true(worst < 1e-5 && x[STEPS] < 0.99 * x[1]);
    free(x);
    free(y);
}

static void a_killed_rank_costs_nothing(void **state) {
    (void)state;
    char want[130], got[130], root[PATH_ROOM];
    int status[2];
    unbroken(want);
    for (int i = 0; i < 2; i++) {
        const char *dir = tiny_dir(i ? "killed-late" : "killed-early");
        run_two(dir, "TEST_DIES", i ? 73 : 44, status); // within steps 44 and 27
        assert_int_equal(status[1], -SIGKILL);
        assert_int_equal(status[0], ERR_STOPPED);
        assert_int_equal(ckpt_pointed(path_join(root, dir, "ckpt"), "latest"), i ? 43 : 26);
        run_two(dir, NULL, 0, status);
        assert_int_equal(status[0], 0);
        tiny_hash(dir, STEPS, got);
        assert_string_equal(got, want);
    }
}

static void a_rank_that_fails_takes_the_other_along(void **state) {
    (void)state;
    char root[PATH_ROOM];
    int status[2];
    const char *dir = tiny_dir("failing");
    run_two(dir, "TEST_NAN", 20, status); // in step 13
    assert_int_equal(status[0], ERR_FAILED);
    assert_int_equal(status[1], ERR_FAILED);
    assert_int_equal(ckpt_pointed(path_join(root, dir, "ckpt"), "latest"), 10);
}

static void weights_that_drift_apart_end_the_run(void **state) {
    (void)state;
    char root[PATH_ROOM];
    int status[2];
    const char *dir = tiny_dir("drifting");
    run_two(dir, "TEST_DRIFT", 20, status); // in step 13; found where step 15 is to be saved
    assert_int_equal(status[0], ERR_FAILED);
    assert_int_equal(status[1], ERR_FAILED);
    assert_int_equal(ckpt_pointed(path_join(root, dir, "ckpt"), "latest"), 10);
}

static void one_rank_goes_on_where_two_were(void **state) {
    (void)state;
    TrainResult r;
    Err err = {0};
    char hash[130], command[3 * PATH_ROOM];
    const char *two = unbroken(hash), *dir = tiny_dir("fewer");
    snprintf(command, sizeof command,
             "mkdir -p %s && cp -r %s/ckpt %s/ && rm -r %s/ckpt/step-00005*", dir, two, dir, dir);
    assert_int_equal(system(command), 0);
    assert_ok(tiny_run(dir, ONE, NO_FAULT, &r, &err), err);
    double *x = losses(two), *y = losses(dir);
    int64_t seen = 0;
    for (int s = 1; s <= STEPS; s++) {
        if (y[s] == 0) continue;
        assert_true(fabs(x[s] / y[s] - 1) < 1e-5); // the same sequences and anchors
        seen++;
    }
    assert_true(seen >= 5 && r.steps == STEPS);
    free(x);
    free(y);
}

int main(int argc, char **argv) {
    tiny_passive(argv);
    if (argc == 3 && strcmp(argv[1], "rank") == 0) return train_rank(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_ranks_have_the_loss_curve_of_one),
        cmocka_unit_test(a_killed_rank_costs_nothing),
        cmocka_unit_test(a_rank_that_fails_takes_the_other_along),
        cmocka_unit_test(weights_that_drift_apart_end_the_run),
        cmocka_unit_test(one_rank_goes_on_where_two_were),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
