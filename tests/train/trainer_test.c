// tests/train/trainer_test.c - a run learns, resumes bit for bit, stops cleanly and refuses what
// differs.
#include "tests/train/tiny_run.h"

#include <fcntl.h>

#include "infer/base/json.h"
#include "infer/base/log.h"

static const char *const REACH[] = {"train.step_weights=reach", "train.ema=0.9", NULL};
static const char *const VISIT[] = {"train.step_weights=visit", "train.anchors=5",
                                    "train.save_every=4", NULL};
static const char *const EACH[] = {"train.save_every=1", NULL};
static void run_ok(const char *dir, const char *const *more, TinyFault fault, TrainResult *r) {
    Err err = {0};
    assert_ok(tiny_run(dir, more, fault, r, &err), err);
}

static double metric(const char *dir, int64_t step, const char *name) {
    char path[PATH_ROOM];
    Err err = {0};
    size_t size;
    double value = NAN;
    char *text = file_read(path_join(path, dir, "metrics.jsonl"), 1 << 24, &size, &err);
    assert_non_null(text);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *o = json_read_text(line, strlen(line), &err);
        assert_non_null(o);
        const json_t *x = json_object_get(o, name);
        if (json_integer_value(json_object_get(o, "step")) == step && x)
            value = json_number_value(x);
        json_decref(o);
    }
    free(text);
    return value;
}

static void a_run_learns_and_keeps_its_best_by_tau(void **state) {
    (void)state;
    const char *dir = tiny_dir("learn");
    const char *const more[] = {"train.steps=120",
                                "train.dev_every=20",
                                "train.lr=0.01",
                                "train.route=1",
                                "train.save_every=50",
                                "train.keep=0",
                                NULL};
    char root[PATH_ROOM], path[PATH_ROOM];
    TrainResult r;
    run_ok(dir, more, NO_FAULT, &r);
    const double before = metric(dir, 1, "train/loss"), after = metric(dir, 120, "train/loss");
    print_message("loss %.3f -> %.3f, tau %.3f -> %.3f (step %lld)\n", before, after, r.stock_tau,
                  r.best_tau, (long long)r.best_step);
    assert_true(after < 0.5 * before);
    assert_true(r.best_tau > r.stock_tau && r.best_step > 0);
    path_join(root, dir, "ckpt");
    assert_int_equal(ckpt_pointed(root, "best"), r.best_step);
    assert_int_equal(ckpt_pointed(root, "latest"), 120);
    for (int64_t s = 20; s <= 120; s += 20)
        assert_true(metric(dir, s, "dev/tau") <= r.best_tau + 1e-6);
    assert_true(fabs(metric(dir, r.best_step, "dev/tau") - r.best_tau) < 1e-6);
    // a tuned drafter shows what it did to each source
    static const char *const names[] = {"train/loss/mine", "train/loss/general", "dev/tau/mine",
                                        "dev/tau/general"};
    double last[4];
    for (int i = 0; i < 4; i++) assert_true((last[i] = metric(dir, 120, names[i])) > 0);
    const double loss[] = {fmin(last[0], last[1]), fmax(last[0], last[1])},
                 tau[] = {fmin(last[2], last[3]), fmax(last[2], last[3])};
    assert_true(loss[0] <= after && after <= loss[1] && loss[0] < loss[1]);
    const double dev = metric(dir, 120, "dev/tau");
    assert_true(tau[0] <= dev && dev <= tau[1] && metric(dir, 0, "dev/tau/mine") > 0);
    // `best` is a drafter as it would be deployed
    Err err = {0};
    AssistantConfig c;
    assert_ok(assistant_config_load(&c, path_join(path, root, "best"), &err), err);
}

static void copy_checkpoint(const char *from, const char *to, int64_t step) {
    char command[3 * PATH_ROOM];
    snprintf(command, sizeof command, "mkdir -p %s/ckpt && cp -r %s/ckpt/step-%06lld %s/ckpt/", to,
             from, (long long)step, to);
    assert_int_equal(system(command), 0);
}

