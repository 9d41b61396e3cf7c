// tests/infer/format/mlx_blocks_test.c - known vectors, edges, what is refused.
#include "infer/format/mlx_blocks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/infer/format/quant_edges.h"

enum { ROWS_MOST = 64, N_MOST = 256, ELEMENTS = ROWS_MOST * N_MOST };

typedef struct {
    uint32_t words[ELEMENTS / 4];
    uint8_t scales[ELEMENTS / 8];
    bf16 biases[ELEMENTS / 16];
    bf16 w[ELEMENTS], back[ELEMENTS];
} Room;
static Room room;

static bf16 *biases(const MlxScheme *s) {
    return mlx_has_biases(s) ? room.biases : NULL;
}

static void assert_known(MlxScheme s, const char *scales, const char *words) {
    Err err = {0};
    char text[2][129] = {"", ""};
    for (int i = 0; i < 32; i++) room.w[i] = bf16_from_f32((float)(i - 10) / 8.0f);
    assert_ok(mlx_encode(&s, room.words, room.scales, biases(&s), room.w, 1, 32, &err), err);
    const uint8_t *q = (const uint8_t *)room.words;
    if (mlx_has_biases(&s)) {
        uint16_t bits;
        memcpy(&bits, room.scales, sizeof bits);
        sprintf(text[0], "%04x %04x", bits, room.biases[0].bits);
    } else {
        for (int64_t i = 0; i < mlx_row_groups(&s, 32); i++)
            sprintf(text[0] + 2 * i, "%02x", room.scales[i]);
    }
    for (int64_t i = 0; i < 4 * mlx_row_words(&s, 32); i++) sprintf(text[1] + 2 * i, "%02x", q[i]);
    assert_string_equal(text[0], scales);
    assert_string_equal(text[1], words);
}
static void a_known_ramp(void **state) {
    (void)state;
    const MlxScheme affine = {MLX_AFFINE, 0, 32, false};
    static const struct {
        int bits;
        const char *scale, *words;
    } KNOWN[] = {
        {2, "bfa8 4028", "ffabaaaa55550500"},
        {3, "bf06 4028", "ff6fdb6d5b92dc36494a1200"},
        {4, "be86 4028", "efdecdbcabaa99887766554433221100"},
        {5, "be00 4028", "df77be75c6d7563a6584cf35b65442c714324400"},
        {6, "bd7a 4028", "7fbfe7773dc76fbba66739865fb7651725410ea320062100"},
        {8, "bc79 4028", "fff7efe7ded6cec6bdb5ada59d948c847c736b635b524a423a31292119100800"},
    };
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
        MlxScheme s = affine;
        s.bits = KNOWN[i].bits;
        assert_known(s, KNOWN[i].scale, KNOWN[i].words);
    }
    assert_known(mlx_scheme(MLX_MXFP4), "7e", "ccbcab9a090011223344545565666676");
    assert_known(mlx_scheme(MLX_MXFP8), "78",
                 "f2f1f0eeeceae8e4e0d800586064686a6c6e70717273747576777878797a7a7a");
    assert_known(mlx_scheme(MLX_NVFP4), "252e", "ffeedecc9a1042544354556566667777");
}

static const MlxScheme SCHEMES[] = {
    {MLX_AFFINE, 2, 64, false}, {MLX_AFFINE, 3, 32, false}, {MLX_AFFINE, 4, 128, false},
    {MLX_AFFINE, 5, 64, false}, {MLX_AFFINE, 6, 32, false}, {MLX_AFFINE, 8, 64, false},
    {MLX_AFFINE, 8, 64, true},  {MLX_MXFP4, 4, 32, false},  {MLX_MXFP8, 8, 32, false},
    {MLX_NVFP4, 4, 16, false},
};
enum { SCHEME_COUNT = sizeof SCHEMES / sizeof *SCHEMES };

static double there_and_back(const MlxScheme *s, int kind, int64_t rows, int64_t n) {
    Err err = {0};
    for (int64_t i = 0; i < rows * n; i++)
        room.w[i] = bf16_from_f32(edge_value(kind, i / n, i % n));
    assert_ok(mlx_encode(s, room.words, room.scales, biases(s), room.w, rows, n, &err), err);
    assert_ok(mlx_decode(s, room.back, room.words, room.scales, biases(s), rows, n, &err), err);
    double error = 0.0, size = 0.0;
    for (int64_t i = 0; i < rows * n; i++) {
        const double w = bf16_to_f32(room.w[i]), y = bf16_to_f32(room.back[i]);
        assert_true(isfinite(y));
        error += (y - w) * (y - w);
        size += w * w;
    }
    return size > 0.0 ? sqrt(error / size) : sqrt(error);
}

