// infer/format/mlx_blocks.c - the modes and what they allow; rows are checked, then handed out to
// all cores.
#include "infer/format/mlx_blocks.h"

#include "infer/base/checked.h"
#include "infer/base/cores.h"
#include "infer/format/mlx_parts.h"

static const struct {
    const char *name;
    int bits, group;
} MODE[] = {
    [MLX_AFFINE] = {"affine", 4, 64},
    [MLX_MXFP4] = {"mxfp4", 4, 32},
    [MLX_MXFP8] = {"mxfp8", 8, 32},
    [MLX_NVFP4] = {"nvfp4", 4, 16},
};
enum { MODES = sizeof MODE / sizeof *MODE };

const char *mlx_mode_name(MlxMode mode) {
    return MODE[mode].name;
}

bool mlx_mode_named(const char *name, MlxMode *mode) {
    for (int i = 0; i < MODES; i++)
        if (strcmp(MODE[i].name, name) == 0) {
            *mode = (MlxMode)i;
            return true;
        }
    return false;
}

MlxScheme mlx_scheme(MlxMode mode) {
    return (MlxScheme){.mode = mode, .bits = MODE[mode].bits, .group = MODE[mode].group};
}

bool mlx_has_biases(const MlxScheme *s) {
    return s->mode == MLX_AFFINE;
}

bool mlx_scheme_check(const MlxScheme *s, Err *err) {
    if ((int)s->mode < 0 || (int)s->mode >= MODES)
        return err_set(err, ERR_USAGE, "no MLX mode %d", (int)s->mode);
    const char *name = MODE[s->mode].name;
    if (s->mode != MLX_AFFINE) {
        const int bits = MODE[s->mode].bits, group = MODE[s->mode].group;
        if (s->bits == bits && s->group == group && !s->requant) return true;
        return err_set(err, ERR_USAGE, "%s has %d bits and groups of %d, not %d and %d%s", name,
                       bits, group, s->bits, s->group, s->requant ? ", and no requant" : "");
    }
    if (s->bits < 2 || s->bits > 8 || s->bits == 7)
        return err_set(err, ERR_USAGE, "%s has 2, 3, 4, 5, 6 or 8 bits, not %d", name, s->bits);
    if (s->group != 32 && s->group != 64 && s->group != 128)
        return err_set(err, ERR_USAGE, "%s has groups of 32, 64 or 128, not %d", name, s->group);
    return true;
}

int64_t mlx_row_groups(const MlxScheme *s, int64_t n) {
    return n < 0 || n % s->group != 0 ? -1 : n / s->group;
}
int64_t mlx_row_words(const MlxScheme *s, int64_t n) {
    int64_t bits;
    if (mlx_row_groups(s, n) < 0 || !mul_fits(n, s->bits, &bits)) return -1;
    return bits / 32; // 16 elements or more of 2 bits or more: no word is left half full
}
int64_t mlx_row_scale_bytes(const MlxScheme *s, int64_t n) {
    const int64_t groups = mlx_row_groups(s, n);
    return groups < 0 || !mlx_has_biases(s) ? groups : groups * (int64_t)sizeof(bf16);
}

// What both directions begin with.
static bool check_call(const MlxScheme *s, const void *biases, int64_t rows, int64_t n, Err *err) {
    CHECK(rows >= 0);
    if (!mlx_scheme_check(s, err)) return false;
    CHECK((biases != NULL) == mlx_has_biases(s));
    if (mlx_row_words(s, n) >= 0) return true;
    return err_set(err, ERR_INPUT, "rows of %lld weights are no groups of %d", (long long)n,
                   s->group);
}

// The first NaN or infinity of a row, n = none.
KERNEL static int64_t first_not_finite(const bf16 *w, int64_t n) {
    uint16_t bad = 0;
    for (int64_t i = 0; i < n; i++) bad |= (w[i].bits & 0x7f80) == 0x7f80;
    for (int64_t i = 0; bad && i < n; i++)
        if ((w[i].bits & 0x7f80) == 0x7f80) return i;
    return n;
}

bool mlx_encode(const MlxScheme *s, uint32_t *words, void *scales, bf16 *biases, const bf16 *w,
                int64_t rows, int64_t n, Err *err) {
    if (!check_call(s, biases, rows, n, err)) return false;
    const int64_t row_words = mlx_row_words(s, n), groups = mlx_row_groups(s, n);
    int64_t bad = INT64_MAX; // first row that failed
#pragma omp parallel for num_threads(cores_used()) schedule(static) reduction(min : bad)
    for (int64_t r = 0; r < rows; r++) {
        const bf16 *from = w + r * n;
        uint8_t *to = (uint8_t *)(words + r * row_words);
        bool ok = first_not_finite(from, n) == n;
        if (ok && mlx_has_biases(s))
            ok = mlx_affine_row(s, to, (bf16 *)scales + r * groups, biases + r * groups, from, n);
        else if (ok)
            ok = mlx_float_row(s, to, (uint8_t *)scales + r * groups, from, n);
        if (!ok && r < bad) bad = r;
    }
    if (bad == INT64_MAX) return true;
    const int64_t column = first_not_finite(w + bad * n, n);
    if (column < n)
        return err_set(err, ERR_INPUT, "row %lld, column %lld is %g", (long long)bad,
                       (long long)column, (double)bf16_to_f32(w[bad * n + column]));
    return err_set(err, ERR_INPUT,
                   "row %lld: a scale or a weight read back is beyond what bf16 holds",
                   (long long)bad);
}

bool mlx_decode(const MlxScheme *s, bf16 *out, const uint32_t *words, const void *scales,
                const bf16 *biases, int64_t rows, int64_t n, Err *err) {
    if (!check_call(s, biases, rows, n, err)) return false;
    const int64_t row_words = mlx_row_words(s, n), groups = mlx_row_groups(s, n);
#pragma omp parallel for num_threads(cores_used()) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *from = (const uint8_t *)(words + r * row_words);
        if (mlx_has_biases(s))
            mlx_affine_row_back(s, out + r * n, from, (const bf16 *)scales + r * groups,
                                biases + r * groups, n);
        else
            mlx_float_row_back(s, out + r * n, from, (const uint8_t *)scales + r * groups, n);
    }
    return true;
}
