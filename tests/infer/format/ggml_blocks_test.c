// tests/infer/format/ggml_blocks_test.c - known vectors, edges, what is refused.
#include "infer/format/ggml_blocks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/cores.h"
#include "tests/infer/format/quant_edges.h"

// Of a block's largest magnitude, how far any weight may come back; measured on the kinds of
// quant_edges.h, a little above the worst. 0 = exact.
static const struct {
    GgmlType type;
    double bound;
} TYPES[] = {
    {GGML_F32, 0.0},      {GGML_BF16, 0.0},    {GGML_F16, 0.0},    {GGML_Q8_0, 0.0043},
    {GGML_Q6_K, 0.018},   {GGML_Q5_K, 0.04},   {GGML_Q4_K, 0.09},  {GGML_Q3_K, 0.25},
    {GGML_IQ4_NL, 0.125}, {GGML_IQ4_XS, 0.12}, {GGML_MXFP4, 0.25}, {GGML_Q4_0, 0.13},
    {GGML_Q4_1, 0.07},    {GGML_Q5_0, 0.064},  {GGML_Q5_1, 0.034},
};
enum { TYPE_COUNT = sizeof TYPES / sizeof *TYPES };

static uint64_t fnv1a(const uint8_t *p, int64_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static void known_blocks(void **state) {
    (void)state;
    static const struct {
        GgmlType type;
        uint64_t plain, important;
    } KNOWN[] = {
        {GGML_Q6_K, 0x9d81a7e24f5711e8u, 0xbdb09a635651f894u},
        {GGML_Q5_K, 0xc85122a83d43be22u, 0x8ffd7fb78765b410u},
        {GGML_Q4_K, 0x38dd07a6f42bf6c0u, 0xf88fd0197c243f24u},
        {GGML_Q3_K, 0x93df11454c0d04a2u, 0x36fc0bf7fa18ddceu},
        {GGML_IQ4_XS, 0x8da67f8e49363162u, 0xabf1ccf91f175a70u},
    };
    Err err = {0};
    float x[256], importance[256];
    uint8_t q[256];
    for (int i = 0; i < 256; i++) {
        x[i] = (float)((37 * i) % 101 - 50) / 64.0f;
        importance[i] = (float)(1 + i % 7);
    }
    for (size_t k = 0; k < sizeof KNOWN / sizeof *KNOWN; k++) {
        const int64_t bytes = ggml_row_bytes(KNOWN[k].type, 256);
        assert_ok(ggml_encode(KNOWN[k].type, q, x, 1, 256, NULL, &err), err);
        assert_int_equal(fnv1a(q, bytes), KNOWN[k].plain);
        assert_ok(ggml_encode(KNOWN[k].type, q, x, 1, 256, importance, &err), err);
        assert_int_equal(fnv1a(q, bytes), KNOWN[k].important);
    }
}

static void assert_hex(GgmlType t, const float *x, const char *hex) {
    Err err = {0};
    uint8_t q[64];
    char text[129];
    assert_ok(ggml_encode(t, q, x, 1, 32, NULL, &err), err);
    for (int64_t i = 0; i < ggml_row_bytes(t, 32); i++) sprintf(text + 2 * i, "%02x", q[i]);
    assert_string_equal(text, hex);
}
static void a_known_ramp(void **state) {
    (void)state;
    float x[32];
    for (int i = 0; i < 32; i++) x[i] = (float)(i - 10) / 8.0f;
    assert_hex(GGML_Q8_0, x,
               "4b25c4cad0d6dce2e8eef4fa00060c12181e242a30363c43494f555b61676d73797f");
    assert_hex(GGML_IQ4_NL, x, "15a55d4c4c4b3b3a2a292918181717060605");
    assert_hex(GGML_MXFP4, x, "7e3c3c4c4b4b5a5a595960606061616272");
}

// x: [rows, n] there and back; returns the worst error in parts of the block's largest value.
static double worst_of(GgmlType t, const float *x, int64_t rows, int64_t n,
                       const float *importance) {
    Err err = {0};
    const int block = ggml_type((int)t)->block;
    float *y = malloc((size_t)(rows * n) * sizeof *y);
    uint8_t *q = malloc((size_t)(rows * ggml_row_bytes(t, n)));
    assert_ok(ggml_encode(t, q, x, rows, n, importance, &err), err);
    assert_ok(ggml_decode(t, y, q, rows, n, &err), err);
    double worst = 0.0;
    bool finite = true;
    for (int64_t b = 0; b < rows * n; b += block) {
        float peak = 0.0f, error = 0.0f;
        for (int i = 0; i < block; i++) {
            finite = finite && isfinite(y[b + i]);
            peak = fmaxf(peak, fabsf(x[b + i]));
            error = fmaxf(error, fabsf(y[b + i] - x[b + i]));
        }
        if (peak > 1e-2f)
            worst = fmax(worst, (double)error / (double)peak);
        else // scales are steps of 2^-24, or 0
            assert_true(error <= peak + 2e-4f || importance != NULL);
    }
    assert_true(finite);
    free(y);
    free(q);
    return worst;
}
static double worst_error(GgmlType t, int kind, int64_t rows, int64_t n, const float *importance) {
    float *x = malloc((size_t)(rows * n) * sizeof *x);
    for (int64_t i = 0; i < rows * n; i++) x[i] = edge_value(kind, i / n, i % n);
    const double worst = worst_of(t, x, rows, n, importance);
    free(x);
    return worst;
}

static void edges_come_back_within_bounds(void **state) {
    (void)state;
    for (int t = 0; t < TYPE_COUNT; t++) {
        double seen = 0.0;
        for (int kind = 0; kind < EDGE_KINDS; kind++) {
            // odd numbers of rows: lanes left empty, chunks cut short
            const double worst = fmax(worst_error(TYPES[t].type, kind, 1, 256, NULL),
                                      worst_error(TYPES[t].type, kind, 19, 768, NULL));
            if (worst > TYPES[t].bound)
                fail_msg("%s, %s: error %.5f of the block's largest, at most %.5f",
                         ggml_type((int)TYPES[t].type)->name, edge_name(kind), worst,
                         TYPES[t].bound);
            seen = fmax(seen, worst);
        }
        if (seen < 0.7 * TYPES[t].bound) // else the bound would say little
            fail_msg("%s: no error above %.5f, bound %.5f", ggml_type((int)TYPES[t].type)->name,
                     seen, TYPES[t].bound);
    }
}

// 1,000,000 groups of 32 in all types together, a tenth under sanitizers.
#ifdef __SANITIZE_ADDRESS__
enum { RANDOM_ROWS = 840 };
#else
enum { RANDOM_ROWS = 8400 };
#endif
static void random_groups_come_back_within_bounds(void **state) {
    (void)state;
    enum { ROWS = RANDOM_ROWS, N = 256 };
    float *x = malloc(ROWS * N * sizeof *x);
    for (int i = 0; i < ROWS * N; i++) x[i] = edge_random((uint64_t)i);
    for (int t = 0; t < TYPE_COUNT; t++) {
        const double worst = worst_of(TYPES[t].type, x, ROWS, N, NULL);
        if (worst > TYPES[t].bound)
            fail_msg("%s: error %.5f of a block's largest, at most %.5f",
                     ggml_type((int)TYPES[t].type)->name, worst, TYPES[t].bound);
    }
    free(x);
}

// The largest bf16 in both signs: the value itself, something finite near it, or a refusal because
// its scale is beyond half precision.
static void the_largest_bf16_is_kept_or_refused(void **state) {
    (void)state;
    enum { ROWS = 3, N = 256 };
    const float largest = round_bf16(0x1.fep127f);
    int kept = 0;
    for (int t = 0; t < TYPE_COUNT; t++) {
        Err err = {0};
        float x[ROWS * N];
        uint8_t q[ROWS * N * 4];
        for (int i = 0; i < ROWS * N; i++) x[i] = edge_value(EDGE_KINDS - 1, i / N, i % N);
        x[N + 40] = largest;
        x[N + 41] = -largest;
        if (ggml_encode(TYPES[t].type, q, x, ROWS, N, NULL, &err)) {
            assert_true(worst_of(TYPES[t].type, x, ROWS, N, NULL) <= TYPES[t].bound);
            kept++;
        } else {
            assert_int_equal(err.code, ERR_INPUT);
            assert_non_null(strstr(err.text, "row 1, column"));
        }
    }
    assert_int_equal(kept, 3); // F32, BF16, MXFP4
}

static void an_importance_is_felt(void **state) {
    (void)state;
    Err err = {0};
    enum { N = 512 };
    float x[N], importance[N], y[N];
    uint8_t q[N * 2];
    for (int i = 0; i < N; i++) {
        x[i] = edge_value(EDGE_KINDS - 1, 5, i);
        importance[i] = i % 4 == 0 ? 100.0f : 0.01f;
    }
    for (int t = 0; t < TYPE_COUNT; t++) {
        if (!ggml_type((int)TYPES[t].type)->importance) continue;
        double error[2] = {0};
        for (int k = 0; k < 2; k++) {
            assert_ok(ggml_encode(TYPES[t].type, q, x, 1, N, k ? importance : NULL, &err), err);
            assert_ok(ggml_decode(TYPES[t].type, y, q, 1, N, &err), err);
            for (int i = 0; i < N; i += 4)
                error[k] += ((double)y[i] - (double)x[i]) * ((double)y[i] - (double)x[i]);
        }
        assert_true(error[1] < 0.9 * error[0]);
    }
}

static void unimportant_columns_leave_numbers(void **state) {
    (void)state;
    float *importance = calloc(768, sizeof *importance);
    for (int t = 0; t < TYPE_COUNT; t++)
        for (int kind = 0; kind < EDGE_KINDS; kind++)
            (void)worst_error(TYPES[t].type, kind, 3, 768, importance); // asserts finite values
    free(importance);
}

static void any_number_of_threads_writes_the_same(void **state) {
    (void)state;
    enum { ROWS = 301, N = 256 };
    Err err = {0};
    float *x = malloc(ROWS * N * sizeof *x);
    uint8_t *a = malloc(ROWS * N * 4), *b = malloc(ROWS * N * 4);
    for (int i = 0; i < ROWS * N; i++) x[i] = edge_value(EDGE_KINDS - 1, i / N, i % N);
    const int threads = cores_used();
    for (int t = 0; t < TYPE_COUNT; t++) {
        const int64_t bytes = ROWS * ggml_row_bytes(TYPES[t].type, N);
        cores_use(1);
        assert_ok(ggml_encode(TYPES[t].type, a, x, ROWS, N, NULL, &err), err);
        cores_use(3);
        assert_ok(ggml_encode(TYPES[t].type, b, x, ROWS, N, NULL, &err), err);
        assert_memory_equal(a, b, bytes);
        // and each row alone
        const int64_t row = bytes / ROWS;
        for (int64_t r = 0; r < ROWS; r += 100) {
            assert_ok(ggml_encode(TYPES[t].type, b, x + r * N, 1, N, NULL, &err), err);
            assert_memory_equal(a + r * row, b, row);
        }
    }
    cores_use(threads);
    free(x);
    free(a);
    free(b);
}

static void assert_refused(GgmlType t, const float *x, int64_t rows, int64_t n,
                           const float *importance, const char *what) {
    Err err = {0};
    uint8_t q[8192];
    if (ggml_encode(t, q, x, rows, n, importance, &err))
        fail_msg("%s: was taken, expected: %s", ggml_type((int)t)->name, what);
    assert_int_equal(err.code, ERR_INPUT);
    if (strstr(err.text, what) == NULL) fail_msg("\"%s\" does not say \"%s\"", err.text, what);
}

static void what_is_no_number_is_refused(void **state) {
    (void)state;
    float x[4 * 256], importance[256];
    for (int i = 0; i < 256; i++) importance[i] = 1.0f;
    for (int t = 0; t < TYPE_COUNT; t++) {
        const GgmlType type = TYPES[t].type;
        for (int i = 0; i < 4 * 256; i++) x[i] = edge_value(EDGE_KINDS - 1, 0, i);
        x[3 * 256 + 17] = NAN;
        assert_refused(type, x, 4, 256, NULL, "row 3, column 17 is nan");
        x[2 * 256 + 255] = -INFINITY;
        assert_refused(type, x, 4, 256, NULL, "row 2, column 255 is -inf");
        x[2 * 256 + 255] = x[3 * 256 + 17] = 0.0f;
        x[256 + 40] = 3.4e38f;
        if (type == GGML_F16 || ggml_type((int)type)->importance || type == GGML_BF16)
            assert_refused(type, x, 4, 256, NULL, "row 1, column 40 is 3.4e+38, beyond ");
        x[256 + 40] = 9e8f;
        if (ggml_type((int)type)->block > 1 && type != GGML_MXFP4)
            assert_refused(type, x, 4, 256, NULL,
                           ggml_type((int)type)->block == 32 ? "row 1, columns 32-63: the scale"
                                                             : "row 1, columns 0-255: the scale");
        x[256 + 40] = 0.0f;
        if (!ggml_type((int)type)->importance) continue;
        importance[9] = NAN;
        assert_refused(type, x, 4, 256, importance, "importance of column 9 is nan");
        importance[9] = -1.0f;
        assert_refused(type, x, 4, 256, importance, "importance of column 9 is -1");
        importance[9] = 1.0f;
        assert_refused(type, x, 1, 250, NULL, "rows of 250 weights are no blocks of");
    }
    assert_refused(GGML_I32, x, 1, 256, NULL, "I32 holds no weights");
}

static void sizes_and_names(void **state) {
    (void)state;
    assert_int_equal(ggml_row_bytes(GGML_Q6_K, 512), 420);
    assert_int_equal(ggml_row_bytes(GGML_Q6_K, 0), 0);
    assert_int_equal(ggml_row_bytes(GGML_Q6_K, 500), -1);
    assert_int_equal(ggml_row_bytes(GGML_F32, INT64_MAX), -1);
    assert_int_equal(ggml_row_bytes(GGML_F32, -256), -1);
    assert_int_equal(ggml_row_bytes(GGML_I32, 3), 12);
    assert_null(ggml_type(4)); // a type that ggml no longer has
    assert_null(ggml_type(-1));
    assert_null(ggml_type_named("q6_k"));
    for (int id = 0; id < 64; id++) {
        const GgmlTypeInfo *info = ggml_type(id);
        if (info != NULL) assert_ptr_equal(ggml_type_named(info->name), info);
    }
}

// Any bytes have values: the sanitizers see to it that none is undefined.
static void any_bytes_decode(void **state) {
    (void)state;
    Err err = {0};
    uint8_t q[16 * 1024];
    float y[16 * 256];
    for (int pass = 0; pass < 20; pass++) {
        edge_bytes(q, sizeof q, pass);
        for (int t = 0; t < TYPE_COUNT; t++)
            assert_ok(ggml_decode(TYPES[t].type, y, q, 16, 256, &err), err);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_blocks),
        cmocka_unit_test(a_known_ramp),
        cmocka_unit_test(edges_come_back_within_bounds),
        cmocka_unit_test(random_groups_come_back_within_bounds),
        cmocka_unit_test(the_largest_bf16_is_kept_or_refused),
        cmocka_unit_test(an_importance_is_felt),
        cmocka_unit_test(unimportant_columns_leave_numbers),
        cmocka_unit_test(any_number_of_threads_writes_the_same),
        cmocka_unit_test(what_is_no_number_is_refused),
        cmocka_unit_test(sizes_and_names),
        cmocka_unit_test(any_bytes_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
