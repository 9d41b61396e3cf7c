// tests/eval/quant_e2e_test.c - what `eval` makes for the exporters, and the artifacts that they
// make of it, as people run it: imatrix, sensitivity, mixture, export, the quant x k matrix.
#include <math.h>
#include <sys/stat.h>

#include "infer/export/mix.h"
#include "infer/format/imatrix_file.h"
#include "tests/eval/verb_run.h"

static char work[64];

static int make_workspace(void **state) {
    (void)state;
    snprintf(work, sizeof work, "%s/run", test_dir());
    static const char *const verbs[] = {"prepare", "regenerate", "capture", "train"};
    for (int i = 0; i < 4; i++) {
        const Said s = run("%s " SMALL "output_dir=%s", verbs[i], work);
        if (s.status != 0) return fprintf(stderr, "%s: %s\n", verbs[i], s.err);
    }
    return 0;
}

#define QUANT                                                                                      \
    "eval.cost=none eval.audit_prompts=0 eval.calibrate_on=dev eval.calibrate_sequences=1 "        \
    "eval.select_k=2 "

static const char *in_work(const char *name) {
    static char path[4][PATH_ROOM];
    static int at;
    return path_join(path[at++ % 4], work, name);
}

static struct timespec made(const char *name) {
    struct stat st;
    assert_int_equal(stat(in_work(name), &st), 0);
    return st.st_mtim;
}

static void calibration_makes_its_files_once(void **state) {
    (void)state;
    Err err = {0};
    Imatrix dat, gguf;
    assert_status(run("eval " SMALL QUANT "output_dir=%s eval.imatrix=true "
                      "eval.sensitivity=mlx,gguf eval.mix_bpw=6",
                      work),
                  0);
    assert_ok(imatrix_read(&dat, in_work("eval/imatrix.dat"), &err), err);
    assert_ok(imatrix_read(&gguf, in_work("eval/imatrix.gguf"), &err), err);
    assert_int_equal(dat.n, 23);
    for (int i = 0; i < dat.n; i++)
        assert_memory_equal(dat.entry[i].iw, gguf.entry[i].iw,
                            (size_t)dat.entry[i].n * sizeof(float));
    imatrix_free(&dat);
    imatrix_free(&gguf);
    json_t *o = read_json(work, "eval/sensitivity-mlx.json");
    assert_int_equal(json_array_size(at(o, "layers")), 22);
    assert_int_equal(json_integer_value(at(o, "k")), 2);
    json_decref(o);
    o = read_json(work, "eval/sensitivity-gguf.json");
    assert_int_equal(json_array_size(at(o, "layers")), 23); // the head, too
    assert_string_equal(json_string_value(at(o, "head")), "dense");
    json_decref(o);
    Mix *wide = mix_read(in_work("eval/mix-mlx.json"), &err);
    assert_ok(wide, err);
    assert_true(wide->bits_per_weight <= 6 && wide->bits_per_weight > 5);
    assert_int_equal(strlen(wide->weights), 64);
    // another wish: the measurement stays, the mixture changes
    const struct timespec before = made("eval/sensitivity-mlx.json");
    assert_status(run("eval " SMALL QUANT "output_dir=%s eval.imatrix=true "
                      "eval.sensitivity=mlx,gguf eval.mix_bpw=4 eval.mix_method=optiq",
                      work),
                  0);
    const struct timespec after = made("eval/sensitivity-mlx.json");
    assert_true(before.tv_sec == after.tv_sec && before.tv_nsec == after.tv_nsec);
    Mix *small = mix_read(in_work("eval/mix-mlx.json"), &err);
    assert_ok(small, err);
    assert_string_equal(small->method, "optiq");
    assert_true(small->achieved_bpw >= 4 && small->bytes < wide->bytes);
    mix_free(wide);
    mix_free(small);
}

// The counts are up to date by now: the target is opened for this alone.
static void the_target_is_measured_and_packed_by_it(void **state) {
    (void)state;
    Err err = {0};
    assert_status(
        run("eval " SMALL QUANT "output_dir=%s eval.sensitivity=target eval.mix_bpw=5", work), 0);
    json_t *o = read_json(work, "eval/sensitivity-target.json");
    const size_t layers = json_array_size(at(o, "layers"));
    assert_true(layers > 50); // of eight layers, the tables apart
    for (size_t i = 0; i < layers; i++) {
        const json_t *kl = at(json_array_get(at(o, "layers"), i), "sensitivities");
        const double four = json_number_value(at(kl, "4")), eight = json_number_value(at(kl, "8"));
        assert_true(isfinite(four) && four > eight && eight >= 0);
    }
    json_decref(o);
    Mix *m = mix_read(in_work("eval/mix-target.json"), &err);
    assert_ok(m, err);
    assert_true(m->target && m->achieved_bpw >= 5 && m->achieved_bpw < 6);
    assert_int_equal(m->n, layers + 2); // and both tables
    mix_free(m);
    assert_status(run("export " SMALL "output_dir=%s export.to=target-mlx:mixed", work), 0);
    o = read_json(work, "export/target-mlx-mixed/optiq_metadata.json");
    assert_int_equal(json_object_size(at(o, "per_layer")), layers + 2);
    json_decref(o);
}