// An affine code is at most one step off (the far end), and the stored scale is 2^-9 of itself off
// on the way to the last code; two roundings to bf16 come on top.
static void assert_affine_bound(const MlxScheme *s, int64_t rows, int64_t n, const char *what) {
    for (int64_t i = 0; i < rows * n; i++) {
        uint16_t bits;
        memcpy(&bits, room.scales + 2 * (i / s->group), sizeof bits);
        const double w = bf16_to_f32(room.w[i]), y = bf16_to_f32(room.back[i]),
                     top = (1 << s->bits) - 1, scale = fabs(bf16_to_f32((bf16){bits})),
                     bias = fabs(bf16_to_f32(room.biases[i / s->group]));
        const double bound = scale * (1.0 + top * 0x1p-9) + (scale * top + bias) * 0x1p-8;
        if (fabs(y - w) > bound)
            fail_msg("%d bits, %s, element %lld: %g came back as %g, at most %g off", s->bits, what,
                     (long long)i, w, y, bound);
    }
}

// Of a group's largest magnitude, how far any weight of a float scheme may come back: half the
// widest step below it. nvfp4's scale rounds, near 0 to steps of 2^-9: the top is cut off.
static void assert_float_bound(const MlxScheme *s) {
    const double bound = s->mode == MLX_MXFP4   ? 0.26
                         : s->mode == MLX_MXFP8 ? 0.07
                                                : 0.22,
                 least = s->mode == MLX_NVFP4 ? 6.0 * 0x1p-10 : 0.0;
    for (int g = 0; g < ELEMENTS; g += s->group) {
        double peak = 0.0, error = 0.0;
        for (int i = g; i < g + s->group; i++) {
            const double w = bf16_to_f32(room.w[i]), y = bf16_to_f32(room.back[i]);
            assert_true(isfinite(y));
            peak = fmax(peak, fabs(w));
            error = fmax(error, fabs(y - w));
        }
        if (error > fmax(bound * peak, least))
            fail_msg("%s: %g off in a group up to %g", mlx_mode_name(s->mode), error, peak);
    }
}

static void edges_come_back_within_bounds(void **state) {
    (void)state;
    for (int i = 0; i < SCHEME_COUNT; i++)
        for (int kind = 0; kind < EDGE_KINDS; kind++)
            for (int64_t rows = 1; rows <= 19; rows += 18) {
                (void)there_and_back(&SCHEMES[i], kind, rows, N_MOST);
                if (mlx_has_biases(&SCHEMES[i]))
                    assert_affine_bound(&SCHEMES[i], rows, N_MOST, edge_name(kind));
            }
}

// 1,000,000 groups of 32 in all schemes together, a tenth under sanitizers.
#ifdef __SANITIZE_ADDRESS__
enum { RANDOM_PASSES = 20 };
#else
enum { RANDOM_PASSES = 200 };
#endif
static void random_groups_come_back_within_bounds(void **state) {
    (void)state;
    Err err = {0};
    for (int pass = 0; pass < RANDOM_PASSES; pass++)
        for (int i = 0; i < SCHEME_COUNT; i++) {
            const MlxScheme *s = &SCHEMES[i];
            for (int k = 0; k < ELEMENTS; k++)
                room.w[k] = bf16_from_f32(edge_random((uint64_t)(pass * ELEMENTS + k)));
            assert_ok(
                mlx_encode(s, room.words, room.scales, biases(s), room.w, ROWS_MOST, N_MOST, &err),
                err);
            assert_ok(mlx_decode(s, room.back, room.words, room.scales, biases(s), ROWS_MOST,
                                 N_MOST, &err),
                      err);
            if (mlx_has_biases(s))
                assert_affine_bound(s, ROWS_MOST, N_MOST, "random");
            else
                assert_float_bound(s);
        }
}

// Relative root mean square error of normal weights as decoded with two roundings.
static void normal_weights_lose_what_the_width_says(void **state) {
    (void)state;
    static const struct {
        MlxScheme s;
        double rmse;
    } EXPECT[] = {
        {{MLX_AFFINE, 8, 64, false}, 0.0086}, {{MLX_AFFINE, 8, 64, true}, 0.0073},
        {{MLX_AFFINE, 6, 64, false}, 0.0225}, {{MLX_AFFINE, 5, 64, false}, 0.0441},
        {{MLX_AFFINE, 4, 64, false}, 0.0901}, {{MLX_AFFINE, 3, 64, false}, 0.189},
        {{MLX_AFFINE, 2, 64, false}, 0.392},
    };
    for (size_t i = 0; i < sizeof EXPECT / sizeof *EXPECT; i++) {
        const double got = there_and_back(&EXPECT[i].s, EDGE_KINDS - 1, ROWS_MOST, N_MOST);
        if (fabs(got / EXPECT[i].rmse - 1.0) > 0.04)
            fail_msg("%d bits%s: %.5f, expected %.5f", EXPECT[i].s.bits,
                     EXPECT[i].s.requant ? " requant" : "", got, EXPECT[i].rmse);
    }
}

