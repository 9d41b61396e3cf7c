// tests/eval/audit_e2e_test.c - the verb on drafter files that other code might have made: what is
// wrong with them is named, and everything else is still reported.
#include <math.h>

#include "infer/format/safetensors.h"
#include "tests/eval/verb_run.h"

#define STOCK "configs/demo/stock-assistant"
#define PRE "pre_projection.weight"
#define AUDIT                                                                                      \
    "audit " SMALL "eval.draft_tokens=3 eval.audit_prompts=6 regenerate.max_new_tokens=24 "        \
    "eval.audit_draws=60 "

static char drafter[PATH_ROOM];

typedef void Edit(const StTensor *t, uint16_t *bf16_bits);

// The stock drafter with one tensor edited.
static void made_from_stock(const char *name, const char *tensor, Edit *edit) {
    char path[PATH_ROOM], to[PATH_ROOM];
    Err err = {0};
    path_join(drafter, test_dir(), name);
    assert_ok(dir_make(drafter, &err), err);
    path_join(path, STOCK, "config.json");
    assert_ok(file_copy(path, path_join(to, drafter, "config.json"), &err), err);
    StFile *f = st_open(STOCK, &err);
    assert_ok(f != NULL, err);
    StWriter *w = st_writer_open(path_join(to, drafter, "model.safetensors"), &err);
    assert_ok(w != NULL, err);
    for (int i = 0; i < st_count(f); i++) {
        const StTensor *t = st_at(f, i);
        assert_ok(st_writer_declare(w, t->name, t->dtype, t->rank, t->dim, &err), err);
    }
    assert_ok(st_writer_begin(w, &err), err);
    for (int i = 0; i < st_writer_count(w); i++) {
        const StTensor *t = st_find(f, st_writer_order(w, i)->name);
        void *data = malloc((size_t)t->bytes);
        assert_ok(st_read(f, t, data, &err), err);
        if (strcmp(t->name, tensor) == 0) edit(t, data);
        assert_ok(st_writer_data(w, data, t->bytes, &err), err);
        free(data);
    }
    assert_ok(st_writer_commit(w, &err), err);
    st_close(f);
}

static void swap_halves(const StTensor *t, uint16_t *x) {
    const int64_t half = t->dim[1] / 2;
    for (int64_t r = 0; r < t->dim[0]; r++, x += 2 * half)
        for (int64_t i = 0; i < half; i++) {
            const uint16_t keep = x[i];
            x[i] = x[half + i];
            x[half + i] = keep;
        }
}

// Trained on an embedding without its scale, sqrt(256): the weights on it are 16 times as large.
static void scale_into_weights(const StTensor *t, uint16_t *x) {
    for (int64_t r = 0; r < t->dim[0]; r++, x += t->dim[1])
        for (int64_t i = 0; i < t->dim[1] / 2; i++)
            if ((x[i] & 0x7f80) != 0) x[i] = (uint16_t)(x[i] + (4 << 7)); // exponent
}

static void other_sign(const StTensor *t, uint16_t *x) {
    (void)t;
    x[0] ^= 1;
}

static json_t *report(const Said *s) {
    json_t *all = documents(s->out), *o = json_incref(at(all, "0"));
    json_decref(all);
    return o;
}

