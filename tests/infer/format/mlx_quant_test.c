// tests/infer/format/mlx_quant_test.c - words, scales and biases equal to MLX's quantiser, values
// equal to its CPU backend's.
#include "infer/format/mlx_blocks.h"
#include "tests/infer/format/quant_golden.h"

static const MlxScheme SCHEMES[] = {
    {MLX_AFFINE, 8, 32, false}, {MLX_AFFINE, 8, 64, false}, {MLX_AFFINE, 8, 128, false},
    {MLX_AFFINE, 6, 32, false}, {MLX_AFFINE, 6, 64, false}, {MLX_AFFINE, 6, 128, false},
    {MLX_AFFINE, 5, 32, false}, {MLX_AFFINE, 5, 64, false}, {MLX_AFFINE, 5, 128, false},
    {MLX_AFFINE, 4, 32, false}, {MLX_AFFINE, 4, 64, false}, {MLX_AFFINE, 4, 128, false},
    {MLX_AFFINE, 3, 32, false}, {MLX_AFFINE, 3, 64, false}, {MLX_AFFINE, 3, 128, false},
    {MLX_AFFINE, 2, 32, false}, {MLX_AFFINE, 2, 64, false}, {MLX_AFFINE, 2, 128, false},
    {MLX_MXFP4, 4, 32, false},  {MLX_MXFP8, 8, 32, false},  {MLX_NVFP4, 4, 16, false},
};

static const char *tensor(const MlxScheme *s, const char *what) {
    static char name[64];
    if (s->mode == MLX_AFFINE)
        snprintf(name, sizeof name, "affine_b%d_g%d.%s", s->bits, s->group, what);
    else
        snprintf(name, sizeof name, "%s.%s", mlx_mode_name(s->mode), what);
    return name;
}

static void compare(Golden *g, const MlxScheme *s, const bf16 *w) {
    Err err = {0};
    const int64_t word_bytes = g->rows * mlx_row_words(s, g->n) * 4,
                  scale_bytes = g->rows * mlx_row_scale_bytes(s, g->n), count = g->rows * g->n;
    uint32_t *words = malloc((size_t)word_bytes);
    void *scales = malloc((size_t)scale_bytes);
    bf16 *biases = mlx_has_biases(s) ? malloc((size_t)scale_bytes) : NULL;
    bf16 *back = malloc((size_t)count * sizeof *back);
    assert_ok(mlx_encode(s, words, scales, biases, w, g->rows, g->n, &err), err);
    golden_compare(g, tensor(s, "weight"), words, word_bytes);
    golden_compare(g, tensor(s, "scales"), scales, scale_bytes);
    if (biases != NULL) golden_compare(g, tensor(s, "biases"), biases, scale_bytes);
    assert_ok(mlx_decode(s, back, words, scales, biases, g->rows, g->n, &err), err);
    golden_compare(g, tensor(s, "deq"), back, count * (int64_t)sizeof *back);
    free(words);
    free(scales);
    free(biases);
    free(back);
}

static void every_word_is_mlxs(void **state) {
    (void)state;
    Golden g = golden_open("mlx.safetensors");
    while (golden_next(&g)) {
        bf16 *w = golden_read(&g, "input", g.rows * g.n * (int64_t)sizeof *w);
        assert_non_null(w);
        for (size_t i = 0; i < sizeof SCHEMES / sizeof *SCHEMES; i++)
            if (mlx_row_words(&SCHEMES[i], g.n) >= 0) compare(&g, &SCHEMES[i], w);
        free(w);
    }
    golden_close(&g, "MLX");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_word_is_mlxs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