static void what_is_no_number_is_refused(void **state) {
    (void)state;
    for (int i = 0; i < SCHEME_COUNT; i++) {
        const MlxScheme *s = &SCHEMES[i];
        for (int k = 0; k < 4 * N_MOST; k++) room.w[k] = bf16_from_f32(edge_value(13, 0, k));
        for (int bad = 0; bad < 3; bad++) {
            Err err = {0};
            room.w[2 * N_MOST + 130] = bf16_from_f32(bad == 0   ? NAN
                                                     : bad == 1 ? INFINITY
                                                                : 3.3e38f);
            room.w[2 * N_MOST + 131] = bf16_from_f32(bad == 2 ? -3.3e38f : 0.0f);
            const bool ok =
                mlx_encode(s, room.words, room.scales, biases(s), room.w, 4, N_MOST, &err);
            const char *what = bad == 0   ? "row 2, column 130 is nan"
                               : bad == 1 ? "row 2, column 130 is inf"
                                          : "row 2: a scale or a weight read back is beyond what "
                                            "bf16 holds";
            if (bad == 2 && s->mode == MLX_NVFP4) { // its scale saturates
                assert_ok(ok, err);
                assert_ok(mlx_decode(s, room.back, room.words, room.scales, NULL, 4, N_MOST, &err),
                          err);
                for (int k = 0; k < 4 * N_MOST; k++)
                    assert_true(isfinite(bf16_to_f32(room.back[k])));
                continue;
            }
            assert_false(ok);
            assert_int_equal(err.code, ERR_INPUT);
            assert_string_equal(err.text, what);
        }
    }
    Err err = {0};
    const MlxScheme s = mlx_scheme(MLX_AFFINE);
    assert_false(mlx_encode(&s, room.words, room.scales, room.biases, room.w, 1, 96, &err));
    assert_string_equal(err.text, "rows of 96 weights are no groups of 64");
}

static void assert_no_scheme(MlxScheme s, const char *what) {
    Err err = {0};
    assert_false(mlx_scheme_check(&s, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_string_equal(err.text, what);
}
static void schemes_are_checked(void **state) {
    (void)state;
    Err err = {0};
    for (int m = MLX_AFFINE; m <= MLX_NVFP4; m++) {
        const MlxScheme s = mlx_scheme((MlxMode)m);
        MlxMode back;
        assert_ok(mlx_scheme_check(&s, &err), err);
        assert_true(mlx_mode_named(mlx_mode_name(s.mode), &back));
        assert_int_equal(back, m);
    }
    MlxMode none;
    assert_false(mlx_mode_named("Affine", &none));
    assert_no_scheme((MlxScheme){MLX_AFFINE, 7, 64, false},
                     "affine has 2, 3, 4, 5, 6 or 8 bits, not 7");
    assert_no_scheme((MlxScheme){MLX_AFFINE, 4, 16, false},
                     "affine has groups of 32, 64 or 128, not 16");
    assert_no_scheme((MlxScheme){MLX_NVFP4, 4, 32, false},
                     "nvfp4 has 4 bits and groups of 16, not 4 and 32");
    assert_no_scheme((MlxScheme){MLX_MXFP8, 8, 32, true},
                     "mxfp8 has 8 bits and groups of 32, not 8 and 32, and no requant");
    const MlxScheme three = {MLX_AFFINE, 3, 32, false};
    assert_int_equal(mlx_row_words(&three, 96), 9);
    assert_int_equal(mlx_row_groups(&three, 96), 3);
    assert_int_equal(mlx_row_scale_bytes(&three, 96), 6);
    assert_int_equal(mlx_row_words(&three, 97), -1);
    assert_int_equal(mlx_row_words(&three, -32), -1);
    assert_int_equal(mlx_row_words(&three, INT64_MAX - 31), -1);
}

// Any words, scales and biases have values: the sanitizers see to it that none is undefined.
static void any_bytes_decode(void **state) {
    (void)state;
    Err err = {0};
    for (int pass = 0; pass < 8; pass++) {
        edge_bytes(&room, offsetof(Room, w), pass);
        for (int i = 0; i < SCHEME_COUNT; i++)
            assert_ok(mlx_decode(&SCHEMES[i], room.back, room.words, room.scales,
                                 biases(&SCHEMES[i]), ROWS_MOST, N_MOST, &err),
                      err);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_known_ramp),
        cmocka_unit_test(edges_come_back_within_bounds),
        cmocka_unit_test(random_groups_come_back_within_bounds),
        cmocka_unit_test(normal_weights_lose_what_the_width_says),
        cmocka_unit_test(what_is_no_number_is_refused),
        cmocka_unit_test(schemes_are_checked),
        cmocka_unit_test(any_bytes_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
