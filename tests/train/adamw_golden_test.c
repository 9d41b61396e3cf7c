// tests/train/adamw_golden_test.c - AdamW and clipping alone, against ten steps in float64:
// gradients from 1e-7 to 40, one of them zero.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"
#include "infer/format/safetensors.h"
#include "tests/testing.h"

static const char *const NAME[] = {"matrix", "norm", "scalar", "table"};
enum { TENSORS = 4, STEPS = 10 };

typedef struct {
    StFile *f;
    json_t *doc;
    Tensor w[TENSORS], m[TENSORS], v[TENSORS], copy[TENSORS];
    float decay[TENSORS];
} Case;

static Tensor read_flat(const StFile *f, const char *prefix, const char *name) {
    Err err = {0};
    char key[64];
    snprintf(key, sizeof key, "%s.%s", prefix, name);
    const StTensor *t = st_find(f, key);
    if (t == NULL) fail_msg("no tensor %s", key);
    const Tensor x = test_zeros(DT_F32, 1, t->count);
    assert_ok(st_read_f32(f, t, x.data, &err), err);
    return x;
}

static double number(const Case *c, const char *key) {
    const json_t *x = json_object_get(c->doc, key);
    assert_true(json_is_number(x));
    return json_number_value(x);
}

static void open_case(Case *c) {
    Err err = {0};
    *c = (Case){.f = st_open(test_golden("optimizer.safetensors"), &err)};
    if (c->f == NULL) fail_msg("%s", err.text);
    if ((c->doc = json_read_file(test_golden("optimizer.json"), 1 << 24, &err)) == NULL)
        fail_msg("%s", err.text);
    for (int i = 0; i < TENSORS; i++) {
        c->w[i] = read_flat(c->f, "start", NAME[i]);
        c->m[i] = test_zeros(DT_F32, 1, c->w[i].cols);
        c->v[i] = test_zeros(DT_F32, 1, c->w[i].cols);
        c->copy[i] = test_zeros(DT_BF16, 1, c->w[i].cols);
        size_t k;
        json_t *x;
        json_array_foreach(json_object_get(c->doc, "decayed"), k, x) {
            if (strcmp(json_string_value(x), NAME[i]) == 0)
                c->decay[i] = (float)number(c, "weight_decay");
        }
    }
}

static void one_step(Case *c, int step) {
    Device *dev = test_env()->dev;
    const Tensor sum = test_zeros(DT_F64, 1, 1);
    Tensor g[TENSORS];
    char prefix[32];
    double total = 0.0;
    snprintf(prefix, sizeof prefix, "grad%d", step);
    for (int i = 0; i < TENSORS; i++) {
        g[i] = read_flat(c->f, prefix, NAME[i]);
        op_sumsq(dev, sum, g[i]);
        total += *(double *)sum.data;
    }
    const double norm = sqrt(total),
                 lr =
                     json_number_value(json_array_get(json_object_get(c->doc, "lr"), (size_t)step));
    const double want = json_number_value(
        json_array_get(json_object_get(json_object_get(c->doc, "norms"), "f64"), (size_t)step));
    assert_true(fabs(norm - want) <= 1e-6 * want);
    const float scale = (float)fmin(1.0, number(c, "clip_global_norm") / (norm + 1e-6));
    for (int i = 0; i < TENSORS; i++)
        op_adamw(dev, c->w[i], c->m[i], c->v[i], c->copy[i], g[i], scale, (float)lr,
                 (float)number(c, "beta1"), (float)number(c, "beta2"), (float)number(c, "eps"),
                 c->decay[i], step + 1);
}

static void ten_steps_follow_float64(void **state) {
    (void)state;
    Case c;
    open_case(&c);
    double worst = 0.0;
    for (int step = 0; step < STEPS; step++) {
        one_step(&c, step);
        for (int i = 0; i < TENSORS; i++) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "f64.after%d", step);
            const Tensor want = read_flat(c.f, prefix, NAME[i]);
            assert_floats(NAME[i], c.w[i].data, want.data, want.cols,
                          5e-6); // torch's f32 differs by 1.2e-6
            for (int64_t k = 0; k < want.cols; k++) {
                worst =
                    fmax(worst, fabs((double)((float *)c.w[i].data)[k] - ((float *)want.data)[k]));
                assert_true(bf16_from_f32(((float *)c.w[i].data)[k]).bits ==
                            ((bf16 *)c.copy[i].data)[k].bits);
            }
        }
    }
    print_message("   largest difference %.2g\n", worst);
    json_decref(c.doc);
    st_close(c.f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(ten_steps_follow_float64)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