static void the_stock_pair_passes_every_gate(void **state) {
    (void)state;
    char dir[PATH_ROOM], file[PATH_ROOM];
    Err err = {0};
    path_join(dir, test_dir(), "out");
    Said s = run(AUDIT "--json output_dir=%s", dir);
    assert_status(s, 0);
    assert_false(dir_exists(dir)); // nothing is written where eval has not been
    json_t *o = report(&s);
    assert_true(json_is_true(at(o, "passed")) && json_array_size(at(o, "failures")) == 0);
    assert_string_equal(json_string_value(at(o, "alignment.fits")), "right");
    assert_int_equal(json_array_size(at(o, "alignment.wirings")), 13);
    assert_true(number(o, "alignment.wirings.0.mean") > 0.3);
    assert_int_equal(json_array_size(at(o, "sampler.draws.rules")), 3);
    assert_true(number(o, "sampler.enumeration.worst") < 1e-12);
    assert_string_equal(json_string_value(at(o, "frozen.skipped")), "the drafter is the stock one");
    double sweep_s = 0, live_s = 0;
    for (int i = 0; i < 4; i++) {
        static const char *const rule[] = {"greedy", "rejection", "best", "strict"};
        const json_t *text = at(o, i ? "speed.texts.1" : "speed.texts.0"),
                     *live = json_array_get(at(text, "live"), (size_t)(i ? i - 1 : 0));
        assert_string_equal(json_string_value(at(live, "rule")), rule[i]);
        assert_true(number(text, "sweep_s") > 0 && number(live, "live_s") > 0);
        assert_true(fabs(number(live, "ratio") * number(text, "sweep_s") - number(live, "live_s")) <
                    1e-6);
        sweep_s += i < 2 ? number(text, "sweep_s") : 0;
        live_s += number(live, "live_s");
    }
    assert_int_equal(json_array_size(at(o, "speed.texts.1.live")), 3);
    assert_true(fabs(number(o, "speed.ratio") * sweep_s - live_s) < 1e-6);
    json_decref(o);
    assert_ok(dir_make(path_join(file, dir, "eval"), &err), err);
    s = run(AUDIT "eval.audit_draws=0 output_dir=%s", dir);
    assert_status(s, 0);
    assert_non_null(strstr(s.out, "| as deployed |"));
    assert_non_null(strstr(s.out, "| greedy | 6 | 1..3 |"));
    assert_non_null(strstr(s.out, "skipped, eval.audit_draws is 0"));
    o = read_json(dir, "eval/audit.json");
    assert_true(json_is_true(at(o, "passed")));
    json_decref(o);
}

// Exit code 4 naming `says`; the other checks are reported as having passed.
static void assert_named(const char *says, const char *wiring) {
    const Said s = run(AUDIT "eval.audit_draws=0 --json output_dir=%s/none eval.drafter=%s",
                       test_dir(), drafter);
    assert_status(s, 4);
    if (strstr(s.err, says) == NULL) fail_msg("%s: not in %s", says, s.err);
    json_t *o = report(&s);
    assert_true(json_is_false(at(o, "passed")));
    if (json_array_size(at(o, "failures")) != 1) fail_msg("%s", s.err);
    assert_true(json_is_true(at(o, "live.passed")));
    assert_true(json_is_true(at(o, "training_forward.passed")));
    assert_true(json_is_true(at(o, "sampler.passed")));
    assert_string_equal(json_string_value(at(o, "alignment.fits")), wiring);
    json_decref(o);
}

static void a_wrongly_wired_file_is_named(void **state) {
    (void)state;
    made_from_stock("swapped", PRE, swap_halves);
    assert_named("the drafter fits \"feature before token\" better", "swapped");
    made_from_stock("unscaled", PRE, scale_into_weights);
    assert_named("the drafter fits \"embedding scale 1\" better", "unscaled");
}

static void a_tampered_tensor_and_another_config_are_named(void **state) {
    (void)state;
    char path[PATH_ROOM];
    Err err = {0};
    made_from_stock("scalar", "model.layers.2.layer_scalar", other_sign);
    assert_named("frozen tensor model.layers.2.layer_scalar is not the stock's", "right");
    made_from_stock("config", "", other_sign);
    json_t *o = read_json(drafter, "config.json");
    json_object_set_new(o, "centroid_intermediate_top_k", json_integer(8));
    assert_ok(json_write_file(path_join(path, drafter, "config.json"), o, &err), err);
    json_decref(o);
    assert_named("config.json: centroid_intermediate_top_k is 8, the stock one has 16", "right");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_stock_pair_passes_every_gate),
        cmocka_unit_test(a_wrongly_wired_file_is_named),
        cmocka_unit_test(a_tampered_tensor_and_another_config_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
