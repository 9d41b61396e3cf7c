// tests/infer/model/target_experts_test.c - experts under the names of two tools, and the low-rank
// pairs that PEFT trains on a parameter of all experts.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/export/mlx_target.h"
#include "infer/model/target.h"
#include "infer/model/weights.h"
#include "tests/testing.h"

#define SOURCE "tests/golden/26b/target"
#define PREFIX "model.language_model."
enum { TOKENS = 12, EXPERTS = 8, WIDTH = 76, INTER = 28, RANK = 2 };
static const double SCALE = 2.5; // lora_alpha 5 over RANK

static const char *fresh_dir(void) {
    static char dir[8][PATH_ROOM];
    static int turn;
    char name[32];
    Err err = {0};
    snprintf(name, sizeof name, "experts-%d", turn);
    assert_ok(dir_make(path_join(dir[turn % 8], test_dir(), name), &err), err);
    return dir[turn++ % 8];
}

static Tensor run(const char *dir, const char *lora) {
    Err err = {0};
    const TargetOptions opt = {.dir = dir, .adapter = lora, .dtype = DT_F32, .max_rows = TOKENS};
    Target *t = target_open(test_env()->dev, &opt, &err);
    assert_ok(t != NULL, err);
    const TextConfig *c = &target_config(t)->text;
    const Tensor hidden = test_zeros(DT_F32, TOKENS, c->hidden);
    KvCache *kv = kv_open(test_env()->dev, c, 1, TOKENS, TOKENS, false, DT_F32, &err);
    assert_ok(kv != NULL, err);
    const int32_t ids[TOKENS] = {2, 7, 9, 200, 13, 3, 77, 78, 79, 5, 5, 100};
    target_forward(t, kv, &(TargetPiece){.slot = 0, .count = TOKENS}, 1, ids, hidden, NULL);
    kv_close(kv);
    target_close(t);
    return hidden;
}

static bool is_gate_up(const StTensor *t) {
    return strstr(t->name, "experts.gate_up_proj") != NULL;
}

// The names under which MLX keeps a tensor: gate and up apart, halves of every expert.
static int mlx_names(const StTensor *t, char name[2][256]) {
    const char *rest = t->name + strlen(PREFIX), *at = strstr(rest, "experts.");
    if (at == NULL || t->rank != 3) {
        snprintf(name[0], 256, "language_model.model.%s", rest);
        return 1;
    }
    static const char *const HALVES[] = {"gate_proj", "up_proj"};
    const int n = is_gate_up(t) ? 2 : 1;
    for (int i = 0; i < n; i++)
        snprintf(name[i], 256, "language_model.model.%.*sexperts.switch_glu.%s.weight",
                 (int)(at - rest), rest, n == 2 ? HALVES[i] : "down_proj");
    return n;
}

static void write_half(StWriter *w, const StFile *f, const StTensor *t, int half, int parts) {
    Err err = {0};
    char *data = malloc((size_t)t->bytes);
    assert_ok(st_read(f, t, data, &err), err);
    const int64_t slices = parts == 2 ? t->dim[0] : 1, size = t->bytes / slices / parts;
    for (int64_t e = 0; e < slices; e++)
        assert_ok(st_writer_data(w, data + (e * parts + half) * size, size, &err), err);
    free(data);
}

static void declare_half(StWriter *w, const StTensor *t, const char *name, int parts) {
    Err err = {0};
    int64_t dim[3] = {t->dim[0], t->dim[1], t->dim[2]};
    if (parts == 2) dim[1] /= 2;
    assert_ok(st_writer_declare(w, name, t->dtype, t->rank, dim, &err), err);
}

