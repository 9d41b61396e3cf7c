// tests/infer/format/ggml_quant_test.c - bytes equal to ggml's own quantisers, values equal to its
// own decoders.
#include "infer/format/ggml_blocks.h"
#include "tests/infer/format/quant_golden.h"

static const GgmlType TYPES[] = {GGML_F16,  GGML_BF16, GGML_Q8_0,   GGML_Q6_K,   GGML_Q5_K,
                                 GGML_Q4_K, GGML_Q3_K, GGML_IQ4_NL, GGML_IQ4_XS, GGML_MXFP4,
                                 GGML_Q4_0, GGML_Q4_1, GGML_Q5_0,   GGML_Q5_1};
enum { TYPE_COUNT = sizeof TYPES / sizeof *TYPES };

static const char *tensor(const GgmlTypeInfo *info, const char *what) {
    static char name[64];
    snprintf(name, sizeof name, "%s.%s", info->name, what);
    return name;
}

static void compare(Golden *g, GgmlType t, const float *x, const float *importance) {
    Err err = {0};
    const GgmlTypeInfo *info = ggml_type((int)t);
    const int64_t bytes = g->rows * ggml_row_bytes(t, g->n);
    uint8_t *q = malloc((size_t)bytes);
    float *back = malloc((size_t)(g->rows * g->n) * sizeof *back);
    assert_ok(ggml_encode(t, q, x, g->rows, g->n, importance, &err), err);
    golden_compare(g, tensor(info, importance ? "q_im" : "q"), q, bytes);
    assert_ok(ggml_decode(t, back, q, g->rows, g->n, &err), err);
    golden_compare(g, tensor(info, importance ? "deq_im" : "deq"), back,
                   g->rows * g->n * (int64_t)sizeof *back);
    free(back);
    free(q);
}

static void every_byte_is_ggmls(void **state) {
    (void)state;
    Golden g = golden_open("ggml.safetensors");
    while (golden_next(&g)) {
        float *x = golden_read(&g, "input", g.rows * g.n * (int64_t)sizeof *x);
        float *importance = golden_read(&g, "imatrix", g.n * (int64_t)sizeof *x);
        assert_non_null(x);
        for (int i = 0; i < TYPE_COUNT; i++) {
            if (ggml_row_bytes(TYPES[i], g.n) < 0) continue;
            compare(&g, TYPES[i], x, NULL);
            if (importance != NULL && ggml_type((int)TYPES[i])->importance)
                compare(&g, TYPES[i], x, importance);
        }
        free(x);
        free(importance);
    }
    golden_close(&g, "ggml");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_byte_is_ggmls)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