static void resumes_equal_an_unbroken_run(const char *name, const char *const *more, int stride) {
    TrainResult r;
    char want[130], got[130], sub[64];
    char whole[PATH_ROOM];
    snprintf(whole, sizeof whole, "%s", tiny_dir(name));
    run_ok(whole, more, NO_FAULT, &r);
    tiny_hash(whole, 12, want);
    const double tau = r.best_tau;
    const int64_t best = r.best_step;
    for (int64_t s = 0; s < 12; s += stride) {
        snprintf(sub, sizeof sub, "%s-from-%lld", name, (long long)s);
        const char *dir = tiny_dir(sub);
        copy_checkpoint(whole, dir, s);
        run_ok(dir, more, NO_FAULT, &r);
        tiny_hash(dir, 12, got);
        assert_string_equal(got, want);
        // a best that was copied along, or comes later, is the same one
        if (best >= s && (r.best_step != best || r.best_tau != tau))
            fail_msg("from %lld: best %lld %.9g, unbroken %lld %.9g", (long long)s,
                     (long long)r.best_step, r.best_tau, (long long)best, tau);
    }
}

static void a_resume_from_any_step_is_bit_identical_with_fixed_weights(void **state) {
    (void)state;
    resumes_equal_an_unbroken_run("fixed", EACH, 1);
}

static void a_resume_is_bit_identical_with_reach_weights_and_an_average(void **state) {
    (void)state;
    resumes_equal_an_unbroken_run("reach", REACH, 3);
}

static void a_resume_is_bit_identical_with_visit_weights(void **state) {
    (void)state;
    resumes_equal_an_unbroken_run("visit", VISIT, 4);
}

static const char *const DRAWN[] = {"train.anchors=5", "train.anchor_choice=visit",
                                    "train.step_weights=visit", "train.tile=7", NULL};

static void a_resume_is_bit_identical_with_anchors_drawn_by_visit_in_tiles(void **state) {
    (void)state;
    resumes_equal_an_unbroken_run("drawn", DRAWN, 3);
}

static void a_finished_run_does_nothing_more(void **state) {
    (void)state;
    TrainResult a, b;
    char want[130], got[130];
    const char *dir = tiny_dir("twice");
    const char *const more[] = {"train.steps=4", NULL};
    run_ok(dir, more, NO_FAULT, &a);
    tiny_hash(dir, 4, want);
    run_ok(dir, more, NO_FAULT, &b);
    tiny_hash(dir, 4, got);
    assert_string_equal(got, want);
    assert_true(a.best_step == b.best_step && a.best_tau == b.best_tau && b.steps == 4);
}

static void zero_steps_leave_the_stock_drafter_as_best(void **state) {
    (void)state;
    const char *const more[] = {"train.steps=0", "train.epochs=0", NULL};
    const char *dir = tiny_dir("zero");
    char path[PATH_ROOM];
    Err err = {0};
    Sha256 a, b;
    TrainResult r;
    run_ok(dir, more, NO_FAULT, &r);
    assert_int_equal(r.best_step, 0);
    assert_ok(sha256_file(&a, path_join(path, dir, "ckpt/best/model.safetensors"), &err), err);
    assert_ok(sha256_file(&b, test_golden("e2b/assistant-fitted/model.safetensors"), &err), err);
    assert_string_equal(a.hex, b.hex);
}