static void mlx_names_give_the_same_model(void **state) {
    (void)state;
    char path[PATH_ROOM], name[2][256];
    Err err = {0};
    const char *dir = fresh_dir();
    StFile *f = st_open(SOURCE, &err);
    assert_ok(f != NULL, err);
    assert_ok(file_copy(SOURCE "/config.json", path_join(path, dir, "config.json"), &err), err);
    StWriter *w = st_writer_open(path_join(path, dir, "model.safetensors"), &err);
    assert_ok(w != NULL, err);
    for (int i = 0; i < st_count(f); i++) {
        const int n = mlx_names(st_at(f, i), name);
        for (int k = 0; k < n; k++) declare_half(w, st_at(f, i), name[k], n);
    }
    assert_ok(st_writer_begin(w, &err), err);
    for (int i = 0; i < st_writer_count(w); i++)
        for (int j = 0; j < st_count(f); j++) {
            const int n = mlx_names(st_at(f, j), name);
            for (int k = 0; k < n; k++)
                if (strcmp(name[k], st_writer_order(w, i)->name) == 0)
                    write_half(w, f, st_at(f, j), k, n);
        }
    assert_ok(st_writer_commit(w, &err), err);
    st_close(f);
    const Tensor want = run(SOURCE, NULL), got = run(dir, NULL);
    assert_memory_equal(got.data, want.data, tensor_bytes(want));
}

static float value(int64_t i) {
    return (float)((i * 37) % 41 - 20) / 60.0f;
}

// Both parameters of layer 2's experts: gate_up inside, down around it. rows: of lora_A.
static const char *adapter(int64_t rows) {
    const char *dir = fresh_dir();
    const char *config = "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":5,\"target_modules\":[],"
                         "\"target_parameters\":[\"experts.down_proj\",\"experts.gate_up_proj\"]}";
    const struct {
        const char *name;
        int64_t dim[2];
    } t[] = {{"experts.base_layer.lora_A", {rows, WIDTH}},
             {"experts.base_layer.lora_B", {2 * INTER, rows}},
             {"experts.lora_A", {rows, INTER}},
             {"experts.lora_B", {WIDTH, rows}}};
    char path[PATH_ROOM], name[256];
    Err err = {0};
    assert_ok(file_write(path_join(path, dir, "adapter_config.json"), config, strlen(config), &err),
              err);
    StWriter *w = st_writer_open(path_join(path, dir, "adapter_model.safetensors"), &err);
    assert_ok(w != NULL, err);
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "base_model.model." PREFIX "layers.2.%s.weight", t[i].name);
        assert_ok(st_writer_declare(w, name, "F32", 2, t[i].dim, &err), err);
    }
    assert_ok(st_writer_begin(w, &err), err);
    for (int i = 0; i < st_writer_count(w); i++)
        for (int64_t k = 0; k < st_writer_order(w, i)->count; k++) {
            const float x = value(k + i);
            assert_ok(st_writer_data(w, &x, 4, &err), err);
        }
    assert_ok(st_writer_commit(w, &err), err);
    return dir;
}

// delta[e, o, i] = SCALE sum_k B[o, k E + e] A[e r + k, i]
static double delta(const float *a, const float *b, int64_t e, int64_t o, int64_t i, int64_t in) {
    double sum = 0.0;
    for (int64_t k = 0; k < RANK; k++)
        sum += (double)b[o * RANK * EXPERTS + k * EXPERTS + e] * a[(e * RANK + k) * in + i];
    return SCALE * sum;
}

static void check_parameter(const StFile *before, const StFile *after, const StFile *lora,
                            const char *parameter, const char *pair, int64_t out, int64_t in) {
    Err err = {0};
    char name[256];
    const int64_t n = EXPERTS * out * in;
    float *x = malloc((size_t)n * sizeof *x), *y = malloc((size_t)n * sizeof *y),
          a[RANK * EXPERTS * WIDTH], b[2 * WIDTH * RANK * EXPERTS];
    snprintf(name, sizeof name, PREFIX "layers.2.experts.%s", parameter);
    assert_ok(st_read_f32(before, st_find(before, name), x, &err), err);
    assert_ok(st_read_f32(after, st_find(after, name), y, &err), err);
    snprintf(name, sizeof name, "base_model.model." PREFIX "layers.2.%s.lora_A.weight", pair);
    assert_ok(st_read_f32(lora, st_find(lora, name), a, &err), err);
    name[strlen(name) - strlen("A.weight")] = 'B';
    assert_ok(st_read_f32(lora, st_find(lora, name), b, &err), err);
    for (int64_t k = 0; k < n; k++) {
        const int64_t e = k / (out * in), o = k / in % out, i = k % in;
        const double want = x[k] + delta(a, b, e, o, i, in);
        assert_true(fabs(y[k] - want) <= fabs(want) / 256 + 1e-7); // rounded to bf16 once
    }
    free(x);
    free(y);
}

