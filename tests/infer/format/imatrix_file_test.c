// tests/infer/format/imatrix_file_test.c - importance in its two files: the same values from both,
// damaged ones refused by name.
#include "infer/format/imatrix_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/format/gguf.h"
#include "tests/testing.h"

enum { COLS = 77 };

static Imatrix sample(double rows) {
    Err err = {0};
    static const char *const name[] = {"token_embd.weight", "blk.0.attn_q.weight",
                                       "nextn.pre_projection.weight"};
    Imatrix m = {.chunks = 12, .chunk_size = 512, .n = 3};
    strcpy(m.dataset, "captured train text");
    m.entry = calloc(3, sizeof *m.entry);
    for (int i = 0; i < 3; i++) {
        double mean[COLS];
        for (int64_t c = 0; c < COLS; c++)
            mean[c] = exp(0.37 * (double)((c * 31 + i * 7) % 40) - 9.0);
        if (i == 1) mean[5] = 0.0; // a column that is never used
        assert_ok(imatrix_set(&m.entry[i], name[i], mean, COLS, rows, &err), err);
    }
    imatrix_sort(&m);
    return m;
}

static const char *in_dir(const char *name) {
    static char path[4][PATH_ROOM];
    static int at;
    return path_join(path[at++ % 4], test_dir(), name);
}

static void both_files_carry_the_same_importance(void **state) {
    (void)state;
    Err err = {0};
    static const double rows[] = {1, 2.5, 17777.3, 3e9};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Imatrix m = sample(rows[i]), dat, gguf;
        assert_ok(imatrix_write_dat(in_dir("i.dat"), &m, &err), err);
        assert_ok(imatrix_write_gguf(in_dir("i.gguf"), &m, &err), err);
        assert_ok(imatrix_read(&dat, in_dir("i.dat"), &err), err);
        assert_ok(imatrix_read(&gguf, in_dir("i.gguf"), &err), err);
        assert_int_equal(dat.n, 3);
        assert_int_equal(gguf.n, 3);
        for (int k = 0; k < 3; k++) {
            assert_string_equal(dat.entry[k].name, m.entry[k].name);
            assert_string_equal(gguf.entry[k].name, m.entry[k].name);
            assert_int_equal(gguf.entry[k].n, COLS);
            assert_memory_equal(dat.entry[k].iw, m.entry[k].iw, COLS * sizeof(float));
            assert_memory_equal(gguf.entry[k].iw, m.entry[k].iw, COLS * sizeof(float));
            for (int64_t c = 0; c < COLS; c++) assert_true(gguf.entry[k].iw[c] > 0);
            assert_true(gguf.entry[k].rows >= rows[i] / 1.5 && gguf.entry[k].rows <= rows[i] * 1.5);
        }
        assert_string_equal(dat.dataset, m.dataset);
        assert_string_equal(gguf.dataset, m.dataset);
        assert_int_equal(gguf.chunks, 12);
        assert_int_equal(dat.chunks, 12);
        imatrix_free(&m);
        imatrix_free(&dat);
        imatrix_free(&gguf);
    }
}

// The bytes that other readers go by: counts and lengths before what they count.
static void the_legacy_form_is_laid_out_as_its_readers_expect(void **state) {
    (void)state;
    Err err = {0};
    size_t size;
    Imatrix m = sample(4);
    assert_ok(imatrix_write_dat(in_dir("l.dat"), &m, &err), err);
    char *b = file_read(in_dir("l.dat"), 1 << 20, &size, &err);
    assert_non_null(b);
    int32_t x[3];
    memcpy(x, b, 8);
    assert_int_equal(x[0], 3);
    assert_int_equal(x[1], strlen("blk.0.attn_q.weight"));
    assert_memory_equal(b + 8, "blk.0.attn_q.weight", (size_t)x[1]);
    memcpy(x, b + 8 + strlen("blk.0.attn_q.weight"), 8);
    assert_int_equal(x[0], 1); // calls
    assert_int_equal(x[1], COLS);
    memcpy(x, b + size - strlen(m.dataset) - 8, 8);
    assert_int_equal(x[0], 12);
    assert_int_equal(x[1], strlen(m.dataset));
    free(b);
    imatrix_free(&m);
}