static void frozen_tensors_stay_byte_identical(void **state) {
    (void)state;
    const char *const more[] = {
        "train.steps=4", "train.ema=0.5", "train.weight_decay=0.1",
        "train.freeze=model.embed_tokens.weight,*layernorm.weight,masked_embedding.*", NULL};
    const char *dir = tiny_dir("frozen");
    char path[PATH_ROOM];
    Err err = {0};
    TrainResult r;
    int frozen = 0, trained = 0;
    run_ok(dir, more, NO_FAULT, &r);
    StFile *a = st_open(test_golden("e2b/assistant-fitted"), &err),
           *b = st_open(path_join(path, dir, "ckpt/latest"), &err);
    assert_true(a != NULL && b != NULL);
    for (int i = 0; i < st_count(a); i++) {
        const StTensor *s = st_at(a, i), *t = st_find(b, s->name);
        char *x = malloc((size_t)s->bytes), *y = malloc((size_t)s->bytes);
        assert_ok(st_read(a, s, x, &err) && st_read(b, t, y, &err), err);
        const bool same = memcmp(x, y, (size_t)s->bytes) == 0;
        const bool want = strstr(s->name, "embed_tokens") || strstr(s->name, "layernorm") ||
                          strstr(s->name, "masked_embedding") || strstr(s->name, "layer_scalar");
        if (same != want) fail_msg("%s %s", s->name, same ? "did not move" : "moved");
        frozen += same;
        trained += !same;
        free(x);
        free(y);
    }
    print_message("%d tensors frozen, %d trained\n", frozen, trained);
    st_close(a);
    st_close(b);
}

static void a_pattern_that_matches_nothing_is_refused(void **state) {
    (void)state;
    const char *const more[] = {"train.freeze=model.embed_token", NULL};
    Err err = {0};
    TrainResult r;
    assert_false(tiny_run(tiny_dir("nomatch"), more, NO_FAULT, &r, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "model.embed_token"));
}

static void a_changed_setting_or_horizon_is_refused_with_both_values(void **state) {
    (void)state;
    const char *dir = tiny_dir("changed");
    const char *const four[] = {"train.steps=4", NULL}, *const five[] = {"train.steps=5", NULL},
                      *const k[] = {"train.steps=4", "train.k=2", NULL},
                      *const loss[] = {"train.steps=4", "train.loss=tv", NULL};
    const char *const *const more[] = {five, k, loss};
    const char *const said[] = {"5", "train.k was 3, now it is 2",
                                "train.loss was \"fkl\", now it is \"tv\""};
    TrainResult r;
    run_ok(dir, four, NO_FAULT, &r);
    for (int i = 0; i < 3; i++) {
        Err err = {0};
        assert_false(tiny_run(dir, more[i], NO_FAULT, &r, &err));
        assert_int_equal(err.code, ERR_USAGE);
        if (strstr(err.text, said[i]) == NULL) fail_msg("%s", err.text);
    }
}