static void a_pair_for_all_experts_changes_each_by_its_share(void **state) {
    (void)state;
    Err err = {0};
    char out[PATH_ROOM], path[PATH_ROOM];
    const char *dir = adapter(RANK * EXPERTS);
    assert_ok(target_export(SOURCE, dir, path_join(out, fresh_dir(), "merged"), &err), err);
    StFile *before = st_open(SOURCE, &err), *after = st_open(out, &err);
    StFile *lora = st_open(path_join(path, dir, "adapter_model.safetensors"), &err);
    assert_ok(before && after && lora, err);
    check_parameter(before, after, lora, "gate_up_proj", "experts.base_layer", 2 * INTER, WIDTH);
    check_parameter(before, after, lora, "down_proj", "experts", WIDTH, INTER);
    const StTensor *other = st_find(before, PREFIX "layers.1.experts.down_proj");
    char *x = malloc((size_t)other->bytes), *y = malloc((size_t)other->bytes);
    assert_ok(st_read(before, other, x, &err), err);
    assert_ok(st_read(after, st_find(after, other->name), y, &err), err);
    assert_memory_equal(x, y, (size_t)other->bytes);
    free(x);
    free(y);
    st_close(before);
    st_close(after);
    st_close(lora);
    const Tensor merged = run(out, NULL), live = run(SOURCE, dir), plain = run(SOURCE, NULL);
    assert_memory_equal(live.data, merged.data, tensor_bytes(live));
    assert_memory_not_equal(live.data, plain.data, tensor_bytes(live));
}

static void a_pair_of_another_rank_is_refused(void **state) {
    (void)state;
    Err err = {0};
    const TargetOptions opt = {
        .dir = SOURCE, .adapter = adapter(3 * EXPERTS), .dtype = DT_F32, .max_rows = TOKENS};
    assert_null(target_open(test_env()->dev, &opt, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "the configured rank is 2 for each of 8 experts"));
}

// What training needs of a target, whose experts would be most of the memory.
static void the_table_alone_leaves_the_experts_where_they_are(void **state) {
    (void)state;
    Err err = {0};
    TargetOptions opt = {.dir = SOURCE, .dtype = DT_BF16, .max_rows = 1};
    Target *whole = target_open(test_env()->dev, &opt, &err);
    opt.max_rows = 0;
    Target *table = target_open(test_env()->dev, &opt, &err);
    assert_ok(whole != NULL && table != NULL, err);
    const Tensor a = test_host(target_embedding(whole)), b = test_host(target_embedding(table));
    assert_true(a.rows == b.rows && a.cols == b.cols);
    assert_memory_equal(a.data, b.data, tensor_bytes(a));
    assert_true(target_bytes(table) < tensor_bytes(b) + 4096);
    target_close(whole);
    target_close(table);
}

// The exporter merges expert by expert and splits gate from up.
static void an_mlx_export_with_the_adapter_is_the_merged_model(void **state) {
    (void)state;
    Err err = {0};
    MlxRecipe r;
    char encoding[256];
    const char *lora = adapter(RANK * EXPERTS), *out = fresh_dir();
    assert_ok(mlx_recipe_named(&r, "bf16", 64, &err), err);
    assert_ok(mlx_target_write(SOURCE, lora, out, &r, MLX_SHARD_BYTES, encoding, &err), err);
    const Tensor want = run(SOURCE, lora), got = run(out, NULL);
    assert_memory_equal(got.data, want.data, tensor_bytes(want));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mlx_names_give_the_same_model),
        cmocka_unit_test(a_pair_for_all_experts_changes_each_by_its_share),
        cmocka_unit_test(a_pair_of_another_rank_is_refused),
        cmocka_unit_test(the_table_alone_leaves_the_experts_where_they_are),
        cmocka_unit_test(an_mlx_export_with_the_adapter_is_the_merged_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
