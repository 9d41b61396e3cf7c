// tests/testing.c
#include "tests/testing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ENV_BYTES = 1 << 30 };

Env *test_env(void) {
    static Env env;
    if (env.dev == NULL) {
        Err err = {0};
        const char *name = getenv("DEVICE");
        if (name == NULL || *name == '\0') name = "cpu";
        // tests look at results without waiting for them
        if (strcmp(name, "cpu") != 0) setenv("CUDA_LAUNCH_BLOCKING", "1", 1);
        env.dev = dev_open(name, 0, &err);
        if (env.dev == NULL) fail_msg("%s", err.text);
        void *block = strcmp(env.dev->kind, "cpu") == 0
                          ? mmap(NULL, ENV_BYTES, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                          : dev_alloc_host(env.dev, ENV_BYTES, &err);
        assert_true(block != NULL && block != MAP_FAILED);
        arena_open(&env.arena, block, ENV_BYTES);
    }
    return &env;
}

Tensor test_zeros(DType t, int64_t rows, int64_t cols) {
    Tensor x = tensor_take(&test_env()->arena, t, rows, cols);
    memset(x.data, 0, tensor_bytes(x));
    return x;
}

static uint64_t next_random(void) { // splitmix64: independent of the code under test
    static uint64_t s = 20261121;
    uint64_t z = (s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double next_normal(void) {
    const double u = ((double)(next_random() >> 11) + 1.0) / 9007199254740993.0;
    const double v = (double)(next_random() >> 11) / 9007199254740992.0;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

Tensor test_random(DType t, int64_t rows, int64_t cols) {
    Tensor x = test_zeros(t, rows, cols);
    for (int64_t i = 0; i < rows * cols; i++) {
        const float f = (float)next_normal();
        if (t == DT_F32)
            ((float *)x.data)[i] = f;
        else
            ((bf16 *)x.data)[i] = bf16_from_f32(f);
    }
    return x;
}

Tensor test_ids(const int32_t *id, int64_t n) {
    Tensor x = test_zeros(DT_I32, 1, n);
    memcpy(x.data, id, (size_t)n * sizeof *id);
    return x;
}

Tensor test_host(Tensor t) {
    const Env *env = test_env();
    const char *at = t.data, *arena = env->arena.block;
    if (strcmp(env->dev->kind, "cpu") == 0 || (at >= arena && at < arena + env->arena.size))
        return t;
    Tensor x = test_zeros(t.dtype, t.rows, t.cols);
    dev_download(env->dev, x.data, t);
    return x;
}

float test_get(Tensor t, int64_t r, int64_t c) {
    const int64_t i = r * t.ld + c;
    if (t.dtype == DT_BF16) return bf16_to_f32(((bf16 *)t.data)[i]);
    if (t.dtype == DT_F64) return (float)((double *)t.data)[i];
    assert_int_equal(t.dtype, DT_F32);
    return ((float *)t.data)[i];
}

double test_dot(Tensor a, Tensor b) {
    double sum = 0.0;
    for (int64_t r = 0; r < a.rows; r++)
        for (int64_t c = 0; c < a.cols; c++) sum += (double)test_get(a, r, c) * test_get(b, r, c);
    return sum;
}

void assert_close(const char *what, Tensor a, Tensor b, double atol, double rtol) {
    assert_int_equal(a.rows, b.rows);
    assert_int_equal(a.cols, b.cols);
    double worst = 0.0;
    int64_t wr = 0, wc = 0;
    for (int64_t r = 0; r < a.rows; r++)
        for (int64_t c = 0; c < a.cols; c++) {
            const double x = test_get(a, r, c), y = test_get(b, r, c);
            const double over = fabs(x - y) - (atol + rtol * fabs(y));
            if (!(over <= worst)) worst = over, wr = r, wc = c;
        }
    if (!(worst <= 0.0))
        fail_msg("%s: row %lld column %lld: %.9g, expected %.9g (beyond tolerance by %.3g)", what,
                 (long long)wr, (long long)wc, test_get(a, wr, wc), test_get(b, wr, wc), worst);
}

void assert_floats(const char *what, const float *a, const float *b, int64_t n, double atol) {
    double worst = 0.0;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        const double d = fabs((double)a[i] - b[i]);
        if (!(d <= worst)) worst = d, at = i;
    }
    if (!(worst <= atol))
        fail_msg("%s: element %lld: %.9g, expected %.9g, tolerance %.3g", what, (long long)at,
                 a[at], b[at], atol);
}

double relative_l2(const float *a, const float *b, int64_t n) {
    double d = 0.0, s = 0.0;
    for (int64_t i = 0; i < n; i++) {
        d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        s += (double)b[i] * b[i];
    }
    return sqrt(d / (s > 0 ? s : 1e-300));
}

void assert_gradient(double (*loss)(void *), void *ctx, Tensor x, Tensor dx, double tolerance) {
    assert_int_equal(x.dtype, DT_F32);
    const int64_t n = x.rows * x.cols;
    float *saved = malloc((size_t)n * sizeof *saved), *dir = malloc((size_t)n * sizeof *dir);
    const double h = 4e-3;
    for (int trial = 0; trial < 4; trial++) {
        double analytic = 0.0, norm = 0.0;
        for (int64_t r = 0; r < x.rows; r++)
            for (int64_t c = 0; c < x.cols; c++) {
                const int64_t i = r * x.cols + c;
                saved[i] = ((float *)x.data)[r * x.ld + c];
                dir[i] = (float)next_normal();
                analytic += (double)dir[i] * ((float *)dx.data)[r * dx.ld + c];
                norm +=
                    (double)((float *)dx.data)[r * dx.ld + c] * ((float *)dx.data)[r * dx.ld + c];
            }
        double value[4]; // at +h, -h, +h/2, -h/2: Richardson removes the third derivative
        for (int side = 0; side < 4; side++) {
            const double step = (side & 1 ? -h : h) * (side < 2 ? 1.0 : 0.5);
            for (int64_t r = 0; r < x.rows; r++)
                for (int64_t c = 0; c < x.cols; c++)
                    ((float *)x.data)[r * x.ld + c] =
                        (float)(saved[r * x.cols + c] + step * dir[r * x.cols + c]);
            value[side] = loss(ctx);
        }
        for (int64_t r = 0; r < x.rows; r++)
            for (int64_t c = 0; c < x.cols; c++)
                ((float *)x.data)[r * x.ld + c] = saved[r * x.cols + c];
        const double wide = (value[0] - value[1]) / (2 * h), narrow = (value[2] - value[3]) / h;
        const double numeric = (4 * narrow - wide) / 3;
        // f32 arithmetic leaves noise of about 1e-7 |loss| / h in the difference
        const double noise = 4e-7 * (fabs(value[0]) + 1.0) / h;
        const double allowed = tolerance * (sqrt(norm) + fabs(analytic)) + noise;
        if (!(fabs(numeric - analytic) <= allowed))
            fail_msg("gradient: finite difference %.9g, backward %.9g, allowed difference %.3g",
                     numeric, analytic, allowed);
    }
    free(saved);
    free(dir);
}

static char temporary[64];
static void remove_temporary(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", temporary);
    if (system(command) != 0) perror(command);
}

const char *test_dir(void) {
    if (temporary[0] == '\0') {
        snprintf(temporary, sizeof temporary, "/tmp/draftsmith-test-XXXXXX");
        if (mkdtemp(temporary) == NULL) fail_msg("mkdtemp failed");
        atexit(remove_temporary);
    }
    return temporary;
}

const char *test_golden(const char *sub) {
    static char path[8][1024];
    static int turn;
    const char *root = getenv("GOLDEN");
    char *p = path[turn++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", root && *root ? root : "tests/golden", sub);
    return p;
}