// What it says on stderr while a run goes on from step 6.
static char *resumed_on(const char *core, const char *dir, const char *const *more) {
    char path[PATH_ROOM];
    Err err = {0};
    TrainResult r;
    size_t size;
    copy_checkpoint(tiny_dir("core"), dir, 6);
    fflush(stderr);
    const int kept = dup(STDERR_FILENO);
    const int file = open(path_join(path, test_dir(), "said"), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(kept >= 0 && file >= 0 && dup2(file, STDERR_FILENO) >= 0);
    tiny_core = core;
    const bool ok = tiny_run(dir, more, NO_FAULT, &r, &err);
    tiny_core = "Haswell";
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(file);
    assert_ok(ok, err);
    char *text = file_read(path, 1 << 20, &size, &err);
    assert_ok(text != NULL, err);
    return text;
}

// Other kernels round otherwise: the run may go on, but nobody should believe it the same.
static void another_blas_core_is_warned_about_with_both_names(void **state) {
    (void)state;
    TrainResult r;
    run_ok(tiny_dir("core"), EACH, NO_FAULT, &r);
    char *same = resumed_on("Haswell", tiny_dir("core-same"), EACH),
         *other = resumed_on("Zen", tiny_dir("core-other"), EACH);
    assert_null(strstr(same, "warning"));
    if (!strstr(other, "step-000006 was written with OpenBLAS core \"Haswell\", here it is "
                       "\"Zen\": the run goes on, but not bit for bit\n"))
        fail_msg("%s", other);
    assert_ptr_equal(strstr(other, "warning"), other); // and nothing else
    free(same);
    free(other);
}

static void a_loss_that_is_not_finite_stops_with_step_and_samples(void **state) {
    (void)state;
    const char *dir = tiny_dir("nan");
    char want[130], got[130], root[PATH_ROOM];
    TrainResult r;
    Err err = {0};
    int64_t step;
    run_ok(tiny_dir("nan-whole"), NULL, NO_FAULT, &r);
    TinyFault fault = NO_FAULT;
    fault.nan_at = 11; // steps 1 and 2 read 8, step 3 reads 3 (an epoch's rest)
    assert_false(tiny_run(dir, NULL, fault, &r, &err));
    assert_int_equal(err.code, ERR_FAILED);
    print_message("%s\n", err.text);
    assert_non_null(strstr(err.text, "step 4"));
    assert_non_null(strstr(err.text, "seq-"));
    assert_ok(ckpt_find(path_join(root, dir, "ckpt"), &step, &err), err);
    assert_int_equal(step, 3);
    err = (Err){0};
    assert_ok(tiny_run(dir, NULL, NO_FAULT, &r, &err), err);
    tiny_hash(tiny_dir("nan-whole"), 12, want);
    tiny_hash(dir, 12, got);
    assert_string_equal(got, want);
}

static void a_damaged_checkpoint_falls_back_to_the_one_before(void **state) {
    (void)state;
    const char *dir = tiny_dir("damaged");
    char want[130], got[130], path[PATH_ROOM], ckpt[PATH_ROOM], root[PATH_ROOM];
    TrainResult r;
    run_ok(dir, NULL, NO_FAULT, &r);
    tiny_hash(dir, 12, want);
    ckpt_path(ckpt, path_join(root, dir, "ckpt"), 12);
    const int fd = open(path_join(path, ckpt, "state.safetensors"), O_RDWR);
    char byte;
    assert_int_equal(pread(fd, &byte, 1, 5000), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, 5000), 1);
    close(fd);
    run_ok(dir, NULL, NO_FAULT, &r);
    tiny_hash(dir, 12, got);
    assert_string_equal(got, want);
}

static void a_full_disk_costs_a_checkpoint_and_only_the_last_one_the_run(void **state) {
    (void)state;
    char want[130], got[130];
    TrainResult r;
    Err err = {0};
    signal(SIGXFSZ, SIG_IGN);
    run_ok(tiny_dir("roomy"), NULL, NO_FAULT, &r);
    tiny_hash(tiny_dir("roomy"), 12, want);
    TinyFault fault = NO_FAULT;
    fault.full_from = 12, fault.full_to = 24;
    run_ok(tiny_dir("full"), NULL, fault, &r);
    tiny_hash(tiny_dir("full"), 12, got);
    assert_string_equal(got, want);
    fault.full_to = -1;
    assert_false(tiny_run(tiny_dir("fuller"), NULL, fault, &r, &err));
    file_size_limit(false);
    assert_int_equal(err.code, ERR_FAILED);
    print_message("%s\n", err.text);
    char command[2 * PATH_ROOM];
    snprintf(command, sizeof command, "test -z \"$(find %s -name '*.tmp*')\"", tiny_dir("fuller"));
    assert_int_equal(system(command), 0);
}