static void the_gguf_form_has_two_tensors_a_matrix(void **state) {
    (void)state;
    Err err = {0};
    GgufText type;
    int64_t chunks;
    Imatrix m = sample(1000);
    assert_ok(imatrix_write_gguf(in_dir("g.gguf"), &m, &err), err);
    GgufFile *f = gguf_open(in_dir("g.gguf"), &err);
    assert_ok(f, err);
    assert_ok(gguf_text(f, "general.type", &type, &err), err);
    assert_memory_equal(type.at, "imatrix", 7);
    assert_ok(gguf_int(f, "imatrix.chunk_size", 512, 512, &chunks, &err), err);
    assert_int_equal(gguf_count(f), 6);
    const GgufTensor *sum = gguf_find(f, "token_embd.weight.in_sum2"),
                     *counts = gguf_find(f, "token_embd.weight.counts");
    float count, sums[COLS];
    assert_true(sum != NULL && counts != NULL);
    assert_int_equal(sum->dim[0], COLS);
    assert_int_equal(counts->dim[0], 1);
    assert_ok(gguf_read(f, counts, &count, &err), err);
    assert_ok(gguf_read(f, sum, sums, &err), err);
    assert_true(count == 1024.0f);
    const ImatrixEntry *e = imatrix_find(&m, "token_embd.weight");
    for (int64_t c = 0; c < COLS; c++) assert_true(sums[c] / count == e->iw[c]);
    gguf_close(f);
    imatrix_free(&m);
}

static void refuse(const char *name, const void *data, size_t size, const char *message) {
    Err err = {0};
    Imatrix m;
    assert_ok(file_write(in_dir(name), data, size, &err), err);
    assert_false(imatrix_read(&m, in_dir(name), &err));
    assert_int_equal(err.code, ERR_INPUT);
    if (strstr(err.text, message) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.text, message);
}

static void damaged_files_are_refused_by_name(void **state) {
    (void)state;
    Err err = {0};
    size_t size;
    Imatrix m = sample(9);
    double bad[] = {1, NAN};
    ImatrixEntry e;
    assert_ok(imatrix_write_dat(in_dir("d.dat"), &m, &err), err);
    char *b = file_read(in_dir("d.dat"), 1 << 20, &size, &err);
    refuse("cut.dat", b, size / 2, "is damaged or cut off");
    refuse("tail.dat", b, size - 1, "behind the entries");
    refuse("none.dat", "\0\0\0\0", 4, "neither a GGUF file nor an imatrix.dat");
    refuse("text.dat", "hello, world, this is text", 26, "text.dat");
    const float nan = NAN;
    memcpy(b + 8 + strlen("blk.0.attn_q.weight") + 8 + 4 * sizeof nan, &nan, sizeof nan);
    refuse("nan.dat", b, size, "entry blk.0.attn_q.weight, column 4: nan");
    free(b);
    GgufWriter *w = gguf_writer_open(in_dir("model.gguf"), &err);
    gguf_put_string(w, "general.type", "model");
    assert_ok(gguf_writer_begin(w, &err), err);
    assert_ok(gguf_writer_commit(w, &err), err);
    imatrix_free(&m);
    assert_false(imatrix_read(&m, in_dir("model.gguf"), &err));
    assert_non_null(strstr(err.text, "general.type is \"model\""));
    err = (Err){0};
    assert_false(imatrix_set(&e, "x", bad, 2, 1, &err));
    assert_non_null(strstr(err.text, "importance of x, column 1"));
    err = (Err){0};
    assert_false(imatrix_set(&e, "x", (double[]){0, 0}, 2, 1, &err));
    assert_non_null(strstr(err.text, "all inputs were 0"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_files_carry_the_same_importance),
        cmocka_unit_test(the_legacy_form_is_laid_out_as_its_readers_expect),
        cmocka_unit_test(the_gguf_form_has_two_tensors_a_matrix),
        cmocka_unit_test(damaged_files_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
