// tests/infer/model/weight_source_test.c - an assistant's weights asked for by key, whatever holds
// them.
#include "infer/model/weight_source.h"

#include "tests/infer/model/golden_pair.h"

static const char *pair_dir(void) {
    return pair_path("e2b", "assistant");
}

static WeightSource *opened(const char *path) {
    Err err = {0};
    WeightSource *s = weight_source_open(path, &err);
    if (s == NULL) fail_msg("%s", err.text);
    return s;
}

static void parameters_have_the_bytes_of_the_file(void **state) {
    (void)state;
    Err err = {0};
    AssistantConfig c;
    AssistantWeights w;
    AssistantParam p[ASSISTANT_PARAMS_MAX];
    WeightSource *s = opened(pair_dir());
    StFile *f = st_open(pair_dir(), &err);
    if (f == NULL) fail_msg("%s", err.text);
    assert_ok(weight_source_config(&c, pair_dir(), &err), err);
    assistant_layout(&c, &w, NULL, DT_F32);
    const int n = assistant_params(&c, &w, p);
    assert_true(n > 40);
    for (int i = 0; i < n; i++) {
        SourceTensor t;
        const StTensor *st = st_find(f, p[i].name);
        assert_true(weight_source_find(s, p[i].name, &t));
        assert_int_equal(t.count, tensor_count(*p[i].tensor));
        assert_int_equal(t.bytes, st->bytes);
        assert_string_equal(t.type, st->dtype);
        float *a = malloc((size_t)t.count * sizeof *a), *b = malloc((size_t)t.count * sizeof *b);
        assert_ok(weight_source_read(s, &t, DT_F32, a, &err), err);
        assert_ok(st_read_f32(f, st, b, &err), err);
        assert_memory_equal(a, b, (size_t)t.count * sizeof *a);
        assert_ok(weight_source_read(s, &t, DT_BF16, a, &err), err);
        for (int64_t k = 0; k < t.count; k++)
            assert_int_equal(((bf16 *)a)[k].bits, bf16_from_f32(b[k]).bits);
        free(a);
        free(b);
    }
    st_close(f);
    weight_source_close(s);
}

static void integers_keep_their_values_in_both_widths(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%.200s/ints.safetensors", test_dir());
    StWriter *w = st_writer_open(path, &err);
    if (w == NULL) fail_msg("%s", err.text);
    const int64_t dim = 3, wide[] = {-1, 5000000000, 7};
    const int32_t narrow[] = {-1, 2147483647, 7};
    const float real[] = {1, 2, 3};
    assert_ok(st_writer_declare(w, "wide", "I64", 1, &dim, &err), err);
    assert_ok(st_writer_declare(w, "real", "F32", 1, &dim, &err), err);
    assert_ok(st_writer_declare(w, "narrow", "I32", 1, &dim, &err), err);
    assert_ok(st_writer_begin(w, &err), err);
    assert_ok(st_writer_data(w, wide, sizeof wide, &err), err);
    assert_ok(st_writer_data(w, real, sizeof real, &err), err);
    assert_ok(st_writer_data(w, narrow, sizeof narrow, &err), err);
    assert_ok(st_writer_commit(w, &err), err);
    WeightSource *s = opened(path);
    SourceTensor t;
    int64_t got[3];
    assert_true(weight_source_find(s, "wide", &t));
    assert_ok(weight_source_read_ints(s, &t, got, &err), err);
    assert_memory_equal(got, wide, sizeof wide);
    assert_true(weight_source_find(s, "narrow", &t));
    assert_ok(weight_source_read_ints(s, &t, got, &err), err);
    for (int i = 0; i < 3; i++) assert_int_equal(got[i], narrow[i]);
    assert_true(weight_source_find(s, "real", &t));
    assert_false(weight_source_read_ints(s, &t, got, &err));
    assert_non_null(strstr(err.text, "real is F32, expected I64 or I32"));
    assert_false(weight_source_find(s, "absent", &t));
    weight_source_close(s);
}

static void an_artifact_says_what_it_is(void **state) {
    (void)state;
    Err err = {0};
    AssistantConfig c;
    ArtifactInfo info;
    char path[PATH_ROOM];
    WeightSource *s = opened(pair_dir());
    assert_ok(weight_source_config(&c, pair_dir(), &err), err);
    weight_source_info(s, &c, &info);
    assert_string_equal(info.format, "HF");
    const double bits = strcmp(info.label, "F32") == 0 ? 32 : 16;
    assert_true(info.bits_per_weight == bits);
    assert_true(info.bytes > 1000);
    weight_source_close(s);
    assert_true(weight_source_is(pair_dir()) && weight_source_whole(pair_dir()));
    path_join(path, pair_dir(), "model.safetensors");
    assert_true(weight_source_is(path) && !weight_source_whole(path));
    path_join(path, pair_dir(), "config.json");
    assert_false(weight_source_is(path));
    path_join(path, pair_dir(), "nowhere");
    assert_false(weight_source_is(path));
    assert_null(weight_source_open(path, &err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_have_the_bytes_of_the_file),
        cmocka_unit_test(integers_keep_their_values_in_both_widths),
        cmocka_unit_test(an_artifact_says_what_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