static void a_plan_prices_the_run_and_touches_nothing(void **state) {
    (void)state;
    Tiny t;
    TrainPlan plan;
    Err err = {0};
    char path[PATH_ROOM];
    const char *dir = tiny_dir("plan");
    const char *const more[] = {"train.steps=0", "train.epochs=2.5", "train.step_weights=visit",
                                NULL};
    tiny_open(&t, dir, more);
    const TrainerOptions opt = tiny_options(&t);
    assert_ok(trainer_plan(&opt, &plan, &err), err);
    int64_t tokens = 0;
    for (int64_t i = 0; i < TINY_SEQS; i++) tokens += tiny_length(NULL, i);
    assert_int_equal(plan.sequences, TINY_SEQS);
    assert_int_equal(plan.tokens, tokens);
    assert_int_equal(plan.per_epoch, 3);
    assert_int_equal(plan.steps, 8); // 2.5 epochs of 3 steps
    assert_true(plan.rollout > 0 && plan.optimizer > 0 && plan.features > 0 && plan.simulator > 0);
    assert_int_equal(t.reads, 0);
    trainer_plan_print(stderr, &plan, &opt);
    assert_false(dir_exists(path_join(path, dir, "ckpt")));
    // what is wrong is said before anything is allocated or read
    t.s.train.batch_sequences = 300;
    assert_false(trainer_plan(&opt, &plan, &err));
    assert_int_equal(err.code, ERR_USAGE);
    tiny_close(&t);
}

static void announced_anchors_and_tokens_are_those_of_the_run(void **state) {
    (void)state;
    const char *const all[] = {"train.steps=7", NULL},
                      *const some[] = {"train.steps=7", "train.anchors=5", NULL},
                      *const *const ways[] = {all, some};
    for (int i = 0; i < 2; i++) {
        Tiny t;
        TrainPlan plan;
        TrainResult r;
        Err err = {0};
        char sub[32], path[PATH_ROOM];
        snprintf(sub, sizeof sub, "announced-%d", i);
        const char *dir = tiny_dir(sub);
        tiny_open(&t, dir, ways[i]);
        const TrainerOptions opt = tiny_options(&t);
        assert_ok(trainer_plan(&opt, &plan, &err), err);
        Trainer *trainer = trainer_open(&opt, &err);
        assert_ok(trainer, err);
        double seconds = -1;
        assert_ok(trainer_trial(trainer, &seconds, &err), err);
        assert_true(seconds > 0 && seconds < 600);
        assert_false(dir_exists(path_join(path, dir, "ckpt")));
        trainer_close(trainer);
        tiny_close(&t);
        run_ok(dir, ways[i], NO_FAULT, &r);
        assert_int_equal(r.anchors, plan.all_rows);
        assert_int_equal(r.tokens, plan.all_tokens);
        assert_true(plan.max_rows < plan.max_tokens && plan.max_rows * 7 >= plan.all_rows);
    }
}

int main(int argc, char **argv) {
    (void)argc;
    tiny_passive(argv);
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_prices_the_run_and_touches_nothing),
        cmocka_unit_test(announced_anchors_and_tokens_are_those_of_the_run),
        cmocka_unit_test(a_run_learns_and_keeps_its_best_by_tau),
        cmocka_unit_test(a_resume_from_any_step_is_bit_identical_with_fixed_weights),
        cmocka_unit_test(a_resume_is_bit_identical_with_reach_weights_and_an_average),
        cmocka_unit_test(a_resume_is_bit_identical_with_visit_weights),
        cmocka_unit_test(a_resume_is_bit_identical_with_anchors_drawn_by_visit_in_tiles),
        cmocka_unit_test(a_finished_run_does_nothing_more),
        cmocka_unit_test(zero_steps_leave_the_stock_drafter_as_best),
        cmocka_unit_test(frozen_tensors_stay_byte_identical),
        cmocka_unit_test(a_pattern_that_matches_nothing_is_refused),
        cmocka_unit_test(a_changed_setting_or_horizon_is_refused_with_both_values),
        cmocka_unit_test(another_blas_core_is_warned_about_with_both_names),
        cmocka_unit_test(a_loss_that_is_not_finite_stops_with_step_and_samples),
        cmocka_unit_test(a_damaged_checkpoint_falls_back_to_the_one_before),
        cmocka_unit_test(a_full_disk_costs_a_checkpoint_and_only_the_last_one_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