static void what_cannot_be_is_refused_in_one_line(void **state) {
    (void)state;
    static const struct {
        const char *settings, *message;
        int status;
    } cases[] = {
        {"eval.sensitivity=mlx eval.mix_bpw=2.1", "the smallest types already have 2.500 bits", 2},
        {"eval.sensitivity=exl2", "eval.sensitivity", 2},
        {"eval.imatrix=true eval.calibrate_on=none", "eval.calibrate_on", 2},
        {"eval.imatrix=true eval.calibrate_sequences=0", "eval.calibrate_sequences", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const Said s = run("eval " SMALL QUANT "output_dir=%s %s", work, cases[i].settings);
        assert_status(s, cases[i].status);
        if (strstr(s.err, cases[i].message) == NULL) fail_msg("%s: %s", cases[i].settings, s.err);
    }
}

static const char *file_text(const char *name) {
    Err err = {0};
    size_t size;
    static char *text;
    free(text);
    assert_ok((text = file_read(in_work(name), 1 << 26, &size, &err)) != NULL, err);
    return text;
}

static double cell(const json_t *o, const char *key, size_t k) {
    return json_number_value(json_array_get(at(o, key), k));
}

static const json_t *row(const json_t *matrix, const char *name) {
    size_t i;
    json_t *o;
    json_array_foreach(at(matrix, "artifacts"), i, o) {
        if (strcmp(json_string_value(at(o, "name")), name) == 0) return o;
    }
    fail_msg("no artifact %s", name);
    return NULL;
}

static void every_kind_of_artifact_is_read_back(void **state) {
    (void)state;
    Said s = run("export " SMALL QUANT "output_dir=%s export.force=true "
                 "export.to=mlx,mlx:q4,mlx:mixed,gguf:BF16,gguf:Q4_K_M export.name=demo "
                 "export.mix=%s export.imatrix=%s",
                 work, in_work("eval/mix-mlx.json"), in_work("eval/imatrix.gguf"));
    assert_status(s, 0);
    s = run("eval " SMALL QUANT "output_dir=%s eval.drafters=mlx=%s/export/mlx,q4=%s/export/mlx-q4,"
            "mixed=%s/export/mlx-mixed,g16=%s/export/gguf-BF16/mtp-demo-BF16.gguf,"
            "g4=%s/export/gguf-Q4_K_M/mtp-demo-Q4_K_M.gguf",
            work, work, work, work, work, work);
    assert_status(s, 0);
    json_t *o = read_json(work, "eval/quantmatrix.json"),
           *all = read_json(work, "eval/acceptance.json");
    assert_true(json_equal(o, at(all, "quant_matrix")));
    assert_int_equal(json_array_size(at(o, "artifacts")), 7);
    assert_string_equal(json_string_value(at(o, "reference")), "trained");
    static const struct {
        const char *name, *format, *head;
        double least, most; // bits per weight
    } rows[] = {{"stock", "HF", "centroid", 16, 16}, {"mlx", "MLX", "centroid", 16, 16},
                {"q4", "MLX", "centroid", 9, 11},    {"mixed", "MLX", "centroid", 9, 11},
                {"g16", "GGUF", "dense", 16, 16.2},  {"g4", "GGUF", "dense", 4.5, 7}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const json_t *r = row(o, rows[i].name);
        const double bits = json_number_value(at(r, "bits_per_weight"));
        assert_string_equal(json_string_value(at(r, "format")), rows[i].format);
        assert_string_equal(json_string_value(at(r, "head")), rows[i].head);
        if (bits < rows[i].least || bits > rows[i].most)
            fail_msg("%s has %g bits per weight", rows[i].name, bits);
        assert_int_equal(json_array_size(at(r, "tau")), 3);
        for (size_t k = 0; k < 3; k++)
            assert_true(cell(r, "tau", k) >= 1 && cell(r, "tau", k) <= (double)k + 2);
        assert_int_equal(strlen(json_string_value(at(r, "sha256"))), 64);
    }
    for (size_t k = 0; k < 3; k++) { // the same function, drafting from another file
        const double dense = cell(at(all, "drafters.mlx.greedy_dense"), "tau", k);
        assert_true(fabs(cell(row(o, "g16"), "tau", k) - dense) < 0.06 * dense);
        assert_true(cell(row(o, "trained"), "change", k) == 0);
    }
    assert_non_null(strstr(s.out, "| g4 | GGUF "));
    assert_non_null(
        strstr(s.out, "| artifact | stored as | head | bits/weight | MB | 1 | 2 | 3 |"));
    const char *page = file_text("eval/report.html");
    assert_non_null(strstr(page, "What is stored, and tau by draft length"));
    assert_non_null(strstr(page, "/quant_matrix/artifacts/6/tau/2"));
    json_decref(o);
    json_decref(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calibration_makes_its_files_once),
        cmocka_unit_test(the_target_is_measured_and_packed_by_it),
        cmocka_unit_test(what_cannot_be_is_refused_in_one_line),
        cmocka_unit_test(every_kind_of_artifact_is_read_back),
    };
    return cmocka_run_group_tests(tests, make_workspace, NULL);
}
